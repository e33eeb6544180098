"""The local object store on a disk that is really full or read-only, and what it must never mix up.

The full and the read-only disk are small tmpfs mounts in a namespace of their own, so the errors
are the kernel's and not ours.
"""

import asyncio
import contextlib
import gc
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest
from liner.v1 import storage_pb2
from liner_server.errors import (
    ConflictError,
    DataLossError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    ResourceExhaustedError,
)
from liner_server.objects import local
from liner_server.objects.local import LocalObjectStore
from support import small_disk

SETUP = """
import asyncio, errno, os, subprocess, sys
from pathlib import Path
from liner.v1 import storage_pb2
from liner_server.errors import FailedPreconditionError, ResourceExhaustedError
from liner_server.objects.local import LocalObjectStore

async def put(store, name, data, **spec):
    async with store.upload(storage_pb2.UploadSpec(object_name=name, **spec)) as upload:
        for at in range(0, len(data), 65536):
            await upload.append(data[at : at + 65536])
        return await upload.commit(storage_pb2.UploadFinish())

async def get(store, name):
    async with store.read(name) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])

root = Path(sys.argv[1])
"""


def on_a_small_disk(folder: Path, script: str, *, size: str = "4m") -> None:
    """Run a script on a fresh tmpfs that nobody else sees; skip where that is not allowed."""
    small_disk.run(folder, SETUP + textwrap.dedent(script), size=size)


async def put(
    store: LocalObjectStore, name: str, data: bytes, **spec: object
) -> storage_pb2.StoredObject:
    """Store an object in one go."""
    async with store.upload(storage_pb2.UploadSpec(object_name=name, **spec)) as upload:
        await upload.append(data)
        return await upload.commit(storage_pb2.UploadFinish())


async def get(store: LocalObjectStore, name: str) -> bytes:
    """Read a whole object."""
    async with store.read(name) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])


def stored_files(folder: Path) -> list[Path]:
    """Every file below the store but its index and its lock."""
    folders = ("data", "uploads", "pinned")
    return [p for name in folders for p in (folder / name).rglob("*") if p.is_file()]


@pytest.mark.parametrize("spare", [0, 1 << 20])
def test_a_full_disk_refuses_and_recovers_without_a_restart(tmp_path: Path, spare: int):
    """With a reserve, deleting works on a full disk; without it the kernel's own error is met.

    Either way nothing half-written stays, and what was stored can still be read.
    """
    on_a_small_disk(
        tmp_path,
        f"""
        async def run():
            async with LocalObjectStore(root, spare_bytes={spare}) as store:
                await put(store, "old", b"o" * 500_000)
                try:
                    await put(store, "big", bytes(8 << 20))
                except ResourceExhaustedError as error:
                    assert error.reason == "DISK_FULL", error.reason
                else:
                    raise AssertionError("the disk took more than it has")
                assert not list((root / "uploads").iterdir())
                assert await get(store, "old") == b"o" * 500_000
                assert [o.object_name for o in await store.list("")] == ["old"]
                await store.delete("old")
                await put(store, "new", b"n" * 500_000)
                assert await get(store, "new") == b"n" * 500_000

        asyncio.run(run())
        """,
    )


def test_somebody_else_filling_the_disk_does_not_stop_a_delete(tmp_path: Path):
    """The reserve is refused to uploads, so that making room never needs room first."""
    on_a_small_disk(
        tmp_path,
        """
        async def run():
            async with LocalObjectStore(root, spare_bytes=1 << 20) as store:
                await put(store, "old", b"o" * 500_000)
                free = os.statvfs(root)
                with open(root / "foreign", "wb") as foreign:
                    foreign.write(bytes(free.f_bavail * free.f_frsize - (300 << 10)))
                try:
                    await put(store, "new", b"n")
                except ResourceExhaustedError as error:
                    assert error.reason == "DISK_FULL", error.reason
                else:
                    raise AssertionError("the reserve was given away")
                await store.delete("old")

        asyncio.run(run())
        """,
    )


def test_a_read_only_disk_refuses_writes_and_still_reads(tmp_path: Path):
    """FAILED_PRECONDITION: trying again cannot help until somebody mends the disk."""
    on_a_small_disk(
        tmp_path,
        """
        async def refused(work):
            try:
                await work
            except FailedPreconditionError as error:
                assert error.reason == "DISK_READ_ONLY", error.reason
            else:
                raise AssertionError("a read-only disk took a write")

        async def run():
            async with LocalObjectStore(root) as store:
                await put(store, "old", b"data")
                subprocess.run(["mount", "--bind", root, root], check=True)
                subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
                await refused(put(store, "new", b"data"))
                assert await get(store, "old") == b"data"
            await refused(LocalObjectStore(root).__aenter__())

        asyncio.run(run())
        """,
        size="40m",
    )


async def test_a_part_that_expired_is_never_the_start_of_another_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An upload_id comes back after a day: bytes of the old upload must not be in the new one."""
    monkeypatch.setattr(local, "_KEEP_UPLOADS", timedelta(0))
    async with LocalObjectStore(tmp_path) as store:
        old = storage_pb2.UploadSpec(object_name="theirs", upload_id="u")
        async with store.upload(old) as upload:
            await upload.append(b"secret")

        with pytest.raises(NotFoundError):
            await store.query_upload("u")
        await put(store, "mine", b"data", upload_id="u")

        assert await get(store, "mine") == b"data"


async def test_a_write_that_is_visible_is_never_reported_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The old file could not be unlinked: that is for the next start, and no caller's trouble."""
    real = Path.unlink
    async with LocalObjectStore(tmp_path) as store:
        await put(store, "x", b"old")
        await put(store, "y", b"old")
        monkeypatch.setattr(Path, "unlink", _io_error)
        stored = await put(store, "x", b"new")
        await store.delete("y")
        monkeypatch.setattr(Path, "unlink", real)

        assert await store.stat("x") == stored
    async with LocalObjectStore(tmp_path) as store:
        assert await get(store, "x") == b"new"
    assert len(stored_files(tmp_path)) == 1


def _io_error(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


async def test_two_processes_never_share_a_folder(tmp_path: Path):
    """A start clears what a crash left; with a second process alive that would be its work."""
    async with LocalObjectStore(tmp_path) as store:
        await put(store, "x", b"data")

        with pytest.raises(FailedPreconditionError) as error:
            async with LocalObjectStore(tmp_path):
                pass

        assert error.value.reason == "STORE_IN_USE"
        assert await get(store, "x") == b"data"
    async with LocalObjectStore(tmp_path) as store:
        assert await get(store, "x") == b"data"


async def test_bytes_that_rotted_on_the_disk_are_not_served_as_whole(tmp_path: Path):
    """A flipped bit is DATA_LOSS when the last byte was read, not a quietly wrong file."""
    async with LocalObjectStore(tmp_path) as store:
        await put(store, "x", b"0123456789")
        [file] = stored_files(tmp_path)
        file.chmod(0o600)
        file.write_bytes(b"0123x56789")

        with pytest.raises(DataLossError) as error:
            await get(store, "x")

    assert error.value.reason == "CHECKSUM"


async def test_too_much_is_refused_before_it_is_sent(tmp_path: Path):
    """Four gigabytes for a refusal at the end would be everybody's time."""
    async with LocalObjectStore(tmp_path, max_object_bytes=10) as store:
        with pytest.raises(ResourceExhaustedError) as error:
            await put(store, "x", b"", size_bytes=11)
        with pytest.raises(InvalidRequestError) as mismatch:
            await put(store, "x", b"12345", size_bytes=4)

    assert error.value.reason == "OBJECT_TOO_LARGE"
    assert mismatch.value.violations[0].reason == "SIZE_MISMATCH"
    assert not stored_files(tmp_path)


@pytest.mark.parametrize("upload_id", ["", "u"])
async def test_a_cancelled_upload_leaves_nothing_visible(tmp_path: Path, upload_id: str):
    """The caller hung up: no object, and a part only where it may be resumed."""
    begun, forever = asyncio.Event(), asyncio.Event()
    async with LocalObjectStore(tmp_path) as store:

        async def send() -> None:
            spec = storage_pb2.UploadSpec(object_name="x", upload_id=upload_id)
            async with store.upload(spec) as upload:
                await upload.append(b"half")
                begun.set()
                await forever.wait()

        task = asyncio.create_task(send())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        with pytest.raises(NotFoundError):
            await store.stat("x")
        assert len(stored_files(tmp_path)) == bool(upload_id)


@pytest.mark.parametrize("door", ["upload", "read", "local_file"])
async def test_a_caller_who_leaves_while_a_file_is_opened_leaves_none_open(
    tmp_path: Path, door: str
):
    """A thread cannot be cancelled: what it opens for nobody is closed and removed again.

    A file left open would also be a ResourceWarning, which fails the test.
    """
    doors = {
        "upload": lambda s: s.upload(storage_pb2.UploadSpec(object_name="y")),
        "read": lambda s: s.read("x"),
        "local_file": lambda s: s.local_file("x"),
    }
    async with LocalObjectStore(tmp_path) as store:
        await put(store, "x", b"data")

        async def enter() -> None:
            async with doors[door](store):
                await asyncio.Event().wait()

        for turns in range(12):
            task = asyncio.create_task(enter())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # Each thread's queue is empty behind this.
        assert await get(store, "x") == b"data"

    gc.collect()
    assert len(stored_files(tmp_path)) == 1


async def test_replacing_and_deleting_at_once_never_shows_a_torn_object(tmp_path: Path):
    """Readers among 40 writers and deleters see one writer's bytes, whole, or nothing."""
    async with LocalObjectStore(tmp_path) as store:

        async def write(n: int) -> None:
            await put(store, "x", b"%d" % (n % 10) * 3000)

        async def remove() -> None:
            with contextlib.suppress(NotFoundError):
                await store.delete("x")

        async def look() -> None:
            try:
                data = await get(store, "x")
            except NotFoundError:
                return
            assert len(data) == 3000
            assert len(set(data)) == 1

        await asyncio.gather(
            *(work for n in range(30) for work in (write(n), look(), look())),
            *(remove() for _ in range(10)),
        )
        with pytest.raises(ConflictError):
            await put(store, "x", b"", if_generation_match=1)
    assert len(stored_files(tmp_path)) <= 1
