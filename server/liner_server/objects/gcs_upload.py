"""One upload to Cloud Storage: parts of 4 MiB that are put together when all is checked.

    .liner/uploads/KEY/state               who it belongs to, and what became of it
    .liner/uploads/KEY/0000000000000000    the bytes from this offset on

KEY is a digest of the upload_id. A part is an object of its own, so any process can go on with an
upload, nothing is visible under its name before the last byte is checked, and what a part holds
can be read again. A small object without parts is one request.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Sequence

import google_crc32c
from liner.v1 import storage_pb2

from liner_server.context import RESERVED
from liner_server.errors import (
    ConflictError,
    DataLossError,
    InvalidRequestError,
    LinerError,
    NotFoundError,
    ResourceExhaustedError,
)
from liner_server.objects.gcs_bucket import MOST_SOURCES, CallHome
from liner_server.objects.names import check_generation

UPLOADS = RESERVED + "uploads/"
PART_BYTES = 4 << 20
"""At 4 GiB these are 1,024 parts, which two rounds of composing put together."""


class GcsUpload:
    """One upload; see the port."""

    def __init__(
        self,
        home: CallHome,
        spec: storage_pb2.UploadSpec,
        key: str,
        parts: Sequence[storage_pb2.StoredObject] = (),
    ) -> None:
        """Take the parts that are there already, from the first byte on."""
        self._home = home
        self._spec = spec
        self._key = key
        self._parts = list(parts)
        self._sent = sum(part.size_bytes for part in parts)
        self._held = bytearray()
        self._sha, self._crc = hashlib.sha256(), 0
        self._sending: asyncio.Task[None] | None = None
        self.stored: storage_pb2.StoredObject | None = None
        self._spoiled = False
        self.offset = self._sent

    async def recall(self) -> None:
        """Read the parts that are there already, for the digests of the whole."""
        for part in self._parts:
            await self._home.blocking(self._reread, part)

    def _reread(self, part: storage_pb2.StoredObject) -> None:
        response = self._home.bucket.open_range(
            part.object_name, part.generation, 0, part.size_bytes
        )
        with contextlib.closing(response):
            crc = 0
            while data := response.raw.read(1 << 20, decode_content=False):
                crc = google_crc32c.extend(crc, data)
                self._digest(data)
        if crc != part.crc32c:
            raise DataLossError("a part of the upload has changed", reason="CHECKSUM")

    async def append(self, data: bytes) -> None:
        """Take the next bytes; see the port. They are on their way when more have come."""
        size = self.offset + len(data)
        if size > self._home.max_bytes:
            self._spoiled = True
            raise ResourceExhaustedError(
                f"objects have at most {self._home.max_bytes} bytes", reason="OBJECT_TOO_LARGE"
            )
        if self._spec.HasField("size_bytes") and size > self._spec.size_bytes:
            raise _size_mismatch(self._spec.size_bytes, size)
        self._held += data
        self.offset = size
        while len(self._held) >= PART_BYTES:
            await self._settle()
            part = bytes(self._held[:PART_BYTES])
            del self._held[:PART_BYTES]
            self._sending = asyncio.create_task(self._send(part))

    async def commit(self, finish: storage_pb2.UploadFinish) -> storage_pb2.StoredObject:
        """Check, make durable, then visible; see the port."""
        await self._settle()
        rest = bytes(self._held)
        if self._parts and rest:
            await self._send(rest)
        elif rest:
            await self._home.blocking(self._digest, rest)
        self._held.clear()
        self._check(finish)
        spec = self._spec
        facts = storage_pb2.StoredObject(
            object_name=spec.object_name,
            size_bytes=self.offset,
            content_type=spec.content_type or "application/octet-stream",
            crc32c=self._crc,
            sha256=self._sha.hexdigest(),
            metadata=spec.metadata,
        )
        if spec.HasField("custom_time"):
            facts.custom_time.CopyFrom(spec.custom_time)
        expected = spec.if_generation_match if spec.HasField("if_generation_match") else None
        if self._parts:
            stored = await self._composed(facts, expected)
        else:
            stored = await self._home.blocking(
                lambda: self._home.bucket.create(facts, rest, if_generation_match=expected)
            )
        self.stored = stored
        return stored

    async def _composed(
        self, facts: storage_pb2.StoredObject, expected: int | None
    ) -> storage_pb2.StoredObject:
        if expected is not None:
            current = await current_generation(self._home, facts.object_name)
            check_generation(facts.object_name, current, expected)
        sources, round_ = self._parts, 0
        bucket = self._home.bucket
        while len(sources) > MOST_SOURCES:
            round_ += 1
            groups = [sources[n : n + MOST_SOURCES] for n in range(0, len(sources), MOST_SOURCES)]
            sources = []
            for number, group in enumerate(groups):
                name = f"{UPLOADS}{self._key}/round-{round_}-{number:06d}"
                between = storage_pb2.StoredObject(object_name=name)
                sources.append(
                    await self._home.blocking(
                        lambda b=between, g=group: bucket.compose(b, g, if_generation_match=None)
                    )
                )
        return await self._home.blocking(
            lambda: bucket.compose(facts, sources, if_generation_match=expected)
        )

    async def close(self) -> None:
        """Keep what was taken if the upload may be resumed, else drop it."""
        keep = bool(self._spec.upload_id) and not self._spoiled and self.stored is None
        # What fails here is for the next clean-up.
        with contextlib.suppress(LinerError):
            await self._settle()
            if keep and self._held:
                await self._send(bytes(self._held))
        self._held.clear()
        if not keep and (self._parts or self._sending):
            with contextlib.suppress(LinerError):
                await drop(self._home, f"{UPLOADS}{self._key}/", keep="state")

    async def _settle(self) -> None:
        """Wait for the part on its way; once it failed, every call says so."""
        if self._sending is not None:
            await self._sending

    async def _send(self, data: bytes) -> None:
        facts = storage_pb2.StoredObject(object_name=f"{UPLOADS}{self._key}/{self._sent:016d}")

        def send() -> storage_pb2.StoredObject:
            stored = self._home.bucket.create(facts, data, if_generation_match=0, passing=True)
            self._digest(data)
            return stored

        try:
            self._parts.append(await self._home.blocking(send))
        except ConflictError as error:
            raise open_elsewhere(self._spec.upload_id) from error
        self._sent += len(data)

    def _digest(self, data: bytes) -> None:
        self._sha.update(data)
        self._crc = google_crc32c.extend(self._crc, data)

    def _check(self, finish: storage_pb2.UploadFinish) -> None:
        spec = self._spec
        if spec.HasField("size_bytes") and spec.size_bytes != self.offset:
            raise _size_mismatch(spec.size_bytes, self.offset)
        wrong_crc = finish.HasField("crc32c") and finish.crc32c != self._crc
        if wrong_crc or (finish.sha256 and finish.sha256.lower() != self._sha.hexdigest()):
            self._spoiled = True
            raise DataLossError("the bytes do not match their checksum", reason="CHECKSUM")


async def current_generation(home: CallHome, name: str) -> int:
    """Return an object's generation, 0 where there is none."""
    try:
        return (await home.blocking(home.bucket.stat, name)).generation
    except NotFoundError:
        return 0


async def drop(home: CallHome, prefix: str, *, keep: str = "") -> None:
    """Delete everything below a prefix of uploads but the one named."""
    while found := await home.blocking(home.bucket.names, prefix, "", 1000):
        await delete_each(home, (one for one in found if one.object_name != prefix + keep))
        if len(found) < 1000:
            return


async def delete_each(home: CallHome, objects: Iterable[storage_pb2.StoredObject]) -> None:
    """Delete objects that nobody else needs; those that are gone are."""

    async def delete(one: storage_pb2.StoredObject) -> None:
        with contextlib.suppress(NotFoundError, ConflictError):
            await home.blocking(home.bucket.delete, one.object_name, one.generation)

    await asyncio.gather(*map(delete, objects))


def open_elsewhere(upload_id: str) -> ConflictError:
    """Return the error of a second stream for one upload."""
    return ConflictError(
        f"upload {upload_id} is open on another stream", reason="UPLOAD_OPEN", resource=upload_id
    )


def _size_mismatch(promised: int, came: int) -> InvalidRequestError:
    return InvalidRequestError.of(
        "spec.size_bytes", f"{promised} bytes were promised, {came} came", "SIZE_MISMATCH"
    )
