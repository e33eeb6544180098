"""What is done to a job before and in the transaction that puts it on the queue."""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from liner.v1 import enrichment_pb2, queue_admin_pb2

from liner_server.core.enums import Priority
from liner_server.errors import AlreadyExistsError
from liner_server.queues.rota import WEIGHTS
from liner_server.queues.rows import Times
from liner_server.queues.statements import insert


class Letter(NamedTuple):
    """A job made ready to be written, outside the transaction."""

    job_id: str
    priority: Priority
    tenant: str
    track_id: str
    request_id: str
    body: bytes
    attributes: str
    digest: bytes
    """What must be the same when its request id comes again; empty without one."""
    not_before: float | None


def _random_words() -> Iterator[str]:
    """Yield words of ten random bytes.

    Asking the system for each gives the interpreter away, and getting it back from the thread
    that writes costs more than all else of a publication.
    """
    while True:
        many = secrets.token_hex(10 * 256)
        yield from (many[start : start + 20] for start in range(0, len(many), 20))


_RANDOM = _random_words()


def letter_of(
    job: queue_admin_pb2.EnrichmentJob,
    attributes: Mapping[str, str],
    not_before: datetime | None,
    times: Times,
) -> Letter:
    """Return the job with what it lacks: an id, a priority."""
    # Ids that begin with the time keep the file's index of them growing at one end.
    job_id = job.job_id or f"{round(times.wall * 1000):012x}{next(_RANDOM)}"
    priority = job.priority if job.priority in WEIGHTS else enrichment_pb2.PRIORITY_MEDIUM
    # Of a field that comes twice the later one counts: no copy of the whole job is needed.
    said = queue_admin_pb2.EnrichmentJob(job_id=job_id, priority=priority)
    return Letter(
        job_id=job_id,
        priority=priority,
        tenant=job.tenant,
        track_id=job.track.track_id,
        request_id=job.request_id,
        body=job.SerializeToString() + said.SerializeToString(),
        attributes=json.dumps(dict(attributes)) if attributes else "",
        digest=_digest(job, priority, not_before) if job.request_id else b"",
        not_before=not_before.timestamp() if not_before is not None else None,
    )


def _digest(
    job: queue_admin_pb2.EnrichmentJob, priority: Priority, not_before: datetime | None
) -> bytes:
    """Return what stands for a job's content: all of it but its id, and when it is due."""
    own = queue_admin_pb2.EnrichmentJob()
    own.CopyFrom(job)
    own.ClearField("job_id")
    own.priority = priority
    at = f"{not_before.timestamp():.6f}" if not_before is not None else ""
    content = own.SerializeToString(deterministic=True)
    return blake2b(at.encode() + b"\0" + content, digest_size=16).digest()


_INSERT = (
    "INSERT OR IGNORE INTO messages(message_id, priority, tenant, state, due, published, "
    "track_id, request_id, attributes, body) VALUES "
)


def _row(letter: Letter, times: Times) -> tuple[object, ...]:
    due = max(times.wall, letter.not_before or 0.0)
    return (
        letter.job_id,
        letter.priority,
        letter.tenant,
        1 if due <= times.wall else 2,
        due,
        times.wall,
        letter.track_id,
        letter.request_id,
        letter.attributes,
        letter.body,
    )


def publish(db: sqlite3.Connection, letter: Letter, times: Times, remembered: float) -> str:
    """Write the letter, or find the job that its request id made; return the job's id."""
    if letter.request_id:
        known = db.execute(
            "SELECT digest, message_id, at FROM requests WHERE tenant = ? AND request_id = ?",
            (letter.tenant, letter.request_id),
        ).fetchone()
        if known is not None and not _forgotten(db, known[1], known[2], times.wall - remembered):
            if known[0] != letter.digest:
                raise AlreadyExistsError(
                    f"request id {letter.request_id} came with other content as job {known[1]}",
                    reason="REQUEST_ID_REUSED",
                    resource=known[1],
                )
            return str(known[1])
        db.execute(
            "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?)",
            (letter.tenant, letter.request_id, letter.digest, letter.job_id, times.wall),
        )
    if not insert(db, _INSERT, [_row(letter, times)]):
        raise AlreadyExistsError(
            f"there is a message {letter.job_id}", reason="JOB_ID_TAKEN", resource=letter.job_id
        )
    return letter.job_id


def publish_all(
    db: sqlite3.Connection, letters: Sequence[tuple[Letter, Times]], remembered: float
) -> list[str]:
    """Write many new letters in a few statements; return their jobs' ids.

    Raises:
        OneByOne: not all are new, which `publish` knows to handle.

    """
    if len(letters) == 1:
        return [publish(db, *letters[0], remembered)]
    asked = [
        (letter.tenant, letter.request_id, letter.digest, letter.job_id, times.wall)
        for letter, times in letters
        if letter.request_id
    ]
    if asked and not _write_requests(db, asked):
        raise OneByOne
    rows = [_row(letter, times) for letter, times in letters]
    if insert(db, _INSERT, rows) != len(rows):
        raise OneByOne
    return [letter.job_id for letter, _ in letters]


class OneByOne(Exception):  # noqa: N818 - nobody's error: it only says how to go on
    """This cannot be done for many callers at once."""


def _write_requests(db: sqlite3.Connection, asked: Sequence[tuple[object, ...]]) -> bool:
    """Write request ids, unless one of them was used before."""
    return insert(db, "INSERT OR IGNORE INTO requests VALUES ", asked) == len(asked)


def _forgotten(db: sqlite3.Connection, message_id: str, at: float, before: float) -> bool:
    if at > before:
        return False
    found = db.execute("SELECT 1 FROM messages WHERE message_id = ?", (message_id,)).fetchone()
    return found is None
