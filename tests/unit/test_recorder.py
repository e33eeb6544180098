"""Storing behind the answer's back: bounded, patient, and counted when it gives up."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.context import Principal, RequestContext
from liner_server.errors import (
    DataLossError,
    FailedPreconditionError,
    LinerError,
    ResourceExhaustedError,
    UnavailableError,
)
from liner_server.ports import ResultStore
from liner_server.recorder import RecorderLimits, StoreRecorder
from liner_server.results.sqlite import SqliteResultStore
from support.eventually import eventually

CONTEXT = RequestContext(
    request_id="r1", principal=Principal(name="test", roles=frozenset()), deadline=0.0
)


class Observed:
    """Counts what became of the notes."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def recorded(self, kind: str, outcome: str, count: int) -> None:
        """Count them."""
        self.counts[kind, outcome] += count


class Failing(SqliteResultStore):
    """A real store that fails for as long as it is told to."""

    error: LinerError | None = None
    stuck = False
    tried = 0

    async def put(self, enrichment: enrichment_pb2.Enrichment) -> bool:
        """Store it, or fail."""
        await self._fail()
        return await super().put(enrichment)

    async def find_answer(
        self, key: bytes, *, since: datetime
    ) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Find it, or fail."""
        await self._fail()
        return await super().find_answer(key, since=since)

    async def _fail(self) -> None:
        self.tried += 1
        if self.stuck:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Failing]:
    """A store that can be made to fail."""
    async with Failing(tmp_path / "results.sqlite") as store:
        yield store


@asynccontextmanager
async def recording(
    store: ResultStore, observed: Observed, **limits: object
) -> AsyncIterator[StoreRecorder]:
    """Open a recorder with every default but these limits."""
    async with StoreRecorder(
        store,
        observer=observed,
        store_results=True,
        answers_kept=timedelta(days=30),
        limits=RecorderLimits(**limits),  # type: ignore[arg-type]
    ) as recorder:
        yield recorder


def answer(name: str) -> enrichment_pb2.EnrichMetadataResponse:
    """Return an answer of this id."""
    return enrichment_pb2.EnrichMetadataResponse(
        track=track_pb2.Track(title="Song"),
        processing=track_pb2.ProcessingResult(enrichment_id=name, model="embedded"),
    )


async def names(store: ResultStore) -> set[str]:
    """Return the ids of what is stored."""
    page = await store.list(enrichment_pb2.ListEnrichmentsRequest(page_size=500))
    return {record.enrichment_id for record in page.enrichments}


async def test_what_was_recorded_is_stored_when_the_server_stops(store):
    """A drain that comes right behind the answer loses nothing."""
    observed = Observed()
    async with recording(store, observed) as recorder:
        for n in range(200):
            recorder.record(answer(f"{n}"), CONTEXT)
        recorder.keep(b"k", answer("0"))

    assert await names(store) == {f"{n}" for n in range(200)}
    assert (await store.get("7")).request_id == "r1"
    assert await store.find_answer(b"k", since=datetime(2020, 1, 1, tzinfo=UTC)) == answer("0")
    assert observed.counts == {("result", "stored"): 200, ("answer", "stored"): 1}


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("locked", reason="STORE_LOCKED"),
        ResourceExhaustedError("full", reason="DISK_FULL"),
        FailedPreconditionError("read-only", reason="DISK_READ_ONLY"),
    ],
)
async def test_a_store_that_comes_back_gets_everything(store, error):
    """An outage of minutes costs nothing but memory, which is bounded."""
    observed = Observed()
    store.error = error
    async with recording(store, observed) as recorder:
        for n in range(100):
            recorder.record(answer(f"{n}"), CONTEXT)
        await eventually(lambda: store.tried > 64)
        assert not observed.counts
        store.error = None
        await eventually(lambda: observed.counts["result", "stored"] == 100)

    assert len(await names(store)) == 100


async def test_what_the_store_will_never_take_is_given_up(store):
    """One poisonous result must not hold up those behind it."""
    observed = Observed()
    store.error = DataLossError("corrupt", reason="STORE_CORRUPT")
    async with recording(store, observed) as recorder:
        recorder.record(answer("a"), CONTEXT)
        await eventually(lambda: observed.counts["result", "dropped"] == 1)
        store.error = None
        recorder.record(answer("b"), CONTEXT)

    assert await names(store) == {"b"}


async def test_the_buffer_is_bounded_by_number_and_by_size(store):
    """A store that is down must not take the server's memory."""
    for limits, kept in (({"entries": 10}, 10), ({"size_bytes": 10_000}, 2)):
        observed = Observed()
        store.error = UnavailableError("down", reason="STORE")
        async with recording(store, observed, close=timedelta(0), **limits) as recorder:
            for n in range(15):
                large = answer(f"{n}")
                large.track.lyrics = "x" * 4000
                recorder.record(large, CONTEXT)
            assert observed.counts == {("result", "dropped"): 15 - kept}
        assert observed.counts == {("result", "dropped"): 15}


async def test_answers_to_be_given_again_leave_room_for_results(store):
    """A lost cache entry costs time, a lost result an editor's work."""
    observed = Observed()
    store.error = UnavailableError("down", reason="STORE")
    async with recording(store, observed, entries=10, close=timedelta(0)) as recorder:
        for n in range(10):
            recorder.keep(f"{n}".encode(), answer(f"{n}"))
        for n in range(5):
            recorder.record(answer(f"{n}"), CONTEXT)
        assert observed.counts == {("answer", "dropped"): 5}


async def test_who_sends_many_waits_for_room_and_loses_nothing(store):
    """A batch answers faster than a busy disk writes; an editor must find every track of it."""
    observed = Observed()
    waited = 0
    async with recording(store, observed, entries=40) as recorder:
        for n in range(300):
            if recorder.crowded:
                waited += 1
            await recorder.room()
            assert not recorder.crowded
            recorder.record(answer(f"{n}"), CONTEXT)

    assert waited
    assert observed.counts == {("result", "stored"): 300}


@pytest.mark.parametrize("stuck", [True, False])
async def test_nobody_waits_for_the_room_of_a_store_that_fails(store, stuck):
    """An outage slows a batch once, by a bounded time; then answers go on without records."""
    store.stuck = stuck
    store.error = UnavailableError("down", reason="STORE")
    limits = {"entries": 4, "close": timedelta(0), "slow": timedelta(seconds=0.1)}
    async with recording(store, Observed(), **limits) as recorder:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for n in range(100):
            await recorder.room()
            recorder.record(answer(f"{n}"), CONTEXT)
        assert loop.time() - started < 2


async def test_audio_does_not_fill_the_buffer(store):
    """Megabytes that no store keeps are left behind at once, and the answer keeps its own."""
    observed = Observed()
    with_audio = answer("a")
    with_audio.track.audio.inline = bytes(1 << 20)
    async with recording(store, observed, size_bytes=10_000) as recorder:
        recorder.record(with_audio, CONTEXT)

    assert observed.counts == {("result", "stored"): 1}
    assert len(with_audio.track.audio.inline) == 1 << 20


async def test_impatience_ends_in_giving_up(store):
    """What could not be stored for so long is let go, and counted."""
    observed = Observed()
    store.error = UnavailableError("down", reason="STORE")
    async with recording(store, observed, patience=timedelta(0)) as recorder:
        recorder.record(answer("a"), CONTEXT)
        await eventually(lambda: observed.counts["result", "dropped"] == 1)


async def test_stopping_does_not_wait_for_a_store_that_stands_still(store):
    """SIGTERM has ten seconds in all."""
    observed = Observed()
    store.stuck = True
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with recording(store, observed, close=timedelta(seconds=0.1)) as recorder:
        recorder.record(answer("a"), CONTEXT)
        await eventually(lambda: store.tried == 1)

    assert loop.time() - started < 2
    assert observed.counts == {("result", "dropped"): 1}


async def test_a_look_up_is_never_worth_waiting_for(store):
    """A store that fails or stands still knows no answer; the track is worked out."""
    async with recording(store, Observed(), find=timedelta(seconds=0.05)) as recorder:
        await store.keep_answer(b"k", answer("a"))
        assert await recorder.find(b"k") == answer("a")
        store.error = UnavailableError("down", reason="STORE")
        assert await recorder.find(b"k") is None
        store.stuck = True
        assert await recorder.find(b"k") is None
