"""The client against a real gRPC server that breaks on purpose."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2
from liner.v1 import enrichment_pb2, track_pb2
from liner_client import (
    BatchEvent,
    DataLossError,
    DeadlineError,
    InvalidAudioError,
    InvalidRequestError,
    LinerClient,
    NotFoundError,
    ResourceExhaustedError,
    ServingStatus,
    UnavailableError,
    UnimplementedError,
)
from liner_client.batch import MAX_MESSAGE_BYTES
from liner_client.errors import from_call, from_item
from support.stub_server import StreamPlan, Stub, rich_status, running_stub, unavailable


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    """A server to talk to."""
    async with running_stub() as stub:
        yield stub


@pytest.fixture
async def liner(stub: Stub) -> AsyncIterator[LinerClient]:
    """A client of it."""
    async with LinerClient(stub.address, token="secret") as liner:  # noqa: S106
        yield liner


def _tracks(count: int) -> list[tuple[str, track_pb2.Track]]:
    return [(f"item-{n}", track_pb2.Track(title=f"song {n}")) for n in range(count)]


async def _all(events: AsyncIterator[BatchEvent]) -> list[BatchEvent]:
    return [event async for event in events]


def _answered(events: list[BatchEvent]) -> list[str]:
    return [e.item_id for e in events if isinstance(e, enrichment_pb2.BatchResult)]


async def test_every_item_is_answered_once_and_the_summary_comes_last(
    stub: Stub, liner: LinerClient
) -> None:
    """A caller counts on exactly one answer an item and on a definite end."""
    events = await _all(liner.enrich_many(_tracks(120), chunk_items=20))

    assert _answered(events) == [f"item-{n}" for n in range(120)]
    assert isinstance(events[-1], enrichment_pb2.BatchSummary)
    assert [len(message) for message in stub.enrichment.streams[0].messages] == [20] * 6


async def test_a_failed_item_is_a_result_and_not_the_end(liner: LinerClient) -> None:
    """One broken file among thousands must not cost the others."""
    tracks = [("a", track_pb2.Track(title="bad")), ("b", track_pb2.Track(title="good"))]

    events = await _all(liner.enrich_many(tracks))

    first, second = (e for e in events if isinstance(e, enrichment_pb2.BatchResult))
    assert isinstance(from_item(first.error), InvalidAudioError)
    assert second.enriched.track.title == "GOOD"


async def test_a_broken_stream_is_resumed_with_what_is_unanswered(
    stub: Stub, liner: LinerClient
) -> None:
    """A server that dies between two results costs time, not answers and not double work."""
    stub.enrichment.plans.extend([StreamPlan(results=3), StreamPlan(results=2)])

    events = await _all(liner.enrich_many(_tracks(9), chunk_items=4))

    assert sorted(_answered(events)) == sorted(f"item-{n}" for n in range(9))
    first, second, third = stub.enrichment.streams
    assert {s.config.batch_id for s in (second, third)} == {first.config.batch_id}
    # A dying server's last result may be lost on the way: the client resumes behind what it has.
    had = second.config.resume_after
    assert had <= 3
    assert had <= third.config.resume_after <= 5
    assert not {f"item-{n}" for n in range(had)} & {*second.items, *third.items}


async def test_results_that_were_finished_but_lost_are_not_worked_out_again(
    stub: Stub, liner: LinerClient
) -> None:
    """The server replays what it finished; sending those items again would pay for them twice."""
    stub.enrichment.plans.append(StreamPlan(results=2, lose=3))

    events = await _all(liner.enrich_many(_tracks(8), chunk_items=8))

    assert sorted(_answered(events)) == sorted(f"item-{n}" for n in range(8))
    assert stub.enrichment.streams[1].items == ["item-5", "item-6", "item-7"]


async def test_a_draining_server_hands_the_batch_over(stub: Stub, liner: LinerClient) -> None:
    """A deployment is not a failure: the batch goes on where the server said it stopped."""
    stub.enrichment.plans.append(StreamPlan(results=4, drain=True))

    events = await _all(liner.enrich_many(_tracks(6)))

    assert sorted(_answered(events)) == sorted(f"item-{n}" for n in range(6))
    assert stub.enrichment.streams[1].config.resume_after == 4


async def test_a_server_that_never_saw_the_batch_gets_the_rest_as_a_new_one(
    stub: Stub, liner: LinerClient
) -> None:
    """Behind a load balancer the next server knows nothing of the batch."""
    stub.enrichment.plans.append(StreamPlan(results=2, forget=True))

    events = await _all(liner.enrich_many(_tracks(5)))

    assert sorted(_answered(events)) == sorted(f"item-{n}" for n in range(5))
    last = stub.enrichment.streams[-1]
    assert last.config.batch_id != stub.enrichment.streams[0].config.batch_id
    assert last.items == ["item-2", "item-3", "item-4"]


async def test_a_batch_that_gets_nowhere_is_given_up(stub: Stub, liner: LinerClient) -> None:
    """An item that kills the server each time must not be sent for ever."""
    stub.enrichment.plans.extend(StreamPlan(results=0) for _ in range(20))

    with pytest.raises(UnavailableError):
        await _all(liner.enrich_many(_tracks(2), resume_for=timedelta(0)))

    assert len(stub.enrichment.streams) == 3


async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    """A wrong address shows within seconds and not after minutes of patience."""
    async with running_stub() as stub:
        address = stub.address
    async with LinerClient(address) as liner:
        with pytest.raises(UnavailableError) as caught:
            await _all(liner.enrich_many(_tracks(1)))

    assert caught.value.code == code_pb2.UNAVAILABLE


async def test_a_wrong_request_is_not_tried_again(stub: Stub, liner: LinerClient) -> None:
    """What the server refuses now it refuses tomorrow."""
    status = rich_status(code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST", "no")
    stub.enrichment.refusals.append(status)

    with pytest.raises(InvalidRequestError):
        await _all(liner.enrich_many(_tracks(1)))

    assert stub.enrichment.streams == []


async def test_items_are_taken_no_faster_than_results(stub: Stub, liner: LinerClient) -> None:
    """A source of millions must not end up in memory because the reader is slow."""
    taken = 0

    async def source() -> AsyncIterator[tuple[str, track_pb2.Track]]:
        nonlocal taken
        for item in _tracks(500):
            taken += 1
            yield item

    most_ahead = answered = 0
    async for event in liner.enrich_many(source(), chunk_items=5):
        if isinstance(event, enrichment_pb2.BatchResult):
            most_ahead = max(most_ahead, taken - answered)
            answered += 1

    # Those the server may have open, two messages, and the one that is read ahead.
    assert answered == 500
    assert most_ahead <= stub.enrichment.max_in_flight + 2 * 5 + 1


async def test_a_trickling_source_is_sent_on_at_once(liner: LinerClient) -> None:
    """Someone who feeds one track and waits for its answer must not wait for a full message."""
    answered = asyncio.Event()

    async def source() -> AsyncIterator[tuple[str, track_pb2.Track]]:
        for item in _tracks(3):
            yield item
            await answered.wait()
            answered.clear()

    events = []
    async for event in liner.enrich_many(source(), chunk_items=50):
        events.append(event)
        if isinstance(event, enrichment_pb2.BatchResult):
            answered.set()

    assert _answered(events) == ["item-0", "item-1", "item-2"]


async def test_what_the_source_raises_reaches_the_caller(liner: LinerClient) -> None:
    """A batch whose input failed must not look like one that is complete."""

    async def source() -> AsyncIterator[tuple[str, track_pb2.Track]]:
        yield "a", track_pb2.Track(title="x")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await _all(liner.enrich_many(source()))


async def test_an_id_in_use_is_refused(liner: LinerClient) -> None:
    """Two open items of one name could not be told apart."""
    with pytest.raises(ValueError, match="twice"):
        await _all(liner.enrich_many([*_tracks(1), *_tracks(1)]))


async def test_leaving_early_ends_the_source(liner: LinerClient) -> None:
    """A generator that holds a file open is closed with the batch."""
    closed = asyncio.Event()

    async def source() -> AsyncIterator[tuple[str, track_pb2.Track]]:
        try:
            for item in _tracks(100):
                yield item
        finally:
            closed.set()

    async with aclosing(liner.enrich_many(source(), chunk_items=5)) as events:
        async for event in events:
            if isinstance(event, enrichment_pb2.BatchResult):
                break

    assert closed.is_set()


async def test_large_items_are_spread_over_messages(stub: Stub, liner: LinerClient) -> None:
    """A message over the server's limit would end the stream for all."""
    clip = track_pb2.Audio(inline=b"\0" * (MAX_MESSAGE_BYTES * 2 // 3))
    tracks = [(name, track_pb2.Track(title=name, audio=clip)) for name in "abc"]
    stub.enrichment.plans.append(StreamPlan(results=0))

    events = await _all(liner.enrich_many(tracks))

    assert sorted(_answered(events)) == ["a", "b", "c"]
    assert stub.enrichment.streams[-1].messages == [["a"], ["b"], ["c"]]


async def test_a_call_that_changes_nothing_is_tried_three_times(
    stub: Stub, liner: LinerClient
) -> None:
    """A server that restarts is not the caller's concern."""
    stub.enrichment.refusals.extend([unavailable(), unavailable()])

    answer = await liner.enrich(track_pb2.Track(title="so what"), request_id="req-1")

    assert answer.track.title == "SO WHAT"
    assert [call["liner-request-id"] for call in stub.enrichment.calls] == ["req-1"] * 3
    assert stub.enrichment.calls[0]["authorization"] == "Bearer secret"


async def test_an_error_carries_all_the_server_said(stub: Stub, liner: LinerClient) -> None:
    """A program decides by reason, fields and delay, and an operator searches by request id."""
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="track.isrc", description="12 characters", reason="ISRC_FORMAT")
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=7))
    stub.enrichment.refusals.append(
        rich_status(code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST", "isrc: 12 characters", bad)
    )

    with pytest.raises(InvalidRequestError) as caught:
        await liner.validate(track_pb2.Track(title="x"), request_id="req-2")

    assert caught.value.reason == "INVALID_REQUEST"
    assert [(v.field, v.reason) for v in caught.value.violations] == [("track.isrc", "ISRC_FORMAT")]

    stub.enrichment.refusals.append(
        rich_status(code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_IN_FLIGHT", "full", retry)
    )
    with pytest.raises(ResourceExhaustedError) as full:
        await liner.enrich(track_pb2.Track(title="x"), request_id="req-3")

    assert full.value.retry_delay == timedelta(seconds=7)
    assert full.value.request_id == "req-3"
    assert full.value.code_name == "RESOURCE_EXHAUSTED"


async def test_a_call_ends_at_its_deadline(stub: Stub, liner: LinerClient) -> None:
    """Nobody waits longer than they said."""
    stub.enrichment.hold = True

    with pytest.raises(DeadlineError):
        await liner.enrich(track_pb2.Track(title="x"), deadline=timedelta(milliseconds=50))


def test_a_status_that_grpc_lost_counts_as_an_absent_server() -> None:
    """grpc.aio makes up INTERNAL when a stream ends under its writer; that is no server's word."""
    lost = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        details="Internal error from Core",
    )

    assert isinstance(from_call(lost), UnavailableError)


def test_a_token_never_leaves_the_machine_in_plain_text() -> None:
    """A token is a password; the first hop that reads it may use it."""
    with pytest.raises(ValueError, match="plain text"):
        LinerClient("liner.example:443", token="secret")  # noqa: S106


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/tmp/liner"])
async def test_a_token_may_be_sent_on_this_machine(target: str) -> None:
    """A local server needs no certificate."""
    await LinerClient(target, token="secret").close()  # noqa: S106


async def test_health_without_the_service_is_a_typed_error(liner: LinerClient) -> None:
    """The stub serves no health: the raw call must still end in the client's own errors."""
    with pytest.raises(UnimplementedError):
        await liner.health()

    assert ServingStatus(1) is ServingStatus.SERVING


async def test_the_same_bytes_are_sent_once(stub: Stub, liner: LinerClient, tmp_path: Path) -> None:
    """A catalogue that is enriched again must not be uploaded again."""
    first, copy = tmp_path / "a.FLAC", tmp_path / "b.flac"
    first.write_bytes(b"sound" * 300_000)
    copy.write_bytes(first.read_bytes())

    stored = await liner.upload_file(first)
    again = await liner.upload_file(copy)

    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    assert stored.object_name == again.object_name == f"audio/{digest}.flac"
    assert stub.storage.uploads == [stored.object_name]
    assert stub.storage.objects[stored.object_name] == first.read_bytes()


async def test_losing_the_race_to_upload_is_success(
    stub: Stub, liner: LinerClient, tmp_path: Path
) -> None:
    """Two workers that meet the same file both get it stored."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    stub.storage.before_commit = lambda name: stub.storage.objects.update({name: b"sound"})

    stored = await liner.upload_file(path)

    assert stored.size_bytes == 5


async def test_a_broken_upload_goes_on_where_it_stopped(
    stub: Stub, liner: LinerClient, tmp_path: Path
) -> None:
    """On a poor line a large file would otherwise never arrive."""
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(range(256)) * 8192)
    stub.storage.break_after.append(2)

    stored = await liner.upload_file(path, "masters/a.wav")

    assert stub.storage.objects["masters/a.wav"] == path.read_bytes()
    assert stored.size_bytes == path.stat().st_size
    assert stub.storage.offsets == [0, 1024 * 1024]


async def test_a_broken_download_goes_on_where_it_stopped(
    stub: Stub, liner: LinerClient, tmp_path: Path
) -> None:
    """Bytes that arrived are not fetched again."""
    data = stub.storage.objects["a"] = bytes(range(251)) * 40
    stub.storage.break_after.append(3)

    size = await liner.download_file("a", tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == data
    assert size == len(data)
    assert stub.storage.offsets == [0, 3 * 1024]


async def test_a_corrupt_download_leaves_the_old_file(
    stub: Stub, liner: LinerClient, tmp_path: Path
) -> None:
    """A wrong byte in a master is worse than no download."""
    stub.storage.objects["a"] = b"x" * 5000
    stub.storage.corrupt = True
    (tmp_path / "a").write_bytes(b"old")

    with pytest.raises(DataLossError):
        await liner.download_file("a", tmp_path / "a")

    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


async def test_listing_goes_through_all_pages(stub: Stub, liner: LinerClient) -> None:
    """A caller who lists wants all, not the first page."""
    stub.storage.objects.update({f"audio/{n}": b"x" for n in range(5)}, other=b"y")

    names = [found.object_name async for found in liner.list_objects("audio/")]

    assert names == [f"audio/{n}" for n in range(5)]


async def test_a_missing_object_is_said_by_its_own_error(stub: Stub, liner: LinerClient) -> None:
    """Deleting what is gone and failing to delete are different things."""
    stub.storage.objects["a"] = b"x"

    await liner.delete("a")

    with pytest.raises(NotFoundError) as caught:
        await liner.delete("a")
    assert caught.value.reason == "OBJECT_NOT_FOUND"
