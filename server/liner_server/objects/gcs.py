"""Objects in a bucket of Google Cloud Storage, with the promises of the port.

What is asked of Cloud Storage blocks in a thread of a bounded pool; only the caller's own wait can
be cancelled, and a call left behind ends by its own timeouts. A read is one stream of one
generation, taken up again where it breaks. Names below .liner/ are the server's own.
"""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import structlog
from liner.v1 import storage_pb2

from liner_server.errors import (
    ConflictError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
)
from liner_server.objects.gcs_bucket import Bucket
from liner_server.objects.gcs_read import Source
from liner_server.objects.gcs_signing import signed_url
from liner_server.objects.gcs_upload import GcsUpload, current_generation, open_elsewhere
from liner_server.objects.gcs_uploads import Uploads, key_of
from liner_server.objects.local_disk import disk_error
from liner_server.objects.names import check_generation, check_name

_log = structlog.get_logger()
_T = TypeVar("_T")
_THREADS = 16
_TRIES = 4
_SPARE_BYTES = 32 << 20


class GcsObjectStore:
    """The `ObjectStore` of one bucket, for any number of processes."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        scratch: Path,
        max_object_bytes: int = 4 << 30,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take the folder where objects lie while they are listened to."""
        self.bucket = bucket
        self.max_bytes = max_object_bytes
        self._scratch = scratch
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="gcs")
        self._open_uploads: set[str] = set()
        self._uploads = Uploads(self, now)

    async def __aenter__(self) -> Self:
        try:
            await self.blocking(self.bucket.open)
            await self.blocking(self._clear_scratch)
        except BaseException:
            self._threads.shutdown(wait=False)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # Calls that nobody waits for any more end by their own timeouts.
        await asyncio.to_thread(self._threads.shutdown)
        self.bucket.close()

    async def blocking(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run a call in a thread."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work, *arguments)
        except OSError as error:
            raise disk_error(error) from error

    @contextlib.asynccontextmanager
    async def upload(self, spec: storage_pb2.UploadSpec) -> AsyncIterator[GcsUpload]:
        """Open an upload; see the port."""
        check_name(spec.object_name)
        if spec.size_bytes > self.max_bytes:
            raise ResourceExhaustedError(
                f"objects have at most {self.max_bytes} bytes", reason="OBJECT_TOO_LARGE"
            )
        if spec.HasField("if_generation_match"):
            current = await current_generation(self, spec.object_name)
            check_generation(spec.object_name, current, spec.if_generation_match)
        key = key_of(spec.upload_id) if spec.upload_id else uuid.uuid4().hex
        if key in self._open_uploads:
            raise open_elsewhere(spec.upload_id)
        self._open_uploads.add(key)
        try:
            parts = await self._uploads.begin(spec) if spec.upload_id else ()
            upload = GcsUpload(self, spec, key, parts)
            await upload.recall()
            try:
                yield upload
            finally:
                # Shielded, so that a cancelled call does not leave parts that nobody asked to keep.
                await asyncio.shield(upload.close())
            if spec.upload_id and upload.stored is not None:
                await self._uploads.end(spec, upload.stored)
        finally:
            self._open_uploads.discard(key)

    async def query_upload(self, upload_id: str) -> storage_pb2.QueryUploadResponse:
        """Return what is kept of an upload; see the port."""
        return await self._uploads.query(upload_id)

    @contextlib.asynccontextmanager
    async def read(
        self,
        name: str,
        *,
        offset: int = 0,
        length: int = 0,
        chunk_bytes: int = 1 << 19,
        if_generation_match: int | None = None,
    ) -> AsyncIterator[tuple[storage_pb2.StoredObject, AsyncIterator[bytes]]]:
        """Open an object; see the port."""
        check_name(name)
        for attempt in range(_TRIES):
            stored = await self.blocking(self.bucket.stat, name)
            check_generation(name, stored.generation, if_generation_match)
            end = offset + length if length else stored.size_bytes
            if not 0 <= offset <= end <= stored.size_bytes:
                raise OutOfRangeError(
                    f"{name} has {stored.size_bytes} bytes; {offset} to {end} is not inside it",
                    reason="RANGE",
                    resource=name,
                )
            source = Source(self, stored, offset, end)
            try:
                await source.open()
                break
            except NotFoundError:
                # Replaced between the two calls: the new one is as good, or it is gone for good.
                if attempt == _TRIES - 1:
                    raise
        try:
            yield stored, source.chunks(chunk_bytes)
        finally:
            await asyncio.shield(source.close())

    async def stat(self, name: str) -> storage_pb2.StoredObject:
        """Return an object's facts; see the port."""
        check_name(name)
        return await self.blocking(self.bucket.stat, name)

    async def list(
        self, prefix: str, *, after: str = "", limit: int = 100
    ) -> Sequence[storage_pb2.StoredObject]:
        """Return objects by name; see the port."""
        return await self.blocking(self.bucket.names, prefix, after, limit)

    async def delete(self, name: str, *, if_generation_match: int | None = None) -> None:
        """Delete an object; see the port."""
        check_name(name)
        for attempt in range(_TRIES):
            stored = await self.blocking(self.bucket.stat, name)
            check_generation(name, stored.generation, if_generation_match)
            try:
                return await self.blocking(self.bucket.delete, name, stored.generation)
            except ConflictError:
                # Replaced meanwhile; the caller wants it gone whatever it is.
                if if_generation_match is not None or attempt == _TRIES - 1:
                    raise
        return None

    async def delete_all(
        self, objects: Sequence[storage_pb2.StoredObject]
    ) -> Sequence[storage_pb2.StoredObject]:
        """Delete these generations; see the port."""

        def delete(stored: storage_pb2.StoredObject) -> bool:
            try:
                if self.bucket.stat(stored.object_name).generation != stored.generation:
                    return False
                self.bucket.delete(stored.object_name, stored.generation)
            except (NotFoundError, ConflictError):
                return False
            return True

        outcomes = await asyncio.gather(
            *(self.blocking(delete, stored) for stored in objects), return_exceptions=True
        )
        deleted = [one for one, outcome in zip(objects, outcomes, strict=True) if outcome is True]
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures and not deleted:
            raise failures[0]
        if failures:
            # What was deleted must be told; the rest is still there for the next time.
            _log.warning("objects were not deleted", count=len(failures), error=str(failures[0]))
        return deleted

    async def drop_uploads(self) -> int:
        """Drop what is kept of uploads whose day is over; see the port."""
        return await self._uploads.drop_old(self._open_uploads)

    @contextlib.asynccontextmanager
    async def local_file(self, name: str) -> AsyncIterator[Path]:
        """Open an object as a file, fetched for the purpose; see the port."""
        path = self._scratch / f"object-{uuid.uuid4().hex}"
        try:
            async with self.read(name, chunk_bytes=1 << 20) as (stored, chunks):
                file = await self.blocking(self._new_file, path, stored.size_bytes)
                try:
                    async for data in chunks:
                        await self.blocking(file.write, data)
                finally:
                    file.close()
            yield path
        finally:
            await asyncio.shield(self.blocking(lambda: path.unlink(missing_ok=True)))

    async def signed_url(
        self, request: storage_pb2.GetSignedURLRequest
    ) -> storage_pb2.GetSignedURLResponse:
        """Return a URL that allows one thing; see the port."""
        check_name(request.object_name)
        writes = request.operation == storage_pb2.SIGNED_URL_OPERATION_WRITE
        current = await current_generation(self, request.object_name)
        if not writes and not current:
            raise NotFoundError(
                f"no object {request.object_name}",
                reason="OBJECT_NOT_FOUND",
                resource=request.object_name,
            )
        if writes and request.HasField("if_generation_match"):
            check_generation(request.object_name, current, request.if_generation_match)
        return await self.blocking(signed_url, self.bucket, request, current, self.max_bytes)

    def _clear_scratch(self) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        for left in self._scratch.glob("object-*"):
            left.unlink(missing_ok=True)

    def _new_file(self, path: Path, size: int) -> Any:
        disk = os.statvfs(self._scratch)
        if disk.f_bavail * disk.f_frsize < size + _SPARE_BYTES:
            raise ResourceExhaustedError(
                "the disk has no room for the object while it is listened to", reason="DISK_FULL"
            )
        return path.open("xb")
