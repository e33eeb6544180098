"""Signed URLs of the local object store, on the HTTP side port: GET with ranges, and PUT.

Who has the URL may do what it says and nothing else; nothing is listed, and an address that was
not signed here tells nothing about what is stored. Failures are JSON: {"reason", "message"}.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import structlog
from aiohttp import web
from liner.v1 import storage_pb2

from liner_server.errors import (
    ConflictError,
    DataLossError,
    DeadlineError,
    FailedPreconditionError,
    InvalidRequestError,
    LinerError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
)
from liner_server.ports import SIGNED_PATH, Grant, ObjectStore

_log = structlog.get_logger()
_CHUNK_BYTES = 1 << 20
_MOST_TRANSFERS = 256
"""Bodies on their way at once, so that those who do not go on leave room for /metrics."""

_STALLED_SECONDS = 60.0
"""Longest time in which no byte of an object comes."""

_UNREAD_SECONDS = 300.0
"""Longest time in which a reader does not take a chunk: it has a slow line, or stopped."""

_LOOKS = 5
"""How often a part is looked for in an object that is replaced all the while."""

_RANGE = re.compile(r"^bytes=(\d{0,19})-(\d{0,19})$")
_STATUS: Mapping[type[LinerError], int] = {
    PermissionDeniedError: 403,
    NotFoundError: 404,
    ConflictError: 412,
    OutOfRangeError: 416,
    DeadlineError: 408,
    DataLossError: 500,
    FailedPreconditionError: 503,
    ResourceExhaustedError: 507,
}
_STATUS_OF_REASON = {
    "URL_METHOD": 405,
    "LENGTH_MISSING": 411,
    "CONTENT_TYPE": 415,
    "OBJECT_TOO_LARGE": 413,
    "SIZE_MISMATCH": 400,
    "CHECKSUM": 400,
    "TOO_MANY_TRANSFERS": 503,
}
_HARMLESS = {
    # What is stored came from outside: a browser shall save it and never run it.
    "X-Content-Type-Options": "nosniff",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, no-store",
}


class ObjectUrls:
    """Answers signed addresses."""

    def __init__(self, objects: ObjectStore, check: Callable[[str, str, str], Grant]) -> None:
        """Take what turns method, Host header and address into what they may do."""
        self._objects = objects
        self._check = check
        self._transfers = 0

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Take the addresses below /objects/."""
        router.add_route("*", SIGNED_PATH + "{name:.*}", self.answer)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Return what the URL allows, or why it does not."""
        try:
            grant = self._check(request.method, request.host, request.raw_path)
            with self._transfer():
                if grant.writes:
                    return await self._put(request, grant)
                return await self._get(request, grant)
        except LinerError as error:
            return _failure(error)

    @contextlib.contextmanager
    def _transfer(self) -> Iterator[None]:
        if self._transfers >= _MOST_TRANSFERS:
            raise ResourceExhaustedError(
                f"{_MOST_TRANSFERS} objects are on their way already", reason="TOO_MANY_TRANSFERS"
            )
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1

    async def _get(self, request: web.Request, grant: Grant) -> web.StreamResponse:
        # A part is of the object whose size was looked at. One that was replaced meanwhile is
        # looked at again: nothing is on its way yet, and the reader asked for no generation.
        for _ in range(_LOOKS - 1):
            with contextlib.suppress(ConflictError):
                return await self._send(request, grant.name)
        return await self._send(request, grant.name)

    async def _send(self, request: web.Request, name: str) -> web.StreamResponse:
        stored = await self._objects.stat(name)
        asked = request.headers.get("Range", "")
        if request.headers.get("If-Range", _etag(stored)) != _etag(stored):
            asked = ""
        part = _range(asked, stored.size_bytes)
        if part is not None and not part[1]:
            headers = {**_headers(stored), "Content-Range": f"bytes */{stored.size_bytes}"}
            return web.Response(status=416, headers=headers)
        if request.method == "HEAD":
            response = _begin(stored, part)
            await response.prepare(request)
            return response
        offset, length = part or (0, 0)
        reading = self._objects.read(
            name,
            offset=offset,
            length=length,
            chunk_bytes=_CHUNK_BYTES,
            if_generation_match=None if part is None else stored.generation,
        )
        async with reading as (opened, chunks):
            response = _begin(opened, part)
            await response.prepare(request)
            try:
                async for data in chunks:
                    async with asyncio.timeout(_UNREAD_SECONDS):
                        await response.write(data)
                await response.write_eof()
            except (LinerError, TimeoutError) as error:
                # The status is on its way: only a broken connection still says that it failed.
                if isinstance(error, LinerError):
                    _log.error("object could not be sent", reason=error.reason, error=str(error))
                response.force_close()
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def _put(self, request: web.Request, grant: Grant) -> web.StreamResponse:
        length = request.content_length
        if length is None or "Content-Encoding" in request.headers:
            raise InvalidRequestError.of(
                "Content-Length", "must be stated, of bytes that are not encoded", "LENGTH_MISSING"
            )
        if "Content-Range" in request.headers:
            # Else a part would be stored as if it were all.
            raise InvalidRequestError.of(
                "Content-Range", "an object is sent whole", "CONTENT_RANGE"
            )
        sent_type = request.headers.get("Content-Type", "")
        if grant.content_type and sent_type != grant.content_type:
            raise InvalidRequestError.of(
                "Content-Type", f"must be {grant.content_type}", "CONTENT_TYPE"
            )
        if length > grant.max_bytes:
            raise ResourceExhaustedError(
                f"at most {grant.max_bytes} bytes may be sent", reason="OBJECT_TOO_LARGE"
            )
        finish = _finish(request.headers.get("X-Goog-Hash", ""))
        spec = storage_pb2.UploadSpec(
            object_name=grant.name,
            content_type=_plain(sent_type),
            size_bytes=length,
            if_generation_match=grant.generation,
        )
        async with self._objects.upload(spec) as upload:
            async for data in _blocks(request):
                await upload.append(data)
            stored = await upload.commit(finish)
        _log.info("object written by URL", object=stored.object_name, generation=stored.generation)
        return web.Response(status=200, headers={"ETag": _etag(stored), **_hash(stored)})


async def _blocks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body in pieces that are worth a write each.

    Raises:
        DeadlineError: nothing more comes.

    """
    held = bytearray()
    while True:
        try:
            async with asyncio.timeout(_STALLED_SECONDS):
                data = await request.content.readany()
        except TimeoutError as error:
            raise DeadlineError("the body does not go on", reason="BODY_STALLED") from error
        if not data:
            break
        held += data
        if len(held) >= _CHUNK_BYTES // 2:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _begin(stored: storage_pb2.StoredObject, part: tuple[int, int] | None) -> web.StreamResponse:
    """Return an answer with an object's headers: for all of it, or for a part."""
    headers, size = _headers(stored), stored.size_bytes
    offset, length = part or (0, size)
    if part is not None:
        headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{size}"
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    response.content_length = length
    return response


def _range(asked: str, size: int) -> tuple[int, int] | None:
    """Return offset and length, which is 0 if there is no such part.

    None, which is the whole: nothing was asked for, several parts at once, or no sense.
    """
    match = _RANGE.match(asked)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        return size - length, length
    first = int(match[1])
    if match[2] and int(match[2]) < first:
        return None
    last = min(int(match[2]) if match[2] else size - 1, size - 1)
    return first, max(last - first + 1, 0)


def _finish(stated: str) -> storage_pb2.UploadFinish:
    """Return the checksum that a caller stated as Google's clients do: crc32c=BASE64."""
    finish = storage_pb2.UploadFinish()
    for part in stated.split(","):
        name, _, value = part.strip().partition("=")
        if name != "crc32c":
            continue
        try:
            data = base64.b64decode(value, validate=True)
        except ValueError:
            data = b""
        if len(data) != 4:
            raise InvalidRequestError.of("X-Goog-Hash", "crc32c is 4 bytes in base64", "CHECKSUM")
        finish.crc32c = int.from_bytes(data, "big")
    return finish


def _headers(stored: storage_pb2.StoredObject) -> dict[str, str]:
    return {
        **_HARMLESS,
        **_hash(stored),
        "Accept-Ranges": "bytes",
        "ETag": _etag(stored),
        "Content-Type": _plain(stored.content_type) or "application/octet-stream",
    }


def _hash(stored: storage_pb2.StoredObject) -> dict[str, str]:
    crc = base64.b64encode(stored.crc32c.to_bytes(4, "big")).decode()
    return {"X-Goog-Hash": f"crc32c={crc}", "X-Goog-Generation": str(stored.generation)}


def _etag(stored: storage_pb2.StoredObject) -> str:
    return f'"{stored.generation}"'


def _plain(content_type: str) -> str:
    """Return a type that may stand in a header line, or none."""
    printable = content_type.isascii() and content_type.isprintable()
    return content_type if printable and len(content_type) <= 256 else ""


def _failure(error: LinerError) -> web.Response:
    reason = error.reason
    if isinstance(error, InvalidRequestError):
        reason = error.violations[0].reason
    fallback = 400 if isinstance(error, InvalidRequestError) else 503
    status = _STATUS_OF_REASON.get(reason) or _STATUS.get(type(error), fallback)
    return web.json_response({"reason": reason, "message": error.message}, status=status)
