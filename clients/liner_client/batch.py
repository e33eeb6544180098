"""Many tracks over one stream that outlives its connection."""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from datetime import timedelta
from typing import TypeAlias

import grpc
from google.rpc import code_pb2
from liner.v1 import enrichment_pb2, track_pb2

from liner_client.connection import Connection, new_request_id
from liner_client.errors import (
    FailedPreconditionError,
    LinerError,
    ResourceExhaustedError,
    UnavailableError,
    from_call,
)

BatchEvent: TypeAlias = (
    enrichment_pb2.BatchOpened
    | enrichment_pb2.BatchResult
    | enrichment_pb2.BatchProgress
    | enrichment_pb2.BatchSummary
)
"""What a batch tells: its terms (again after each resumption), results, progress, the summary."""

Items: TypeAlias = (
    AsyncIterable[tuple[str, track_pb2.Track]] | Iterable[tuple[str, track_pb2.Track]]
)
"""Pairs of item_id and track. An ordinary iterable must not block: it runs on the event loop."""

_Call: TypeAlias = """grpc.aio.StreamStreamCall[
    enrichment_pb2.BatchProcessRequest, enrichment_pb2.BatchProcessResponse
]"""

LINGER = timedelta(milliseconds=50)
"""How long an incomplete message waits for a slow source before it is sent as it is."""

MAX_MESSAGE_BYTES = 1024 * 1024
"""A message of items is sent before it grows past this, unless it is a single larger item."""

SILENCE = timedelta(seconds=60)
"""A stream that says nothing for so long is taken for dead: a live server reports progress."""

FEWEST_ATTEMPTS = 3
"""How often a stream is tried before it is given up; a batch that never opened gets no more."""


async def run_batch(
    connection: Connection,
    items: Items,
    *,
    config: enrichment_pb2.BatchConfig,
    chunk_items: int,
    resume_for: timedelta,
) -> AsyncGenerator[BatchEvent, None]:
    """Yield the events of one batch; every item is answered exactly once.

    Items are taken from the source only as results are taken from here, so neither side ever
    holds more than the items in flight and two messages.
    """
    batch = _Batch(connection, _Source(items), config, chunk_items)
    attempt = 0
    broken_since = 0.0
    try:
        while True:
            try:
                async with contextlib.aclosing(batch.stream()) as events:
                    async for event in events:
                        # Only a result counts: a server that dies of an item opens every time.
                        if isinstance(event, enrichment_pb2.BatchResult):
                            attempt = 0
                        yield event
                if batch.ended:
                    return
                # The server is draining, or ended the stream without a summary.
                error: LinerError = UnavailableError(
                    "the server stopped before the batch was done", code=code_pb2.UNAVAILABLE
                )
            except LinerError as failure:
                if not _passes(failure):
                    raise
                if failure.reason == "RESUME_POINT_LOST":
                    batch.begin_anew()
                error = failure
            if attempt == 0:
                broken_since = time.monotonic()
            attempt += 1
            if attempt >= FEWEST_ATTEMPTS and (
                not batch.opened or time.monotonic() - broken_since > resume_for.total_seconds()
            ):
                raise error
            await asyncio.sleep(_wait(attempt, error).total_seconds())
    finally:
        await batch.source.close()


def _passes(error: LinerError) -> bool:
    """Whether another stream may go on where this one broke."""
    if isinstance(error, ResourceExhaustedError):
        return error.retry_delay is not None
    if isinstance(error, FailedPreconditionError):
        # Another server, which never saw the batch; or one that has not yet missed this client.
        return error.reason in ("RESUME_POINT_LOST", "BATCH_OPEN")
    # A CANCELLED that this side did not cause is a connection that went away.
    return isinstance(error, UnavailableError) or error.code == code_pb2.CANCELLED


def _wait(attempt: int, error: LinerError) -> timedelta:
    # Full jitter: clients that lost the same server must not come back together.
    bound = min(timedelta(seconds=0.2) * (1 << min(attempt, 6)), timedelta(seconds=5))
    wait = bound * random.random()  # noqa: S311 - no secret
    return max(wait, error.retry_delay) if error.retry_delay else wait


class _Source:
    """The caller's items, read one ahead; outlives the streams that carry them."""

    def __init__(self, items: Items) -> None:
        self._items: AsyncIterator[tuple[str, track_pb2.Track]] = (
            aiter(items) if isinstance(items, AsyncIterable) else _each(items)
        )
        # Fetching goes on while a stream breaks: cancelling it would end a generator for good.
        self._fetching: asyncio.Task[enrichment_pb2.BatchItem | None] | None = None
        self._held: enrichment_pb2.BatchItem | None = None
        self._gathered: list[enrichment_pb2.BatchItem] = []
        """Of the next message, which the stream may break before it is sent."""
        self._exhausted = False

    async def take(self, limit: int) -> list[enrichment_pb2.BatchItem]:
        """Return up to `limit` items once a message is full or the source pauses; [] at its end.

        Whoever is cancelled while it waits loses nothing: the next call begins with what was
        there.
        """
        size = sum(item.ByteSize() for item in self._gathered)
        while len(self._gathered) < limit:
            if self._held is None and not await self._fetch(patient=not self._gathered):
                break
            assert self._held is not None  # noqa: S101 - tells the type checker
            size += self._held.ByteSize()
            if self._gathered and size > MAX_MESSAGE_BYTES:
                break
            self._gathered.append(self._held)
            self._held = None
        taken, self._gathered = self._gathered, []
        return taken

    async def _fetch(self, *, patient: bool) -> bool:
        if self._exhausted:
            return False
        if self._fetching is None:
            self._fetching = asyncio.ensure_future(self._next())
        timeout = None if patient else LINGER.total_seconds()
        done, _ = await asyncio.wait({self._fetching}, timeout=timeout)
        if not done:
            return False
        finished, self._fetching = self._fetching, None
        self._held = finished.result()
        self._exhausted = self._held is None
        return not self._exhausted

    async def _next(self) -> enrichment_pb2.BatchItem | None:
        try:
            item_id, track = await anext(self._items)
        except StopAsyncIteration:
            return None
        return enrichment_pb2.BatchItem(item_id=item_id, track=track)

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
        if isinstance(self._items, AsyncGenerator):
            await self._items.aclose()


async def _each(
    items: Iterable[tuple[str, track_pb2.Track]],
) -> AsyncGenerator[tuple[str, track_pb2.Track], None]:
    for item in items:
        yield item


class _Batch:
    """What is known of a batch across the streams that carry it."""

    def __init__(
        self,
        connection: Connection,
        source: _Source,
        config: enrichment_pb2.BatchConfig,
        chunk_items: int,
    ) -> None:
        self.source = source
        self.opened = False
        self.ended = False
        self._failure: Exception | None = None
        self._connection = connection
        self._config = enrichment_pb2.BatchConfig()
        self._config.CopyFrom(config)
        # Named by the client, so that a batch can be resumed whose opening was never answered.
        self._config.batch_id = config.batch_id or str(uuid.uuid4())
        self._chunk = chunk_items
        self._window = chunk_items
        self._unanswered: dict[str, enrichment_pb2.BatchItem] = {}
        self._answered = asyncio.Event()

    def begin_anew(self) -> None:
        """Go on as a new batch: only what is unanswered is sent, so nothing is answered twice."""
        self._config.batch_id = str(uuid.uuid4())
        self._config.resume_after = 0

    async def stream(self) -> AsyncGenerator[BatchEvent, None]:
        """Yield the events of one stream until it ends, well or not."""
        request_id = new_request_id()
        call = self._connection.enrichment.BatchProcess(
            metadata=self._connection.metadata(request_id)
        )
        writer: asyncio.Task[None] | None = None
        summary: enrichment_pb2.BatchSummary | None = None
        replays = 0
        try:
            await call.write(enrichment_pb2.BatchProcessRequest(config=self._config))
            while True:
                response = await self._read(call, writer)
                if response is None:
                    break
                kind = response.WhichOneof("response")
                if kind == "opened":
                    self.opened = True
                    replays = response.opened.resumed
                    self._window = max(1, response.opened.max_in_flight) + 2 * self._chunk
                    yield response.opened
                elif kind == "results":
                    for result in response.results.results:
                        self._config.resume_after = result.sequence
                        replays -= 1
                        # After a resumption an answer may come twice; the caller sees one.
                        if self._unanswered.pop(result.item_id, None) is not None:
                            yield result
                            self._answered.set()
                elif kind == "progress":
                    yield response.progress
                elif kind == "summary":
                    summary = response.summary
                elif kind == "draining":
                    break
                # What was answered before the break arrives first; only the rest is sent again.
                if writer is None and self.opened and replays <= 0:
                    writer = asyncio.ensure_future(self._write_all(call))
        except grpc.aio.AioRpcError as failure:
            if summary is None:
                raise from_call(failure, request_id=request_id) from None
        finally:
            if writer is not None:
                writer.cancel()
                await asyncio.wait({writer})
            call.cancel()
        if summary is not None:
            self.ended = True
            yield summary

    async def _read(
        self,
        call: _Call,
        writer: asyncio.Task[None] | None,
    ) -> enrichment_pb2.BatchProcessResponse | None:
        """Return the next message, None at the end; raise what the caller's source raised."""
        reading = asyncio.ensure_future(call.read())
        watched: set[asyncio.Task[None] | asyncio.Task[object]] = {reading}
        try:
            if writer is not None and not writer.done():
                watched.add(writer)
            limit = asyncio.get_running_loop().time() + SILENCE.total_seconds()
            while not reading.done():
                if self._failure is not None:
                    raise self._failure
                if writer is not None and writer.done():
                    watched.discard(writer)
                remaining = limit - asyncio.get_running_loop().time()
                if remaining <= 0:
                    raise UnavailableError(
                        f"the server said nothing for {SILENCE.total_seconds():g} s",
                        code=code_pb2.UNAVAILABLE,
                    )
                await asyncio.wait(watched, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            response = reading.result()
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
        if isinstance(response, enrichment_pb2.BatchProcessResponse):
            return response
        return None

    async def _write_all(self, call: _Call) -> None:
        """Send what is unanswered, then what the source yields, then half-close."""
        again = list(self._unanswered.values())
        try:
            # The reader learns why a stream broke; here it means that nothing more can be sent.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for items in _messages(again, self._chunk):
                    await _send(call, items)
                while items := await self._take():
                    await _send(call, items)
                await call.done_writing()
        except Exception as failure:
            self._failure = failure

    async def _take(self) -> list[enrichment_pb2.BatchItem]:
        """Return the next message's items once they fit among those that may be open."""
        while len(self._unanswered) + self._chunk > self._window:
            self._answered.clear()
            await self._answered.wait()
        items = await self.source.take(self._chunk)
        for item in items:
            if item.item_id in self._unanswered:
                raise ValueError(f"item_id {item.item_id!r} was sent twice")
            self._unanswered[item.item_id] = item
        return items


def _messages(
    items: list[enrichment_pb2.BatchItem], chunk: int
) -> Iterator[list[enrichment_pb2.BatchItem]]:
    """Yield the items in messages of bounded count and size."""
    message: list[enrichment_pb2.BatchItem] = []
    size = 0
    for item in items:
        size += item.ByteSize()
        if message and (len(message) == chunk or size > MAX_MESSAGE_BYTES):
            yield message
            message, size = [], item.ByteSize()
        message.append(item)
    if message:
        yield message


async def _send(call: _Call, items: list[enrichment_pb2.BatchItem]) -> None:
    message = enrichment_pb2.BatchItems(items=items)
    await call.write(enrichment_pb2.BatchProcessRequest(items=message))
