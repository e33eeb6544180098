"""The local object store under crashes and broken disks."""

import os
from pathlib import Path

import pytest
from liner.v1 import storage_pb2
from liner_server.errors import DataLossError, NotFoundError, ResourceExhaustedError
from liner_server.objects.local import LocalObjectStore


async def put(store: LocalObjectStore, name: str, data: bytes) -> storage_pb2.StoredObject:
    """Store an object in one go."""
    async with store.upload(storage_pb2.UploadSpec(object_name=name)) as upload:
        await upload.append(data)
        return await upload.commit(storage_pb2.UploadFinish())


def files(folder: Path) -> list[Path]:
    """Every file of the store but its index."""
    return [p for p in folder.rglob("*") if p.is_file() and "index.sqlite" not in p.name]


async def test_a_crash_leaves_nothing_that_the_next_start_does_not_clear(tmp_path: Path):
    """Parts without an id, pinned links and doomed files are gone after a start."""
    async with LocalObjectStore(tmp_path) as store:
        await put(store, "kept", b"data")
    (tmp_path / "uploads" / "left-by-a-crash").write_bytes(b"x")
    (tmp_path / "pinned" / "left-by-a-crash").write_bytes(b"x")

    async with LocalObjectStore(tmp_path) as store:
        assert (await store.stat("kept")).size_bytes == 4

    assert len(files(tmp_path)) == 1


async def test_a_crash_between_file_and_index_leaves_the_old_object(tmp_path: Path, monkeypatch):
    """The index is what makes an object exist: without its row the new file is nobody's."""
    async with LocalObjectStore(tmp_path) as store:
        await put(store, "x", b"old")
        monkeypatch.setattr("liner_server.objects.index.Index.put", _die)
        with pytest.raises(KeyboardInterrupt):
            await put(store, "x", b"new!")
        monkeypatch.undo()
        assert len(files(tmp_path)) == 2
    async with LocalObjectStore(tmp_path) as store:
        assert (await store.stat("x")).size_bytes == 3

    assert len(files(tmp_path)) == 1


def _die(*_: object) -> None:
    raise KeyboardInterrupt


async def test_a_full_disk_is_said_and_clears_up_by_itself(tmp_path: Path, monkeypatch):
    """RESOURCE_EXHAUSTED while it lasts; reading and deleting go on, and so does writing after."""
    async with LocalObjectStore(tmp_path) as store:
        await put(store, "old", b"data")
        real = os.fsync
        monkeypatch.setattr(os, "fsync", _full)
        with pytest.raises(ResourceExhaustedError) as error:
            await put(store, "new", b"data")
        monkeypatch.setattr(os, "fsync", real)

        assert error.value.reason == "DISK_FULL"
        with pytest.raises(NotFoundError):
            await store.stat("new")
        await store.delete("old")
        await put(store, "new", b"data")

    assert len(files(tmp_path)) == 1


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


async def test_a_file_that_vanished_is_data_loss_and_not_a_missing_object(tmp_path: Path):
    """Somebody deleted below our feet: the operator must hear of it."""
    async with LocalObjectStore(tmp_path) as store:
        await put(store, "x", b"data")
        for file in files(tmp_path):
            file.unlink()
        with pytest.raises(DataLossError):
            async with store.read("x"):
                pass


async def test_nothing_is_acknowledged_before_it_is_on_the_disk(tmp_path: Path, monkeypatch):
    """kill -9 cannot show a lost write, so the calls are counted: file, folders, then the index."""
    synced: list[str] = []
    real = os.fsync

    def record(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    async with LocalObjectStore(tmp_path) as store:
        monkeypatch.setattr(os, "fsync", record)
        stored = await put(store, "x", b"data")
        mode = store._index._db.execute("PRAGMA synchronous").fetchone()

    file, root, folder = synced
    assert (len(file), root, len(folder)) == (64, "data", 2)
    assert stored.size_bytes == 4
    assert mode == (2,)
