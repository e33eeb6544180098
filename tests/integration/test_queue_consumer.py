"""The consumer over real stores: what becomes of good, bad, hopeless and deadly jobs."""

import asyncio
import random
from datetime import timedelta
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2, queue_admin_pb2
from liner_server.errors import (
    InvalidAudioError,
    InvalidRequestError,
    LinerError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from liner_server.ports_queue import Lease
from liner_server.queues.consumer_policy import ConsumerPolicy
from support.clock import ManualClock
from support.eventually import eventually
from support.job_worker import TitledModel, Worker, working
from support.queue_backends import BACKENDS, job

DONE = enrichment_pb2.ENRICHMENT_STATE_DONE
FAILED = enrichment_pb2.ENRICHMENT_STATE_FAILED
RUNNING = enrichment_pb2.ENRICHMENT_STATE_RUNNING
DEAD = queue_admin_pb2.MESSAGE_STATE_DEAD


@pytest.fixture
def clock() -> ManualClock:
    """The queue's time."""
    return ManualClock(1_800_000_000.0)


def fails(error: LinerError | Exception):
    """Return an act of a model that always fails like this."""

    async def act() -> None:
        raise error

    return act


async def ended(worker: Worker, *outcomes: str) -> None:
    """Wait until these outcomes were seen."""
    await eventually(lambda: all(worker.outcomes.seen[o] for o in outcomes))


async def dead_letter(worker: Worker, job_id: str) -> queue_admin_pb2.QueueMessage:
    """Wait until a job is a dead letter, and return it."""

    async def is_dead() -> bool:
        return (await worker.queue.get(job_id)).state == DEAD

    await eventually(is_dead)
    return await worker.queue.get(job_id)


async def test_a_job_is_answered_stored_under_its_id_and_gone(tmp_path: Path, clock):
    """One id names the job, its result and its answer."""
    async with working(tmp_path, clock) as worker:
        job_id = await worker.queue.publish(job("a", request_id="r"))
        await ended(worker, "done")

        stored = await worker.results.get(job_id)
        assert (stored.state, stored.request_id) == (DONE, "r")
        assert stored.answer.processing.enrichment_id == job_id
        assert stored.answer.track.title == "a"
        assert stored.create_time.ToSeconds() == 1_800_000_000
        stats = await worker.queue.stats()
        assert not any(p.ready + p.leased + p.dead for p in stats.priorities)


@pytest.mark.parametrize(
    ("title", "act", "cause"),
    [
        ("a", fails(InvalidRequestError.of("options.model", "unknown", "MODEL")), "INVALID"),
        ("a", fails(PermissionDeniedError("another's", reason="OBJECT_NOT_OWNED")), "INVALID"),
        ("a", fails(InvalidAudioError("noise", reason="AUDIO_X")), "BAD_AUDIO"),
        ("object", None, "MISSING_OBJECT"),
    ],
)
async def test_what_cannot_succeed_is_buried_at_once(tmp_path: Path, clock, title, act, cause):
    """Four more attempts would be four more failures; the record says FAILED and why."""
    model = TitledModel(acts={"a": act} if act else {})
    poison = job(title)
    if title == "object":
        poison.track.audio.object_name = "gone.flac"
    async with working(tmp_path, clock, model=model) as worker:
        good = await worker.queue.publish(job("good"))
        job_id = await worker.queue.publish(poison)
        letter = await dead_letter(worker, job_id)
        await ended(worker, "done", cause.lower())

        assert queue_admin_pb2.DeadLetterCause.Name(letter.cause) == f"DEAD_LETTER_CAUSE_{cause}"
        assert letter.delivery_attempt == 1
        record = await worker.results.get(job_id)
        assert (record.state, record.error.reason) == (
            FAILED,
            letter.attempts[0].error.reason,
        )
        assert await worker.state_of(good) == DONE


async def test_an_answer_too_large_to_be_kept_is_buried_and_not_asked_for_again(
    tmp_path: Path, clock
):
    """It would be too large each time, and a model would be paid each time."""
    large = job("large")
    large.track.lyrics = "x" * (2 << 20)
    async with working(tmp_path, clock) as worker:
        job_id = await worker.queue.publish(large)
        letter = await dead_letter(worker, job_id)

        assert letter.cause == queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID
        assert letter.attempts[0].error.reason == "ENRICHMENT_TOO_LARGE"
        assert await worker.state_of(job_id) == FAILED
    assert worker.model.asked["large"] == 1


async def test_a_job_that_breaks_the_contract_is_not_worked_on(tmp_path: Path, clock):
    """Whatever put it on the queue did not go through our checks."""

    def check(found: queue_admin_pb2.EnrichmentJob) -> None:
        raise InvalidRequestError.of("track", "needs a title", "TITLE")

    async with working(tmp_path, clock, check=check) as worker:
        letter = await dead_letter(worker, await worker.queue.publish(job("a")))

    assert letter.cause == queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID
    assert worker.model.asked["a"] == 0


async def test_bytes_that_are_no_job_are_buried(tmp_path: Path, clock):
    """They would otherwise come again for ever."""
    async with working(tmp_path, clock) as worker:
        await worker.queue.pause(by="test", reason="")
        job_id = await worker.queue.publish(job("a"))
        await BACKENDS["sqlite"].spoil(worker.queue, job_id)
        await worker.queue.resume()
        letter = await dead_letter(worker, job_id)

    assert letter.cause == queue_admin_pb2.DEAD_LETTER_CAUSE_UNDECODABLE


@pytest.mark.parametrize("attempts", [1, 3, 5])
async def test_a_failing_job_is_tried_as_often_as_is_set_and_then_buried(
    tmp_path: Path, clock, attempts
):
    """Settable from one; the history tells every failure."""
    busy = UnavailableError("down", reason="MODEL_DOWN")
    model = TitledModel(acts={"a": fails(busy)})
    async with working(tmp_path, clock, model=model, max_attempts=attempts) as worker:
        letter = await dead_letter(worker, await worker.queue.publish(job("a")))
        await ended(worker, "attempts_exhausted")

    assert letter.cause == queue_admin_pb2.DEAD_LETTER_CAUSE_ATTEMPTS_EXHAUSTED
    assert model.asked["a"] == attempts
    assert [a.error.reason for a in letter.attempts] == ["MODEL_DOWN"] * attempts
    assert worker.outcomes.seen["retried"] == attempts - 1


async def test_a_fault_of_ours_is_retried_and_told_without_its_text(tmp_path: Path, clock):
    """It may be the moment's fault; what a bug says may hold anything."""
    model = TitledModel(acts={"a": fails(ZeroDivisionError("secret"))})
    async with working(tmp_path, clock, model=model, max_attempts=2) as worker:
        letter = await dead_letter(worker, await worker.queue.publish(job("a")))

    assert [(a.error.reason, a.error.message) for a in letter.attempts] == [
        ("INTERNAL", "ZeroDivisionError")
    ] * 2


async def test_a_job_that_lost_its_workers_is_buried_unopened(tmp_path: Path, clock):
    """Attempts are counted at the lease: a job that kills the process cannot do so for ever."""
    async with working(tmp_path, clock, run=False) as worker:
        job_id = await worker.queue.publish(job("deadly"))
        for _ in range(3):
            await worker.queue.lease(limit=1, duration=timedelta(seconds=30))
            clock.advance(31)
    async with working(tmp_path, clock, max_attempts=3) as worker:
        letter = await dead_letter(worker, job_id)
        assert await worker.state_of(job_id) == FAILED

    assert letter.cause == queue_admin_pb2.DEAD_LETTER_CAUSE_WORKER_LOST
    assert worker.model.asked["deadly"] == 0


async def test_jobs_that_lost_a_worker_run_one_at_a_time(tmp_path: Path, clock):
    """One of them may be the killer: the others must not die with it again and again."""
    running, most = 0, 0

    async def act() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    titles = [f"suspect {n}" for n in range(4)]
    model = TitledModel(acts=dict.fromkeys(titles, act))
    async with working(tmp_path, clock, run=False) as worker:
        for title in titles:
            await worker.queue.publish(job(title))
        await worker.queue.lease(limit=4, duration=timedelta(seconds=30))
        clock.advance(31)
    async with working(tmp_path, clock, model=model) as worker:
        await worker.queue.publish(job("fresh"))

        def done() -> bool:
            clock.advance(0.05)
            return worker.outcomes.seen["done"] == 5

        await eventually(done)

    assert most == 1
    assert model.asked == {**dict.fromkeys(titles, 1), "fresh": 1}


async def test_a_job_with_a_result_is_not_worked_on_again(tmp_path: Path, clock):
    """Its worker died between storing and acknowledging."""
    async with working(tmp_path, clock, run=False) as worker:
        job_id = await worker.queue.publish(job("a"))
        await worker.queue.lease(limit=1, duration=timedelta(seconds=30))
        await worker.results.put(enrichment_pb2.Enrichment(enrichment_id=job_id, state=DONE))
        clock.advance(31)
    async with working(tmp_path, clock) as worker:
        await ended(worker, "known")

    assert worker.model.asked["a"] == 0


async def test_others_are_told_of_a_result_before_the_job_is_gone(tmp_path: Path, clock):
    """Telling that failed is done again, without the work being done again."""
    told: list[str] = []

    async def publish(enrichment: enrichment_pb2.Enrichment) -> None:
        told.append(enrichment.enrichment_id)
        if len(told) == 1:
            raise UnavailableError("topic", reason="TOPIC")

    async with working(tmp_path, clock, publish=publish) as worker:
        job_id = await worker.queue.publish(job("a"))
        await ended(worker, "released")
        clock.advance(10)
        await eventually(lambda: len(told) == 2)
        await ended(worker, "known")

    assert told == [job_id, job_id]
    assert worker.model.asked["a"] == 1


async def test_a_result_that_cannot_be_stored_leaves_the_job_where_it_was(
    tmp_path: Path, clock, monkeypatch: pytest.MonkeyPatch
):
    """A full disk is not the job's fault: no attempt is counted, and it is done afterwards."""
    full = True

    async def put(self, enrichment):
        if full:
            raise ResourceExhaustedError("full", reason="DISK_FULL")
        return await real(self, enrichment)

    async with working(tmp_path, clock, max_attempts=1) as worker:
        real = type(worker.results).put
        monkeypatch.setattr(type(worker.results), "put", put)
        job_id = await worker.queue.publish(job("a"))
        await ended(worker, "released")
        waiting = await worker.queue.get(job_id)
        full = False
        clock.advance(10)
        await ended(worker, "done")

        assert (waiting.delivery_attempt, waiting.state) == (
            0,
            queue_admin_pb2.MESSAGE_STATE_DELAYED,
        )
        assert await worker.state_of(job_id) == DONE


async def test_work_that_takes_longer_than_a_lease_keeps_it(tmp_path: Path, clock):
    """The heartbeat goes on as long as the worker lives."""
    release = asyncio.Event()
    model = TitledModel(acts={"slow": release.wait})
    lease = timedelta(milliseconds=300)
    async with working(tmp_path, clock, model=model, lease=lease) as worker:
        await worker.queue.publish(job("slow"))
        await eventually(lambda: model.asked["slow"] == 1)
        extended = Counting(worker)
        for _ in range(4):
            before = extended.count
            clock.advance(0.2)
            await eventually(lambda before=before: extended.count > before)
        release.set()
        await ended(worker, "done")

    assert model.asked["slow"] == 1


class Counting:
    """Counts the heartbeats that a worker's queue has taken."""

    def __init__(self, worker: Worker) -> None:
        self.count = 0
        real = worker.queue.extend

        async def extend(lease: Lease, duration: timedelta) -> None:
            await real(lease, duration)
            self.count += 1

        worker.queue.extend = extend  # type: ignore[method-assign]


async def test_a_worker_whose_lease_was_lost_stops_and_stores_nothing(tmp_path: Path, clock):
    """Somebody else has the job by now; his result is the one that counts."""
    never = asyncio.Event()
    model = TitledModel(acts={"slow": never.wait})
    async with working(
        tmp_path, clock, model=model, lease=timedelta(milliseconds=150), workers=1
    ) as worker:
        job_id = await worker.queue.publish(job("slow"))
        await eventually(lambda: model.asked["slow"] == 1)
        await worker.queue.pause(by="test", reason="")
        clock.advance(100)
        await ended(worker, "lost")

        assert await worker.state_of(job_id) == RUNNING
        assert (await worker.queue.get(job_id)).state == queue_admin_pb2.MESSAGE_STATE_READY


async def test_draining_finishes_what_it_can_and_releases_the_rest(tmp_path: Path, clock):
    """A rolling restart counts against no job, and nothing stays leased."""
    never, quick = asyncio.Event(), asyncio.Event()
    model = TitledModel(acts={"slow": never.wait, "quick": quick.wait})
    second = timedelta(seconds=1)
    async with working(tmp_path, clock, model=model, pull_wait=second) as worker:
        slow = await worker.queue.publish(job("slow"))
        done = await worker.queue.publish(job("quick"))
        await eventually(lambda: worker.consumer.working == 2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        draining = asyncio.create_task(worker.consumer.drain(timedelta(seconds=1.5)))
        await asyncio.sleep(0)
        quick.set()
        await draining
        took = loop.time() - began

        waiting = await worker.queue.get(slow)
        assert waiting.state == queue_admin_pb2.MESSAGE_STATE_READY
        assert waiting.delivery_attempt == 0
        assert await worker.state_of(done) == DONE
        # The pull that was open when it began is within the grace, not before it.
        assert took < 2


async def test_no_more_is_leased_than_can_be_worked_on(tmp_path: Path, clock):
    """What lies with a busy worker is not with an idle one."""
    hold = asyncio.Event()
    model = TitledModel(acts={"a": hold.wait})
    async with working(tmp_path, clock, model=model, workers=2) as worker:
        for n in range(5):
            held = job("a")
            held.track.label = str(n)
            await worker.queue.publish(held)
        await eventually(lambda: worker.consumer.working == 2)
        leased = sum(p.leased for p in (await worker.queue.stats()).priorities)
        hold.set()
        await eventually(lambda: worker.outcomes.seen["done"] == 5)

    assert leased == 2


def test_delays_are_those_of_the_contract_and_jittered():
    """1, 5, 15, 30, 60 seconds, within a fifth; Retry-After is a floor, within reason."""
    policy, rng = ConsumerPolicy(), random.Random(1)

    for attempt, seconds in ((1, 1), (2, 5), (3, 15), (4, 30), (5, 60), (9, 60)):
        drawn = [policy.delay(attempt, rng=rng).total_seconds() for _ in range(50)]
        assert all(0.8 * seconds <= wait <= 1.2 * seconds for wait in drawn)
        assert len(set(drawn)) > 1
    floor = policy.delay(1, retry_after=timedelta(seconds=20), rng=rng)
    absurd = policy.delay(1, retry_after=timedelta(days=9), rng=rng)
    assert (floor, absurd) == (timedelta(seconds=20), timedelta(seconds=60))


async def test_a_queue_that_fails_is_asked_again(tmp_path: Path, clock):
    """The consumer outlives a locked or broken file."""

    class Failing:
        def __init__(self, queue) -> None:
            self._queue, self.left = queue, 2

        def __getattr__(self, name):
            return getattr(self._queue, name)

        async def lease(self, **options):
            if self.left:
                self.left -= 1
                raise UnavailableError("locked", reason="STORE_LOCKED")
            return await self._queue.lease(**options)

    async with working(
        tmp_path, clock, through=Failing, store_delay=timedelta(milliseconds=10)
    ) as worker:
        await worker.queue.publish(job("a"))
        await ended(worker, "done")


async def test_a_model_that_refuses_is_asked_less_at_once(tmp_path: Path, clock):
    """Four at a time at a quota would be four failures at a time."""
    refused = fails(ResourceExhaustedError("quota", reason="QUOTA"))
    async with working(tmp_path, clock, model=TitledModel(acts={"a": refused})) as worker:
        assert worker.consumer.limit == 4
        for _ in range(8):
            await worker.queue.publish(job("a"))
        await ended(worker, "attempts_exhausted")

        assert worker.consumer.limit < 4
