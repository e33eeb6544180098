"""Rows on their way to the backend: written to a journal at once, delivered later, many together.

    answered, put     one write to a local file; no answer waits for a backend
    backend up        delivered within a second
    backend down      they wait in the journal, a restart or kill -9 included, up to its bound
    past the bound    the newest are dropped, and counted
    refused           set aside in refused.jsonl, and counted as dropped
    spoilt on disk    passed over, and counted as dropped

Delivery is at least once; a row's id makes it count once.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol, Self

import structlog
from google.protobuf.message import DecodeError
from liner.v1 import analytics_pb2, enrichment_pb2

from liner_server.analytics.journal import Batch, Entry, Journal
from liner_server.context import RequestContext
from liner_server.core import rows
from liner_server.core.router import Plan
from liner_server.errors import LinerError
from liner_server.ports_analytics import MESSAGES, AnalyticsSink, AnyRow, Table

_log = structlog.get_logger()
_AT_ONCE = 200
"""Rows delivered together: few enough that putting them together holds nobody up."""

_LINGER = 0.5
"""Seconds that rows are collected for."""

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_LOG_EVERY = 30.0
_REFUSED_BYTES = 16 << 20
_ANSWER = 0
_TABLES = {1: Table.OUTCOMES, 2: Table.TRAFFIC}
_KINDS = {table: kind for kind, table in _TABLES.items()}


class BufferObserver(Protocol):
    """Who is told what became of rows; the telemetry in the running service."""

    def rows_counted(self, outcome: str, count: int) -> None:
        """So many rows were "stored", "spilled" (the backend was down) or "dropped"."""

    def rows_waiting(self, count: int) -> None:
        """So many rows are in the journal."""


class AnalyticsBuffer:
    """Takes rows for one `AnalyticsSink`: `async with AnalyticsBuffer(...)`."""

    def __init__(
        self,
        sink: AnalyticsSink,
        folder: Path,
        *,
        observer: BufferObserver,
        max_bytes: int = 1 << 30,
        plain_tracks: bool = False,
        close: timedelta = timedelta(seconds=2),
    ) -> None:
        """Take the folder of the journal, how many bytes of it may wait, and whether rows show
        track ids as they are. `close` is how long a stopping server goes on delivering.
        """
        self._sink = sink
        self._folder = folder
        self._journal = Journal(folder, max_bytes=max_bytes)
        self._observer = observer
        self._close = close
        self.track: Callable[[str], str] = str if plain_tracks else rows.track_hash
        """What a row shows for a track."""
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._down = False
        self._task: asyncio.Task[None] | None = None
        self._last_log = -_LOG_EVERY

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._journal.open)
        self._task = asyncio.create_task(self._deliver_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None  # noqa: S101 - set on entering
        self._stop.set()
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._close.total_seconds()):
                await asyncio.shield(self._task)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._journal.close()

    @property
    def waiting(self) -> int:
        """Rows that are not delivered yet."""
        return self._journal.waiting

    def answered(
        self,
        plan: Plan,
        answer: enrichment_pb2.EnrichMetadataResponse | None,
        context: RequestContext,
        *,
        operation: str,
        outcome: str,
        seconds: float,
    ) -> None:
        """Keep a row of an answer; never raises, for the answer is worth more."""
        try:
            head = rows.begun(
                plan,
                request_id=context.request_id,
                operation=operation,
                outcome=outcome,
                seconds=seconds,
            )
            body = rows.packed(answer) if answer is not None else b""
            self._take(_ANSWER, head, body)
        except Exception as error:
            self._observer.rows_counted("dropped", 1)
            self._complain("a row of analytics was not kept", error)

    def reviewed(
        self, enrichment: enrichment_pb2.Enrichment, review: enrichment_pb2.Review, request_id: str
    ) -> None:
        """Keep a row of each judgement of a review."""
        for row in rows.outcome_rows(enrichment, review, request_id=request_id, track=self.track):
            self.put(Table.OUTCOMES, row)

    def put(self, table: Table, row: AnyRow) -> bool:
        """Keep a row of a review or a change; False if there is no room for it."""
        return self._take(_KINDS[table], row.SerializeToString())

    def _take(self, kind: int, head: bytes, body: bytes = b"") -> bool:
        kept = self._journal.append(kind, head, body)
        if not kept:
            self._observer.rows_counted("dropped", 1)
            self._complain(
                "rows of analytics are dropped: too many wait, or the disk is full", None
            )
        elif self._down:
            self._observer.rows_counted("spilled", 1)
        self._wake.set()
        return kept

    async def _deliver_all(self) -> None:
        wait = _FIRST_WAIT
        while True:
            if not self._journal.waiting:
                if self._stop.is_set():
                    return
                self._observer.rows_waiting(0)
                self._wake.clear()
                await self._wake.wait()
            if self._journal.waiting < _AT_ONCE:
                await self._pause(_LINGER)
            try:
                await self._deliver_some()
            except Exception as error:
                # Whatever it is, the rows are still in the journal.
                self._complain("analytics cannot be delivered", error)
                if not self._down:
                    self._down = True
                    self._observer.rows_counted("spilled", self._journal.waiting)
                await asyncio.to_thread(self._journal.sync)
                self._observer.rows_waiting(self._journal.waiting)
                if self._stop.is_set():
                    return
                await self._pause(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
            else:
                self._down = False
                wait = _FIRST_WAIT
                self._observer.rows_waiting(self._journal.waiting)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until the server stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _deliver_some(self) -> None:
        """Deliver the oldest rows and forget them.

        Raises:
            LinerError: they wait.

        """
        found = await asyncio.to_thread(self._read)
        if found is None:
            return
        batch, tables = found
        stored = 0
        for table, made in tables.items():
            refused = await self._sink.insert(table, made)
            stored += len(made) - len(refused)
            if refused:
                told = [(table, made[one.index], one.reason) for one in refused]
                await asyncio.to_thread(self._set_aside, told)
                self._observer.rows_counted("dropped", len(refused))
        self._journal.done(batch)
        self._observer.rows_counted("stored", stored)
        if batch.lost:
            self._observer.rows_counted("dropped", batch.lost)

    def _read(self) -> tuple[Batch, dict[Table, list[AnyRow]]] | None:
        batch = self._journal.read(_AT_ONCE)
        if batch is None:
            return None
        tables: dict[Table, list[AnyRow]] = {}
        for entry in batch.entries:
            try:
                table, row = self._row(entry)
            except (KeyError, DecodeError) as error:
                # Of a newer release, perhaps: it must not hold up what is behind it.
                self._observer.rows_counted("dropped", 1)
                self._complain("an entry of the analytics journal cannot be read", error)
                continue
            tables.setdefault(table, []).append(row)
        return batch, tables

    def _row(self, entry: Entry) -> tuple[Table, AnyRow]:
        if entry.kind != _ANSWER:
            table = _TABLES[entry.kind]
            return table, MESSAGES[table].FromString(entry.head)
        row = analytics_pb2.ExperimentRow.FromString(entry.head)
        row.track = self.track(row.track)
        answer = (
            enrichment_pb2.EnrichMetadataResponse.FromString(entry.body) if entry.body else None
        )
        return Table.EXPERIMENTS, rows.completed(row, answer)

    def _set_aside(self, refused: Sequence[tuple[Table, AnyRow, str]]) -> None:
        """Keep rows that the backend never takes where an operator finds them."""
        path = self._folder / "refused.jsonl"
        self._complain(f"analytics refuses rows; they are in {path}: {refused[0][2]}", None)
        with suppress(OSError):
            if path.exists() and path.stat().st_size > _REFUSED_BYTES:
                return
            with path.open("a", encoding="utf-8") as file:
                for table, row, why in refused:
                    said = {"table": table, "reason": why, "row": rows.plain(row)}
                    file.write(json.dumps(said) + "\n")

    def _complain(self, what: str, error: BaseException | None) -> None:
        now = time.monotonic()
        if now - self._last_log >= _LOG_EVERY:
            self._last_log = now
            told = error.message if isinstance(error, LinerError) else repr(error) if error else ""
            _log.warning(what, error=told, waiting=self._journal.waiting)
