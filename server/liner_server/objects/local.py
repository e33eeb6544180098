"""Objects on a local disk: bytes in files under digests, facts in one SQLite file.

    index.sqlite       names, generations and facts; WAL, synchronous=FULL
    data/ab/...        one file an object generation, named by a digest of name and generation
    uploads/           bytes of uploads that are not committed
    pinned/            hard links that keep a generation alive while someone listens to it
    index.sqlite.lock  held for as long as the store is open: one process a folder

A file is fsynced and in its place before the index names it, and the index stops naming it
before it is unlinked. In between it stands in the table `doomed`, which the next start empties:
a crash leaves no file that nothing knows of.
"""

import asyncio
import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import google_crc32c
from liner.v1 import storage_pb2

from liner_server.errors import (
    ConflictError,
    DataLossError,
    FailedPreconditionError,
    LinerError,
    NotFoundError,
    OutOfRangeError,
)
from liner_server.objects import local_disk
from liner_server.objects.index import Index, file_name
from liner_server.objects.local_disk import disk_error, size_of, sync_folder
from liner_server.objects.local_upload import LocalUpload, check_size
from liner_server.objects.names import check_generation, check_name
from liner_server.objects.signing import UrlSigner
from liner_server.ports import Grant

_T = TypeVar("_T")
_KEEP_UPLOADS = timedelta(days=1)
_THREADS = 4
_FLUSHES = 2
_SPARE_BYTES = 32 << 20


class LocalObjectStore:
    """The `ObjectStore` of one folder, for one process: `async with LocalObjectStore(folder)`."""

    def __init__(
        self,
        root: Path,
        *,
        max_object_bytes: int = 4 << 30,
        spare_bytes: int = _SPARE_BYTES,
        signer: UrlSigner | None = None,
    ) -> None:
        self._root = root
        self._signer = signer
        self._max_bytes = max_object_bytes
        self._spare_bytes = spare_bytes
        self._files = ThreadPoolExecutor(_THREADS, thread_name_prefix="objects")
        self._flushes = ThreadPoolExecutor(_FLUSHES, thread_name_prefix="objects-flush")
        # One thread owns the index: every change of it is in order.
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="objects-index")
        self._index: Index
        self._lock: BinaryIO
        self._open_uploads: set[str] = set()

    async def __aenter__(self) -> Self:
        try:
            self._index = await self._in(self._owner, self._start)
        except BaseException:
            self._flushes.shutdown()
            self._files.shutdown()
            self._owner.shutdown()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._in(self._owner, self._index.close)
        self._flushes.shutdown()
        self._files.shutdown()
        self._owner.shutdown()
        self._lock.close()

    @contextlib.asynccontextmanager
    async def upload(self, spec: storage_pb2.UploadSpec) -> AsyncIterator[LocalUpload]:
        """Open an upload; see the port."""
        check_name(spec.object_name)
        check_size(spec.size_bytes, self._max_bytes)
        if spec.HasField("if_generation_match"):
            await self._in(
                self._owner, self._index.check, spec.object_name, spec.if_generation_match
            )
        key = spec.upload_id or uuid.uuid4().hex
        if key in self._open_uploads:
            raise ConflictError(
                f"upload {key} is open on another stream", reason="UPLOAD_OPEN", resource=key
            )
        self._open_uploads.add(key)
        try:
            path = self._part(key)
            if spec.upload_id and not await self._in(
                self._owner, self._index.begin_upload, spec, self._expiry()
            ):
                # A part that has expired is another upload's: its bytes must not begin this one.
                await self._in(self._files, path.unlink, True)
            upload = await self._held(self._files, LocalUpload.close, LocalUpload, self, spec, path)
            try:
                yield upload
            finally:
                # Shielded, so that a cancelled call does not leave a file behind.
                await asyncio.shield(upload.finish())
        finally:
            self._open_uploads.discard(key)

    async def query_upload(self, upload_id: str) -> storage_pb2.QueryUploadResponse:
        """Return what is kept of an upload; see the port."""
        found = await self._in(self._owner, self._index.upload, upload_id)
        if found is None:
            raise NotFoundError(
                f"no upload {upload_id} is kept", reason="UPLOAD_NOT_FOUND", resource=upload_id
            )
        if not found.HasField("object"):
            found.persisted_size = await self._in(self._files, size_of, self._part(upload_id))
        return found

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
        stored, file = await self._held(
            self._owner, lambda opened: opened[1].close(), self._open, name
        )
        try:
            check_generation(name, stored.generation, if_generation_match)
            end = offset + length if length else stored.size_bytes
            if not 0 <= offset <= end <= stored.size_bytes:
                raise OutOfRangeError(
                    f"{name} has {stored.size_bytes} bytes; {offset} to {end} is not inside it",
                    reason="RANGE",
                    resource=name,
                )
            yield stored, self._chunks(file, stored, offset, end, chunk_bytes)
        finally:
            file.close()

    async def stat(self, name: str) -> storage_pb2.StoredObject:
        """Return an object's facts; see the port."""
        check_name(name)
        return await self._in(self._owner, self._index.get, name)

    async def list(
        self, prefix: str, *, after: str = "", limit: int = 100
    ) -> Sequence[storage_pb2.StoredObject]:
        """Return objects by name; see the port."""
        return await self._in(self._owner, self._index.names, prefix, after, limit)

    async def delete(self, name: str, *, if_generation_match: int | None = None) -> None:
        """Delete an object; see the port."""
        check_name(name)
        doomed = await self._in(self._owner, self._index.delete, name, if_generation_match)
        await self._in(self._owner, self._remove, doomed)

    async def delete_all(
        self, objects: Sequence[storage_pb2.StoredObject]
    ) -> Sequence[storage_pb2.StoredObject]:
        """Delete these generations; see the port."""
        deleted = await self._in(self._owner, self._index.delete_all, objects)
        files = [file_name(stored.object_name, stored.generation) for stored in deleted]
        await self._in(self._owner, self._remove, *files)
        return deleted

    async def drop_uploads(self) -> int:
        """Drop what is kept of uploads whose day is over; see the port."""
        dropped = 0
        for upload_id in await self._in(self._owner, self._index.expired_uploads):
            if upload_id in self._open_uploads:
                continue
            # Held open here, so that nobody goes on with the part while it is removed.
            self._open_uploads.add(upload_id)
            try:
                await self._in(self._files, self._part(upload_id).unlink, True)
                await self._in(self._owner, self._index.forget_upload, upload_id)
            finally:
                self._open_uploads.discard(upload_id)
            dropped += 1
        return dropped

    async def signed_url(
        self, request: storage_pb2.GetSignedURLRequest
    ) -> storage_pb2.GetSignedURLResponse:
        """Return a URL that allows one thing; see the port."""
        check_name(request.object_name)
        if self._signer is None:
            raise FailedPreconditionError("nothing serves signed URLs here", reason="NO_SIGNER")
        writes = request.operation == storage_pb2.SIGNED_URL_OPERATION_WRITE
        try:
            generation = (await self.stat(request.object_name)).generation
        except NotFoundError:
            if not writes:
                raise
            generation = 0
        if writes and request.HasField("if_generation_match"):
            check_generation(request.object_name, generation, request.if_generation_match)
        grant = Grant(
            name=request.object_name,
            writes=writes,
            expires=int(time.time()) + max(1, round(request.expiry.ToTimedelta().total_seconds())),
            content_type=request.content_type,
            max_bytes=min(request.max_size_bytes or self._max_bytes, self._max_bytes),
            generation=generation,
        )
        url = await self._in(self._files, self._signer.sign, grant)
        response = storage_pb2.GetSignedURLResponse(url=url)
        if writes and request.content_type:
            response.headers["Content-Type"] = request.content_type
        response.expire_time.FromSeconds(grant.expires)
        return response

    @contextlib.asynccontextmanager
    async def local_file(self, name: str) -> AsyncIterator[Path]:
        """Open an object as a file; see the port."""
        check_name(name)
        path = await self._held(self._owner, Path.unlink, self._pin, name)
        try:
            yield path
        finally:
            await asyncio.shield(self._in(self._files, path.unlink))

    # Below: called in threads.

    def _start(self) -> Index:
        for folder in ("data", "uploads", "pinned"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        lock = (self._root / "index.sqlite.lock").open("ab")
        try:
            # What a crash left is cleared below. Were another process alive, it would be its work.
            local_disk.lock(lock)
            index = self._clear()
        except BaseException:
            lock.close()
            raise
        self._lock = lock
        return index

    def _clear(self) -> Index:
        index = Index(self._root / "index.sqlite")
        for link in (self._root / "pinned").iterdir():
            link.unlink()
        for file in index.doomed():
            (self._root / "data" / file).unlink(missing_ok=True)
            index.forget(file)
        kept = {self._part(name).name for name in index.live_uploads()}
        for part in (self._root / "uploads").iterdir():
            if part.name not in kept:
                part.unlink()
        return index

    def _open(self, name: str) -> tuple[storage_pb2.StoredObject, BinaryIO]:
        # In the index's own thread: no delete can come between the look-up and the open.
        stored = self._index.get(name)
        return stored, self._path(stored).open("rb")

    def _pin(self, name: str) -> Path:
        stored = self._index.get(name)
        path = self._root / "pinned" / uuid.uuid4().hex
        path.hardlink_to(self._path(stored))
        return path

    def _path(self, stored: storage_pb2.StoredObject) -> Path:
        return self._root / "data" / file_name(stored.object_name, stored.generation)

    def _part(self, key: str) -> Path:
        return self._root / "uploads" / hashlib.sha256(key.encode()).hexdigest()

    def _remove(self, *files: str) -> None:
        # The change is durable already: a file that stays is for the next start, as after a crash.
        with contextlib.suppress(OSError, LinerError):
            for file in files:
                (self._root / "data" / file).unlink(missing_ok=True)
            self._index.forget(*files)

    def publish(
        self, part: Path, stored: storage_pb2.StoredObject, spec: storage_pb2.UploadSpec
    ) -> None:
        """Put a durable file in its place and let the index name it; runs in the index's thread."""
        expected = spec.if_generation_match if spec.HasField("if_generation_match") else None
        self._index.check(spec.object_name, expected)
        stored.generation = self._index.next_generation()
        target = self._path(stored)
        file = file_name(stored.object_name, stored.generation)
        self._index.doom(file)
        if not target.parent.exists():
            target.parent.mkdir()
            sync_folder(target.parent.parent)
        part.replace(target)
        sync_folder(target.parent)
        replaced = self._index.put(stored, expected, spec.upload_id)
        if replaced:
            self._remove(replaced)

    async def _chunks(
        self, file: BinaryIO, stored: storage_pb2.StoredObject, offset: int, end: int, size: int
    ) -> AsyncIterator[bytes]:
        whole, crc = offset == 0 and end == stored.size_bytes, 0

        def pread(at: int) -> bytes:
            return os.pread(file.fileno(), min(size, end - at), at)

        while offset < end:
            data = await self._in(self._files, pread, offset)
            if not data:
                raise DataLossError("the object's file is shorter than it was", reason="TRUNCATED")
            offset += len(data)
            crc = google_crc32c.extend(crc, data)
            yield data
        if whole and crc != stored.crc32c:
            raise DataLossError("the object's bytes are not what was stored", reason="CHECKSUM")

    async def in_files(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run blocking file work in a thread."""
        return await self._in(self._files, work, *arguments)

    async def in_flushes(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run work that waits for the disk, in a thread that nobody else waits for."""
        return await self._in(self._flushes, work, *arguments)

    async def in_owner(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run work on the index in its thread."""
        return await self._in(self._owner, work, *arguments)

    async def _in(
        self, executor: ThreadPoolExecutor, work: Callable[..., _T], *arguments: object
    ) -> _T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(executor, work, *arguments)
        except OSError as error:
            raise disk_error(error) from error

    async def _held(
        self,
        executor: ThreadPoolExecutor,
        undo: Callable[[_T], object],
        work: Callable[..., _T],
        *arguments: object,
    ) -> _T:
        """Run work that opens something. If the caller is cancelled before it has it, undo it."""

        def drop(done: Future[_T]) -> None:
            if not done.cancelled() and done.exception() is None:
                undo(done.result())

        future = executor.submit(work, *arguments)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(drop)
            raise
        except OSError as error:
            raise disk_error(error) from error

    def _expiry(self) -> float:
        return time.time() + _KEEP_UPLOADS.total_seconds()

    @property
    def max_bytes(self) -> int:
        """Largest object taken."""
        return self._max_bytes

    @property
    def spare_bytes(self) -> int:
        """Room on the disk that uploads may not take: deleting needs some, to make more."""
        return self._spare_bytes
