"""StorageService on the wire: frames in order, checksums, pages."""

import base64
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import google_crc32c
import grpc
from liner.v1 import storage_pb2, storage_pb2_grpc

from liner_server.errors import DataLossError, InvalidRequestError, UnimplementedError
from liner_server.ports import ObjectStore, Upload

MAX_CHUNK_BYTES = 1 << 20
_DEFAULT_CHUNK_BYTES = 1 << 19
_MIN_CHUNK_BYTES = 16 << 10
_DEFAULT_PAGE, _MAX_PAGE = 100, 1000
_MAX_METADATA_BYTES = 8 << 10
_MAX_METADATA = 32
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{0,128}")
_SHA256 = re.compile(r"([0-9a-fA-F]{64})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_REQUEST_ID = 128
_MAX_PAGE_BYTES = 3 << 20
"""gRPC clients receive 4 MiB unless told otherwise, and metadata alone may be 8 KiB an object."""

_Context = grpc.aio.ServicerContext[Any, Any]


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    """Answers StorageService from one `ObjectStore`."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def Upload(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[storage_pb2.UploadRequest], context: _Context
    ) -> storage_pb2.UploadResponse:
        """Store one object from a stream of frames."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("request") != "spec":
            raise InvalidRequestError.of("spec", "must be the first message", "SPEC_FIRST")
        spec = first.spec
        _check_spec(spec)
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
        if not request.upload_id or not _UPLOAD_ID.fullmatch(request.upload_id):
            raise _bad_upload_id("upload_id")
        return await self._objects.query_upload(request.upload_id)

    async def Download(  # noqa: N802 - the contract's name
        self, request: storage_pb2.DownloadRequest, context: _Context
    ) -> AsyncIterator[storage_pb2.DownloadResponse]:
        """Send an object's facts and bytes."""
        if request.offset < 0 or request.length < 0:
            raise InvalidRequestError.of("offset", "must not be negative", "NUMBER_RANGE")
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
        _check_request_id(request.request_id, "request_id")
        await self._objects.delete(request.object_name, if_generation_match=_optional(request))
        return storage_pb2.DeleteResponse()

    async def GetSignedURL(  # noqa: N802 - the contract's name
        self, request: storage_pb2.GetSignedURLRequest, context: _Context
    ) -> storage_pb2.GetSignedURLResponse:
        """Refuse: signed URLs are not part of this release."""
        raise UnimplementedError("GetSignedURL (signed URLs)")

    async def StatObject(  # noqa: N802 - the contract's name
        self, request: storage_pb2.StatObjectRequest, context: _Context
    ) -> storage_pb2.StatObjectResponse:
        """Return an object's facts."""
        return storage_pb2.StatObjectResponse(object=await self._objects.stat(request.object_name))

    async def ListObjects(  # noqa: N802 - the contract's name
        self, request: storage_pb2.ListObjectsRequest, context: _Context
    ) -> storage_pb2.ListObjectsResponse:
        """List objects a page at a time."""
        if request.page_size < 0:
            raise InvalidRequestError.of("page_size", "must not be negative", "NUMBER_RANGE")
        size = min(request.page_size or _DEFAULT_PAGE, _MAX_PAGE)
        after = _after(request.page_token, request.prefix)
        # One more than asked for tells whether there is another page.
        found = await self._objects.list(request.prefix, after=after, limit=size + 1)
        page = found[: _fitting(found[:size])]
        response = storage_pb2.ListObjectsResponse(objects=page)
        if len(found) > len(page):
            response.next_page_token = _token(request.prefix, page[-1].object_name)
        return response


def _fitting(found: Sequence[storage_pb2.StoredObject]) -> int:
    """How many of these fit into one message; at least one, which always fits."""
    total = 0
    for count, stored in enumerate(found):
        total += stored.ByteSize()
        if count and total > _MAX_PAGE_BYTES:
            return count
    return len(found)


async def _append(upload: Upload, chunk: storage_pb2.Chunk) -> None:
    if len(chunk.data) > MAX_CHUNK_BYTES:
        raise InvalidRequestError.of(
            "chunk.data", f"at most {MAX_CHUNK_BYTES} bytes a chunk", "CHUNK_TOO_LARGE"
        )
    if chunk.offset != upload.offset:
        raise InvalidRequestError.of(
            "chunk.offset", f"{upload.offset} is next, not {chunk.offset}", "CHUNK_OUT_OF_ORDER"
        )
    if chunk.HasField("crc32c") and chunk.crc32c != google_crc32c.value(chunk.data):
        raise DataLossError(
            f"the chunk at {chunk.offset} does not match its checksum", reason="CHECKSUM"
        )
    await upload.append(chunk.data)


def _check_spec(spec: storage_pb2.UploadSpec) -> None:
    if len(spec.content_type.encode()) > 256:
        raise InvalidRequestError.of("spec.content_type", "at most 256 bytes", "TEXT_TOO_LONG")
    if not _UPLOAD_ID.fullmatch(spec.upload_id):
        raise _bad_upload_id("spec.upload_id")
    _check_request_id(spec.request_id, "spec.request_id")
    if _CONTROL.search(spec.content_type) or any(
        not key or _CONTROL.search(key + value) for key, value in spec.metadata.items()
    ):
        # They become header lines in one backend and log lines in all.
        raise InvalidRequestError.of(
            "spec", "no empty key and no control character in type or pairs", "CONTROL_CHARACTER"
        )
    try:
        spec.custom_time.ToDatetime()
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError.of(
            "spec.custom_time", "is not a time from year 1 to 9999", "TIME_RANGE"
        ) from error
    if spec.size_bytes < 0 or spec.if_generation_match < 0:
        raise InvalidRequestError.of("spec", "numbers must not be negative", "NUMBER_RANGE")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in spec.metadata.items())
    if len(spec.metadata) > _MAX_METADATA or size > _MAX_METADATA_BYTES:
        raise InvalidRequestError.of(
            "spec.metadata",
            f"at most {_MAX_METADATA} pairs of together {_MAX_METADATA_BYTES} bytes",
            "METADATA_TOO_LARGE",
        )


def _check_request_id(request_id: str, field: str) -> None:
    if len(request_id) > _MAX_REQUEST_ID:
        raise InvalidRequestError.of(
            field, f"at most {_MAX_REQUEST_ID} characters", "TEXT_TOO_LONG"
        )


def _bad_upload_id(field: str) -> InvalidRequestError:
    return InvalidRequestError.of(
        field, "1 to 128 of A-Z a-z 0-9 - _ characters", "UPLOAD_ID_FORMAT"
    )


def _optional(request: storage_pb2.DownloadRequest | storage_pb2.DeleteRequest) -> int | None:
    return request.if_generation_match if request.HasField("if_generation_match") else None


def _token(prefix: str, last: str) -> str:
    check = google_crc32c.value(prefix.encode()).to_bytes(4, "big")
    return base64.urlsafe_b64encode(check + last.encode()).decode()


def _after(token: str, prefix: str) -> str:
    """The name that a page token says was last; the token belongs to its prefix."""
    if not token:
        return ""
    try:
        data = base64.urlsafe_b64decode(token.encode("ascii"))
        last = data[4:].decode()
    except ValueError:
        data, last = b"", ""
    if data[:4] != google_crc32c.value(prefix.encode()).to_bytes(4, "big") or not last:
        raise InvalidRequestError.of("page_token", "is not one this prefix was given", "PAGE_TOKEN")
    return last
