"""Analytics in one SQLite file: a table a message, a column a field."""

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from google.protobuf.descriptor import FieldDescriptor
from liner.v1 import analytics_pb2

from liner_server.analytics import queries
from liner_server.core.rows import fill
from liner_server.ports_analytics import MESSAGES, AnyRow, Refused, Table, Tally, Window
from liner_server.sqlite_file import SqliteFile

_text = json.encoder.encode_basestring_ascii
"""`json.dumps` of a text, without what makes it general."""

_AT_ONCE = 2000
"""Rows that one commit deletes, and judgements read at a time."""

_TYPES = {
    FieldDescriptor.TYPE_STRING: "TEXT NOT NULL DEFAULT ''",
    FieldDescriptor.TYPE_INT64: "INTEGER NOT NULL DEFAULT 0",
    FieldDescriptor.TYPE_BOOL: "INTEGER NOT NULL DEFAULT 0",
    FieldDescriptor.TYPE_DOUBLE: "REAL NOT NULL DEFAULT 0",
}
_INDEXES = f"""
CREATE INDEX IF NOT EXISTS answers_of_experiments
  ON {Table.EXPERIMENTS}(experiment, time) WHERE variant <> '';
CREATE INDEX IF NOT EXISTS answers_by_time ON {Table.EXPERIMENTS}(time);
CREATE INDEX IF NOT EXISTS judgements_of_experiments ON {Table.OUTCOMES}(experiment, time);
CREATE INDEX IF NOT EXISTS judgements_by_time ON {Table.OUTCOMES}(time);
"""


def _columns(table: Table) -> Mapping[str, str]:
    """Return a table's columns and their types; repeated ones are JSON text."""
    return {
        field.name: "TEXT NOT NULL DEFAULT '[]'" if field.is_repeated else _TYPES[field.type]
        for field in MESSAGES[table].DESCRIPTOR.fields
    }


def _schema() -> str:
    made = []
    for table in Table:
        names = ", ".join(
            f"{name} {kind}{' PRIMARY KEY' if name == 'row_id' else ''}"
            for name, kind in _columns(table).items()
        )
        made.append(f"CREATE TABLE IF NOT EXISTS {table}({names}) WITHOUT ROWID;")
    return "\n".join(made)


class SqliteSink:
    """The `AnalyticsSink` of one file: `async with SqliteSink(path)`.

    A file of an older release gets the columns that are new.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _schema())

    async def __aenter__(self) -> Self:
        await self._file.__aenter__()
        try:
            await self._file.write(_migrate)
        except BaseException:
            await self._file.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._file.__aexit__(*error)

    async def insert(self, table: Table, rows: Sequence[AnyRow]) -> Sequence[Refused]:
        """Store rows; see the port."""
        columns = _columns(table)
        statement = (
            f"INSERT OR IGNORE INTO {table}({', '.join(columns)}) "  # noqa: S608 - names of ours
            f"VALUES ({', '.join('?' * len(columns))})"
        )
        refused = [Refused(i, "it has no row_id") for i, row in enumerate(rows) if not row.row_id]

        def work(db: sqlite3.Connection) -> None:
            # Turned into values here, in the file's own thread: on the event loop a full batch
            # would hold every answer up for milliseconds.
            db.executemany(statement, (_BINDERS[table](row) for row in rows if row.row_id))

        await self._file.write(work)
        return refused

    async def tally(self, window: Window, *, bins: bool = True) -> Tally:
        """Return the counts; see the port."""
        start, end = _micros(window.start), _micros(window.end)
        bound = {
            "experiment": window.experiment,
            "time_from": start,
            "time_before": end,
            "start": start,
            "width": max(1, round(window.width.total_seconds() * 1e6)),
        }
        # All of one state of the file.
        return await self._file.read(
            lambda db: queries.tally(lambda statement: _asked(db, statement, bound), bins=bins)
        )

    async def traffic(self) -> Sequence[analytics_pb2.TrafficRow]:
        """Return the changes of shares; see the port."""
        return await self._file.read(
            lambda db: queries.traffic_rows(list(_asked(db, queries.TRAFFIC, {})))
        )

    async def outcomes(self, *, start: datetime) -> AsyncIterator[analytics_pb2.OutcomeRow]:
        """Yield the judgements; see the port."""
        bound = {"time_from": _micros(start)}
        found = await self._file.read(lambda db: list(_asked(db, queries.OUTCOMES, bound)))
        for record in found:
            row = analytics_pb2.OutcomeRow()
            fill(row, {**record, "scores": json.loads(record["scores"])})
            yield row

    async def delete_before(self, time: datetime) -> int:
        """Delete old rows, some at a time; see the port."""
        bound, total = _micros(time), 0
        for table in (Table.EXPERIMENTS, Table.OUTCOMES):
            statement = (
                f"DELETE FROM {table} WHERE row_id IN "  # noqa: S608 - a name of ours
                f"(SELECT row_id FROM {table} WHERE time < ? LIMIT {_AT_ONCE})"
            )

            def work(db: sqlite3.Connection, statement: str = statement) -> int:
                return db.execute(statement, (bound,)).rowcount

            while deleted := await self._file.write(work, reclaims=True):
                total += deleted
        return total


def _migrate(db: sqlite3.Connection) -> None:
    """Add the columns that the file lacks, and the indexes."""
    for table in Table:
        found = {str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")}
        for name, kind in _columns(table).items():
            if name not in found:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    for statement in filter(str.strip, _INDEXES.split(";")):
        db.execute(statement)


class _Binder:
    """Turns rows of one table into the values of its columns; a row costs some microseconds."""

    def __init__(self, table: Table) -> None:
        fields = MESSAGES[table].DESCRIPTOR.fields
        # Nested rows come last in every message, as they do in the columns.
        self._scalars = attrgetter(*(field.name for field in fields if not field.is_repeated))
        self._nested = [
            (attrgetter(field.name), names, attrgetter(*names))
            for field in fields
            if field.message_type is not None
            for names in [[inner.name for inner in field.message_type.fields]]
        ]

    def __call__(self, row: AnyRow) -> tuple[Any, ...]:
        """Return the values in the order of the columns."""
        if isinstance(row, analytics_pb2.ExperimentRow):
            # Every answer has a dozen of these: by hand it takes a quarter of the time.
            parts = [
                f'{{"field": {_text(one.field)}, "confidence": {one.confidence!r}}}'
                for one in row.fields
            ]
            return (*self._scalars(row), f"[{', '.join(parts)}]")
        nested = [
            json.dumps([dict(zip(names, values(one), strict=True)) for one in entries(row)])
            for entries, names, values in self._nested
        ]
        return (*self._scalars(row), *nested)


_BINDERS = {table: _Binder(table) for table in Table}


def _asked(
    db: sqlite3.Connection, statement: str, bound: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    cursor = db.execute(queries.for_sqlite(statement), bound)
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def _micros(time: datetime) -> int:
    # Not by way of a float, which is off by some microseconds today.
    since = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
