"""One read from Cloud Storage: a stream of one generation, taken up again where it breaks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import google_crc32c
import urllib3
from liner.v1 import storage_pb2

from liner_server.errors import DataLossError, NotFoundError, UnavailableError
from liner_server.objects.gcs_bucket import CallHome

_TRIES = 4


class Source:
    """The bytes of one generation, taken up again where a connection broke."""

    def __init__(
        self, home: CallHome, stored: storage_pb2.StoredObject, offset: int, end: int
    ) -> None:
        self._home = home
        self._homed = stored
        self._offset, self._end = offset, end
        self._whole = offset == 0 and end == stored.size_bytes
        self._response: Any = None

    async def open(self) -> None:
        """Begin at the offset that was reached."""
        await self.close()
        if self._offset < self._end:
            self._response = await self._home.blocking(
                self._home.bucket.open_range,
                self._homed.object_name,
                self._homed.generation,
                self._offset,
                self._end,
            )

    async def close(self) -> None:
        """Drop the connection, which has bytes on it that nobody wants."""
        response, self._response = self._response, None
        if response is not None:
            await self._home.blocking(response.close)

    async def chunks(self, size: int) -> AsyncIterator[bytes]:
        """Yield the bytes, checked against the object's checksum when they are all of it."""
        crc, failed = 0, 0
        while self._offset < self._end:
            data = await self._next(min(size, self._end - self._offset))
            if data:
                failed = 0
                self._offset += len(data)
                crc = google_crc32c.extend(crc, data)
                yield data
                continue
            failed += 1
            if failed == _TRIES:
                raise UnavailableError("Cloud Storage breaks off in mid-object", reason="GCS")
            await asyncio.sleep(0.1 * 2**failed)
            try:
                await self.open()
            except NotFoundError as error:
                raise UnavailableError(
                    "the object was replaced while it was read", reason="OBJECT_REPLACED"
                ) from error
        if self._whole and crc != self._homed.crc32c:
            raise DataLossError("the object's bytes are not what was stored", reason="CHECKSUM")

    async def _next(self, size: int) -> bytes:
        """Return bytes; none where the connection broke."""
        response = self._response
        if response is None:
            return b""
        try:
            data: bytes = await self._home.blocking(
                lambda: response.raw.read(size, decode_content=False)
            )
        except urllib3.exceptions.HTTPError:
            return b""
        return data
