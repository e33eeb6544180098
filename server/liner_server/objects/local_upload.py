"""One upload to the local store: a part file that grows, and the digests of what is in it."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import google_crc32c
from liner.v1 import storage_pb2

from liner_server.errors import DataLossError, InvalidRequestError, ResourceExhaustedError

_T = TypeVar("_T")
_HASH_CHUNK = 1 << 20


class UploadHome(Protocol):
    """What an upload needs of the store it belongs to."""

    @property
    def max_bytes(self) -> int:
        """Largest object taken."""

    async def in_files(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run blocking file work in a thread."""

    async def in_owner(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run work on the index in its thread."""

    def publish(
        self, part: Path, stored: storage_pb2.StoredObject, spec: storage_pb2.UploadSpec
    ) -> None:
        """Put a durable file in its place and let the index name it."""


class LocalUpload:
    """One upload: a part file that grows, and the digests of what is in it."""

    def __init__(self, store: UploadHome, spec: storage_pb2.UploadSpec, path: Path) -> None:
        self._store = store
        self._spec = spec
        self._path = path
        self._sha, self._crc = hashlib.sha256(), 0
        self._committed = False
        self._spoiled = False
        self._file = path.open("ab+")
        self._file.seek(0)
        self.offset = 0
        while data := self._file.read(_HASH_CHUNK):
            self._digest(data)
        if not spec.upload_id and self.offset:
            raise AssertionError("a part file of a random name cannot exist already")

    async def append(self, data: bytes) -> None:
        """Take the next bytes; see the port."""
        limit = self._store.max_bytes
        if self.offset + len(data) > limit:
            self._spoiled = True
            raise ResourceExhaustedError(
                f"objects have at most {limit} bytes", reason="OBJECT_TOO_LARGE"
            )
        await self._store.in_files(self._append, data)

    async def commit(self, finish: storage_pb2.UploadFinish) -> storage_pb2.StoredObject:
        """Check, make durable, then visible; see the port."""
        self._check(finish)
        spec = self._spec
        stored = storage_pb2.StoredObject(
            object_name=spec.object_name,
            size_bytes=self.offset,
            content_type=spec.content_type or "application/octet-stream",
            crc32c=self._crc,
            sha256=self._sha.hexdigest(),
            metadata=spec.metadata,
        )
        stored.create_time.GetCurrentTime()
        if spec.HasField("custom_time"):
            stored.custom_time.CopyFrom(spec.custom_time)
        await self._store.in_files(self._sync)
        await self._store.in_owner(self._publish, stored)
        return stored

    def close(self) -> None:
        """Close the part file; keep it only if it may be resumed."""
        if self._committed:
            return
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if self._spoiled or not self._spec.upload_id:
            self._path.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._digest(data)

    def _digest(self, data: bytes) -> None:
        self._sha.update(data)
        self._crc = google_crc32c.extend(self._crc, data)
        self.offset += len(data)

    def _check(self, finish: storage_pb2.UploadFinish) -> None:
        spec = self._spec
        if spec.HasField("size_bytes") and spec.size_bytes != self.offset:
            raise InvalidRequestError.of(
                "spec.size_bytes",
                f"{spec.size_bytes} bytes were promised, {self.offset} came",
                "SIZE_MISMATCH",
            )
        wrong_crc = finish.HasField("crc32c") and finish.crc32c != self._crc
        if wrong_crc or (finish.sha256 and finish.sha256.lower() != self._sha.hexdigest()):
            # Going on from spoiled bytes would never end well.
            self._spoiled = True
            raise DataLossError("the bytes do not match their checksum", reason="CHECKSUM")

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _publish(self, stored: storage_pb2.StoredObject) -> None:
        self._store.publish(self._path, stored, self._spec)
        self._committed = True
