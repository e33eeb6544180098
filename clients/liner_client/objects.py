"""Audio objects: sent once, checked on the way, taken up again where the way broke."""

import asyncio
import hashlib
import mimetypes
import os
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import grpc
from google.rpc import code_pb2
from liner.v1 import storage_pb2

from liner_client.connection import Connection, new_request_id
from liner_client.errors import (
    ConflictError,
    DataLossError,
    LinerError,
    NotFoundError,
    UnavailableError,
    from_call,
)

CHUNK_BYTES = 512 * 1024
"""Bytes a message: large enough to be fast, small enough to keep memory low."""

ATTEMPTS = 3
"""How often a broken transfer is taken up before it is given up."""


@dataclass(frozen=True)
class FileDigest:
    """What names and checks the bytes of a local file."""

    size_bytes: int
    sha256: str
    crc32c: int


def digest(path: Path) -> FileDigest:
    """Return the digest of a file; blocks while it reads."""
    sha256 = hashlib.sha256()
    crc32c = 0
    size = 0
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            sha256.update(block)
            crc32c = google_crc32c.extend(crc32c, block)
            size += len(block)
    return FileDigest(size, sha256.hexdigest(), crc32c)


def content_name(found: FileDigest, path: Path, prefix: str = "") -> str:
    """Return the object name under which these bytes are kept once, whatever the file is called."""
    suffix = path.suffix.lower()
    return (
        f"{prefix}audio/{found.sha256}{suffix if re.fullmatch(r'[.][a-z0-9]{1,8}', suffix) else ''}"
    )


async def upload_file(
    connection: Connection,
    path: Path,
    object_name: str | None,
    *,
    content_type: str | None,
    if_generation_match: int | None,
    metadata: Mapping[str, str] | None = None,
    prefix: str = "",
) -> storage_pb2.StoredObject:
    """Return the stored object, sent now or there already under a name made of its content."""
    found = await asyncio.to_thread(digest, path)
    by_content = object_name is None
    spec = storage_pb2.UploadSpec(
        object_name=object_name or content_name(found, path, prefix),
        content_type=content_type or mimetypes.guess_type(path.name)[0] or "",
        size_bytes=found.size_bytes,
        upload_id=uuid.uuid4().hex,
        metadata=metadata,
    )
    if if_generation_match is not None:
        spec.if_generation_match = if_generation_match
    if by_content:
        try:
            return await stat(connection, spec.object_name)
        except NotFoundError:
            # Two that send the same bytes at once must not both write.
            spec.if_generation_match = 0
    try:
        return await _upload(connection, path, spec, found)
    except ConflictError:
        if not by_content:
            raise
        return await stat(connection, spec.object_name)


async def _upload(
    connection: Connection, path: Path, spec: storage_pb2.UploadSpec, found: FileDigest
) -> storage_pb2.StoredObject:
    for attempt in range(1, ATTEMPTS + 1):
        offset = 0
        try:
            if attempt > 1:
                kept = await _kept(connection, spec.upload_id)
                if kept.HasField("object"):
                    return kept.object
                offset = kept.persisted_size
            return await _upload_from(connection, path, spec, found, offset)
        except UnavailableError as error:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(_pause(attempt, error))
        except ConflictError as error:
            # The server has not noticed yet that the stream before this one broke.
            if error.reason != "UPLOAD_OPEN" or attempt in (1, ATTEMPTS):
                raise
            await asyncio.sleep(_pause(attempt, error))
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _kept(connection: Connection, upload_id: str) -> storage_pb2.QueryUploadResponse:
    """Return what the server still has of a broken upload; nothing when it forgot it."""
    try:
        return await connection.unary(
            connection.storage.QueryUpload, storage_pb2.QueryUploadRequest(upload_id=upload_id)
        )
    except NotFoundError:
        return storage_pb2.QueryUploadResponse()


async def _upload_from(
    connection: Connection,
    path: Path,
    spec: storage_pb2.UploadSpec,
    found: FileDigest,
    offset: int,
) -> storage_pb2.StoredObject:
    request_id = new_request_id()
    unread: list[OSError] = []

    async def messages() -> AsyncIterator[storage_pb2.UploadRequest]:
        try:
            async for message in frames():
                yield message
        except OSError as error:
            # The call itself only says that it was cancelled.
            unread.append(error)
            raise

    async def frames() -> AsyncIterator[storage_pb2.UploadRequest]:
        yield storage_pb2.UploadRequest(spec=spec)
        position = offset
        file = await asyncio.to_thread(path.open, "rb")
        try:
            file.seek(position)
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                chunk = storage_pb2.Chunk(
                    offset=position, data=data, crc32c=google_crc32c.value(data)
                )
                yield storage_pb2.UploadRequest(chunk=chunk)
                position += len(data)
        finally:
            file.close()
        finish = storage_pb2.UploadFinish(crc32c=found.crc32c, sha256=found.sha256)
        yield storage_pb2.UploadRequest(finish=finish)

    try:
        response = await connection.storage.Upload(
            messages(), metadata=connection.metadata(request_id)
        )
    except asyncio.CancelledError:
        if unread:
            raise unread[0] from None
        raise
    except grpc.aio.AioRpcError as failure:
        raise from_call(failure, request_id=request_id) from None
    return response.object


async def download(
    connection: Connection, object_name: str, *, offset: int, length: int
) -> AsyncGenerator[bytes, None]:
    """Yield the object's bytes, each block checked, going on where a connection broke."""
    request = storage_pb2.DownloadRequest(object_name=object_name, offset=offset, length=length)
    attempt = 0
    while True:
        attempt += 1
        try:
            async with aclosing(_download_once(connection, request)) as blocks:
                async for data in blocks:
                    yield data
                    attempt = 0
                    request.offset += len(data)
                    if length:
                        request.length -= len(data)
        except UnavailableError as error:
            if attempt >= ATTEMPTS:
                raise
            await asyncio.sleep(_pause(attempt + 1, error))
        else:
            return
        if length and not request.length:
            return


async def _download_once(
    connection: Connection, request: storage_pb2.DownloadRequest
) -> AsyncGenerator[bytes, None]:
    request_id = new_request_id()
    crc32c = size = 0
    finished = False
    # The caller moves the request on between messages; this stream was opened with a copy.
    opened = storage_pb2.DownloadRequest()
    opened.CopyFrom(request)
    call = connection.storage.Download(opened, metadata=connection.metadata(request_id))
    try:
        async for response in call:
            kind = response.WhichOneof("response")
            if kind == "object":
                # Bytes of two generations must never be put together.
                request.if_generation_match = response.object.generation
            elif kind == "chunk":
                data = response.chunk.data
                crc32c = google_crc32c.extend(crc32c, data)
                size += len(data)
                _check(
                    not response.chunk.HasField("crc32c")
                    or google_crc32c.value(data) == response.chunk.crc32c,
                    opened.object_name,
                    request_id,
                )
                yield data
            elif kind == "finish":
                finished = response.finish.size_bytes == size and response.finish.crc32c == crc32c
                _check(finished, opened.object_name, request_id)
    except grpc.aio.AioRpcError as failure:
        raise from_call(failure, request_id=request_id) from None
    finally:
        call.cancel()
    _check(finished, opened.object_name, request_id)


def _check(right: bool, object_name: str, request_id: str) -> None:
    if not right:
        raise DataLossError(
            f"the bytes of {object_name} do not match their checksum",
            code=code_pb2.DATA_LOSS,
            reason="CHECKSUM_MISMATCH",
            request_id=request_id,
        )


async def download_file(connection: Connection, object_name: str, path: Path) -> int:
    """Write the object to `path` and return its size; an earlier file stays until all is there."""
    partial = path.with_name(f".{path.name[:64]}.{uuid.uuid4().hex[:8]}")
    file = await asyncio.to_thread(partial.open, "xb")
    size = 0
    try:
        async with aclosing(download(connection, object_name, offset=0, length=0)) as blocks:
            async for data in blocks:
                await asyncio.to_thread(file.write, data)
                size += len(data)
        await asyncio.to_thread(_keep, file, partial, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        _discard(file, partial)
        raise
    return size


def _keep(file: BinaryIO, partial: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    partial.replace(path)


def _discard(file: BinaryIO, partial: Path) -> None:
    file.close()
    partial.unlink(missing_ok=True)


async def stat(connection: Connection, object_name: str) -> storage_pb2.StoredObject:
    """Return the object's facts; NotFoundError when there is none."""
    request = storage_pb2.StatObjectRequest(object_name=object_name)
    return (await connection.unary(connection.storage.StatObject, request)).object


async def sign(
    connection: Connection, request: storage_pb2.GetSignedURLRequest
) -> storage_pb2.GetSignedURLResponse:
    """Return a signed URL."""
    return await connection.unary(connection.storage.GetSignedURL, request)


async def list_objects(
    connection: Connection, prefix: str
) -> AsyncGenerator[storage_pb2.StoredObject, None]:
    """Yield all objects whose names begin with `prefix`, a page at a time."""
    request = storage_pb2.ListObjectsRequest(prefix=prefix, page_size=1000)
    while True:
        page = await connection.unary(connection.storage.ListObjects, request)
        for found in page.objects:
            yield found
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _pause(attempt: int, error: LinerError) -> float:
    pause = timedelta(seconds=0.2) * (1 << attempt)
    return max(pause, error.retry_delay or pause).total_seconds()
