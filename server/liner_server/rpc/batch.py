"""One batch stream: items in, results out, never more open than agreed.

A reader task takes items and waits for a free place before it takes the next, so a fast sender is
slowed by HTTP/2's own flow control. A place is free again when its result was handed to gRPC,
which waits while the client does not read. So memory holds `max_in_flight` items, whatever the
client does. It also waits while the records of answers are far behind, so that none is given up.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from google.rpc import code_pb2
from liner.v1 import enrichment_pb2

from liner_server.context import RequestContext
from liner_server.core.enricher import Enricher
from liner_server.errors import (
    DeadlineError,
    FailedPreconditionError,
    InvalidRequestError,
    LinerError,
    ResourceExhaustedError,
)
from liner_server.rpc import requests
from liner_server.rpc.batch_records import BatchRecord, BatchRecords
from liner_server.rpc.batch_totals import BatchTotals

_log = structlog.get_logger()
_MAX_RESULTS_A_MESSAGE = 50
_MAX_MESSAGE_BYTES = 1 << 20
_MAX_ITEMS = 1_000_000
"""Ids of a batch are remembered, to refuse doubles; more items are another batch."""

Requests = AsyncIterator[enrichment_pb2.BatchProcessRequest]
Responses = AsyncIterator[enrichment_pb2.BatchProcessResponse]


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What one stream may ask of the server."""

    max_in_flight: int
    item_timeout: timedelta
    progress_interval: timedelta = timedelta(seconds=1)
    drain: timedelta = timedelta(seconds=7)
    """Time that open items get after the server was asked to stop."""


class BatchRunner:
    """Runs batch streams through the shared `Enricher` and knows how to stop them all."""

    def __init__(self, enricher: Enricher, limits: BatchLimits, records: BatchRecords) -> None:
        self._enricher = enricher
        self._limits = limits
        self._records = records
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Let running streams finish what is open, tell their clients where to resume, and end."""
        self._draining.set()

    async def run(self, incoming: Requests, context: RequestContext, *, enabled: bool) -> Responses:
        """Yield one stream's responses.

        Raises:
            LinerError: batches are not enabled, the stream broke the protocol, or it cannot be
                resumed.

        """
        config = await _config(incoming)
        # Not before: a client that is refused while it still sends may read INTERNAL instead.
        if not enabled:
            raise FailedPreconditionError(
                "ENABLE_BATCH_PROCESSING is off", reason="BATCH_PROCESSING_OFF"
            )
        record, missed = self._records.open(config, context.principal)
        stream = _Stream(
            enricher=self._enricher,
            config=config,
            limits=self._limits,
            context=context,
            record=record,
            draining=self._draining,
        )
        try:
            async for response in stream.responses(incoming, missed):
                yield response
        finally:
            self._records.close(record)
            await stream.stop()


async def _config(incoming: Requests) -> enrichment_pb2.BatchConfig:
    first = await anext(aiter(incoming), None)
    if first is None or first.WhichOneof("request") != "config":
        raise InvalidRequestError.of("config", "must be the first message", "CONFIG_FIRST")
    requests.check(requests.config_violations(first.config))
    return first.config


class _Stream:
    """The state of one running stream."""

    def __init__(
        self,
        *,
        enricher: Enricher,
        config: enrichment_pb2.BatchConfig,
        limits: BatchLimits,
        context: RequestContext,
        record: BatchRecord,
        draining: asyncio.Event,
    ) -> None:
        self._enricher = enricher
        self._options = config.options
        self._context = context
        self._record = record
        self._draining = draining
        self._ordered = config.ordered
        self._drain_time = limits.drain
        wanted = config.max_in_flight or limits.max_in_flight
        self._max_in_flight = min(wanted, limits.max_in_flight)
        self._places = asyncio.Semaphore(self._max_in_flight)
        self._item_timeout = limits.item_timeout
        if config.HasField("item_timeout"):
            self._item_timeout = min(config.item_timeout.ToTimedelta(), timedelta(hours=1))
        interval = limits.progress_interval
        if config.HasField("progress_interval"):
            interval = config.progress_interval.ToTimedelta()
        self._interval = interval.total_seconds()

        self._profile = config.validate_profile if config.HasField("validate_profile") else None
        self._seen: set[str] = set()
        self._totals = BatchTotals(record.memory)
        self._in_flight: set[asyncio.Task[None]] = set()
        self._waiting: dict[int, enrichment_pb2.BatchResult] = {}
        self._next_in_order = 0
        self._ready: deque[enrichment_pb2.BatchResult] = deque()
        self._wake = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def responses(
        self, incoming: Requests, missed: list[enrichment_pb2.BatchResult]
    ) -> Responses:
        """Yield everything the client is to see, the summary or the draining notice last."""
        yield enrichment_pb2.BatchProcessResponse(
            opened=enrichment_pb2.BatchOpened(
                batch_id=self._record.batch_id,
                max_in_flight=self._max_in_flight,
                resumed=len(missed),
            )
        )
        for start in range(0, len(missed), _MAX_RESULTS_A_MESSAGE):
            yield _results(missed[start : start + _MAX_RESULTS_A_MESSAGE])
        self._reading = asyncio.create_task(self._read(incoming))
        self._reading.add_done_callback(lambda _: self._wake.set())
        async with _waking(self._draining, self._wake):
            async for response in self._work():
                yield response

    async def _work(self) -> Responses:
        assert self._reading is not None  # noqa: S101 - set by the only caller
        next_progress = time.monotonic() + self._interval
        drain_until: float | None = None
        while True:
            while self._ready:
                yield _results(self._take())
            now = time.monotonic()
            if now >= next_progress:
                yield enrichment_pb2.BatchProcessResponse(
                    progress=self._totals.progress(self._in_flight)
                )
                next_progress = now + self._interval
            if self._reading.done() and not self._reading.cancelled():
                self._reading.result()
            if self._draining.is_set():
                if drain_until is None:
                    drain_until = now + self._drain_time.total_seconds()
                    self._reading.cancel()
                if not self._in_flight and not self._ready:
                    break
                if now >= drain_until:
                    # What is still open was not answered: the client sends it again elsewhere.
                    break
            elif self._reading.done() and not self._in_flight and not self._ready:
                break
            self._wake.clear()
            if self._ready:
                continue
            limit = next_progress if drain_until is None else min(next_progress, drain_until)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, limit - time.monotonic())):
                    await self._wake.wait()
        yield self._progress()
        if self._draining.is_set():
            yield enrichment_pb2.BatchProcessResponse(
                draining=enrichment_pb2.BatchDraining(
                    batch_id=self._record.batch_id, last_sequence=self._record.sequence
                )
            )
        else:
            yield enrichment_pb2.BatchProcessResponse(summary=await self._totals.summary())

    async def stop(self) -> None:
        """Cancel all that still runs and wait until it ended."""
        tasks = [*self._in_flight, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, incoming: Requests) -> None:
        async for request in incoming:
            match request.WhichOneof("request"):
                case "items":
                    if self._totals.cancelled:
                        continue
                    await self._take_in(request.items.items)
                case "cancel":
                    self._cancel(request.cancel.reason)
                    return
                case "config":
                    raise InvalidRequestError.of("config", "is sent once", "CONFIG_TWICE")
                case _:
                    raise InvalidRequestError.of("request", "is empty", "REQUIRED")

    async def _take_in(self, items: Sequence[enrichment_pb2.BatchItem]) -> None:
        if len(items) > requests.MAX_ITEMS_A_MESSAGE:
            raise InvalidRequestError.of(
                "items",
                f"{len(items)} items; at most {requests.MAX_ITEMS_A_MESSAGE} a message",
                "TOO_MANY_ITEMS",
            )
        for item in items:
            if self._record.answered(item.item_id):
                # Finished before the stream broke; its result was sent again when it resumed.
                continue
            if self._totals.received >= _MAX_ITEMS:
                raise ResourceExhaustedError(
                    f"a batch has at most {_MAX_ITEMS} items", reason="BATCH_TOO_LARGE"
                )
            await self._enricher.room()
            await self._places.acquire()
            position = self._totals.received
            self._totals.received += 1
            task = asyncio.create_task(self._do(item, position))
            self._in_flight.add(task)
            task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._wake.set()

    async def _do(self, item: enrichment_pb2.BatchItem, position: int) -> None:
        result = enrichment_pb2.BatchResult(item_id=item.item_id)
        try:
            requests.check(requests.item_violations(item, self._seen))
            self._seen.add(item.item_id)
            context = replace(
                self._context, request_id=f"{self._context.request_id}/{position}"
            ).until(self._item_timeout)
            await self._answer(item, context, result)
            self._totals.remember(position, item, result)
        except LinerError as error:
            result.error.CopyFrom(error.to_item_error())
        except asyncio.CancelledError:
            if not self._totals.cancelled:
                raise
            result.error.code = code_pb2.CANCELLED
            result.error.reason = "BATCH_CANCELLED"
            result.error.message = "the batch was cancelled"
        except Exception as error:
            _log.error("item failed", request_id=self._context.request_id, exc_info=error)
            result.error.code = code_pb2.INTERNAL
            result.error.reason = "INTERNAL"
            result.error.message = f"internal error; request id {self._context.request_id}"
        self._done(position, result)

    async def _answer(
        self,
        item: enrichment_pb2.BatchItem,
        context: RequestContext,
        result: enrichment_pb2.BatchResult,
    ) -> None:
        try:
            async with asyncio.timeout_at(context.deadline):
                if self._profile is not None:
                    judged = await self._enricher.validate(item.track, self._profile, context)
                    result.validated.CopyFrom(judged)
                    return
                answer = await self._enricher.enrich(
                    item.track, self._options, context, operation="batch"
                )
                result.enriched.CopyFrom(answer)
        except TimeoutError as error:
            raise DeadlineError("the item's time ran out", reason="ITEM_TIMEOUT") from error

    def _done(self, position: int, result: enrichment_pb2.BatchResult) -> None:
        if not self._ordered:
            self._ready.append(result)
            self._wake.set()
            return
        self._waiting[position] = result
        while self._next_in_order in self._waiting:
            self._ready.append(self._waiting.pop(self._next_in_order))
            self._next_in_order += 1
        self._wake.set()

    def _take(self) -> list[enrichment_pb2.BatchResult]:
        """Number and count the next results for one message, and free their places."""
        taken: list[enrichment_pb2.BatchResult] = []
        size = 0
        while self._ready and len(taken) < _MAX_RESULTS_A_MESSAGE and size < _MAX_MESSAGE_BYTES:
            result = self._ready.popleft()
            self._record.add(result)
            self._totals.count(result)
            size += result.ByteSize()
            taken.append(result)
            self._places.release()
        return taken

    def _progress(self) -> enrichment_pb2.BatchProcessResponse:
        return enrichment_pb2.BatchProcessResponse(progress=self._totals.progress(self._in_flight))

    def _cancel(self, reason: str) -> None:
        self._totals.cancelled = True
        _log.info("batch cancelled", batch_id=self._record.batch_id, reason=reason[:256])
        for task in self._in_flight:
            task.cancel()


def _results(results: list[enrichment_pb2.BatchResult]) -> enrichment_pb2.BatchProcessResponse:
    return enrichment_pb2.BatchProcessResponse(results=enrichment_pb2.BatchResults(results=results))


@asynccontextmanager
async def _waking(event: asyncio.Event, wake: asyncio.Event) -> AsyncIterator[None]:
    """Set `wake` as soon as `event` is set, for as long as the context is open."""

    async def forward() -> None:
        await event.wait()
        wake.set()

    task = asyncio.create_task(forward())
    try:
        yield
    finally:
        task.cancel()
