"""The whole service on a bucket: upload, listen, results, clean-up of scratch."""

import asyncio
import io
from pathlib import Path

import grpc
import pytest
from liner.v1 import enrichment_pb2, storage_pb2, track_pb2
from liner_server.evaluation.encode import write
from liner_server.evaluation.synth import Piece, render
from liner_server.objects.gcs import GcsObjectStore
from support.fake_gcs import shared_gcs
from support.grpc_errors import fails
from support.server import Stubs, served


async def put(stubs: Stubs, name: str, data: bytes) -> None:
    """Upload an object in chunks."""
    frames = [storage_pb2.UploadRequest(spec=storage_pb2.UploadSpec(object_name=name))]
    frames += [
        storage_pb2.UploadRequest(
            chunk=storage_pb2.Chunk(offset=at, data=data[at : at + (1 << 20)])
        )
        for at in range(0, len(data), 1 << 20)
    ]
    frames.append(storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish()))
    await stubs.storage.Upload(iter(frames))


async def test_audio_in_a_bucket_is_listened_to(tmp_path: Path):
    """Fetched into the scratch folder, heard, gone from there; its result lies in the bucket."""
    song = tmp_path / "song.ogg"
    piece = render(Piece(bpm=120.0, key="C major", seconds=20.0))
    await asyncio.to_thread(write, song, piece, 44_100)
    fake = shared_gcs()
    bucket = fake.new_bucket()
    cloud = {"objects": "gcs", "gcs_bucket": bucket, "storage_emulator_host": fake.url}
    async with served(tmp_path / "data", results="objects", **cloud) as (_, stubs):
        await put(stubs, "in/song.ogg", await asyncio.to_thread(song.read_bytes))
        track = track_pb2.Track(audio=track_pb2.Audio(object_name="in/song.ogg"))

        answer = await stubs.enrichment.EnrichMetadata(
            enrichment_pb2.EnrichMetadataRequest(track=track), timeout=60
        )

        listed = await stubs.storage.ListObjects(storage_pb2.ListObjectsRequest())
        assert answer.track.properties.container == "ogg"
        assert [o.object_name for o in listed.objects] == ["in/song.ogg"]
        assert not list((tmp_path / "data" / "scratch").iterdir())
    async with fake.store(bucket, tmp_path / "other") as store:
        results = await store.list(".liner/results/")
        assert any(answer.processing.enrichment_id for _ in results)


async def test_fetching_ends_at_the_callers_deadline(tmp_path: Path, monkeypatch):
    """A bucket that hangs costs its caller the deadline, and leaves nothing in scratch."""
    fake = shared_gcs()
    hangs = asyncio.Event()
    real = GcsObjectStore.blocking

    async def slow(self, work, *arguments):
        if getattr(work, "__name__", "") == "open_range":
            await hangs.wait()
        return await real(self, work, *arguments)

    cloud = {"objects": "gcs", "gcs_bucket": fake.new_bucket(), "storage_emulator_host": fake.url}
    async with served(tmp_path / "data", **cloud) as (_, stubs):
        await put(stubs, "song.ogg", io.BytesIO(b"no audio").read())
        monkeypatch.setattr(GcsObjectStore, "blocking", slow)
        track = track_pb2.Track(audio=track_pb2.Audio(object_name="song.ogg"))
        request = enrichment_pb2.EnrichMetadataRequest(track=track)

        async with fails(grpc.StatusCode.DEADLINE_EXCEEDED):
            await stubs.enrichment.EnrichMetadata(request, timeout=1)

        hangs.set()
        assert not list((tmp_path / "data" / "scratch").iterdir())


@pytest.mark.parametrize("name", ["", "no-such-bucket"])
async def test_a_server_without_its_bucket_does_not_start(tmp_path: Path, name: str):
    """It says which setting, or which bucket, in a line."""
    cloud = {"objects": "gcs", "gcs_bucket": name, "storage_emulator_host": shared_gcs().url}

    with pytest.raises(Exception, match=r"GCS_BUCKET|no-such-bucket"):
        async with served(tmp_path / "data", **cloud):
            pass
