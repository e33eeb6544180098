"""Stores what was answered behind the answer's back: in bounded memory, never in its way.

Answers go into a buffer and from there, many at a time, into the `ResultStore`. While the store
fails they wait; what finds the buffer full is counted and let go, for the caller has the answer
already. Who asks faster than a disk writes, as a batch does, waits for `room` before it asks for
more. Jobs of the queue do not come here: their results are stored before they are acked.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

import structlog
from liner.v1 import enrichment_pb2

from liner_server.context import RequestContext
from liner_server.errors import LinerError
from liner_server.ports import ResultStore

_log = structlog.get_logger()
_AT_ONCE = 64
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0
_LOG_EVERY = 10.0
_CROWDED = 0.25
"""From here on a batch is slowed: what others ask, and what is open already, still finds room."""
_ANSWERS_SHARE = 0.5
"""What answers to be given again may fill: to lose one costs time, to lose a result costs it."""


class RecorderObserver(Protocol):
    """Who is told what became of the notes; the telemetry in the running service."""

    def recorded(self, kind: str, outcome: str, count: int) -> None:
        """So many "result" or "answer" notes were "stored", or "dropped"."""


@dataclass(frozen=True, kw_only=True)
class RecorderLimits:
    """How much may wait, and for how long."""

    entries: int = 4096
    size_bytes: int = 32 << 20
    patience: timedelta = timedelta(minutes=10)
    """How long one note is tried again while the store fails."""

    find: timedelta = timedelta(seconds=0.25)
    """How long an answer waits for the store to say whether it is known."""

    close: timedelta = timedelta(seconds=1)
    """How long a stopping server goes on writing."""

    slow: timedelta = timedelta(seconds=5)
    """A store that has not written for so long counts as one that fails."""


@dataclass(frozen=True, kw_only=True)
class _Note:
    kind: str
    write: Callable[[], Awaitable[object]]
    size: int
    until: float


class StoreRecorder:
    """A recorder and an answer shelf on one `ResultStore`: `async with StoreRecorder(...)`.

    What waits when the context ends is written, as far as `limits.close` goes.
    """

    def __init__(
        self,
        store: ResultStore,
        *,
        observer: RecorderObserver,
        store_results: bool,
        answers_kept: timedelta,
        limits: RecorderLimits | None = None,
    ) -> None:
        """Take whether results are stored, and how long answers may be given again; 0: never."""
        self._store = store
        self._observer = observer
        self._store_results = store_results
        self._answers_kept = answers_kept
        self._limits = limits or RecorderLimits()
        self._notes: deque[_Note] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._failing = False
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_log = -_LOG_EVERY

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None  # noqa: S101 - set on entering
        self._closing.set()
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.close.total_seconds()):
                await asyncio.shield(self._task)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for note in self._notes:
            self._drop(note, "the server stopped")

    def record(
        self, answer: enrichment_pb2.EnrichMetadataResponse, context: RequestContext
    ) -> None:
        """Store a worked-out answer as an enrichment that is DONE, soon."""
        if not self._store_results:
            return
        enrichment = enrichment_pb2.Enrichment(
            enrichment_id=answer.processing.enrichment_id,
            state=enrichment_pb2.ENRICHMENT_STATE_DONE,
            answer=answer,
            request_id=context.request_id,
        )
        # The audio would fill the buffer, and no store keeps it.
        if enrichment.answer.track.audio.WhichOneof("content") == "inline":
            enrichment.answer.track.audio.ClearField("inline")
        enrichment.create_time.GetCurrentTime()
        enrichment.update_time.CopyFrom(enrichment.create_time)
        self._take("result", lambda: self._store.put(enrichment), enrichment.ByteSize())

    @property
    def crowded(self) -> bool:
        """Whether `room` would wait."""
        return not self._roomy.is_set() and not self._failing

    async def room(self) -> None:
        """Return once there is room for more; see the port.

        At once while the store fails: that may last, and answers matter more than their records.
        """
        if not self.crowded:
            return
        try:
            async with asyncio.timeout(self._limits.slow.total_seconds()):
                await self._roomy.wait()
        except TimeoutError:
            self._fails(True)

    def keep(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        """Keep an answer to be given again, soon; see `Shelf`."""
        if self._answers_kept:
            self._take("answer", lambda: self._store.keep_answer(key, answer), answer.ByteSize())

    async def find(self, key: bytes) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Return a kept answer, or None; a slow or broken store knows none. See `Shelf`."""
        if not self._answers_kept:
            return None
        try:
            async with asyncio.timeout(self._limits.find.total_seconds()):
                return await self._store.find_answer(
                    key, since=datetime.now(UTC) - self._answers_kept
                )
        except (LinerError, TimeoutError) as error:
            self._complain("known answers cannot be looked up", error)
            return None

    def _take(self, kind: str, write: Callable[[], Awaitable[object]], size: int) -> None:
        until = time.monotonic() + self._limits.patience.total_seconds()
        note = _Note(kind=kind, write=write, size=size, until=until)
        if self._closing.is_set() or self._fills(_ANSWERS_SHARE if kind == "answer" else 1, size):
            self._drop(note, "too many wait to be stored")
            return
        self._notes.append(note)
        self._size += size
        if self._fills(_CROWDED):
            self._roomy.clear()
        self._wake.set()

    def _fills(self, share: float, size: int = 1) -> bool:
        """Whether a note of this size does not fit into this share of the buffer."""
        return (
            len(self._notes) >= self._limits.entries * share
            or self._size + size > self._limits.size_bytes * share
        )

    def _fails(self, failing: bool) -> None:
        self._failing = failing
        if failing or not self._fills(_CROWDED):
            self._roomy.set()

    async def _write_all(self) -> None:
        wait = _FIRST_WAIT
        while self._notes or not self._closing.is_set():
            self._wake.clear()
            if not self._notes:
                await self._wake.wait()
                continue
            if await self._write_some():
                wait = _FIRST_WAIT
            else:
                # Stopping does not wait for a store that fails: one more try, at once.
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._closing.wait()
                        await asyncio.sleep(_FIRST_WAIT)
                wait = min(wait * 2, _LONGEST_WAIT)

    async def _write_some(self) -> bool:
        """Write the oldest notes; those that the store may take later stay. True if none does."""
        # They stay in the buffer, and count, until it is known what became of them.
        batch = [self._notes[i] for i in range(min(_AT_ONCE, len(self._notes)))]
        outcomes = await asyncio.gather(*(note.write() for note in batch), return_exceptions=True)
        again: list[_Note] = []
        for note, outcome in zip(batch, outcomes, strict=True):
            self._notes.popleft()
            self._size -= note.size
            if not isinstance(outcome, BaseException):
                self._observer.recorded(note.kind, "stored", 1)
                continue
            self._complain("an answer was not stored", outcome)
            if _may_pass(outcome) and time.monotonic() < note.until:
                again.append(note)
            else:
                self._drop(note, "the store refused it")
        self._notes.extendleft(reversed(again))
        self._size += sum(note.size for note in again)
        self._fails(bool(again))
        return not again

    def _drop(self, note: _Note, why: str) -> None:
        self._observer.recorded(note.kind, "dropped", 1)
        self._complain(f"an answer is given up: {why}", None)

    def _complain(self, what: str, error: BaseException | None) -> None:
        now = time.monotonic()
        if now - self._last_log >= _LOG_EVERY:
            self._last_log = now
            _log.warning(what, error=repr(error) if error else "", waiting=len(self._notes))


def _may_pass(error: BaseException) -> bool:
    """Whether the store may take the note later: an operator mends a disk without a restart."""
    return isinstance(error, LinerError) and (error.retryable or error.reason == "DISK_READ_ONLY")
