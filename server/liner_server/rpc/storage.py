"""StorageService on the wire: frames in order, checksums, pages."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import google_crc32c
import grpc
import structlog
from liner.v1 import storage_pb2, storage_pb2_grpc

from liner_server.context import current
from liner_server.errors import DataLossError, InvalidRequestError
from liner_server.ports import CleanUp, ObjectStore, Upload
from liner_server.rpc.storage_checks import (
    check_own,
    check_request_id,
    check_signing,
    check_spec,
    check_upload_id,
    own_id,
)
from liner_server.rpc.storage_pages import page_of

_log = structlog.get_logger()
MAX_CHUNK_BYTES = 1 << 20
_DEFAULT_CHUNK_BYTES = 1 << 19
_MIN_CHUNK_BYTES = 16 << 10
_SHA256 = re.compile(r"([0-9a-fA-F]{64})?")
_DEFAULT_EXPIRY = timedelta(minutes=15)

_Context = grpc.aio.ServicerContext[Any, Any]


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    """Answers StorageService from one `ObjectStore`."""

    def __init__(self, objects: ObjectStore, clean_up: CleanUp) -> None:
        self._objects = objects
        self._clean_up = clean_up

    async def Upload(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[storage_pb2.UploadRequest], context: _Context
    ) -> storage_pb2.UploadResponse:
        """Store one object from a stream of frames."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("request") != "spec":
            raise InvalidRequestError.of("spec", "must be the first message", "SPEC_FIRST")
        spec = first.spec
        check_spec(spec)
        principal = current.get().principal
        check_own(principal, spec.object_name)
        spec.upload_id = own_id(principal, spec.upload_id)
        async with self._objects.upload(spec) as upload:
            async for frame in request_iterator:
                match frame.WhichOneof("request"):
                    case "chunk":
                        await _append(upload, frame.chunk)
                    case "finish":
                        if not _SHA256.fullmatch(frame.finish.sha256):
                            raise InvalidRequestError.of(
                                "finish.sha256", "64 hex digits, or empty", "SHA256_FORMAT"
                            )
                        stored = await upload.commit(frame.finish)
                        return storage_pb2.UploadResponse(object=stored)
                    case "spec":
                        raise InvalidRequestError.of("spec", "is sent once", "SPEC_TWICE")
                    case _:
                        raise InvalidRequestError.of("request", "is empty", "REQUIRED")
        raise InvalidRequestError.of(
            "finish", "the stream ended without it; nothing was stored", "FINISH_MISSING"
        )

    async def QueryUpload(  # noqa: N802 - the contract's name
        self, request: storage_pb2.QueryUploadRequest, context: _Context
    ) -> storage_pb2.QueryUploadResponse:
        """Say how much of a broken upload is kept."""
        check_upload_id(request.upload_id, "upload_id")
        principal = current.get().principal
        return await self._objects.query_upload(own_id(principal, request.upload_id))

    async def Download(  # noqa: N802 - the contract's name
        self, request: storage_pb2.DownloadRequest, context: _Context
    ) -> AsyncIterator[storage_pb2.DownloadResponse]:
        """Send an object's facts and bytes."""
        if request.offset < 0 or request.length < 0:
            raise InvalidRequestError.of("offset", "must not be negative", "NUMBER_RANGE")
        check_own(current.get().principal, request.object_name)
        size = request.chunk_bytes or _DEFAULT_CHUNK_BYTES
        reading = self._objects.read(
            request.object_name,
            offset=request.offset,
            length=request.length,
            chunk_bytes=min(max(size, _MIN_CHUNK_BYTES), MAX_CHUNK_BYTES),
            if_generation_match=_optional(request),
        )
        async with reading as (stored, chunks):
            yield storage_pb2.DownloadResponse(object=stored)
            offset, crc = request.offset, 0
            async for data in chunks:
                crc = google_crc32c.extend(crc, data)
                chunk = storage_pb2.Chunk(
                    offset=offset, data=data, crc32c=google_crc32c.value(data)
                )
                yield storage_pb2.DownloadResponse(chunk=chunk)
                offset += len(data)
            yield storage_pb2.DownloadResponse(
                finish=storage_pb2.DownloadFinish(
                    crc32c=crc,
                    size_bytes=offset - request.offset,
                )
            )

    async def Delete(  # noqa: N802 - the contract's name
        self, request: storage_pb2.DeleteRequest, context: _Context
    ) -> storage_pb2.DeleteResponse:
        """Delete an object."""
        check_request_id(request.request_id, "request_id")
        call = current.get()
        check_own(call.principal, request.object_name)
        await self._objects.delete(request.object_name, if_generation_match=_optional(request))
        _log.info(
            "object deleted",
            object=request.object_name,
            principal=call.principal.name,
            request_id=request.request_id or call.request_id,
        )
        return storage_pb2.DeleteResponse()

    async def GetSignedURL(  # noqa: N802 - the contract's name
        self, request: storage_pb2.GetSignedURLRequest, context: _Context
    ) -> storage_pb2.GetSignedURLResponse:
        """Make a URL that allows one thing."""
        call = current.get()
        check_signing(request, call.principal)
        if not request.HasField("expiry"):
            request.expiry.FromTimedelta(_DEFAULT_EXPIRY)
        response = await self._objects.signed_url(request)
        _log.info(
            "URL signed",
            object=request.object_name,
            operation=storage_pb2.SignedURLOperation.Name(request.operation),
            principal=call.principal.name,
            request_id=call.request_id,
        )
        return response

    async def RunCleanup(  # noqa: N802 - the contract's name
        self, request: storage_pb2.RunCleanupRequest, context: _Context
    ) -> storage_pb2.RunCleanupResponse:
        """Delete what has had its time."""
        check_request_id(request.request_id, "request_id")
        return await self._clean_up(
            dry_run=request.validate_only,
            force=request.force,
            principal=current.get().principal.name,
        )

    async def StatObject(  # noqa: N802 - the contract's name
        self, request: storage_pb2.StatObjectRequest, context: _Context
    ) -> storage_pb2.StatObjectResponse:
        """Return an object's facts."""
        check_own(current.get().principal, request.object_name)
        return storage_pb2.StatObjectResponse(object=await self._objects.stat(request.object_name))

    async def ListObjects(  # noqa: N802 - the contract's name
        self, request: storage_pb2.ListObjectsRequest, context: _Context
    ) -> storage_pb2.ListObjectsResponse:
        """List objects a page at a time."""
        return await page_of(self._objects, request, current.get().principal)


async def _append(upload: Upload, chunk: storage_pb2.Chunk) -> None:
    # Each look at the field is a copy of a megabyte.
    data = chunk.data
    if len(data) > MAX_CHUNK_BYTES:
        raise InvalidRequestError.of(
            "chunk.data", f"at most {MAX_CHUNK_BYTES} bytes a chunk", "CHUNK_TOO_LARGE"
        )
    if chunk.offset != upload.offset:
        raise InvalidRequestError.of(
            "chunk.offset", f"{upload.offset} is next, not {chunk.offset}", "CHUNK_OUT_OF_ORDER"
        )
    if chunk.HasField("crc32c") and chunk.crc32c != google_crc32c.value(data):
        raise DataLossError(
            f"the chunk at {chunk.offset} does not match its checksum", reason="CHECKSUM"
        )
    await upload.append(data)


def _optional(request: storage_pb2.DownloadRequest | storage_pb2.DeleteRequest) -> int | None:
    return request.if_generation_match if request.HasField("if_generation_match") else None
