"""What the commands do once their options are read. Each returns the process's exit code."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
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
from liner_client.inputs import Entry
from liner_client.output import Output, OutputForm
from liner_client.records import (
    Outcome,
    error_record,
    outcome_record,
    validation_record,
)

OK, SOME_FAILED, USAGE, UNAVAILABLE, AUTHENTICATION, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes."""

REMOTE = "liner:"
"""Before the name of an object, where a local file would be possible too."""

SERVICES = ("liner.v1.EnrichmentService", "liner.v1.StorageService")


@dataclass(frozen=True, kw_only=True)
class EnrichRun:
    """What `liner enrich` was asked for."""

    entries: Sequence[Entry]
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
        open_entries = []
        for entry in run.entries:
            known = checkpoint.record_of(entry) if checkpoint else None
            if known is None:
                open_entries.append(entry)
            else:
                output.add(known, Text(f"{render.plain(entry.item_id)}  done before", "dim"))
        config = enrichment_pb2.BatchConfig(options=run.options, ordered=run.ordered)
        async with aclosing(run_entries(liner, open_entries, config=config)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    _write(event, run, output, checkpoint, failed_out)
                elif isinstance(event, enrichment_pb2.BatchProgress):
                    output.note(f"{event.in_flight} in flight, {event.rate:.1f} a second")
                else:
                    output.compare(event)
        return SOME_FAILED if output.failed else OK


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
        line = outcome.entry.row | {"error": record["error"]}
        failed_out.write(json.dumps(line, ensure_ascii=False) + "\n")
        failed_out.flush()
    output.add(record, render.outcome_block(outcome, every_field=run.every_field), failure=failure)


async def validate(
    liner: LinerClient,
    entries: Sequence[Entry],
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
        render.validation_block(outcome),
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
