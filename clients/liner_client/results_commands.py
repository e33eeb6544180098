"""`liner results`: what was stored, for editors."""

import itertools
import json
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Annotated, Any

import typer
from liner.v1 import enrichment_pb2
from rich.text import Text

from liner_client import render
from liner_client.client import LinerClient
from liner_client.inputs import Entry, InputError
from liner_client.output import OutputForm
from liner_client.records import Outcome, error_record, outcome_record, word

Command = Callable[[str], Callable[[Callable[..., Coroutine[Any, Any, int]]], None]]
"""Makes a command of this name."""

_Form = Annotated[OutputForm, typer.Option("--output", "-o", help="How results are written.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The enrichment's, or a job's.")]


def add_to(command: Command) -> None:
    """Add the commands that list, show and review results."""
    command("list")(_list)
    command("show")(_show)
    command("review")(_review)


async def _list(
    liner: LinerClient,
    output: _Form = OutputForm.TABLE,
    needs_review: Annotated[
        bool | None,
        typer.Option(
            "--needs-review/--settled", help="Only those that wait for an editor, or not."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Only those that this model answered.")] = "",
    newest: Annotated[
        bool, typer.Option("--newest", help="Newest first. Default: most in doubt first.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 50,
) -> int:
    """List stored enrichments, those first that an editor should see first."""
    asked = enrichment_pb2.ListEnrichmentsRequest(
        page_size=min(limit, 500),
        model=model,
        needs_review=needs_review,
        order=(
            enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST
            if newest
            else enrichment_pb2.ENRICHMENT_ORDER_REVIEW_FIRST
        ),
    )
    records = []
    async with aclosing(liner.list_enrichments(asked)) as stored:
        places = itertools.count(1)
        async for found in stored:
            if output is OutputForm.TABLE:
                render.console().print(Text(_line(found)), soft_wrap=True)
            elif output is OutputForm.JSONL:
                _print(enrichment_record(found))
            else:
                records.append(enrichment_record(found))
            if next(places) == limit:
                break
    if output is OutputForm.JSON:
        _print({"enrichments": records})
    return 0


async def _show(liner: LinerClient, enrichment_id: _Id, output: _Form = OutputForm.TABLE) -> int:
    """Show one enrichment with every field, or where a submitted job stands."""
    _write(await liner.get_enrichment(enrichment_id), output)
    return 0


async def _review(
    liner: LinerClient,
    enrichment_id: _Id,
    accept: Annotated[list[str], typer.Option(help="FIELD whose value is right.")] = [],  # noqa: B006
    correct: Annotated[list[str], typer.Option(help="FIELD=VALUE that is right instead.")] = [],  # noqa: B006
    reject: Annotated[list[str], typer.Option(help="FIELD whose value is wrong.")] = [],  # noqa: B006
    note: Annotated[str, typer.Option(help="For others who look later.")] = "",
    output: _Form = OutputForm.TABLE,
) -> int:
    """Say of fields of an enrichment that they are right, wrong, or what is right instead.

    liner results review ID --accept title --correct key="A minor" --reject genre
    """
    reviews = [
        *_judged(accept, enrichment_pb2.VERDICT_ACCEPT, note),
        *_judged(reject, enrichment_pb2.VERDICT_REJECT, note),
    ]
    for text in correct:
        field, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--correct {text}: say FIELD=VALUE")
        reviews += _judged([field], enrichment_pb2.VERDICT_CORRECT, note, value)
    if not reviews:
        raise InputError("say --accept FIELD, --correct FIELD=VALUE or --reject FIELD")
    _write(await liner.review(enrichment_id, reviews), output)
    return 0


def enrichment_record(found: enrichment_pb2.Enrichment) -> dict[str, Any]:
    """Return a stored enrichment as a line of JSON; its keys are a promise, see docs/cli.md."""
    record: dict[str, Any] = {
        "enrichment_id": found.enrichment_id,
        "state": word(enrichment_pb2.EnrichmentState.Name(found.state), "ENRICHMENT_STATE_"),
        "create_time": found.create_time.ToJsonString(),
        "update_time": found.update_time.ToJsonString(),
        "request_id": found.request_id,
        "reviews": [
            {
                "reviewer": review.reviewer,
                "review_time": review.review_time.ToJsonString(),
                "fields": {
                    said.field: {
                        "verdict": word(enrichment_pb2.Verdict.Name(said.verdict), "VERDICT_"),
                        "corrected_value": said.corrected_value or None,
                        "note": said.note,
                    }
                    for said in review.reviews
                },
            }
            for review in found.reviews
        ],
    }
    if found.HasField("answer"):
        answered = outcome_record(_outcome(found))
        record |= {key: answered[key] for key in answered if key not in ("path", "item_id")}
    if found.HasField("error"):
        record["error"] = error_record(found.error)
    return record


def _judged(
    fields: Iterable[str],
    verdict: enrichment_pb2.Verdict.ValueType,
    note: str,
    corrected: str = "",
) -> list[enrichment_pb2.FieldReview]:
    return [
        enrichment_pb2.FieldReview(
            field=field, verdict=verdict, corrected_value=corrected, note=note
        )
        for field in fields
    ]


def _outcome(found: enrichment_pb2.Enrichment) -> Outcome:
    entry = Entry(item_id=found.enrichment_id, track=found.answer.track)
    return Outcome(entry=entry, answer=found.answer)


def _write(found: enrichment_pb2.Enrichment, form: OutputForm) -> None:
    if form is not OutputForm.TABLE:
        _print(enrichment_record(found))
        return
    screen = render.console()
    if found.HasField("answer"):
        screen.print(render.outcome_block(_outcome(found), every_field=True))
    else:
        screen.print(Text(_line(found)), soft_wrap=True)
    if found.HasField("error"):
        screen.print(render.error_lines(found.error))
    for review in found.reviews:
        for said in review.reviews:
            verdict = word(enrichment_pb2.Verdict.Name(said.verdict), "VERDICT_").lower()
            what = " = ".join(filter(None, (f"{verdict} {said.field}", said.corrected_value)))
            when = review.review_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
            line = f"  {when}  {review.reviewer}: {what}  {said.note}"
            screen.print(Text(render.plain(line, longest=400).rstrip()), soft_wrap=True)


def _line(found: enrichment_pb2.Enrichment) -> str:
    made = found.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
    processing, track = found.answer.processing, found.answer.track
    if not found.HasField("answer"):
        state = word(enrichment_pb2.EnrichmentState.Name(found.state), "ENRICHMENT_STATE_").lower()
    elif processing.needs_review:
        state = "reviewed" if found.reviews else "review"
    else:
        state = "ok"
    artists = ", ".join(artist.name for artist in track.artists)
    told = " - ".join(part for part in (artists, track.title) if part)
    confidence = f"{processing.confidence:.2f}" if found.HasField("answer") else "-"
    return (
        f"{render.plain(found.enrichment_id)}  {made}  {state:<8}  {confidence:>4}  "
        f"{render.plain(processing.model):<8}  {render.plain(told)}"
    ).rstrip()


def _print(record: dict[str, Any]) -> None:
    # Bytes, so that a terminal's encoding decides nothing about a file.
    text = json.dumps(record, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()
