"""What is done to the messages that Pub/Sub gave to this process: arrive, lease, finish, lose."""

import itertools
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from liner_server.core.enums import Priority
from liner_server.errors import ConflictError
from liner_server.ports_queue import Lease
from liner_server.queues import admin, leasing, pubsub_file, statements
from liner_server.queues.pubsub_wire import WORDS, Arrival
from liner_server.queues.rota import Rota
from liner_server.queues.rows import COLUMNS, DEAD, LEASED, Row, Times


@dataclass(kw_only=True)
class Taken:
    """What a look at the file for messages to hand out found."""

    rows: list[Row]
    ready: dict[Priority, int]
    """Held here and due, but not handed out, by priority."""
    expected: bool = False
    """Due messages that Pub/Sub has and there is room for are on their way."""
    next_due: float | None = None
    paused: bool = False


def arrive(
    db: sqlite3.Connection, arrivals: Sequence[Arrival], times: Times, me: str
) -> list[bool]:
    """Take in what Pub/Sub delivered; say of each whether it is kept or a late copy."""
    ids = [arrival.message_id for arrival in arrivals]
    known = {
        found
        for table in ("messages", "finished")
        for (found,) in db.execute(
            f"SELECT message_id FROM {table} WHERE message_id IN ({statements.marks(ids)})",  # noqa: S608
            ids,
        )
    }
    # Nearly all of them are new, and are written together. What has a past is looked at alone.
    new: dict[str, Arrival] = {}
    for arrival in arrivals:
        if arrival.message_id not in known:
            new.setdefault(arrival.message_id, arrival)
    if new:
        statements.insert(db, _INSERT, [_row(arrival, times) for arrival in new.values()])
        statements.insert(db, _HOLD, [_held(arrival, me) for arrival in new.values()])
    return [
        new.get(arrival.message_id) is arrival or _arrive(db, arrival, times, me)
        for arrival in arrivals
    ]


_INSERT = (
    "INSERT INTO messages(message_id, priority, tenant, state, due, published, delivery, "
    "track_id, request_id, attributes, body) VALUES "
)
_HOLD = "INSERT OR REPLACE INTO transit(message_id, round, sent, carrier, holder) VALUES "


def _row(found: Arrival, times: Times) -> tuple[object, ...]:
    return (
        found.message_id,
        found.priority,
        found.tenant,
        1 if found.due <= times.wall else 2,
        found.due,
        found.published,
        found.delivered,
        found.track_id,
        found.request_id,
        found.attributes,
        found.body,
    )


def _held(found: Arrival, me: str) -> tuple[object, ...]:
    return found.message_id, found.round, 1, found.carrier, me


def _arrive(db: sqlite3.Connection, found: Arrival, times: Times, me: str) -> bool:
    if pubsub_file.is_finished(db, found.message_id, found.round):
        return False
    row = db.execute(
        "SELECT m.id, m.state, m.delivery, m.leased_at, t.round, t.carrier, t.holder "
        "FROM messages AS m LEFT JOIN transit AS t USING (message_id) WHERE m.message_id = ?",
        (found.message_id,),
    ).fetchone()
    if row is None:
        statements.insert(db, _INSERT, [_row(found, times)])
    else:
        number, state, delivery, leased_at, known, carrier, holder = row
        if known is not None and found.round < known:
            return False
        if state == DEAD:
            if known is not None and found.round <= known:
                return False
            _revive(db, number, found, times)
        elif holder and carrier and carrier != found.carrier:
            # Published twice: one copy is enough.
            return False
        elif state == LEASED and holder != me:
            # Pub/Sub would not deliver it if whoever leased it were still there.
            leasing.remember(db, number, delivery, leased_at)
            pubsub_file.unlease(db, number)
    statements.insert(db, _HOLD, [_held(found, me)])
    return True


def _revive(db: sqlite3.Connection, number: int, found: Arrival, times: Times) -> None:
    """A dead letter of this file was replayed elsewhere: it lives as it was put back there."""
    db.execute(
        "UPDATE messages SET state = ?, due = ?, delivery = ?, cause = 0, died = NULL, "
        "error = '', priority = ?, track_id = ?, body = ? WHERE id = ?",
        (
            1 if found.due <= times.wall else 2,
            found.due,
            found.delivered,
            found.priority,
            found.track_id,
            found.body,
            number,
        ),
    )


def take(
    db: sqlite3.Connection,
    *,
    limit: int,
    window: int,
    hurry: bool,
    until: float,
    times: Times,
    prefix: str,
    me: str,
    rota: Rota,
    last_tenant: dict[Priority, str],
) -> Taken:
    """Lease due messages that this process holds, in turn, each token `prefix` and row id.

    Unless in a hurry none is leased while others that are due are still on their way: turns and
    order are about all of them.
    """
    leasing.wake(db, times)
    by_priority: dict[Priority, list[tuple[int, str]]] = {priority: [] for priority in WORDS}
    for priority, row, tenant in db.execute(
        "SELECT m.priority, m.id, m.tenant FROM transit AS t CROSS JOIN messages AS m "
        "USING (message_id) WHERE t.holder = ? AND t.sent = 1 AND m.state = 1 "
        "ORDER BY m.due, m.id",
        (me,),
    ):
        by_priority[priority].append((row, tenant))
    found = Taken(
        rows=[],
        ready={priority: len(rows) for priority, rows in by_priority.items()},
        paused=admin.paused(db),
    )
    if found.paused:
        return found
    found.expected = any(
        count < window and _is_away(db, priority) for priority, count in found.ready.items()
    )
    if found.expected and not hurry:
        return found
    turns = rota.share(
        {p: _in_turn(rows, last_tenant.get(p, "")) for p, rows in by_priority.items()}, limit
    )
    for priority, (_, tenant) in turns:
        last_tenant[priority] = tenant
        found.ready[priority] -= 1
    if not turns:
        due = db.execute("SELECT min(due) FROM messages WHERE state = 2").fetchone()[0]
        found.next_due = None if due is None else due - times.wall
        return found
    ids = [row for _, (row, _) in turns]
    leased = db.execute(
        "UPDATE messages SET state = 3, delivery = delivery + 1, leased_at = ?, "  # noqa: S608
        f"lease_until = ?, token = ? || id WHERE id IN ({','.join('?' * len(ids))}) "
        f"RETURNING {COLUMNS}",
        (times.wall, until, prefix, *ids),
    ).fetchall()
    by_id = {row[0]: row for row in leased}
    found.rows = [by_id[row] for row in ids]
    return found


def _is_away(db: sqlite3.Connection, priority: Priority) -> bool:
    row = db.execute(
        "SELECT 1 FROM messages AS m CROSS JOIN transit AS t USING (message_id) "
        "WHERE m.state = 1 AND m.priority = ? AND (t.holder = '' OR t.sent = 0) LIMIT 1",
        (priority,),
    ).fetchone()
    return row is not None


def _in_turn(rows: Sequence[tuple[int, str]], last: str) -> list[tuple[int, str]]:
    """Return rows as one of each tenant, beginning behind the last one served, and again."""
    by_tenant: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        by_tenant.setdefault(row[1], []).append(row)
    queues = [
        by_tenant[tenant]
        for tenant in sorted(by_tenant, key=lambda tenant: (tenant <= last, tenant))
    ]
    return [row for turn in itertools.zip_longest(*queues) for row in turn if row is not None]


def finish_all(
    db: sqlite3.Connection, leases: Sequence[Lease], times: Times
) -> list[str | ConflictError]:
    """Take finished messages off; return of each which copy Pub/Sub may forget, or its loss."""
    ids = [lease.message.message_id for lease in leases]
    transit = {
        message_id: (carrier, number)
        for message_id, carrier, number in db.execute(
            "SELECT message_id, carrier, round FROM transit "  # noqa: S608
            f"WHERE message_id IN ({statements.marks(ids)})",
            ids,
        )
    }
    lost = leasing.ack_all(db, leases, times)
    told: list[str | ConflictError] = [
        error or transit[message_id][0] for message_id, error in zip(ids, lost, strict=True)
    ]
    over = [
        (message_id, transit[message_id][1], times.wall)
        for message_id, error in zip(ids, lost, strict=True)
        if error is None
    ]
    if over:
        statements.insert(db, "INSERT OR REPLACE INTO finished VALUES ", over)
    return told


def finished_elsewhere(db: sqlite3.Connection, message_id: str, number: int, times: Times) -> None:
    """Take off what another host finished, unless it was put back since or is held here."""
    gone = db.execute(
        "SELECT m.id FROM messages AS m JOIN transit AS t USING (message_id) "
        "WHERE m.message_id = ? AND t.round <= ? AND t.sent = 1 AND t.holder = '' "
        "AND m.state IN (1, 2)",
        (message_id, number),
    ).fetchone()
    if gone is not None:
        db.execute("DELETE FROM attempts WHERE message = ?", gone)
        db.execute("DELETE FROM messages WHERE id = ?", gone)
        pubsub_file.set_finished(db, message_id, number, times)


def lose(db: sqlite3.Connection, carriers: Sequence[str], me: str) -> None:
    """End the leases of copies that Pub/Sub gave to another: it alone decides who works."""
    for carrier in carriers:
        row = db.execute(
            "SELECT m.id, m.state, m.delivery, m.leased_at, m.message_id FROM transit AS t "
            "JOIN messages AS m USING (message_id) WHERE t.holder = ? AND t.carrier = ?",
            (me, carrier),
        ).fetchone()
        if row is None:
            continue
        if row[1] == LEASED:
            leasing.remember(db, row[0], row[2], row[3])
            pubsub_file.unlease(db, row[0])
        db.execute("UPDATE transit SET holder = '' WHERE message_id = ?", (row[4],))
