"""What is done to messages within a transaction: publish, lease, and the ends of a lease."""

import itertools
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence, Sized
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_server.core.enums import Cause, Priority
from liner_server.errors import AlreadyExistsError, ConflictError
from liner_server.ports_queue import Lease
from liner_server.queues.rota import WEIGHTS, Rota
from liner_server.queues.rows import (
    COLUMNS,
    DELAYED,
    LEASED,
    MOST_ATTEMPTS,
    Row,
    Times,
    error_text,
    kept,
)

AT_ONCE = 1000
"""Rows that housekeeping moves in one go, so that it holds nobody up for long."""


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


def insert(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Run an INSERT for many rows, in as few statements as there can be; return how many it wrote.

    `statement` ends in VALUES. A few lengths only, so that SQLite need not parse it each time.
    """
    written, start = 0, 0
    row = f"({marks(rows[0])})"
    for size in (128, 16, 1):
        while len(rows) - start >= size:
            part = itertools.chain.from_iterable(rows[start : start + size])
            written += db.execute(statement + ",".join([row] * size), tuple(part)).rowcount
            start += size
    return written


def _write_requests(db: sqlite3.Connection, asked: Sequence[tuple[object, ...]]) -> bool:
    """Write request ids, unless one of them was used before."""
    return insert(db, "INSERT OR IGNORE INTO requests VALUES ", asked) == len(asked)


def _forgotten(db: sqlite3.Connection, message_id: str, at: float, before: float) -> bool:
    if at > before:
        return False
    found = db.execute("SELECT 1 FROM messages WHERE message_id = ?", (message_id,)).fetchone()
    return found is None


def wake(db: sqlite3.Connection, times: Times) -> None:
    """Make due what is due, and give back what lost its worker."""
    # The counts tell cheaply that there is nothing to look for, as mostly there is not.
    states = {state for (state,) in db.execute("SELECT state FROM counts WHERE n > 0")}
    if DELAYED in states:
        db.execute(
            "UPDATE messages SET state = 1 WHERE id IN "
            "(SELECT id FROM messages WHERE state = 2 AND due <= ? ORDER BY due LIMIT ?)",
            (times.wall, AT_ONCE),
        )
    if LEASED not in states:
        return
    ended = db.execute(
        "SELECT id, delivery, leased_at FROM messages WHERE state = 3 AND lease_until <= ? LIMIT ?",
        (times.steady, AT_ONCE),
    ).fetchall()
    for row, number, started in ended:
        remember(db, row, number, started)
        db.execute(
            "UPDATE messages SET state = 1, token = NULL, lease_until = NULL WHERE id = ?", (row,)
        )


def orphan(db: sqlite3.Connection) -> None:
    """End every lease: their holders died with the process that held the file."""
    db.execute(
        "INSERT INTO attempts(message, number, started) "
        "SELECT id, delivery, leased_at FROM messages WHERE state = 3"
    )
    db.execute(
        "UPDATE messages SET state = 1, token = NULL, lease_until = NULL "
        "WHERE id IN (SELECT id FROM messages WHERE state = 3)"
    )


def claim(
    db: sqlite3.Connection,
    *,
    limit: int,
    until: float,
    times: Times,
    prefix: str,
    rota: Rota,
    last_tenant: dict[Priority, str],
) -> list[Row]:
    """Lease what is due, in turn; return the rows in that order, each token `prefix` and row id."""
    ready = {p for (p,) in db.execute("SELECT priority FROM counts WHERE state = 1 AND n > 0")}
    found = {
        priority: list(_in_turn(db, priority, limit, last_tenant.get(priority, "")))
        for priority in WEIGHTS
        if priority in ready
    }
    turns = rota.share(found, limit)
    if not turns:
        return []
    for priority, (_, tenant) in turns:
        last_tenant[priority] = tenant
    ids = [row for _, (row, _) in turns]
    leased = db.execute(
        "UPDATE messages SET state = 3, delivery = delivery + 1, leased_at = ?, "  # noqa: S608
        f"lease_until = ?, token = ? || id WHERE id IN ({marks(ids)}) RETURNING {COLUMNS}",
        (times.wall, until, prefix, *ids),
    ).fetchall()
    by_id = {row[0]: row for row in leased}
    return [by_id[row] for row in ids]


def _in_turn(
    db: sqlite3.Connection, priority: Priority, limit: int, last: str
) -> Iterator[tuple[int, str]]:
    """Yield due rows of a priority, one of each tenant after the last one served, and again."""
    queues = [
        (
            tenant,
            db.execute(
                "SELECT id FROM messages WHERE state = 1 AND priority = ? AND tenant = ? "
                "ORDER BY due, id LIMIT ?",
                (priority, tenant, limit),
            ),
        )
        for tenant in itertools.islice(_tenants(db, priority, last), limit)
    ]
    left = limit
    while queues and left:
        still = []
        for tenant, rows in queues:
            row = rows.fetchone()
            if row is None:
                continue
            yield row[0], tenant
            left -= 1
            if not left:
                return
            still.append((tenant, rows))
        queues = still


def _tenants(db: sqlite3.Connection, priority: Priority, last: str) -> Iterator[str]:
    """Yield tenants that have due messages, beginning behind the last one served."""

    def following(relation: str, tenant: str) -> str | None:
        # From index entry to index entry: the cost is the tenants, not their messages.
        row = db.execute(
            "SELECT tenant FROM messages WHERE state = 1 AND priority = ? "  # noqa: S608
            f"AND tenant {relation} ? ORDER BY tenant LIMIT 1",
            (priority, tenant),
        ).fetchone()
        return row[0] if row else None

    tenant = following(">", last)
    while tenant is not None:
        yield tenant
        tenant = following(">", tenant)
    tenant = following(">=", "")
    while tenant is not None and tenant <= last:
        yield tenant
        tenant = following(">", tenant)


def extend(db: sqlite3.Connection, lease: Lease, times: Times, duration: timedelta) -> None:
    """Move the lease's end."""
    changed = db.execute(
        f"UPDATE messages SET lease_until = ? WHERE {_HELD}",  # noqa: S608
        (times.steady + duration.total_seconds(), *_held(lease, times)),
    )
    _check(lease, bool(changed.rowcount))


def ack(db: sqlite3.Connection, lease: Lease, times: Times) -> None:
    """Delete the message."""
    [told] = ack_all(db, [lease], times)
    if told is not None:
        raise told


def ack_all(
    db: sqlite3.Connection, leases: Sequence[Lease], times: Times
) -> list[ConflictError | None]:
    """Delete the messages of many leases; return of each whether it had been lost."""
    held = {
        (message_id, token): row
        for row, message_id, token in db.execute(
            "SELECT id, message_id, token FROM messages WHERE message_id IN "  # noqa: S608
            f"({marks(leases)}) AND state = 3 AND lease_until > ?",
            (*(lease.message.message_id for lease in leases), times.steady),
        )
    }
    told: list[ConflictError | None] = []
    gone: list[int] = []
    tried: list[int] = []
    for lease in leases:
        # Popped: the same lease may be among them twice.
        row = held.pop((lease.message.message_id, lease.token), None)
        told.append(_lost(lease) if row is None else None)
        if row is not None:
            gone.append(row)
            if len(lease.message.attempts) > 1:
                tried.append(row)
    db.execute(f"DELETE FROM messages WHERE id IN ({marks(gone)})", gone)  # noqa: S608
    if tried:
        db.execute(f"DELETE FROM attempts WHERE message IN ({marks(tried)})", tried)  # noqa: S608
    return told


def marks(values: Sized) -> str:
    """Return as many question marks as there are values."""
    return ",".join("?" * len(values))


def nack(
    db: sqlite3.Connection,
    lease: Lease,
    times: Times,
    delay: timedelta,
    error: track_pb2.Error | None,
    model: str,
) -> None:
    """End the attempt as a failure."""
    wait = delay.total_seconds()
    changed = db.execute(
        "UPDATE messages SET state = ?, due = ?, token = NULL, lease_until = NULL, error = ? "  # noqa: S608
        f"WHERE {_HELD} RETURNING id, delivery, leased_at",
        (2 if wait > 0 else 1, times.wall + wait, error_text(error), *_held(lease, times)),
    ).fetchone()
    _check(lease, changed is not None)
    remember(db, *changed, ended=times.wall, error=error, model=model)


def release(db: sqlite3.Connection, lease: Lease, times: Times, delay: timedelta) -> None:
    """End the lease as if it had not been."""
    wait = delay.total_seconds()
    changed = db.execute(
        "UPDATE messages SET state = ?, due = CASE WHEN ? THEN ? ELSE due END, "  # noqa: S608
        f"delivery = delivery - 1, token = NULL, lease_until = NULL WHERE {_HELD}",
        (2 if wait > 0 else 1, wait > 0, times.wall + wait, *_held(lease, times)),
    )
    _check(lease, bool(changed.rowcount))


def dead_letter(
    db: sqlite3.Connection,
    lease: Lease,
    times: Times,
    cause: Cause,
    error: track_pb2.Error | None,
    model: str,
) -> None:
    """End the last attempt."""
    changed = db.execute(
        "UPDATE messages SET state = 4, died = ?, cause = ?, token = NULL, lease_until = NULL, "  # noqa: S608
        f"error = ? WHERE {_HELD} RETURNING id, delivery, leased_at",
        (times.wall, cause, error_text(error), *_held(lease, times)),
    ).fetchone()
    _check(lease, changed is not None)
    remember(db, *changed, ended=times.wall, error=error, model=model)


_HELD = "message_id = ? AND state = 3 AND token = ? AND lease_until > ?"


def _held(lease: Lease, times: Times) -> tuple[object, ...]:
    return lease.message.message_id, lease.token, times.steady


def _check(lease: Lease, held: bool) -> None:
    if not held:
        raise _lost(lease)


def _lost(lease: Lease) -> ConflictError:
    return ConflictError(
        f"the lease of {lease.message.message_id} has ended",
        reason="LEASE_LOST",
        resource=lease.message.message_id,
    )


def remember(
    db: sqlite3.Connection,
    row: int,
    number: int,
    started: float,
    *,
    ended: float | None = None,
    error: track_pb2.Error | None = None,
    model: str = "",
) -> None:
    """Write an attempt into a message's history; without an end its worker was lost."""
    db.execute(
        "INSERT INTO attempts(message, number, started, ended, error, model) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (row, number, started, ended, kept(error) if error else None, model),
    )
    if number > MOST_ATTEMPTS:
        db.execute(
            "DELETE FROM attempts WHERE rowid IN (SELECT rowid FROM attempts WHERE message = ? "
            "ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
            (row, MOST_ATTEMPTS),
        )
