"""What the file knows of messages that lie on Pub/Sub: two tables beside those of `schema`.

    transit    one row a message: its round, whether Pub/Sub has it, which copy counts, who holds it
    finished   rounds that are over, so that a late copy of one is not done again

A living message is in `messages` from the moment this host published it or was handed it, and is
handed out only by the process that holds its copy. Whoever shares the file sees the same.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from liner_server.core.enums import Priority
from liner_server.queues import leasing, publishing
from liner_server.queues.rows import LEASED, Times
from liner_server.queues.schema import SCHEMA

TRANSIT_SCHEMA = (
    SCHEMA  # noqa: S608
    + """
CREATE TABLE IF NOT EXISTS transit(
  message_id TEXT PRIMARY KEY, round INT NOT NULL, sent INT NOT NULL,
  carrier TEXT NOT NULL DEFAULT '', holder TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unsent ON transit(round) WHERE sent = 0;
CREATE INDEX IF NOT EXISTS held_by ON transit(holder) WHERE holder != '';
CREATE TABLE IF NOT EXISTS finished(
  message_id TEXT PRIMARY KEY, round INT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS finished_at ON finished(at);
CREATE TRIGGER IF NOT EXISTS left AFTER DELETE ON messages BEGIN
  DELETE FROM transit WHERE message_id = OLD.message_id;
END;
"""
)

AT_ONCE = 500
_ABANDONED = 60.0
"""Seconds after which any process sends what its own has not sent: that one has died."""


@dataclass(frozen=True, kw_only=True)
class Unsent:
    """A message that Pub/Sub must get: one that waits, or a dead letter."""

    message_id: str
    round: int
    priority: Priority
    state: int
    published: float
    due: float
    delivered: int
    attributes: str
    body: bytes
    track_id: str


def put(
    db: sqlite3.Connection,
    letter: publishing.Letter,
    fresh: publishing.Letter,
    times: Times,
    keep: float,
    me: str,
) -> tuple[str, Unsent | None]:
    """Write a job that is not sent yet; return its id, and what must be sent.

    `fresh` is used in place of `letter`, whose id its request id made, when that was used for
    another job so long ago that it is forgotten.
    """
    old = (
        letter.request_id
        and db.execute(
            "SELECT 1 FROM requests WHERE tenant = ? AND request_id = ? AND at <= ?",
            (letter.tenant, letter.request_id, times.wall - keep),
        ).fetchone()
    )
    written = publishing.publish(db, fresh if old else letter, times, keep)
    found = db.execute(
        "SELECT t.sent FROM messages AS m LEFT JOIN transit AS t USING (message_id) "
        "WHERE m.message_id = ?",
        (written,),
    ).fetchone()
    if found is None or found[0] == 1:
        # Done already, or on its way already: the same request came again.
        return written, None
    if found[0] is None:
        db.execute(
            "INSERT INTO transit(message_id, round, sent, holder) VALUES (?, ?, 0, ?)",
            (written, _next_round(db, written, times), me),
        )
    return written, unsent(db, times, me, [written])[0]


def take_back(db: sqlite3.Connection, message_id: str) -> None:
    """Forget a job that could not be sent, with its request id."""
    unsent = db.execute(
        "SELECT message_id FROM transit WHERE message_id = ? AND sent = 0", (message_id,)
    ).fetchone()
    if unsent is not None:
        db.execute("DELETE FROM messages WHERE message_id = ?", unsent)
        db.execute("DELETE FROM requests WHERE message_id = ?", unsent)


def unsent(db: sqlite3.Connection, times: Times, me: str, only: Sequence[str] = ()) -> list[Unsent]:
    """Return what must be sent: by this process, or left behind by one that died."""
    values: list[object] = [me, (times.wall - _ABANDONED) * 1e6]
    condition = "(t.holder = ? OR t.round <= ?)"
    if only:
        condition, values = f"t.message_id IN ({','.join('?' * len(only))})", list(only)
    rows = db.execute(
        "SELECT t.message_id, t.round, priority, state, published, due, delivery, attributes, "  # noqa: S608
        "body, track_id FROM transit AS t JOIN messages AS m USING (message_id) "
        f"WHERE t.sent = 0 AND {condition} ORDER BY t.round LIMIT {AT_ONCE}",
        values,
    )
    names = Unsent.__dataclass_fields__
    return [Unsent(**dict(zip(names, row, strict=True))) for row in rows]


def unsent_letters(db: sqlite3.Connection, me: str) -> set[str]:
    """Return which copies this process holds of dead letters that it has not sent."""
    return {
        carrier
        for (carrier,) in db.execute(
            "SELECT t.carrier FROM transit AS t JOIN messages AS m USING (message_id) "
            "WHERE t.sent = 0 AND t.holder = ? AND t.carrier != '' AND m.state = 4",
            (me,),
        )
    }


def mark_sent(db: sqlite3.Connection, message_id: str, number: int, carrier: str) -> str:
    """Note that Pub/Sub has a message, unless it has arrived already; return the old copy's id."""
    row = db.execute(
        "SELECT carrier FROM transit WHERE message_id = ? AND round = ? AND sent = 0",
        (message_id, number),
    ).fetchone()
    if row is None:
        return ""
    db.execute(
        "UPDATE transit SET sent = 1, holder = '', carrier = ? WHERE message_id = ?",
        (carrier, message_id),
    )
    return str(row[0])


def put_back(db: sqlite3.Connection, ids: Sequence[str], times: Times, me: str) -> None:
    """Let messages be sent again, in a new round: dead letters that were replayed."""
    for message_id in ids:
        db.execute(
            "INSERT OR REPLACE INTO transit(message_id, round, sent, holder) VALUES (?, ?, 0, ?)",
            (message_id, _next_round(db, message_id, times), me),
        )


def leave(db: sqlite3.Connection, times: Times, me: str) -> list[str]:
    """Let go of all that this process holds; return the ids of those to be published anew.

    Those that were tried are, with how often: another host knows nothing of this file.
    """
    tried = [
        row[0]
        for row in db.execute(
            "SELECT t.message_id FROM transit AS t JOIN messages AS m USING (message_id) "
            "WHERE t.holder = ? AND t.sent = 1 AND m.state IN (1, 2) AND m.delivery > 0",
            (me,),
        )
    ]
    db.execute("UPDATE transit SET holder = '' WHERE holder = ? AND sent = 1", (me,))
    for message_id in tried:
        db.execute(
            "UPDATE transit SET sent = 0, holder = ?, round = ? WHERE message_id = ?",
            (me, _next_round(db, message_id, times), message_id),
        )
    return tried


def send_again(db: sqlite3.Connection, priority: Priority, times: Times, me: str) -> None:
    """Let all that lives be sent again: the subscription was made anew and holds nothing."""
    for row, message_id, state, delivery, leased_at in db.execute(
        "SELECT m.id, m.message_id, m.state, m.delivery, m.leased_at FROM messages AS m "
        "JOIN transit AS t USING (message_id) "
        "WHERE t.sent = 1 AND m.state IN (1, 2, 3) AND m.priority = ?",
        (priority,),
    ).fetchall():
        if state == LEASED:
            leasing.remember(db, row, delivery, leased_at)
            unlease(db, row)
        put_back(db, [message_id], times, me)


def tidy(db: sqlite3.Connection, times: Times, keep: float, *, drop_lost: bool) -> None:
    """Drop rounds that were over long ago, and messages that Pub/Sub does not keep any more either.

    The latter were finished by a host that could not say so.
    """
    before = times.wall - keep
    db.execute(
        "DELETE FROM finished WHERE message_id IN "
        "(SELECT message_id FROM finished WHERE at <= ? LIMIT ?)",
        (before, AT_ONCE),
    )
    if not drop_lost:
        return
    lost = db.execute(
        "SELECT m.id FROM messages AS m JOIN transit AS t USING (message_id) "
        "WHERE m.state IN (1, 2) AND t.sent = 1 AND t.holder = '' AND t.round <= ? AND m.due <= ? "
        "LIMIT ?",
        (before * 1e6, before, AT_ONCE),
    ).fetchall()
    db.executemany("DELETE FROM attempts WHERE message = ?", lost)
    db.executemany("DELETE FROM messages WHERE id = ?", lost)


def is_finished(db: sqlite3.Connection, message_id: str, number: int) -> bool:
    """Whether this round of a message, or a later one, is over."""
    row = db.execute("SELECT round FROM finished WHERE message_id = ?", (message_id,)).fetchone()
    return row is not None and bool(number <= row[0])


def round_of(db: sqlite3.Connection, message_id: str) -> int:
    """Return the round that a message is in, or was in last; 0 if none is known."""
    (number,) = db.execute(
        "SELECT max((SELECT coalesce(max(round), 0) FROM transit WHERE message_id = :m), "
        "(SELECT coalesce(max(round), 0) FROM finished WHERE message_id = :m))",
        {"m": message_id},
    ).fetchone()
    return int(number)


def set_finished(db: sqlite3.Connection, message_id: str, number: int, times: Times) -> None:
    """Note that a round is over: its late copies are not done again."""
    db.execute("INSERT OR REPLACE INTO finished VALUES (?, ?, ?)", (message_id, number, times.wall))


def _next_round(db: sqlite3.Connection, message_id: str, times: Times) -> int:
    """Return a round above all that this message has had."""
    return max(round(times.wall * 1e6), round_of(db, message_id) + 1)


def unlease(db: sqlite3.Connection, row: int) -> None:
    """Let a message wait again that was leased."""
    db.execute(
        "UPDATE messages SET state = 1, token = NULL, lease_until = NULL WHERE id = ?", (row,)
    )
