"""Results in one SQLite file: a row a record, sorted by indexes.

enrichments   one row a record; what it is sorted and filtered by, and the record itself
reviews       which request ids have brought a review, and what it said
answers       answers that may be given again, by the question's key
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.core.enums import State
from liner_server.results import records
from liner_server.results.pages import Listing, Page, Ranks
from liner_server.sqlite_file import SqliteFile

_DONE = enrichment_pb2.ENRICHMENT_STATE_DONE
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS enrichments(
  enrichment_id TEXT PRIMARY KEY, state INT NOT NULL, todo INT NOT NULL, millionths INT NOT NULL,
  age INT NOT NULL, model TEXT NOT NULL, record BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS review_first
  ON enrichments(todo, millionths, age, enrichment_id) WHERE state = {_DONE};
CREATE INDEX IF NOT EXISTS review_first_by_model
  ON enrichments(model, todo, millionths, age, enrichment_id) WHERE state = {_DONE};
CREATE INDEX IF NOT EXISTS newest_first ON enrichments(age, enrichment_id);
CREATE TABLE IF NOT EXISTS reviews(
  enrichment_id TEXT NOT NULL, request_id TEXT NOT NULL, said BLOB NOT NULL,
  PRIMARY KEY (enrichment_id, request_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers(
  key BLOB PRIMARY KEY, kept INT NOT NULL, answer BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS answers_by_time ON answers(kept);
"""
_AT_ONCE = 200
"""Rows that one commit deletes: nobody waits long behind a clean-up."""

_UNFINISHED = (
    enrichment_pb2.ENRICHMENT_STATE_QUEUED,
    enrichment_pb2.ENRICHMENT_STATE_RUNNING,
)


_Asked: TypeAlias = tuple[bytes, int, "asyncio.Future[bytes | None]"]
"""A key, the oldest time an answer may be of, and who waits."""


class SqliteResultStore:
    """The `ResultStore` of one file, which other processes may use too:
    `async with SqliteResultStore(path)`.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._file = SqliteFile(path, _SCHEMA)
        self._now = now
        self._asked: list[_Asked] = []
        self._answering: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._file.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._file.__aexit__(*error)

    async def put(self, enrichment: enrichment_pb2.Enrichment) -> bool:
        """Store a record unless its id is taken; see the port."""

        def work(db: sqlite3.Connection) -> bool:
            existing = _found(db, enrichment.enrichment_id)
            record = records.to_store(enrichment, existing, self._micros())
            if record is not None:
                _write(db, record)
            return record is not None

        return await self._file.write(work)

    async def update_state(
        self, job_id: str, state: State, *, error: track_pb2.Error | None = None
    ) -> bool:
        """Say where a job stands; see the port."""

        def work(db: sqlite3.Connection) -> bool:
            existing = _found(db, job_id)
            record = records.moved(existing, job_id, state, error, self._micros())
            if record is not None:
                _write(db, record)
            return record is not None

        return await self._file.write(work)

    async def get(self, enrichment_id: str) -> enrichment_pb2.Enrichment:
        """Return a record; see the port."""
        record = await self._file.read(lambda db: _found(db, enrichment_id))
        if record is None:
            raise records.not_found(enrichment_id)
        return record

    async def list(
        self, request: enrichment_pb2.ListEnrichmentsRequest
    ) -> enrichment_pb2.ListEnrichmentsResponse:
        """Return a page of records; see the port."""
        listing = Listing.of(request)

        def work(db: sqlite3.Connection) -> enrichment_pb2.ListEnrichmentsResponse:
            page = Page(listing)
            for (packed,) in db.execute(*_query(listing)):
                if not page.add(_unpacked(packed)):
                    break
            return page.response

        return await self._file.read(work)

    async def add_review(
        self, enrichment_id: str, review: enrichment_pb2.Review, *, request_id: str = ""
    ) -> enrichment_pb2.Enrichment:
        """Add an editor's judgement; see the port."""

        def work(db: sqlite3.Connection) -> enrichment_pb2.Enrichment:
            existing = _found(db, enrichment_id)
            before = db.execute(
                "SELECT said FROM reviews WHERE enrichment_id = ? AND request_id = ?",
                (enrichment_id, request_id),
            ).fetchone()
            if existing is not None and before is not None:
                records.check_repeated(before[0], review, request_id)
                return existing
            record = records.reviewed(existing, enrichment_id, review)
            if request_id:
                db.execute(
                    "INSERT INTO reviews VALUES (?, ?, ?)",
                    (enrichment_id, request_id, records.judgement(review)),
                )
            _write(db, record)
            return record

        return await self._file.write(work)

    async def delete_before(self, time: datetime) -> int:
        """Delete old records; see the port."""
        limit = Listing.age_of(time)

        def work(db: sqlite3.Connection) -> int:
            gone = db.execute(
                "DELETE FROM enrichments WHERE enrichment_id IN (SELECT enrichment_id FROM "
                "enrichments WHERE age > ? AND state NOT IN (?, ?) LIMIT ?) "
                "RETURNING enrichment_id",
                (limit, *_UNFINISHED, _AT_ONCE),
            ).fetchall()
            db.executemany("DELETE FROM reviews WHERE enrichment_id = ?", gone)
            return len(gone)

        return await self._delete(work)

    async def find_answer(
        self, key: bytes, *, since: datetime
    ) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Return a kept answer; see the port."""
        # Every track of a batch asks: those that ask at the same moment share one way there.
        asked: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._asked.append((key, records.micros(since), asked))
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer_all())
        packed = await asked
        if packed is None:
            return None
        return records.unpacked(enrichment_pb2.EnrichMetadataResponse, packed)

    async def keep_answer(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        """Keep an answer; see the port."""

        def work(db: sqlite3.Connection) -> None:
            packed = records.packed(answer)
            db.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, self._micros(), packed)
            )

        await self._file.write(work)

    async def forget_answers_before(self, time: datetime) -> int:
        """Forget old answers; see the port."""
        limit = records.micros(time)
        return await self._delete(
            lambda db: (
                db.execute(
                    "DELETE FROM answers WHERE rowid IN "
                    "(SELECT rowid FROM answers WHERE kept < ? LIMIT ?)",
                    (limit, _AT_ONCE),
                ).rowcount
            )
        )

    async def _answer_all(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            try:
                found = await self._file.read(partial(_answers, asked=asked))
            except Exception as error:
                for _, _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, _, future), packed in zip(asked, found, strict=True):
                if not future.done():
                    future.set_result(packed)
        self._answering = None

    async def _delete(self, work: Callable[[sqlite3.Connection], int]) -> int:
        total = 0
        while gone := await self._file.write(work, reclaims=True):
            total += gone
        return total

    def _micros(self) -> int:
        return round(self._now() * 1_000_000)


def _answers(db: sqlite3.Connection, asked: Iterable[_Asked]) -> Sequence[bytes | None]:
    query = "SELECT answer FROM answers WHERE key = ? AND kept >= ?"
    rows = [db.execute(query, (key, since)).fetchone() for key, since, _ in asked]
    return [row[0] if row is not None else None for row in rows]


def _found(db: sqlite3.Connection, enrichment_id: str) -> enrichment_pb2.Enrichment | None:
    row = db.execute(
        "SELECT record FROM enrichments WHERE enrichment_id = ?", (enrichment_id,)
    ).fetchone()
    return None if row is None else _unpacked(row[0])


def _write(db: sqlite3.Connection, record: enrichment_pb2.Enrichment) -> None:
    ranks = Ranks.of(record)
    packed = records.packed(record)
    db.execute(
        "INSERT INTO enrichments VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(enrichment_id) DO "
        "UPDATE SET state = excluded.state, todo = excluded.todo, "
        "millionths = excluded.millionths, age = excluded.age, model = excluded.model, "
        "record = excluded.record",
        (
            record.enrichment_id,
            record.state,
            ranks.todo,
            ranks.millionths,
            ranks.age,
            ranks.model,
            packed,
        ),
    )


def _unpacked(packed: bytes) -> enrichment_pb2.Enrichment:
    return records.unpacked(enrichment_pb2.Enrichment, packed)


def _query(listing: Listing) -> tuple[str, list[Any]]:
    """Return the statement that reads a list's records in order, and its values."""
    terms: list[str] = [f"state = {_DONE}"]
    values: list[Any] = []
    columns, index = "age, enrichment_id", "newest_first"
    if not listing.newest_first:
        columns = "todo, millionths, age, enrichment_id"
        index = "review_first_by_model" if listing.model else "review_first"
    for term, value in (
        ("todo = ?", listing.todo),
        ("model = ?", listing.model or None),
        ("age > ?", listing.least_age),
        ("age <= ?", listing.most_age),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    after = listing.after
    if listing.todo is not None and not listing.newest_first:
        # What is the same for all of them would keep the index from being read in order.
        columns, after = columns.removeprefix("todo, "), after[1:] if after else None
    if after is not None:
        terms.append(f"({columns}) > ({', '.join('?' * len(after))})")
        values.extend(after)
    # The index is named, so that no page is sorted from a million rows. Every part is written
    # here; what callers say is bound.
    query = (
        f"SELECT record FROM enrichments INDEXED BY {index} "  # noqa: S608
        f"WHERE {' AND '.join(terms)} ORDER BY {columns}"
    )
    return query, values
