"""What every store of results promises, run on every backend."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.errors import (
    AlreadyExistsError,
    InvalidRequestError,
    NotFoundError,
    ResourceExhaustedError,
)
from liner_server.objects.local import LocalObjectStore
from liner_server.ports import ResultStore
from liner_server.results.objects import ObjectResultStore
from liner_server.results.sqlite import SqliteResultStore
from support.clock import ManualClock

Open = Callable[[Path, ManualClock], AbstractAsyncContextManager[ResultStore]]
QUEUED = enrichment_pb2.ENRICHMENT_STATE_QUEUED
RUNNING = enrichment_pb2.ENRICHMENT_STATE_RUNNING
DONE = enrichment_pb2.ENRICHMENT_STATE_DONE
FAILED = enrichment_pb2.ENRICHMENT_STATE_FAILED
REVIEW_FIRST = enrichment_pb2.ENRICHMENT_ORDER_REVIEW_FIRST
NEWEST_FIRST = enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST
START = datetime(2026, 3, 1, tzinfo=UTC)


def sqlite(folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[ResultStore]:
    """Open the backend of one SQLite file."""
    return SqliteResultStore(folder / "results.sqlite", now=clock)


@asynccontextmanager
async def objects(folder: Path, clock: ManualClock) -> AsyncIterator[ResultStore]:
    """Open the backend on an object store, here a local one."""
    async with LocalObjectStore(folder) as store:
        yield ObjectResultStore(store, now=clock)


BACKENDS: dict[str, Open] = {"sqlite": sqlite, "objects": objects}


@pytest.fixture
def clock() -> ManualClock:
    """The time that records get."""
    return ManualClock(START.timestamp())


@pytest.fixture(params=BACKENDS)
def open_store(request: pytest.FixtureRequest) -> Open:
    """How to open the backend under test; twice on one folder is a restart."""
    return BACKENDS[request.param]


@pytest.fixture
async def store(open_store: Open, tmp_path: Path, clock: ManualClock) -> AsyncIterator[ResultStore]:
    """The backend under test, empty."""
    async with open_store(tmp_path, clock) as store:
        yield store


def done(
    name: str,
    *,
    confidence: float = 0.9,
    needs_review: bool = False,
    model: str = "embedded",
    age: float = 0,
    title: str = "Song",
) -> enrichment_pb2.Enrichment:
    """Return a finished enrichment, made `age` seconds before START."""
    record = enrichment_pb2.Enrichment(
        enrichment_id=name,
        state=DONE,
        answer=enrichment_pb2.EnrichMetadataResponse(
            track=track_pb2.Track(title=title),
            processing=track_pb2.ProcessingResult(
                model=model, confidence=confidence, needs_review=needs_review, enrichment_id=name
            ),
        ),
    )
    record.create_time.FromDatetime(START - timedelta(seconds=age))
    return record


def review(
    field: str = "bpm", *, note: str = "", reviewer: str = "ana", at: int = 1
) -> enrichment_pb2.Review:
    """Return a judgement on one field."""
    said = enrichment_pb2.Review(reviewer=reviewer)
    said.review_time.FromSeconds(at)
    said.reviews.add(field=field, verdict=enrichment_pb2.VERDICT_ACCEPT, note=note)
    return said


async def listed(store: ResultStore, *, size: int = 0, **asked: object) -> list[str]:
    """Return the ids of all pages, in order."""
    names: list[str] = []
    request = enrichment_pb2.ListEnrichmentsRequest(page_size=size, **asked)
    while True:
        page = await store.list(request)
        names += [record.enrichment_id for record in page.enrichments]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return names


async def put_all(store: ResultStore, found: Iterable[enrichment_pb2.Enrichment]) -> None:
    """Store records that are not there."""
    assert all(await asyncio.gather(*(store.put(record) for record in found)))


async def test_what_is_stored_comes_back(store):
    """The whole answer, with the times it has or is given."""
    given = done("e1", age=5)
    given.request_id = "r1"
    before = enrichment_pb2.Enrichment.FromString(given.SerializeToString())

    assert await store.put(given)

    found = await store.get("e1")
    assert found.answer == given.answer
    assert (found.state, found.request_id) == (DONE, "r1")
    assert found.create_time == given.create_time
    assert found.update_time.ToDatetime(tzinfo=UTC) == START
    assert given == before


async def test_no_result_is_stored_twice(store):
    """A worker that comes late finds the result of the first."""
    assert await store.put(done("e1", title="First"))
    assert not await store.put(done("e1", title="Second"))

    assert (await store.get("e1")).answer.track.title == "First"
    assert await listed(store) == ["e1"]


async def test_of_many_that_store_one_id_one_wins(store):
    """The race of a job that was delivered ten times."""
    won = await asyncio.gather(*(store.put(done("e1", title=f"{n}")) for n in range(10)))

    assert won.count(True) == 1
    assert (await store.get("e1")).answer.track.title == str(won.index(True))


async def test_audio_that_came_with_a_request_is_not_kept(store):
    """A stored result is looked up and listed; two megabytes of audio have no place in it."""
    given = done("e1")
    given.answer.track.audio.inline = b"x" * 1000
    given.answer.track.audio.file_name = "a.wav"

    await store.put(given)

    found = await store.get("e1")
    assert found.answer.track.audio == track_pb2.Audio(file_name="a.wav")
    assert len(given.answer.track.audio.inline) == 1000


async def test_a_job_is_followed_from_the_queue_to_its_result(store, clock):
    """GetEnrichment tells where it stands, with the time and the id of its submission."""
    queued = enrichment_pb2.Enrichment(enrichment_id="job", state=QUEUED, request_id="r1")

    assert await store.put(queued)
    states = [(await store.get("job")).state]
    clock.advance(10)
    assert await store.update_state("job", RUNNING)
    states.append((await store.get("job")).state)
    clock.advance(10)
    result = done("job", age=-1000)
    result.ClearField("create_time")
    assert await store.put(result)

    found = await store.get("job")
    assert [*states, found.state] == [QUEUED, RUNNING, DONE]
    assert found.request_id == "r1"
    assert found.create_time.ToDatetime(tzinfo=UTC) == START
    assert found.update_time.ToDatetime(tzinfo=UTC) == START + timedelta(seconds=20)


async def test_a_finished_job_stays_finished(store):
    """Whatever a worker that lost its lease still says."""
    await store.put(done("job"))

    assert not await store.update_state("job", RUNNING)
    assert not await store.update_state("job", FAILED, error=track_pb2.Error(reason="X"))
    assert not await store.put(enrichment_pb2.Enrichment(enrichment_id="job", state=QUEUED))

    assert (await store.get("job")).state == DONE


async def test_saying_queued_of_a_new_job_takes_nothing_back(store):
    """A worker may be quicker than the call that submitted the job."""
    await store.update_state("job", RUNNING)

    assert not await store.put(enrichment_pb2.Enrichment(enrichment_id="job", state=QUEUED))

    assert (await store.get("job")).state == RUNNING


async def test_a_failed_job_may_be_replayed(store):
    """Its error is there while it is dead, and gone when it runs again."""
    error = track_pb2.Error(code=3, reason="AUDIO_BROKEN", message="no audio")

    await store.update_state("job", FAILED, error=error)
    failed = await store.get("job")
    await store.update_state("job", QUEUED)
    queued = await store.get("job")
    assert await store.put(done("job"))

    assert (failed.state, failed.error) == (FAILED, error)
    assert (queued.state, queued.HasField("error")) == (QUEUED, False)
    assert (await store.get("job")).state == DONE


@pytest.mark.parametrize("name", ["nothing", "", "..", "a/b", "ä", "x" * 300, "%00"])
async def test_what_is_not_there_is_not_found(store, name):
    """Whatever a caller takes for an id."""
    with pytest.raises(NotFoundError):
        await store.get(name)
    with pytest.raises(NotFoundError):
        await store.add_review(name, review())


@pytest.mark.parametrize("name", ["..", "a/b", "ä/ö", "A", "con", "x" * 256])
async def test_any_text_can_be_an_id(store, name):
    """Ids are made elsewhere; none collides with another and none is a path."""
    await put_all(store, [done(name, title=name), done(name[:-1] + "z", title="other")])

    assert (await store.get(name)).answer.track.title == name


@pytest.mark.parametrize("name", ["", "x" * 257])
async def test_a_record_needs_an_id_that_can_be_stored(store, name):
    """A result that nobody could ask for must not look stored."""
    with pytest.raises(InvalidRequestError):
        await store.put(done(name))


async def test_an_editor_sees_first_what_is_most_in_doubt(store):
    """Those that need review, the least sure first; then the others; then by age, then by id."""
    await put_all(
        store,
        [
            done("sure", confidence=0.99),
            done("less-sure", confidence=0.2),
            done("b-twin", confidence=0.99),
            done("old-twin", confidence=0.99, age=60),
            done("doubtful", confidence=0.7, needs_review=True),
            done("most-doubtful", confidence=0.31, needs_review=True),
            done("unknown", confidence=0.0, needs_review=True),
        ],
    )
    order = ["unknown", "most-doubtful", "doubtful", "less-sure", "b-twin", "sure", "old-twin"]

    assert await listed(store) == order
    assert await listed(store, order=REVIEW_FIRST) == order
    assert await listed(store, size=2) == order


async def test_newest_first_is_by_the_time_they_were_made(store):
    """To the microsecond, whenever they were stored."""
    await put_all(store, [done("b", age=1), done("c", age=0.000001), done("a", age=1), done("d")])

    assert await listed(store, order=NEWEST_FIRST) == ["d", "c", "a", "b"]
    assert await listed(store, order=NEWEST_FIRST, size=1) == ["d", "c", "a", "b"]


async def test_a_list_holds_only_what_is_done(store):
    """Jobs on their way are the queue's to list."""
    await store.put(enrichment_pb2.Enrichment(enrichment_id="q", state=QUEUED))
    await store.update_state("r", RUNNING)
    await store.update_state("f", FAILED, error=track_pb2.Error(reason="X"))
    await store.put(done("d"))

    assert await listed(store) == await listed(store, order=NEWEST_FIRST) == ["d"]


@pytest.mark.parametrize("order", [REVIEW_FIRST, NEWEST_FIRST])
async def test_filters_hold_together(store, order):
    """Review, model and time, alone and all at once; the end of a range is not in it."""
    everything = [
        done(f"{model}-{'todo' if todo else 'ok'}-{age}", model=model, needs_review=todo, age=age)
        for model in ("qwen2", "embedded")
        for todo in (True, False)
        for age in (0, 10, 20)
    ]
    await put_all(store, everything)

    async def found(**asked: object) -> set[str]:
        names = await listed(store, order=order, size=2, **asked)
        assert len(names) == len(set(names))
        return set(names)

    names = {record.enrichment_id for record in everything}
    middle = everything[1].create_time
    assert await found() == names
    assert await found(needs_review=True) == {n for n in names if "todo" in n}
    assert await found(needs_review=False) == {n for n in names if "ok" in n}
    assert await found(model="qwen2") == {n for n in names if "qwen2" in n}
    assert await found(model="qwen") == set()
    assert await found(create_time_from=middle) == {n for n in names if not n.endswith("20")}
    assert await found(create_time_before=middle) == {n for n in names if n.endswith("20")}
    newest = everything[0].create_time
    assert await found(
        needs_review=True, model="qwen2", create_time_from=middle, create_time_before=newest
    ) == {"qwen2-todo-10"}


@pytest.mark.parametrize("order", [REVIEW_FIRST, NEWEST_FIRST])
async def test_paging_is_not_shaken_by_what_is_stored_meanwhile(store, order):
    """What was there when the list began is on exactly one page."""
    await put_all(store, [done(f"{n:02}", confidence=n / 10, age=n % 3) for n in range(10)])
    request = enrichment_pb2.ListEnrichmentsRequest(page_size=3, order=order)
    seen: list[str] = []
    for turn in range(8):
        page = await store.list(request)
        seen += [record.enrichment_id for record in page.enrichments]
        await put_all(store, [done(f"new-{turn}", confidence=turn / 10, age=turn - 4)])
        request.page_token = page.next_page_token
        request.page_size = 2 + turn % 3
        if not page.next_page_token:
            break

    old = [name for name in seen if not name.startswith("new")]
    assert sorted(old) == [f"{n:02}" for n in range(10)]
    assert len(seen) == len(set(seen))


async def test_a_page_token_belongs_to_its_filters(store):
    """Going on in another list would skip records silently."""
    await put_all(store, [done(f"{n}") for n in range(3)])
    asked = enrichment_pb2.ListEnrichmentsRequest(page_size=1)
    token = (await store.list(asked)).next_page_token
    assert token

    others = [
        {"needs_review": False},
        {"needs_review": True},
        {"model": "qwen2"},
        {"order": NEWEST_FIRST},
        {"create_time_from": done("x").create_time},
    ]
    for other in others:
        with pytest.raises(InvalidRequestError) as error:
            await store.list(
                enrichment_pb2.ListEnrichmentsRequest(page_size=1, page_token=token, **other)
            )
        assert error.value.violations[0].reason == "PAGE_TOKEN"
    same = enrichment_pb2.ListEnrichmentsRequest(page_token=token, order=REVIEW_FIRST)
    assert [r.enrichment_id for r in (await store.list(same)).enrichments] == ["1", "2"]


@pytest.mark.parametrize("token", ["x", "é", "bnVsbA==", "W10=", "WzEsMl0=", "e30=", "W1tbW1tb"])
async def test_a_token_that_was_never_given_is_refused(store, token):
    """A caller's mistake is the caller's to hear, whatever it decodes to."""
    with pytest.raises(InvalidRequestError):
        await store.list(enrichment_pb2.ListEnrichmentsRequest(page_token=token))


async def test_a_page_fits_into_a_message(store):
    """gRPC clients take 4 MiB: a page of long lyrics ends early and the list goes on."""
    records = [done(f"{n}", confidence=n / 10) for n in range(5)]
    for record in records:
        record.answer.track.lyrics = "la " * 400_000
    await put_all(store, records)

    page = await store.list(enrichment_pb2.ListEnrichmentsRequest())

    assert page.ByteSize() < 4 << 20
    assert [r.enrichment_id for r in page.enrichments] == ["0", "1"]
    assert await listed(store) == ["0", "1", "2", "3", "4"]


async def test_a_review_stands_beside_the_answer(store):
    """Nothing is overwritten, and what was reviewed no longer waits for an editor."""
    await put_all(
        store, [done("e1", needs_review=True, confidence=0.1), done("e2", needs_review=True)]
    )
    answer = (await store.get("e1")).answer

    first = await store.add_review("e1", review("bpm", at=1))
    second = await store.add_review("e1", review("key", reviewer="ben", at=2))

    assert await store.get("e1") == second
    assert second.answer == answer
    assert list(second.reviews) == [review("bpm", at=1), review("key", reviewer="ben", at=2)]
    assert list(first.reviews) == [review("bpm", at=1)]
    assert await listed(store) == ["e2", "e1"]
    assert await listed(store, needs_review=True) == ["e2"]
    assert await listed(store, needs_review=False) == ["e1"]


async def test_a_review_that_comes_again_is_stored_once(store):
    """A client that lost the answer sends it again, later and under the same id."""
    await store.put(done("e1"))
    await store.put(done("e2"))
    first = await store.add_review("e1", review(at=1), request_id="r")

    again = await store.add_review("e1", review(at=99), request_id="r")
    elsewhere = await store.add_review("e2", review(), request_id="r")
    unnamed = [await store.add_review("e1", review()) for _ in range(2)]

    assert again == first
    assert len(elsewhere.reviews) == 1
    assert [len(record.reviews) for record in unnamed] == [2, 3]
    with pytest.raises(AlreadyExistsError):
        await store.add_review("e1", review("key"), request_id="r")
    assert len((await store.get("e1")).reviews) == 3


async def test_reviews_at_the_same_time_are_all_kept(store):
    """Two editors with the same record open: neither's word is lost."""
    await store.put(done("e1", needs_review=True))

    await asyncio.gather(
        *(store.add_review("e1", review(reviewer=f"{n}"), request_id=f"{n // 2}") for n in range(8))
    )

    found = await store.get("e1")
    assert len(found.reviews) == 4
    assert await listed(store) == ["e1"]


async def test_only_a_finished_enrichment_can_be_reviewed(store):
    """There is no answer yet to say anything of."""
    await store.update_state("job", RUNNING)

    with pytest.raises(NotFoundError):
        await store.add_review("job", review())


async def test_a_record_has_room_for_so_many_reviews(store):
    """It must still fit into the message that shows it."""
    await store.put(done("e1"))
    large = review(note="x" * 300_000)
    for _ in range(6):
        await store.add_review("e1", large)

    with pytest.raises(ResourceExhaustedError) as error:
        await store.add_review("e1", large)

    assert error.value.reason == "ENRICHMENT_TOO_LARGE"
    assert len((await store.get("e1")).reviews) == 6


async def test_retention_takes_what_is_old_and_leaves_what_is_under_way(store, clock):
    """A job that waits for long is not lost, and its result can still be stored."""
    await store.put(enrichment_pb2.Enrichment(enrichment_id="waiting", state=QUEUED))
    await store.update_state("dead", FAILED, error=track_pb2.Error(reason="X"))
    await put_all(store, [done(f"old-{n}", age=n, needs_review=n % 2 == 0) for n in range(1, 6)])
    await store.add_review("old-2", review(), request_id="r")
    clock.advance(86_400)
    await put_all(store, [done("new", age=-10), done("edge", age=0)])

    assert await store.delete_before(START) == 5
    assert await store.delete_before(START + timedelta(seconds=1)) == 2
    assert await store.delete_before(START + timedelta(seconds=1)) == 0

    assert await listed(store) == await listed(store, order=NEWEST_FIRST) == ["new"]
    assert (await store.get("waiting")).state == QUEUED
    for name in ("dead", "edge", "old-2"):
        with pytest.raises(NotFoundError):
            await store.get(name)
    assert await store.put(done("old-2", age=-5))
    assert len((await store.add_review("old-2", review("key"), request_id="r")).reviews) == 1


async def test_an_answer_is_found_under_its_key_for_a_while(store, clock):
    """What a restart would otherwise work out again."""
    answer = done("e1").answer
    key, other = bytes(range(32)), bytes(32)

    assert await store.find_answer(key, since=START) is None
    await store.keep_answer(key, answer)
    clock.advance(60)
    later = START + timedelta(seconds=60)
    assert await store.find_answer(key, since=START) == answer
    assert await store.find_answer(key, since=later) is None
    assert await store.find_answer(other, since=START) is None

    await store.keep_answer(key, done("e2").answer)
    await store.keep_answer(other, answer)
    clock.advance(60)
    await store.keep_answer(other, done("e3").answer)
    assert await store.find_answer(key, since=later) == done("e2").answer
    assert await store.forget_answers_before(later + timedelta(seconds=1)) == 1
    assert await store.find_answer(key, since=START) is None
    assert await store.find_answer(other, since=START) == done("e3").answer


async def test_many_look_ups_at_once_get_each_their_own(store):
    """A batch asks for all its tracks in the same moment; one that left harms no other."""
    keys = [bytes([n]) * 32 for n in range(40)]
    await asyncio.gather(
        *(store.keep_answer(key, done(f"{key[0]}").answer) for key in keys if key[0] % 2)
    )

    asked = [asyncio.create_task(store.find_answer(key, since=START)) for key in keys]
    await asyncio.sleep(0)
    asked[3].cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)

    for n, answer in enumerate(found):
        if n == 3:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer == (done(f"{n}").answer if n % 2 else None)


async def test_all_of_it_survives_a_restart(open_store, tmp_path, clock):
    """Durable when the call returned."""
    async with open_store(tmp_path, clock) as store:
        await store.put(done("e1", needs_review=True))
        await store.put(done("e2"))
        stored = await store.add_review("e1", review(), request_id="r")
        await store.update_state("job", RUNNING)
        await store.keep_answer(b"k", stored.answer)
    async with open_store(tmp_path, clock) as store:
        assert await store.get("e1") == stored
        assert await store.add_review("e1", review(), request_id="r") == stored
        assert await listed(store) == ["e1", "e2"]
        assert (await store.get("job")).state == RUNNING
        assert await store.find_answer(b"k", since=START) == stored.answer


_names = st.sampled_from(["a", "b", "c"])
_steps = st.one_of(
    st.tuples(st.just("put"), _names, st.integers(0, 3), st.booleans()),
    st.tuples(st.just("queue"), _names, st.just(0), st.just(False)),
    st.tuples(st.just("run"), _names, st.just(0), st.just(False)),
    st.tuples(st.just("fail"), _names, st.just(0), st.just(False)),
    st.tuples(st.just("review"), _names, st.integers(0, 2), st.booleans()),
    st.tuples(st.just("expire"), _names, st.integers(0, 3), st.just(False)),
    st.tuples(st.just("restart"), st.just(""), st.just(0), st.just(False)),
)


class Model:
    """The simplest thing that behaves like a store of results."""

    def __init__(self) -> None:
        self.records: dict[str, enrichment_pb2.Enrichment] = {}
        self.requests: dict[tuple[str, str], str] = {}

    def put(self, record: enrichment_pb2.Enrichment) -> bool:
        """Store unless the id is taken."""
        held = self.records.get(record.enrichment_id)
        if held is not None and (held.state == DONE or record.state != DONE):
            return False
        kept = enrichment_pb2.Enrichment.FromString(record.SerializeToString())
        if held is not None:
            kept.create_time.CopyFrom(held.create_time)
        self.records[record.enrichment_id] = kept
        return True

    def move(self, name: str, state: int) -> bool:
        """Move a job."""
        held = self.records.get(name)
        if held is not None and held.state == DONE:
            return False
        if held is None:
            held = self.records[name] = enrichment_pb2.Enrichment(enrichment_id=name)
            held.create_time.FromDatetime(START)
        held.state = state
        return True

    def expire(self, time: datetime) -> int:
        """Delete what is old and not under way."""
        gone = [
            name
            for name, held in self.records.items()
            if held.create_time.ToDatetime(tzinfo=UTC) < time
            and held.state not in (QUEUED, RUNNING)
        ]
        for name in gone:
            del self.records[name]
        self.requests = {k: v for k, v in self.requests.items() if k[0] not in gone}
        return len(gone)

    def listed(self, order: int) -> list[str]:
        """Return the ids that are DONE, in order."""

        def place(record: enrichment_pb2.Enrichment) -> tuple[object, ...]:
            processing = record.answer.processing
            newest = -record.create_time.ToNanoseconds()
            if order == NEWEST_FIRST:
                return (newest, record.enrichment_id)
            settled = not processing.needs_review or bool(record.reviews)
            return (settled, processing.confidence, newest, record.enrichment_id)

        found = [record for record in self.records.values() if record.state == DONE]
        return [record.enrichment_id for record in sorted(found, key=place)]


@settings(max_examples=25)
@given(steps=st.lists(_steps, max_size=15))
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_sequence_of_calls_behaves_like_a_dict(backend, steps):
    """The store against the simplest model of it, restarts included."""

    async def run(folder: Path) -> None:
        clock, model = ManualClock(START.timestamp()), Model()
        context = BACKENDS[backend](folder, clock)
        store = await context.__aenter__()
        for step, name, number, flag in steps:
            if step == "restart":
                await context.__aexit__(None, None, None)
                context = BACKENDS[backend](folder, clock)
                store = await context.__aenter__()
            elif step == "put":
                record = done(name, confidence=number / 3, needs_review=flag, age=number)
                assert await store.put(record) == model.put(record)
            elif step == "queue":
                record = enrichment_pb2.Enrichment(enrichment_id=name, state=QUEUED)
                record.create_time.FromDatetime(START)
                assert await store.put(record) == model.put(record)
            elif step in ("run", "fail"):
                state = RUNNING if step == "run" else FAILED
                assert await store.update_state(name, state) == model.move(name, state)
            elif step == "expire":
                time = START - timedelta(seconds=number - 1)
                assert await store.delete_before(time) == model.expire(time)
            else:
                await _review(store, model, name, field=f"f{number}", named=flag)
            for order in (REVIEW_FIRST, NEWEST_FIRST):
                assert await listed(store, size=1, order=order) == model.listed(order)
            for held, expected in model.records.items():
                found = await store.get(held)
                assert (found.state, found.answer) == (expected.state, expected.answer)
                assert found.create_time == expected.create_time
                assert found.reviews == expected.reviews
            for absent in {"a", "b", "c"} - set(model.records):
                with pytest.raises(NotFoundError):
                    await store.get(absent)
        await context.__aexit__(None, None, None)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


async def _review(store: ResultStore, model: Model, name: str, *, field: str, named: bool) -> None:
    request_id = "r" if named else ""
    held = model.records.get(name)
    if held is None or held.state != DONE:
        with pytest.raises(NotFoundError):
            await store.add_review(name, review(field), request_id=request_id)
        return
    before = model.requests.get((name, request_id)) if named else None
    if before not in (None, field):
        with pytest.raises(AlreadyExistsError):
            await store.add_review(name, review(field), request_id=request_id)
        return
    if before is None:
        held.reviews.add().CopyFrom(review(field))
        if named:
            model.requests[name, request_id] = field
    found = await store.add_review(name, review(field), request_id=request_id)
    assert found.reviews == held.reviews
