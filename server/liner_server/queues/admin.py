"""What operators see of the queue's file and change in it: counts, pages, replay, purge."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from liner.v1 import queue_admin_pb2

from liner_server.core.enums import Priority
from liner_server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
)
from liner_server.queues.rota import WEIGHTS
from liner_server.queues.rows import (
    COLUMNS,
    DEAD,
    DELAYED,
    LEASED,
    Row,
    Times,
    job_of,
    messages_of,
    where,
)

IN_A_PAGE = 50
MOST_IN_A_PAGE = 500
MOST_BYTES_IN_A_PAGE = 2 << 20
"""A page with long lyrics or histories ends early, so that it fits into a message."""

MOST_IDS_TOLD = 100
AT_ONCE = 500
"""Dead letters changed in one transaction: others wait no longer than that."""


def stats(db: sqlite3.Connection, times: Times) -> queue_admin_pb2.QueueStats:
    """Return the counts."""
    counts = {
        (priority, state): n
        for priority, state, n in db.execute("SELECT priority, state, n FROM counts")
    }
    # Due, or their lease over, but nobody has looked yet: few, for the housekeeping looks every
    # second.
    late = {
        (priority, state): n
        for priority, state, n in db.execute(
            "SELECT priority, 2, count(*) FROM messages WHERE state = 2 AND due <= ? "
            "GROUP BY priority UNION ALL "
            "SELECT priority, 3, count(*) FROM messages WHERE state = 3 AND lease_until <= ? "
            "GROUP BY priority",
            (times.wall, times.steady),
        )
    }
    paused, by, reason = db.execute(
        "SELECT paused, paused_by, pause_reason FROM control"
    ).fetchone()
    found = queue_admin_pb2.QueueStats(paused=bool(paused), paused_by=by, pause_reason=reason)
    found.read_time.FromMicroseconds(round(times.wall * 1e6))
    for priority in WEIGHTS:
        due, lost = late.get((priority, 2), 0), late.get((priority, 3), 0)
        entry = found.priorities.add(
            priority=priority,
            ready=counts[priority, 1] + due + lost,
            delayed=counts[priority, 2] - due,
            leased=counts[priority, 3] - lost,
            dead=counts[priority, 4],
        )
        oldest = _oldest(db, priority, times)
        if oldest is not None:
            entry.oldest_ready_age.FromMicroseconds(round(max(0.0, times.wall - oldest) * 1e6))
    return found


def _oldest(db: sqlite3.Connection, priority: Priority, times: Times) -> float | None:
    """Return since when the oldest due message is due: the least of each tenant's first."""
    row = db.execute(
        "WITH RECURSIVE t(tenant) AS (SELECT min(tenant) FROM messages "
        "WHERE state = 1 AND priority = :p UNION ALL SELECT (SELECT min(tenant) FROM messages "
        "WHERE state = 1 AND priority = :p AND tenant > t.tenant) FROM t "
        "WHERE t.tenant IS NOT NULL LIMIT 10000) "
        "SELECT min((SELECT min(due) FROM messages WHERE state = 1 AND priority = :p "
        "AND tenant = t.tenant)) FROM t",
        {"p": priority},
    ).fetchone()
    late = db.execute(
        "SELECT min(due) FROM messages WHERE priority = ? "
        "AND (state = 2 AND due <= ? OR state = 3 AND lease_until <= ?)",
        (priority, times.wall, times.steady),
    ).fetchone()
    known = [due for due in (row[0], late[0]) if due is not None]
    return min(known, default=None)


def get(db: sqlite3.Connection, message_id: str, times: Times) -> queue_admin_pb2.QueueMessage:
    """Return one message."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM messages WHERE message_id = ?",  # noqa: S608
        (message_id,),
    ).fetchone()
    if row is None:
        raise NotFoundError(
            f"no message {message_id}", reason="MESSAGE_NOT_FOUND", resource=message_id
        )
    return messages_of(db, [row], times)[0]


def living(
    db: sqlite3.Connection, request: queue_admin_pb2.ListMessagesRequest, times: Times
) -> queue_admin_pb2.ListMessagesResponse:
    """Return a page in the order of publication."""
    after = 0.0
    if request.page_token:
        (after,) = _token(request.page_token, "m", 1)
    dead = request.filter.state == DEAD
    condition, values = where(request.filter, times, dead=dead)
    rows = db.execute(
        f"SELECT {COLUMNS} FROM messages WHERE {condition} AND id > ? "  # noqa: S608
        "ORDER BY id LIMIT ?",
        (*values, int(after), _size(request.page_size) + 1),
    )
    page, messages, more = _page(db, rows, _size(request.page_size), times)
    return queue_admin_pb2.ListMessagesResponse(
        messages=messages, next_page_token=f"m-{page[-1][0]}" if more else ""
    )


def dead(
    db: sqlite3.Connection, request: queue_admin_pb2.ListDeadLettersRequest, times: Times
) -> queue_admin_pb2.ListDeadLettersResponse:
    """Return a page of dead letters, the newest death first."""
    condition, values = where(request.filter, times, dead=True)
    behind = ""
    if request.page_token:
        died, row = _token(request.page_token, "d", 2)
        behind = " AND (died, id) < (?, ?)"
        values += [died, int(row)]
    rows = db.execute(
        f"SELECT {COLUMNS} FROM messages WHERE {condition}{behind} "  # noqa: S608
        "ORDER BY died DESC, id DESC LIMIT ?",
        (*values, _size(request.page_size) + 1),
    )
    page, messages, more = _page(db, rows, _size(request.page_size), times)
    return queue_admin_pb2.ListDeadLettersResponse(
        messages=messages,
        next_page_token=f"d-{float(page[-1][12]).hex()}-{page[-1][0]}" if more else "",
    )


def _size(asked: int) -> int:
    return min(asked, MOST_IN_A_PAGE) if asked > 0 else IN_A_PAGE


def _page(
    db: sqlite3.Connection, rows: sqlite3.Cursor, size: int, times: Times
) -> tuple[list[Row], list[queue_admin_pb2.QueueMessage], bool]:
    """Return a page's rows and messages, and whether there are more."""
    page: list[Row] = []
    taken = 0
    more = False
    for row in rows:
        taken += len(row[10])
        if len(page) == size or (page and taken > MOST_BYTES_IN_A_PAGE):
            more = True
            break
        page.append(row)
    messages = messages_of(db, page, times)
    # Their histories may be longer than they are.
    taken = 0
    for place, message in enumerate(messages):
        taken += message.ByteSize()
        if place and taken > MOST_BYTES_IN_A_PAGE:
            return page[:place], messages[:place], True
    return page, messages, more


def _token(token: str, kind: str, parts: int) -> list[float]:
    found, *values = token.split("-")
    try:
        numbers = [float.fromhex(value) if "x" in value else int(value) for value in values]
    except (ValueError, OverflowError):
        numbers = []
    # Anybody may have made the token up: SQLite's whole numbers end at 2 ** 63.
    if found != kind or len(numbers) != parts or not all(0 <= n < 2**63 for n in numbers):
        raise InvalidRequestError.of(
            "page_token", "is none that this listing gave out", "PAGE_TOKEN"
        )
    return numbers


def retry(db: sqlite3.Connection, message_id: str, times: Times) -> queue_admin_pb2.QueueMessage:
    """Make a delayed message due."""
    message = get(db, message_id, times)
    if message.state == LEASED:
        raise FailedPreconditionError(
            f"{message_id} is leased", reason="MESSAGE_LEASED", resource=message_id
        )
    if message.state == DEAD:
        raise FailedPreconditionError(
            f"{message_id} is a dead letter: replay it", reason="MESSAGE_DEAD", resource=message_id
        )
    if message.state == DELAYED:
        db.execute(
            "UPDATE messages SET state = 1, due = ? WHERE message_id = ?", (times.wall, message_id)
        )
    return get(db, message_id, times)


@dataclass(kw_only=True)
class Choice:
    """The dead letters that a request chooses, taken oldest first and a part at a time."""

    request: queue_admin_pb2.ReplayDeadLettersRequest | queue_admin_pb2.PurgeDeadLettersRequest
    times: Times
    """When it was made."""
    until: float | None = None
    """When the last one had died as the first part was taken: what dies later is not chosen. Not
    by the clock, which may have been set back since."""
    after: tuple[float, int] = (0.0, 0)
    count: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        self.ids: list[str] = []

    def next_part(self, db: sqlite3.Connection) -> list[Row]:
        """Return row id, message id, body and time of death of the next ones."""
        if self.until is None:
            (self.until,) = db.execute("SELECT max(died) FROM messages WHERE state = 4").fetchone()
        condition, values = where(self.request.filter, self.times, dead=True)
        named = list(dict.fromkeys(self.request.message_ids))
        if named:
            condition += f" AND message_id IN ({','.join('?' * len(named))})"
            values += named
        return db.execute(
            f"SELECT id, message_id, body, died FROM messages WHERE {condition} "  # noqa: S608
            "AND (died, id) > (?, ?) AND died <= ? ORDER BY died, id LIMIT ?",
            (*values, *self.after, self.until, AT_ONCE),
        ).fetchall()

    def took(self, rows: Sequence[Row]) -> None:
        """Go on behind these."""
        self.ids = self._ids_with(rows)
        self.count += len(rows)
        self.done = len(rows) < AT_ONCE
        if rows:
            self.after = (rows[-1][3], rows[-1][0])

    def replayed(self, rows: Sequence[Row] = ()) -> queue_admin_pb2.ReplayDeadLettersResponse:
        """Return what a replay is answered that took these too."""
        return queue_admin_pb2.ReplayDeadLettersResponse(
            replayed_count=self.count + len(rows), message_ids=self._ids_with(rows)
        )

    def _ids_with(self, rows: Sequence[Row]) -> list[str]:
        return self.ids + [row[1] for row in rows[: MOST_IDS_TOLD - len(self.ids)]]


def look(db: sqlite3.Connection, choice: Choice) -> None:
    """Only count the next part."""
    choice.took(choice.next_part(db))


def purge(db: sqlite3.Connection, choice: Choice) -> list[Row]:
    """Delete the next part."""
    rows = choice.next_part(db)
    ids = [(row[0],) for row in rows]
    db.executemany("DELETE FROM attempts WHERE message = ?", ids)
    db.executemany("DELETE FROM messages WHERE id = ?", ids)
    return rows


def replay(db: sqlite3.Connection, choice: Choice, times: Times) -> list[Row]:
    """Put the next part back."""
    request = choice.request
    if not isinstance(request, queue_admin_pb2.ReplayDeadLettersRequest):
        raise TypeError(request)
    rows = choice.next_part(db)
    for number, (row, _, body, _) in enumerate(rows, choice.count):
        due = times.wall
        if request.max_per_second > 0:
            due = choice.times.wall + number / request.max_per_second
        state = 1 if due <= times.wall else 2
        db.execute(
            "UPDATE messages SET state = ?, due = ?, delivery = 0, cause = 0, died = NULL, "
            "error = '' WHERE id = ?",
            (state, due, row),
        )
        if request.HasField("edited_job"):
            _edit(db, row, body, request.edited_job)
    if request.request_id and len(rows) < AT_ONCE:
        # With the last ones, so that no crash in between lets them be replayed once more.
        answer(db, request, choice.replayed(rows), times)
    return rows


def _edit(
    db: sqlite3.Connection, row: int, body: bytes, edited: queue_admin_pb2.EnrichmentJob
) -> None:
    """Let the edited job take the old one's place; who it is stays."""
    message_id, tenant, request_id, priority = db.execute(
        "SELECT message_id, tenant, request_id, priority FROM messages WHERE id = ?", (row,)
    ).fetchone()
    own = queue_admin_pb2.EnrichmentJob()
    own.CopyFrom(edited)
    own.job_id, own.tenant, own.request_id = message_id, tenant, request_id
    if own.priority not in WEIGHTS:
        old = job_of(body)
        own.priority = old.priority if old is not None and old.priority in WEIGHTS else priority
    db.execute(
        "UPDATE messages SET body = ?, priority = ?, track_id = ? WHERE id = ?",
        (own.SerializeToString(), own.priority, own.track.track_id, row),
    )


def answered(
    db: sqlite3.Connection, request: queue_admin_pb2.ReplayDeadLettersRequest
) -> queue_admin_pb2.ReplayDeadLettersResponse | None:
    """Return what a replay's request id was answered before, if it came before.

    Raises:
        AlreadyExistsError: it asked for something else then.

    """
    row = db.execute(
        "SELECT asked, answer FROM replayed WHERE request_id = ?", (request.request_id,)
    ).fetchone()
    if row is None:
        return None
    if row[0] != _asked(request):
        raise AlreadyExistsError(
            f"request id {request.request_id} asked for another replay before",
            reason="REQUEST_ID_REUSED",
        )
    return queue_admin_pb2.ReplayDeadLettersResponse.FromString(row[1])


def answer(
    db: sqlite3.Connection,
    request: queue_admin_pb2.ReplayDeadLettersRequest,
    response: queue_admin_pb2.ReplayDeadLettersResponse,
    times: Times,
) -> None:
    """Remember a replay's answer."""
    db.execute(
        "INSERT OR IGNORE INTO replayed VALUES (?, ?, ?, ?)",
        (request.request_id, _asked(request), response.SerializeToString(), times.wall),
    )


def _asked(request: queue_admin_pb2.ReplayDeadLettersRequest) -> bytes:
    return blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()


def pause(db: sqlite3.Connection, by: str, reason: str) -> None:
    """Stop handing out, unless it is stopped."""
    db.execute(
        "UPDATE control SET paused = 1, paused_by = ?, pause_reason = ? WHERE NOT paused",
        (by, reason),
    )


def resume(db: sqlite3.Connection) -> None:
    """Hand out again."""
    db.execute("UPDATE control SET paused = 0, paused_by = '', pause_reason = ''")


def paused(db: sqlite3.Connection) -> bool:
    """Whether nothing is handed out."""
    return bool(db.execute("SELECT paused FROM control").fetchone()[0])


def forget(db: sqlite3.Connection, times: Times, keep: float, *, drop_dead: bool) -> None:
    """Drop what has been kept long enough: dead letters, and request ids of jobs that are gone."""
    before = times.wall - keep
    if drop_dead:
        gone = db.execute(
            "SELECT id FROM messages WHERE state = 4 AND died <= ? LIMIT ?", (before, AT_ONCE)
        ).fetchall()
        db.executemany("DELETE FROM attempts WHERE message = ?", gone)
        db.executemany("DELETE FROM messages WHERE id = ?", gone)
    db.execute(
        "DELETE FROM requests WHERE (tenant, request_id) IN (SELECT tenant, request_id "
        "FROM requests AS r WHERE at <= ? AND NOT EXISTS (SELECT 1 FROM messages AS m "
        "WHERE m.message_id = r.message_id) LIMIT ?)",
        (before, AT_ONCE),
    )
    db.execute("DELETE FROM replayed WHERE at <= ?", (before,))
