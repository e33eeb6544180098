"""What is done to messages within a transaction: lease, and the ends of a lease."""

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import timedelta

from liner.v1 import track_pb2

from liner_server.core.enums import Cause, Priority
from liner_server.errors import ConflictError
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
from liner_server.queues.statements import marks

AT_ONCE = 1000
"""Rows that housekeeping moves in one go, so that it holds nobody up for long."""


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
