"""`liner queue` and `liner submit`: the queue from a shell."""

import hashlib
import itertools
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2
from rich.table import Table
from rich.text import Text

from liner_client import render
from liner_client.client import LinerClient
from liner_client.enriching import fails_for_all, stored_track
from liner_client.errors import LinerError, to_item
from liner_client.inputs import InputError, collect
from liner_client.output import OutputForm
from liner_client.records import error_record, word
from liner_client.results_commands import Command
from liner_client.stopping import at_once

_MOST_REQUEST_ID = 128
_MOST_SECONDS = 1e9
"""Three decades: nothing on a queue is older."""


class PriorityName(StrEnum):
    """How soon."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class StateName(StrEnum):
    """Where a message is."""

    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"


class CauseName(StrEnum):
    """Why a message became a dead letter."""

    UNDECODABLE = "undecodable"
    INVALID = "invalid"
    MISSING_OBJECT = "missing-object"
    ATTEMPTS_EXHAUSTED = "attempts-exhausted"
    WORKER_LOST = "worker-lost"
    BAD_AUDIO = "bad-audio"


_Form = Annotated[OutputForm, typer.Option("--output", "-o", help="How results are written.")]
_Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="These ones.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The message's: the job's id.")]
_Priorities = Annotated[
    list[PriorityName] | None, typer.Option("--priority", help="Of this priority; repeatable.")
]
_Causes = Annotated[
    list[CauseName] | None, typer.Option("--cause", help="Dead for this reason; repeatable.")
]
_Track = Annotated[str, typer.Option("--track", help="Of this track_id.")]
_Error = Annotated[str, typer.Option("--error", help="Whose last error contains this text.")]
_Older = Annotated[
    float | None,
    typer.Option(
        "--older", min=0, max=_MOST_SECONDS, help="Published, or dead, so many seconds ago."
    ),
]
_Newer = Annotated[
    float | None,
    typer.Option("--newer", min=0, max=_MOST_SECONDS, help="Not longer ago than so many seconds."),
]
_All = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
_Limit = Annotated[int, typer.Option(min=1, help="Show at most so many.")]


def add_to(command: Command) -> None:
    """Add the commands that look into the queue and mend it."""
    command("stats")(_stats)
    command("watch")(_watch)
    command("list")(_list)
    command("show")(_show)
    command("retry")(_retry)
    command("dead-letters")(_dead_letters)
    command("replay")(_replay)
    command("purge")(_purge)
    command("pause")(_pause)
    command("resume")(_resume)


async def submit(
    liner: LinerClient,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS",
            help="Audio files, folders of them, lists of metadata (.csv, .jsonl), or - for JSON"
            " lines or paths on standard input.",
        ),
    ],
    priority: Annotated[PriorityName, typer.Option(help="How soon.")] = PriorityName.MEDIUM,
    model: Annotated[str, typer.Option(help="embedded, qwen2 or openai.")] = "",
    run: Annotated[
        str,
        typer.Option(help="Names this run: the same inputs under the same name enter once."),
    ] = "",
    output: _Form = OutputForm.TABLE,
) -> int:
    """Put tracks on the queue and print each one's job id; `liner results show ID` has the answer.

    Audio is uploaded first. What the server refuses is named, and the rest goes on.
    """
    options = enrichment_pb2.EnrichOptions(model=model)
    exit_code = 0
    with at_once():
        entries = collect(paths, stdin=sys.stdin)
    for entry in entries:
        track = await stored_track(liner, entry)
        if isinstance(track, track_pb2.Track):
            try:
                job_id = await liner.submit(
                    track,
                    options=options,
                    priority=enrichment_pb2.Priority.Value(f"PRIORITY_{priority.name}"),
                    request_id=_request_id(run, entry.item_id) if run else None,
                )
            except LinerError as error:
                if fails_for_all(error):
                    raise
                track = to_item(error)
        name = render.plain(entry.item_id)
        if isinstance(track, track_pb2.Error):
            exit_code = 1
            if output is OutputForm.TABLE:
                why = render.plain(f"{track.reason}: {track.message}")
                render.console(stderr=True).print(Text(f"{name}  {why}", "red"), soft_wrap=True)
            else:
                _print({"item_id": entry.item_id, "error": error_record(track)})
        elif output is OutputForm.TABLE:
            _say(f"{job_id}  {name}")
        else:
            _print({"item_id": entry.item_id, "job_id": job_id})
    return exit_code


def _request_id(run: str, item_id: str) -> str:
    """Return what stands for an input of a run; ids are short and ASCII, names of files not."""
    whole = f"{run}/{item_id}"
    if len(whole) <= _MOST_REQUEST_ID and whole.isascii() and whole.isprintable():
        return whole
    return hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()


async def _stats(liner: LinerClient, output: _Form = OutputForm.TABLE) -> int:
    """Show how many messages wait, run and are dead, by priority."""
    _write_stats(await liner.queue.stats(), output)
    return 0


async def _watch(
    liner: LinerClient,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    count: Annotated[int, typer.Option(min=0, help="End after so many; 0: never.")] = 0,
    output: _Form = OutputForm.TABLE,
) -> int:
    """Show the counts again and again, until interrupted."""
    places = itertools.count(1)
    async with aclosing(liner.queue.watch(timedelta(seconds=every))) as stream:
        async for stats in stream:
            _write_stats(stats, output)
            if next(places) == count:
                break
    return 0


async def _list(
    liner: LinerClient,
    priority: _Priorities = None,
    state: Annotated[StateName | None, typer.Option(help="Only those in this state.")] = None,
    track: _Track = "",
    error: _Error = "",
    older: _Older = None,
    newer: _Newer = None,
    limit: _Limit = 50,
    output: _Form = OutputForm.TABLE,
) -> int:
    """List messages that wait or are worked on, oldest first."""
    chosen = _filter(priority, None, track, error, older, newer)
    if state is not None:
        chosen.state = queue_admin_pb2.MessageState.Value(f"MESSAGE_STATE_{state.name}")
    return await _write_all(liner.queue.messages(chosen), limit, output)


async def _show(liner: LinerClient, message_id: _Id) -> int:
    """Show one message with its job and every attempt, as JSON."""
    _print(_record(await liner.queue.get(message_id)))
    return 0


async def _retry(
    liner: LinerClient,
    message_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The messages'.")],
) -> int:
    """Make delayed messages due now."""
    for message_id in message_ids:
        _say(_line(await liner.queue.retry(message_id)))
    return 0


async def _dead_letters(
    liner: LinerClient,
    priority: _Priorities = None,
    cause: _Causes = None,
    track: _Track = "",
    error: _Error = "",
    older: _Older = None,
    newer: _Newer = None,
    limit: _Limit = 50,
    output: _Form = OutputForm.TABLE,
) -> int:
    """List dead letters, the newest first: why each one died, and its last error."""
    chosen = _filter(priority, cause, track, error, older, newer)
    return await _write_all(liner.queue.dead_letters(chosen), limit, output)


async def _replay(
    liner: LinerClient,
    message_ids: _Ids = None,
    priority: _Priorities = None,
    cause: _Causes = None,
    track: _Track = "",
    error: _Error = "",
    older: _Older = None,
    newer: _Newer = None,
    everything: _All = False,
    rate: Annotated[float, typer.Option(min=0, help="At most so many a second; 0: all now.")] = 0,
    edited: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="JSON of the job to run in place of the one ID's."
        ),
    ] = None,
    dry_run: _DryRun = False,
) -> int:
    """Put dead letters back on the queue: by id, by what is said of them, or --all.

    `liner queue show ID` prints the job under "job"; mend it in a file and replay with --edited.
    """
    answer = await liner.queue.replay(
        message_ids or (),
        chosen=_filter(priority, cause, track, error, older, newer),
        everything=everything,
        max_per_second=rate,
        edited_job=_job(edited) if edited else None,
        validate_only=dry_run,
    )
    _say(f"{answer.replayed_count} {'would be ' if dry_run else ''}replayed")
    return 0


async def _purge(
    liner: LinerClient,
    message_ids: _Ids = None,
    priority: _Priorities = None,
    cause: _Causes = None,
    track: _Track = "",
    error: _Error = "",
    older: _Older = None,
    newer: _Newer = None,
    everything: _All = False,
    dry_run: _DryRun = False,
) -> int:
    """Delete dead letters for good: by id, by what is said of them, or --all."""
    answer = await liner.queue.purge(
        message_ids or (),
        chosen=_filter(priority, cause, track, error, older, newer),
        everything=everything,
        validate_only=dry_run,
    )
    _say(f"{answer.purged_count} {'would be ' if dry_run else ''}deleted")
    return 0


async def _pause(
    liner: LinerClient, reason: Annotated[str, typer.Option(help="For others on duty.")] = ""
) -> int:
    """Hand out no more messages; what is worked on is finished, submitting goes on."""
    _write_stats(await liner.queue.pause(reason), OutputForm.TABLE)
    return 0


async def _resume(liner: LinerClient) -> int:
    """Hand out messages again."""
    _write_stats(await liner.queue.resume(), OutputForm.TABLE)
    return 0


def _filter(
    priorities: list[PriorityName] | None,
    causes: list[CauseName] | None,
    track: str,
    error: str,
    older: float | None,
    newer: float | None,
) -> queue_admin_pb2.MessageFilter:
    chosen = queue_admin_pb2.MessageFilter(
        priorities=[enrichment_pb2.Priority.Value(f"PRIORITY_{p.name}") for p in priorities or ()],
        causes=[
            queue_admin_pb2.DeadLetterCause.Value(f"DEAD_LETTER_CAUSE_{cause.name}")
            for cause in causes or ()
        ],
        track_id=track,
        error_contains=error,
    )
    if older is not None:
        chosen.older_than.FromTimedelta(timedelta(seconds=older))
    if newer is not None:
        chosen.newer_than.FromTimedelta(timedelta(seconds=newer))
    return chosen


def _job(path: Path) -> queue_admin_pb2.EnrichmentJob:
    try:
        return json_format.Parse(path.read_text(encoding="utf-8"), queue_admin_pb2.EnrichmentJob())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no job: {error}") from None


async def _write_all(
    messages: AsyncGenerator[queue_admin_pb2.QueueMessage, None], limit: int, form: OutputForm
) -> int:
    records = []
    places = itertools.count(1)
    async with aclosing(messages) as stream:
        async for message in stream:
            if form is OutputForm.TABLE:
                _say(_line(message))
            elif form is OutputForm.JSONL:
                _print(_record(message))
            else:
                records.append(_record(message))
            if next(places) == limit:
                break
    if form is OutputForm.JSON:
        _print({"messages": records})
    return 0


def _write_stats(stats: queue_admin_pb2.QueueStats, form: OutputForm) -> None:
    if form is not OutputForm.TABLE:
        _print(
            json_format.MessageToDict(
                stats, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
        return
    table = Table(box=None, pad_edge=False)
    for name in ("priority", "ready", "delayed", "leased", "dead", "oldest"):
        table.add_column(name, justify="left" if name == "priority" else "right")
    for entry in stats.priorities:
        waited = entry.oldest_ready_age.ToTimedelta().total_seconds()
        table.add_row(
            word(enrichment_pb2.Priority.Name(entry.priority), "PRIORITY_").lower(),
            *(str(n) for n in (entry.ready, entry.delayed, entry.leased, entry.dead)),
            f"{waited:.0f} s" if entry.HasField("oldest_ready_age") else "-",
        )
    screen = render.console()
    screen.print(table)
    if stats.paused:
        why = f": {render.plain(stats.pause_reason)}" if stats.pause_reason else ""
        screen.print(Text(f"paused by {render.plain(stats.paused_by)}{why}", "yellow"))


def _line(message: queue_admin_pb2.QueueMessage) -> str:
    state = word(queue_admin_pb2.MessageState.Name(message.state), "MESSAGE_STATE_").lower()
    priority = word(enrichment_pb2.Priority.Name(message.priority), "PRIORITY_").lower()
    since = message.publish_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
    track = message.job.track
    told = render.plain(track.title or track.audio.object_name or track.track_id)
    why = ""
    if message.state == queue_admin_pb2.MESSAGE_STATE_DEAD:
        cause = queue_admin_pb2.DeadLetterCause.Name(message.cause)
        why = f"  {word(cause, 'DEAD_LETTER_CAUSE_').lower()}"
    errors = [attempt.error for attempt in message.attempts if attempt.HasField("error")]
    if errors:
        why += f"  {render.plain(f'{errors[-1].reason}: {errors[-1].message}')}"
    return (
        f"{render.plain(message.message_id)}  {since}  {state:<7}  {priority:<6}  "
        f"{len(message.attempts)} attempts  {told}{why}"
    )


def _record(message: queue_admin_pb2.QueueMessage) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _say(line: str) -> None:
    render.console().print(Text(line), soft_wrap=True)


def _print(record: dict[str, Any]) -> None:
    # Bytes, so that a terminal's encoding decides nothing about a file.
    text = json.dumps(record, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()
