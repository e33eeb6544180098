"""Rows of the queue's file as messages of the contract, and filters as SQL."""

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from liner.v1 import queue_admin_pb2, track_pb2

READY = queue_admin_pb2.MESSAGE_STATE_READY
DELAYED = queue_admin_pb2.MESSAGE_STATE_DELAYED
LEASED = queue_admin_pb2.MESSAGE_STATE_LEASED
DEAD = queue_admin_pb2.MESSAGE_STATE_DEAD

COLUMNS = (
    "id, message_id, priority, state, due, published, delivery, leased_at, lease_until, "
    "attributes, body, cause, died"
)
"""What `message_of` wants of a row, in this order."""

MOST_ATTEMPTS = 100
"""Attempts kept of a message, the newest ones."""

MOST_JOB_BYTES = 3 << 20
"""A listing's answer takes 4 MiB. What breaks no rule has a third of this."""

_MOST_ERROR = 1024
_MOST_VIOLATIONS = 20
_LONGEST_SECONDS = 315_576_000_000
_UNTELLABLE = re.compile(r"[A-Z]|_([^a-z]|$)")
"""What is lost of a field's path when JSON writes it in camel case."""

Row = tuple[Any, ...]
"""Columns of a row, as SQLite gives them."""


class Times(NamedTuple):
    """The two clocks at one moment."""

    wall: float
    """Seconds since 1970: what people and due times mean by a time."""

    steady: float
    """Seconds that pass evenly: what leases are measured in."""


def message_of(row: Row, attempts: Sequence[Row], times: Times) -> queue_admin_pb2.QueueMessage:
    """Return the message of a row and of its attempts."""
    (_, message_id, priority, state, due, published, delivery, leased_at, lease_until) = row[:9]
    attributes, body, cause, died = row[9:]
    held = state == LEASED
    if (state == DELAYED and due <= times.wall) or (held and lease_until <= times.steady):
        # Nobody has looked since it became due, or since its lease ended.
        state = READY
    message = queue_admin_pb2.QueueMessage(
        message_id=message_id,
        state=state,
        priority=priority,
        delivery_attempt=delivery,
        cause=cause,
    )
    if attributes:
        message.attributes.update(json.loads(attributes))
    if len(body) <= MOST_JOB_BYTES:
        try:
            message.job.MergeFromString(body)
            # An empty body is a job too: all its fields are optional.
            message.job.SetInParent()
        except DecodeError:
            message.ClearField("job")
        else:
            if not _can_be_told(message.job):
                message.ClearField("job")
    _set(message.publish_time, published)
    if state in (READY, DELAYED):
        _set(message.due_time, due)
    for number, started, ended, error, model in attempts:
        attempt = message.attempts.add(number=number, model=model)
        _set(attempt.start_time, started)
        if ended is not None:
            _set(attempt.end_time, ended)
        if error is not None:
            attempt.error.CopyFrom(track_pb2.Error.FromString(error))
    if state == LEASED:
        _set(message.lease_expire_time, times.wall + lease_until - times.steady)
    if held:
        _set(message.attempts.add(number=delivery).start_time, leased_at)
    if state == DEAD:
        _set(message.dead_letter_time, died)
    return message


def job_of(body: bytes) -> queue_admin_pb2.EnrichmentJob | None:
    """Return the job that these bytes are, or None if they are none."""
    if len(body) > MOST_JOB_BYTES:
        return None
    try:
        job = queue_admin_pb2.EnrichmentJob.FromString(body)
    except DecodeError:
        return None
    return job if _can_be_told(job) else None


def _can_be_told(job: queue_admin_pb2.EnrichmentJob) -> bool:
    """Whether JSON can say all of a job: one that it cannot hides a whole page from grpcurl."""
    duration = job.track.properties.duration
    return (
        -_LONGEST_SECONDS <= duration.seconds <= _LONGEST_SECONDS
        and abs(duration.nanos) < 1_000_000_000
        and duration.seconds * duration.nanos >= 0
        and not any(_UNTELLABLE.search(path) for path in job.options.fields.paths)
    )


def attempts_of(db: sqlite3.Connection, ids: Sequence[int]) -> Mapping[int, list[Row]]:
    """Return the past attempts of messages by their row's id, oldest first."""
    found: dict[int, list[Row]] = {}
    if not ids:
        return found
    marks = ",".join("?" * len(ids))
    for message, *attempt in db.execute(
        "SELECT message, number, started, ended, error, model FROM attempts "  # noqa: S608
        f"WHERE message IN ({marks}) ORDER BY rowid",
        tuple(ids),
    ):
        found.setdefault(message, []).append(tuple(attempt))
    return found


def messages_of(
    db: sqlite3.Connection,
    rows: Sequence[Row],
    times: Times,
) -> list[queue_admin_pb2.QueueMessage]:
    """Return the messages of these rows, with their attempts."""
    attempts = attempts_of(db, [row[0] for row in rows])
    return [message_of(row, attempts.get(row[0], ()), times) for row in rows]


def where(
    chosen: queue_admin_pb2.MessageFilter, times: Times, *, dead: bool
) -> tuple[str, list[object]]:
    """Return a filter as a condition and its values; age counts from death for dead letters."""
    conditions: list[str] = []
    values: list[object] = []

    def add(condition: str, *given: object) -> None:
        conditions.append(condition)
        values.extend(given)

    since = "died" if dead else "published"
    if chosen.priorities:
        add(f"priority IN ({','.join('?' * len(chosen.priorities))})", *chosen.priorities)
    if chosen.causes:
        add(f"cause IN ({','.join('?' * len(chosen.causes))})", *chosen.causes)
    if chosen.HasField("older_than"):
        add(f"{since} <= ?", times.wall - _seconds(chosen.older_than))
    if chosen.HasField("newer_than"):
        add(f"{since} >= ?", times.wall - _seconds(chosen.newer_than))
    if chosen.track_id:
        add("track_id = ?", chosen.track_id)
    if chosen.error_contains:
        add("instr(error, ?) > 0", chosen.error_contains.casefold())
    if dead:
        add("state = 4")
    elif chosen.state == READY:
        add(
            "(state = 1 OR state = 2 AND due <= ? OR state = 3 AND lease_until <= ?)",
            times.wall,
            times.steady,
        )
    elif chosen.state == DELAYED:
        add("state = 2 AND due > ?", times.wall)
    elif chosen.state == LEASED:
        add("state = 3 AND lease_until > ?", times.steady)
    else:
        add("state IN (1, 2, 3)")
    return " AND ".join(conditions), values


def error_text(error: track_pb2.Error | None) -> str:
    """Return what `error_contains` is looked for in."""
    return f"{error.reason}\n{error.message[:_MOST_ERROR]}".casefold() if error is not None else ""


def kept(error: track_pb2.Error) -> bytes:
    """Return an error as it is kept in the history; a hundred of them must fit into a message."""
    if len(error.message) > _MOST_ERROR or len(error.violations) > _MOST_VIOLATIONS:
        short = track_pb2.Error()
        short.CopyFrom(error)
        short.message = error.message[:_MOST_ERROR]
        del short.violations[_MOST_VIOLATIONS:]
        error = short
    return error.SerializeToString()


def _set(field: object, seconds: float) -> None:
    # Half the cost of FromMicroseconds, four times a message.
    field.seconds, micros = divmod(round(seconds * 1e6), 1_000_000)  # type: ignore[attr-defined]
    field.nanos = micros * 1000  # type: ignore[attr-defined]


def _seconds(duration: object) -> float:
    return float(duration.ToNanoseconds()) / 1e9  # type: ignore[attr-defined]
