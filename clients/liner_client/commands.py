"""What the commands do once their options are read. Each returns the process's exit code."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from google.protobuf import json_format
from liner.v1 import enrichment_pb2
from rich.text import Text

from liner_client import render
from liner_client.checkpoint import Checkpoint
from liner_client.client import LinerClient
from liner_client.enriching import judge_each, run_entries
from liner_client.errors import FailedPreconditionError
from liner_client.health import ServingStatus
from liner_client.inputs import Entry, Inputs
from liner_client.output import Output, OutputForm
from liner_client.records import (
    Outcome,
    error_record,
    outcome_record,
    validation_record,
)

OK, SOME_FAILED, USAGE, UNAVAILABLE, AUTHENTICATION, NOT_READ = 0, 1, 2, 3, 4, 141
"""Exit codes; NOT_READ is what a shell makes of SIGPIPE. `stopping` has those of signals."""

REMOTE = "liner:"
"""Before the name of an object, where a local file would be possible too."""

SERVICES = ("liner.v1.EnrichmentService", "liner.v1.StorageService")


@dataclass(frozen=True, kw_only=True)
class EnrichRun:
    """What `liner enrich` was asked for."""

    entries: Inputs
    options: enrichment_pb2.EnrichOptions
    form: OutputForm
    ordered: bool = False
    every_field: bool = False
    quiet: bool = False
    checkpoint: Path | None = None
    resume: bool = False
    failed_out: Path | None = None


async def enrich(liner: LinerClient, run: EnrichRun) -> int:
    """Enrich all inputs, writing each as soon as it is known."""
    with ExitStack() as stack:
        checkpoint = None
        if run.checkpoint is not None:
            options = json_format.MessageToDict(run.options)
            checkpoint = stack.enter_context(Checkpoint(run.checkpoint, options, resume=run.resume))
        failed_out: TextIO | None = None
        if run.failed_out is not None:
            failed_out = stack.enter_context(run.failed_out.open("w", encoding="utf-8"))
        output = stack.enter_context(
            Output(run.form, total=len(run.entries), what="enriching", quiet=run.quiet)
        )
        known = _Known(run, checkpoint, output)
        if not run.ordered:
            known.write_until(None)
        config = enrichment_pb2.BatchConfig(options=run.options, ordered=run.ordered)
        async with aclosing(run_entries(liner, known.others(), config=config)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    if run.ordered:
                        known.write_until(event.entry)
                    _write(event, run, output, checkpoint, failed_out)
                elif isinstance(event, enrichment_pb2.BatchProgress):
                    output.note(f"{event.in_flight} in flight, {event.rate:.1f} a second")
                else:
                    output.compare(event)
        known.write_until(None)
        return SOME_FAILED if output.failed else OK


class _Known:
    """The inputs that a checkpoint has the results of, and the others."""

    def __init__(self, run: EnrichRun, checkpoint: Checkpoint | None, output: Output) -> None:
        self._entries = run.entries
        self._checkpoint = checkpoint
        self._output = output
        self._passed = iter(run.entries)

    def others(self) -> Iterator[Entry]:
        """Yield the inputs that are still to be done."""
        for entry in self._entries:
            if self._checkpoint is None or self._checkpoint.record_of(entry) is None:
                yield entry

    def write_until(self, following: Entry | None) -> None:
        """Write again what is known of the inputs before `following`; None: of all the rest."""
        if self._checkpoint is None:
            return
        for entry in self._passed:
            if following is not None and entry.item_id == following.item_id:
                return
            record = self._checkpoint.record_of(entry)
            if record is not None:
                name = f"{render.plain(entry.item_id)}  done before"
                self._output.add(record, partial(Text, name, "dim"))


def _write(
    outcome: Outcome,
    run: EnrichRun,
    output: Output,
    checkpoint: Checkpoint | None,
    failed_out: TextIO | None,
) -> None:
    record = outcome_record(outcome)
    if checkpoint is not None:
        checkpoint.add(outcome.entry, record)
    failure = str(record["error"]["reason"]) if "error" in record else ""
    if failed_out is not None and failure:
        assert run.failed_out is not None  # noqa: S101 - tells the type checker
        line = _again(outcome.entry, run.failed_out.parent) | {"error": record["error"]}
        try:
            failed_out.write(json.dumps(line, ensure_ascii=False) + "\n")
            failed_out.flush()
        except OSError as error:
            error.filename = str(run.failed_out)
            raise
    output.add(
        record,
        lambda: render.outcome_block(outcome, every_field=run.every_field),
        failure=failure,
    )


def _again(entry: Entry, folder: Path) -> dict[str, Any]:
    """Return an input as a list in `folder` states it: under its name, its audio from there."""
    row = {"item_id": entry.item_id} | entry.row
    row["item_id"] = entry.item_id
    if entry.path is not None and not entry.path.is_absolute():
        row["path"] = os.path.relpath(row["path"], folder)
    return row


async def validate(
    liner: LinerClient,
    entries: Inputs,
    *,
    profile: enrichment_pb2.DeliveryProfile.ValueType,
    form: OutputForm,
    quiet: bool,
) -> int:
    """Judge all inputs, and what they say against each other.

    An input with an error of any rule counts as failed. Where the server's batch processing is
    switched off, each input is judged alone.
    """
    config = enrichment_pb2.BatchConfig(ordered=True, validate_profile=profile)
    with Output(form, total=len(entries), what="validating", quiet=quiet) as output:
        try:
            async with aclosing(run_entries(liner, entries, config=config)) as events:
                async for event in events:
                    if isinstance(event, Outcome):
                        _write_judged(event, output)
                    elif isinstance(event, enrichment_pb2.BatchSummary):
                        output.compare(event)
        except FailedPreconditionError as error:
            if error.reason != "BATCH_PROCESSING_OFF":
                raise
            async with aclosing(judge_each(liner, entries, profile=profile)) as outcomes:
                async for outcome in outcomes:
                    _write_judged(outcome, output)
        return SOME_FAILED if output.failed or output.contradicted else OK


def _write_judged(outcome: Outcome, output: Output) -> None:
    output.add(
        validation_record(outcome),
        lambda: render.validation_block(outcome),
        failure=str(error_record(outcome.error)["reason"])
        if outcome.error
        else _worst(outcome.judged),
    )


def _worst(answer: enrichment_pb2.ValidateMetadataResponse | None) -> str:
    """Return the rule of the first error; errors come first."""
    for issue in answer.issues if answer else ():
        return issue.rule_id if issue.severity == enrichment_pb2.SEVERITY_ERROR else ""
    return ""


async def models(liner: LinerClient, *, form: OutputForm) -> int:
    """Show the models and flags."""
    answer = await liner.list_models()
    if form is OutputForm.TABLE:
        render.console().print(render.models_table(answer))
    else:
        _print_json(
            json_format.MessageToDict(
                answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
    return OK


async def health(liner: LinerClient, *, form: OutputForm) -> int:
    """Show whether the server and its services take calls."""
    found = {"server": await liner.health()}
    for service in SERVICES:
        found[service] = await liner.health(service)
    if form is OutputForm.TABLE:
        screen = render.console()
        for name, status in found.items():
            style = "green" if status is ServingStatus.SERVING else "red"
            screen.print(Text(f"{name:<28}").append(status.name, style))
    else:
        _print_json({name: status.name for name, status in found.items()})
    return OK if found["server"] is ServingStatus.SERVING else UNAVAILABLE


def _print_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))  # noqa: T201 - the command's data
