"""The client and the real server together, a restart in the middle included."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_client import LinerClient, ServingStatus, objects
from support.server import served


async def test_a_batch_survives_the_restart_of_its_server(tmp_path: Path) -> None:
    """A deployment in the middle of a catalogue: every track is answered, and exactly once."""
    tracks = [(f"item-{n}", track_pb2.Track(title=f"Song {n}")) for n in range(60)]
    answered: list[str] = []
    opened = 0
    async with AsyncExitStack() as second, AsyncExitStack() as first:
        app, _ = await first.enter_async_context(served(tmp_path / "first"))
        address = app.grpc_address
        liner = await second.enter_async_context(LinerClient(address))

        async for event in liner.enrich_many(tracks, chunk_items=5):
            opened += isinstance(event, enrichment_pb2.BatchOpened)
            if isinstance(event, enrichment_pb2.BatchResult):
                answered.append(event.item_id)
                if len(answered) == 10:
                    await first.aclose()
                    again = served(tmp_path / "second", grpc_address=address)
                    await second.enter_async_context(again)

    assert opened == 2
    assert sorted(answered) == sorted(item_id for item_id, _ in tracks)


async def test_a_batch_may_last_longer_than_a_unary_call(tmp_path: Path) -> None:
    """A catalogue takes hours; only its items have a time."""
    async with (
        served(tmp_path, default_deadline_seconds=0.001) as (app, _),
        LinerClient(app.grpc_address) as liner,
    ):
        events = [e async for e in liner.enrich_many([("a", track_pb2.Track(title="A Song"))])]

    [result] = [e for e in events if isinstance(e, enrichment_pb2.BatchResult)]
    assert result.HasField("enriched"), result.error


async def test_audio_goes_there_and_back(tmp_path: Path) -> None:
    """What was stored is what is fetched, bit for bit, and stored once."""
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(range(256)) * 6000)
    async with served(tmp_path / "data") as (app, _), LinerClient(app.grpc_address) as liner:
        stored = await liner.upload_file(path)
        again = await liner.upload_file(path)
        await liner.download_file(stored.object_name, tmp_path / "b.wav")
        listed = [found.object_name async for found in liner.list_objects("audio/")]
        await liner.delete(stored.object_name, if_generation_match=stored.generation)

    assert again.generation == stored.generation
    assert (tmp_path / "b.wav").read_bytes() == path.read_bytes()
    assert listed == [stored.object_name]


async def test_a_file_that_vanishes_while_it_is_sent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that says which file, and not that the call was cancelled, which it looks like."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"data")
    digest = objects.digest

    def digest_and_lose(file: Path) -> objects.FileDigest:
        found = digest(file)
        file.unlink()
        return found

    monkeypatch.setattr(objects, "digest", digest_and_lose)
    async with served(tmp_path / "data") as (app, _), LinerClient(app.grpc_address) as liner:
        with pytest.raises(FileNotFoundError, match=r"a\.wav"):
            await liner.upload_file(path)


async def test_health_is_read_without_the_health_package(tmp_path: Path) -> None:
    """The client carries its own two messages; they must be those of the protocol."""
    async with served(tmp_path) as (app, _), LinerClient(app.grpc_address) as liner:
        assert await liner.health() is ServingStatus.SERVING
        assert await liner.health("liner.v1.EnrichmentService") is ServingStatus.SERVING
        assert await liner.health("nobody.Knows") is ServingStatus.SERVICE_UNKNOWN
