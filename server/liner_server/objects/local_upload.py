"""One upload to the local store: a part file that grows, and the digests of what is in it."""

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import google_crc32c
from liner.v1 import storage_pb2

from liner_server.errors import (
    DataLossError,
    InvalidRequestError,
    LinerError,
    ResourceExhaustedError,
)

_T = TypeVar("_T")
_HASH_CHUNK = 1 << 20
_FLUSH_BYTES = 16 << 20
"""Bytes that are brought to the disk while more come, so that little is left to do at the end."""

_CACHED_BYTES = 128 << 20
"""Larger objects are not kept in memory: a file that is listened to next is smaller."""


class UploadHome(Protocol):
    """What an upload needs of the store it belongs to."""

    @property
    def max_bytes(self) -> int:
        """Largest object taken."""

    @property
    def spare_bytes(self) -> int:
        """Room on the disk that uploads may not take."""

    async def in_files(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run blocking file work in a thread."""

    async def in_flushes(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run work that waits for the disk, in a thread that nobody else waits for."""

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
        self._writing: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._flushed = 0
        # A cancelled call leaves its thread at work: nothing is closed or removed under it.
        self._lock = threading.Lock()
        self._file = path.open("ab+", buffering=0)
        self._file.seek(0)
        self._written = 0
        while data := self._file.read(_HASH_CHUNK):
            self._digest(data)
        self.offset = self._written
        if not spec.upload_id and self.offset:
            raise AssertionError("a part file of a random name cannot exist already")

    async def append(self, data: bytes) -> None:
        """Take the next bytes; see the port. They are written while the caller fetches more."""
        size = self.offset + len(data)
        try:
            check_size(size, self._store.max_bytes)
        except ResourceExhaustedError:
            self._spoiled = True
            raise
        if self._spec.HasField("size_bytes") and size > self._spec.size_bytes:
            raise _size_mismatch(self._spec.size_bytes, size)
        await self._settle()
        self._writing = asyncio.create_task(self._store.in_files(self._append, data))
        self.offset = size
        if self._written - self._flushed >= _FLUSH_BYTES:
            await self._flushed_before()
            self._flushing = asyncio.create_task(self._store.in_flushes(self._flush, self._written))
            self._flushed = self._written

    async def commit(self, finish: storage_pb2.UploadFinish) -> storage_pb2.StoredObject:
        """Check, make durable, then visible; see the port."""
        await self._settle()
        await self._flushed_before()
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

    async def finish(self) -> None:
        """Write what was taken, then close."""
        for settled in (self._settle, self._flushed_before):
            with contextlib.suppress(LinerError):
                await settled()
        await self._store.in_files(self.close)

    async def _settle(self) -> None:
        """Wait for the write under way; once one has failed, every call says so."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def _flushed_before(self) -> None:
        """Wait for the flush under way: the system tells its failure once, so it must be heard."""
        if self._flushing is not None:
            await asyncio.shield(self._flushing)

    def _flush(self, end: int) -> None:
        # Without the lock: the next bytes are written meanwhile.
        os.fdatasync(self._file.fileno())
        if end >= _CACHED_BYTES:
            # Whoever sends gigabytes shall not push everybody else's files out of memory; and pages
            # that are used again cost a third of fresh ones.
            os.posix_fadvise(self._file.fileno(), 0, end, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the part file; keep it only if it may be resumed."""
        with self._lock:
            if self._committed:
                return
            keep = self._spec.upload_id and not self._spoiled
            # What cannot be synced or removed now, the next start or the next upload deals with.
            with contextlib.suppress(OSError, ValueError):
                if keep:
                    os.fsync(self._file.fileno())
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                if not keep:
                    self._path.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        with self._lock:
            disk = os.fstatvfs(self._file.fileno())
            if disk.f_bavail * disk.f_frsize < self._store.spare_bytes + len(data):
                raise ResourceExhaustedError("the disk is full", reason="DISK_FULL")
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                # The file holds what was digested, and no more.
                self._file.truncate(self._written)
                raise
            self._digest(data)

    def _digest(self, data: bytes) -> None:
        self._sha.update(data)
        self._crc = google_crc32c.extend(self._crc, data)
        self._written += len(data)

    def _check(self, finish: storage_pb2.UploadFinish) -> None:
        spec = self._spec
        if spec.HasField("size_bytes") and spec.size_bytes != self.offset:
            raise _size_mismatch(spec.size_bytes, self.offset)
        wrong_crc = finish.HasField("crc32c") and finish.crc32c != self._crc
        if wrong_crc or (finish.sha256 and finish.sha256.lower() != self._sha.hexdigest()):
            # Going on from spoiled bytes would never end well.
            self._spoiled = True
            raise DataLossError("the bytes do not match their checksum", reason="CHECKSUM")

    def _sync(self) -> None:
        with self._lock:
            os.fsync(self._file.fileno())
            self._file.close()

    def _publish(self, stored: storage_pb2.StoredObject) -> None:
        with self._lock:
            self._store.publish(self._path, stored, self._spec)
            self._committed = True


def check_size(size: int, limit: int) -> None:
    """Pass if an object may have so many bytes.

    Raises:
        ResourceExhaustedError: it may not.

    """
    if size > limit:
        raise ResourceExhaustedError(
            f"objects have at most {limit} bytes", reason="OBJECT_TOO_LARGE"
        )


def _size_mismatch(promised: int, came: int) -> InvalidRequestError:
    return InvalidRequestError.of(
        "spec.size_bytes", f"{promised} bytes were promised, {came} came", "SIZE_MISMATCH"
    )
