"""The store on Cloud Storage behind a line that breaks: nothing is lost, doubled or half there."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from liner.v1 import storage_pb2
from liner_server.errors import (
    ConflictError,
    DataLossError,
    FailedPreconditionError,
    NotFoundError,
    UnavailableError,
)
from liner_server.objects import gcs_bucket, gcs_upload
from liner_server.objects.gcs import GcsObjectStore
from liner_server.objects.gcs_bucket import Bucket
from support.cutting_proxy import CuttingProxy
from support.fake_gcs import shared_gcs

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Line:
    """A store behind a proxy that can break the line."""

    store: GcsObjectStore
    proxy: CuttingProxy


@pytest.fixture
async def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    """A store on a fresh bucket, whose repeats come at once."""
    monkeypatch.setattr(
        gcs_bucket, "_RETRY", gcs_bucket._RETRY.with_delay(0.01, 0.05, 1.0).with_timeout(5)
    )
    fake = shared_gcs()
    with CuttingProxy(fake.url) as proxy:
        bucket = Bucket(fake.new_bucket(), emulator=proxy.url)
        async with GcsObjectStore(bucket, scratch=tmp_path / "scratch") as store:
            yield Line(store=store, proxy=proxy)


async def put(
    store: GcsObjectStore, name: str, data: bytes, **spec: object
) -> storage_pb2.StoredObject:
    """Store an object in pieces of a megabyte."""
    async with store.upload(storage_pb2.UploadSpec(object_name=name, **spec)) as upload:
        for at in range(0, len(data), MIB):
            await upload.append(data[at : at + MIB])
        return await upload.commit(storage_pb2.UploadFinish())


async def get(store: GcsObjectStore, name: str) -> bytes:
    """Read a whole object."""
    async with store.read(name) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])


async def test_a_read_goes_on_where_the_line_broke(line: Line):
    """Wherever that is; the bytes are those of one generation and right to the last."""
    data = random.Random(1).randbytes(3 * MIB)
    await put(line.store, "x", data)
    rng = random.Random(2)

    for _ in range(8):
        # The first answer is the look-up; what follows are bytes of the object.
        line.proxy.cut_answers(rng.randrange(4_000, 2 * MIB), rng.randrange(1_000, MIB))
        assert await get(line.store, "x") == data

    assert line.proxy.cut >= 8


async def test_a_read_that_always_breaks_is_given_up(line: Line):
    """UNAVAILABLE in the end, not an endless attempt and not half an object."""
    await put(line.store, "x", bytes(3 * MIB))

    line.proxy.cut_answers(MIB, *[0] * 100)
    with pytest.raises(UnavailableError):
        await get(line.store, "x")


async def test_a_write_whose_answer_got_lost_is_no_conflict(line: Line):
    """It is asked again, finds its own object there, and says that it is stored: once."""
    async with line.store.upload(
        storage_pb2.UploadSpec(object_name="x", if_generation_match=0)
    ) as upload:
        await upload.append(b"data")
        line.proxy.cut_answers(0)
        stored = await upload.commit(storage_pb2.UploadFinish())

    assert line.proxy.cut == 1
    assert stored == await line.store.stat("x")
    with pytest.raises(ConflictError):
        await put(line.store, "x", b"other", if_generation_match=0)


@pytest.mark.parametrize("upload_id", ["", "u"])
async def test_a_large_upload_over_a_line_that_breaks_is_whole(
    line: Line, monkeypatch: pytest.MonkeyPatch, upload_id: str
):
    """Every part may lose its answer; the object has each byte once."""
    monkeypatch.setattr(gcs_upload, "PART_BYTES", 100_000)
    data = random.Random(3).randbytes(2 * MIB)
    line.proxy.cut_answers(*random.Random(4).choices(range(3000), k=12))

    stored = await put(line.store, "x", data, upload_id=upload_id)

    line.proxy.cut_answers()
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert await get(line.store, "x") == data
    left = [o.object_name for o in await line.store.list(".liner/uploads/")]
    assert len(left) == bool(upload_id)


async def test_nothing_there_is_told_apart_from_nobody_there(line: Line, tmp_path: Path):
    """A missing object is NOT_FOUND; a service that is away is UNAVAILABLE, within its time."""
    with pytest.raises(NotFoundError):
        await line.store.stat("no")
    line.proxy.cut_answers(*[0] * 1000)
    async with asyncio.timeout(20):
        with pytest.raises(UnavailableError):
            await line.store.stat("no")
    with pytest.raises(FailedPreconditionError) as error:
        async with shared_gcs().store("no-such-bucket", tmp_path / "other"):
            pass
    assert error.value.reason == "BUCKET_MISSING"


async def test_a_cancelled_upload_leaves_neither_object_nor_parts(
    line: Line, monkeypatch: pytest.MonkeyPatch
):
    """The caller hung up in mid-object."""
    monkeypatch.setattr(gcs_upload, "PART_BYTES", 1000)
    begun = asyncio.Event()

    async def send() -> None:
        async with line.store.upload(storage_pb2.UploadSpec(object_name="x")) as upload:
            await upload.append(bytes(5500))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(send())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await line.store.list("") == []


async def test_old_parts_are_dropped_and_fresh_ones_stay(tmp_path: Path, monkeypatch):
    """Of a process that died: without an id a day after the last part, with one after its day."""
    monkeypatch.setattr(gcs_upload, "PART_BYTES", 100)
    fake = shared_gcs()
    bucket = fake.new_bucket()
    begun = []
    async with fake.store(bucket, tmp_path / "a") as dying:
        for upload_id in ("", "u"):
            upload = dying.upload(storage_pb2.UploadSpec(object_name="x", upload_id=upload_id))
            opened = await upload.__aenter__()
            await opened.append(bytes(250))
            await opened._settle()
            begun.append(upload)
        now = dying._uploads._now()

        async with fake.store(bucket, tmp_path / "b", now=lambda: now + 3600) as store:
            assert await store.drop_uploads() == 0
            assert (await store.query_upload("u")).persisted_size == 200
        async with fake.store(bucket, tmp_path / "b", now=lambda: now + 90_000) as store:
            assert await store.drop_uploads() == 2
            assert await store.list("") == []
        for upload in begun:
            await upload.__aexit__(None, None, None)


async def test_bytes_that_changed_on_the_way_are_not_served_as_whole(line: Line, monkeypatch):
    """DATA_LOSS with the last byte."""
    await put(line.store, "x", b"0123456789")
    real = Bucket.stat

    def wrong(self: Bucket, name: str) -> storage_pb2.StoredObject:
        found = real(self, name)
        found.crc32c ^= 1
        return found

    monkeypatch.setattr(Bucket, "stat", wrong)

    with pytest.raises(DataLossError):
        await get(line.store, "x")
