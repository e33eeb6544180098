"""A small real gRPC server that behaves as the contract says, and breaks when told to.

It answers batches and keeps objects in memory. The client's tests use it where the real server
could not be made to fail at a chosen message.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from liner.v1 import (
    enrichment_pb2,
    enrichment_pb2_grpc,
    storage_pb2,
    storage_pb2_grpc,
    track_pb2,
)


def rich_status(code: int, reason: str, message: str, *details: Message) -> grpc.Status:
    """Return a status as Liner's server sends it."""
    status = status_pb2.Status(code=code, message=message)
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain="liner"), *details):
        status.details.add().Pack(detail)
    return rpc_status.to_status(status)


def unavailable() -> grpc.Status:
    """Return the status of a server that is going away."""
    return rich_status(code_pb2.UNAVAILABLE, "SHUTTING_DOWN", "the server is stopping")


@dataclass(kw_only=True)
class StreamPlan:
    """How one batch stream ends, where it does not end well."""

    results: int
    """Results sent before it."""

    drain: bool = False
    """With a draining message; else by an abort."""

    lose: int = 0
    """Results finished but not sent before it, to be replayed."""

    forget: bool = False
    """Whether the batch is forgotten after it, as by another server."""


@dataclass
class StreamLog:
    """What one batch stream received."""

    config: enrichment_pb2.BatchConfig
    messages: list[list[str]] = field(default_factory=list)

    @property
    def items(self) -> list[str]:
        """Ids in the order received."""
        return [item_id for message in self.messages for item_id in message]


class StubEnrichment(enrichment_pb2_grpc.EnrichmentServiceServicer):
    """Answers each track with its title in capitals; a track called "bad" fails."""

    def __init__(self) -> None:
        self.plans: deque[StreamPlan] = deque()
        self.streams: list[StreamLog] = []
        self.max_in_flight = 4
        self.refusals: deque[grpc.Status] = deque()
        """Answers to the next calls, before any is answered well."""
        self.calls: list[dict[str, Any]] = []
        self.hold = False
        """Whether calls wait for ever, as behind a full queue."""
        self.batch_issues: list[enrichment_pb2.BatchIssue] = []
        """What every summary says of the items together."""
        self._finished: dict[str, list[enrichment_pb2.BatchResult]] = {}

    async def EnrichMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer one track."""
        await self._admit(context)
        return answer(request.track)

    async def ValidateMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Find fault with titles in capitals."""
        await self._admit(context)
        return judgement(request.track)

    async def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Name the one model there is."""
        await self._admit(context)
        model = enrichment_pb2.Model(name="embedded", ready=True)
        return enrichment_pb2.ListModelsResponse(models=[model])

    async def _admit(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.calls.append(metadata)
        context.set_trailing_metadata((("liner-request-id", metadata["liner-request-id"]),))
        if self.refusals:
            await context.abort_with_status(self.refusals.popleft())
        if self.hold:
            await asyncio.Event().wait()

    async def BatchProcess(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        """Answer items in order, `max_in_flight` read ahead, as the stream's plan has it."""
        if self.refusals:
            await context.abort_with_status(self.refusals.popleft())
        config = (await anext(requests)).config
        log = StreamLog(config)
        self.streams.append(log)
        plan = self.plans.popleft() if self.plans else None
        known = self._finished.get(config.batch_id)
        if config.resume_after and known is None:
            status = rich_status(code_pb2.FAILED_PRECONDITION, "RESUME_POINT_LOST", "unknown batch")
            await context.abort_with_status(status)
        finished = self._finished.setdefault(config.batch_id, [])
        missed = finished[config.resume_after :]
        yield enrichment_pb2.BatchProcessResponse(
            opened=enrichment_pb2.BatchOpened(
                batch_id=config.batch_id, max_in_flight=self.max_in_flight, resumed=len(missed)
            )
        )
        for result in missed:
            yield _results([result])
        async for response in self._answers(requests, log, finished, plan):
            yield response
        if plan is None:
            summary = enrichment_pb2.BatchSummary(
                received=len(finished), compared=len(finished), batch_issues=self.batch_issues
            )
            yield enrichment_pb2.BatchProcessResponse(summary=summary)
            return
        if plan.forget:
            del self._finished[config.batch_id]
        if plan.drain:
            draining = enrichment_pb2.BatchDraining(last_sequence=len(finished))
            yield enrichment_pb2.BatchProcessResponse(draining=draining)
        else:
            await context.abort_with_status(unavailable())

    async def _answers(
        self,
        requests: AsyncIterator[Any],
        log: StreamLog,
        finished: list[enrichment_pb2.BatchResult],
        plan: StreamPlan | None,
    ) -> AsyncIterator[Any]:
        sent = lost = 0
        if plan is not None and sent == plan.results and not plan.lose:
            return
        async for request in requests:
            log.messages.append([item.item_id for item in request.items.items])
            for item in request.items.items:
                result = enrichment_pb2.BatchResult(
                    item_id=item.item_id, sequence=len(finished) + 1
                )
                if item.track.title == "bad":
                    result.error.code = code_pb2.INVALID_ARGUMENT
                    result.error.reason = "AUDIO_UNSUPPORTED"
                    result.error.message = "not audio"
                else:
                    if log.config.HasField("validate_profile"):
                        result.validated.CopyFrom(judgement(item.track))
                    else:
                        result.enriched.CopyFrom(answer(item.track))
                finished.append(result)
                if plan is not None and sent == plan.results:
                    lost += 1
                else:
                    yield _results([result])
                    sent += 1
                if plan is not None and (sent, lost) == (plan.results, plan.lose):
                    return
            yield enrichment_pb2.BatchProcessResponse(
                progress=enrichment_pb2.BatchProgress(finished=len(finished))
            )


def judgement(track: track_pb2.Track) -> enrichment_pb2.ValidateMetadataResponse:
    """Return the stub's one rule: no title in capitals."""
    response = enrichment_pb2.ValidateMetadataResponse(confidence=1)
    if track.title.isupper():
        response.issues.add(
            rule_id="TITLE_CAPS", field="title", severity=enrichment_pb2.SEVERITY_ERROR
        )
    return response


def answer(track: track_pb2.Track) -> enrichment_pb2.EnrichMetadataResponse:
    """Return what the stub says of a track."""
    response = enrichment_pb2.EnrichMetadataResponse(track=track)
    response.track.title = track.title.upper()
    result = response.fields.add(field="bpm", value="120", confidence=0.95)
    result.decision = track_pb2.DECISION_FILLED
    result.source = track_pb2.SOURCE_MEASURED
    return response


def _results(results: list[enrichment_pb2.BatchResult]) -> enrichment_pb2.BatchProcessResponse:
    return enrichment_pb2.BatchProcessResponse(results=enrichment_pb2.BatchResults(results=results))


class StubStorage(storage_pb2_grpc.StorageServiceServicer):
    """Keeps objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        """Names of objects whose bytes were sent."""
        self.offsets: list[int] = []
        """Where each transfer began."""
        self.break_after: deque[int] = deque()
        """Chunks after which the next transfers break."""
        self.corrupt = False
        """Whether downloads flip a byte."""
        self.page_size = 2
        self.before_commit: Callable[[str], None] = lambda name: None
        """Called before an upload is made visible, to race it."""
        self._partial: dict[str, bytearray] = {}

    async def Upload(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        """Store one object."""
        spec = (await anext(requests)).spec
        self.uploads.append(spec.object_name)
        data = self._partial.setdefault(spec.upload_id, bytearray())
        limit = self.break_after.popleft() if self.break_after else None
        chunks = 0
        async for request in requests:
            if request.HasField("finish"):
                assert request.finish.sha256 == hashlib.sha256(data).hexdigest()
                assert request.finish.crc32c == google_crc32c.value(bytes(data))
                break
            chunk = request.chunk
            if not chunks:
                self.offsets.append(chunk.offset)
            assert chunk.offset == len(data)
            assert chunk.crc32c == google_crc32c.value(chunk.data)
            data += chunk.data
            chunks += 1
            if chunks == limit:
                await context.abort_with_status(unavailable())
        self.before_commit(spec.object_name)
        if spec.HasField("if_generation_match") and spec.object_name in self.objects:
            status = rich_status(code_pb2.ABORTED, "GENERATION_MISMATCH", "there is one")
            await context.abort_with_status(status)
        self.objects[spec.object_name] = bytes(data)
        return storage_pb2.UploadResponse(object=self._facts(spec.object_name))

    async def QueryUpload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say how much of an upload is kept."""
        kept = len(self._partial[request.upload_id])
        return storage_pb2.QueryUploadResponse(persisted_size=kept)

    async def StatObject(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return an object's facts."""
        await self._require(request.object_name, context)
        return storage_pb2.StatObjectResponse(object=self._facts(request.object_name))

    async def Download(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Send an object in chunks of 1 KiB."""
        await self._require(request.object_name, context)
        self.offsets.append(request.offset)
        yield storage_pb2.DownloadResponse(object=self._facts(request.object_name))
        data = self.objects[request.object_name][request.offset :]
        limit = self.break_after.popleft() if self.break_after else None
        for number, start in enumerate(range(0, len(data), 1024), 1):
            block = data[start : start + 1024]
            crc32c = google_crc32c.value(block)
            if self.corrupt:
                block = bytes([block[0] ^ 1]) + block[1:]
            chunk = storage_pb2.Chunk(offset=request.offset + start, data=block, crc32c=crc32c)
            yield storage_pb2.DownloadResponse(chunk=chunk)
            if number == limit:
                await context.abort_with_status(unavailable())
        finish = storage_pb2.DownloadFinish(crc32c=google_crc32c.value(data), size_bytes=len(data))
        yield storage_pb2.DownloadResponse(finish=finish)

    async def ListObjects(self, request: Any, context: Any) -> Any:  # noqa: N802
        """List objects, two a page."""
        names = sorted(n for n in self.objects if n.startswith(request.prefix))
        start = int(request.page_token or 0)
        end = start + self.page_size
        return storage_pb2.ListObjectsResponse(
            objects=[self._facts(name) for name in names[start:end]],
            next_page_token=str(end) if end < len(names) else "",
        )

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Delete an object."""
        await self._require(request.object_name, context)
        del self.objects[request.object_name]
        return storage_pb2.DeleteResponse()

    async def _require(self, name: str, context: Any) -> None:
        if name not in self.objects:
            await context.abort_with_status(
                rich_status(code_pb2.NOT_FOUND, "OBJECT_NOT_FOUND", f"no object {name}")
            )

    def _facts(self, name: str) -> storage_pb2.StoredObject:
        data = self.objects[name]
        return storage_pb2.StoredObject(
            object_name=name,
            size_bytes=len(data),
            generation=1,
            crc32c=google_crc32c.value(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )


@dataclass
class Stub:
    """A running stub server."""

    address: str
    enrichment: StubEnrichment
    storage: StubStorage


@asynccontextmanager
async def running_stub(*, options: Sequence[tuple[str, Any]] = ()) -> AsyncIterator[Stub]:
    """Serve on a free loopback port for as long as the context is open."""
    server = grpc.aio.server(options=list(options))
    # What the client's tests do not call answers UNIMPLEMENTED, as generated.
    enrichment, storage = StubEnrichment(), StubStorage()  # type: ignore[abstract]
    enrichment_pb2_grpc.add_EnrichmentServiceServicer_to_server(enrichment, server)  # type: ignore[no-untyped-call,unused-ignore]
    storage_pb2_grpc.add_StorageServiceServicer_to_server(storage, server)  # type: ignore[no-untyped-call,unused-ignore]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Stub(f"127.0.0.1:{port}", enrichment, storage)
    finally:
        await server.stop(None)
