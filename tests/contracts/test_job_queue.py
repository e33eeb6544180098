"""What every queue promises, run on every backend."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from liner.v1 import queue_admin_pb2, track_pb2
from liner_server.errors import (
    AlreadyExistsError,
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
)
from liner_server.ports_queue import JobQueue, Lease
from support.clock import ManualClock
from support.queue_backends import BACKENDS, HIGH, LOW, MEDIUM, Backend, job

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
READY = queue_admin_pb2.MESSAGE_STATE_READY
DELAYED = queue_admin_pb2.MESSAGE_STATE_DELAYED
LEASED = queue_admin_pb2.MESSAGE_STATE_LEASED
DEAD = queue_admin_pb2.MESSAGE_STATE_DEAD
INVALID = queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID
EXHAUSTED = queue_admin_pb2.DEAD_LETTER_CAUSE_ATTEMPTS_EXHAUSTED
TIMEOUT = track_pb2.Error(code=4, reason="DEADLINE", message="The Model was slow")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """The kind of queue under test."""
    return BACKENDS[request.param]


@pytest.fixture
def clock() -> ManualClock:
    """Time, as the test wants it."""
    return ManualClock(1_800_000_000.0)


@pytest.fixture
async def queue(backend: Backend, clock: ManualClock, tmp_path: Path) -> AsyncIterator[JobQueue]:
    """The queue under test, empty."""
    async with backend.open(tmp_path, clock) as queue:
        yield queue


async def one(queue: JobQueue, duration: timedelta = MINUTE) -> Lease:
    """Lease the next message."""
    [lease] = await queue.lease(limit=1, duration=duration)
    return lease


async def kill(queue: JobQueue, title: str = "x", **fields) -> str:
    """Publish a job and make it a dead letter."""
    job_id = await queue.publish(job(title, **fields))
    lease = await one(queue)
    assert lease.message.message_id == job_id
    await queue.dead_letter(lease, cause=INVALID, error=TIMEOUT, model="qwen2")
    return job_id


def counts(stats: queue_admin_pb2.QueueStats) -> dict[int, tuple[int, int, int, int]]:
    """Return ready, delayed, leased, dead by priority, without priorities that have none."""
    all_counts = {p.priority: (p.ready, p.delayed, p.leased, p.dead) for p in stats.priorities}
    return {priority: found for priority, found in all_counts.items() if any(found)}


async def test_what_is_published_is_leased_with_all_that_was_said(queue, clock):
    """The job, its id, attributes and times; one attempt, which runs."""
    job_id = await queue.publish(job("a", tenant="t"), attributes={"traceparent": "00-1"})
    clock.advance(3)

    lease = await one(queue)

    message = lease.message
    assert message.message_id == message.job.job_id == job_id
    assert (message.job.track.title, message.job.tenant) == ("a", "t")
    assert dict(message.attributes) == {"traceparent": "00-1"}
    assert (message.state, message.delivery_attempt) == (LEASED, 1)
    assert message.publish_time.ToMicroseconds() == 1_800_000_000_000_000
    assert message.lease_expire_time.ToSeconds() == 1_800_000_063
    [attempt] = message.attempts
    assert (attempt.number, attempt.start_time.ToSeconds()) == (1, 1_800_000_003)
    assert not attempt.HasField("end_time")


async def test_a_given_job_is_not_changed_and_a_given_id_is_kept(queue):
    """A caller may name the job; without a priority it is the usual one."""
    given = job("a", priority=0)
    given.job_id = "mine"
    before = given.SerializeToString()

    job_id = await queue.publish(given)

    assert job_id == "mine"
    assert given.SerializeToString() == before
    assert (await queue.get("mine")).priority == MEDIUM
    with pytest.raises(AlreadyExistsError) as error:
        await queue.publish(given)
    assert error.value.reason == "JOB_ID_TAKEN"


async def test_the_same_request_makes_one_job_also_after_it_is_done(queue, clock):
    """A client that lost the answer asks again, perhaps much later; another tenant is another."""
    first = await queue.publish(job("a", tenant="t", request_id="r"))

    again = await queue.publish(job("a", tenant="t", request_id="r"))
    other = await queue.publish(job("a", tenant="u", request_id="r"))
    await queue.ack(await one(queue))
    await queue.ack(await one(queue))
    clock.advance(timedelta(days=6))
    late = await queue.publish(job("a", tenant="t", request_id="r"))

    assert first == again == late != other
    assert await queue.lease(limit=5, duration=MINUTE) == []


async def test_a_request_id_with_other_content_is_refused(queue):
    """Somebody's job would be lost if it were taken for the first one."""
    await queue.publish(job("a", request_id="r"))

    for other, at in ((job("b", request_id="r"), None), (job("a", request_id="r"), _at(5))):
        with pytest.raises(AlreadyExistsError) as error:
            await queue.publish(other, not_before=at)
        assert error.value.reason == "REQUEST_ID_REUSED"


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(1_800_000_000 + seconds, UTC)


async def test_a_job_waits_for_its_time(queue, clock):
    """And is due at once when that is past."""
    later = await queue.publish(job("later"), not_before=_at(30))
    await queue.publish(job("now"), not_before=_at(-60))

    assert (await one(queue)).message.job.track.title == "now"
    assert await queue.lease(limit=1, duration=MINUTE) == []
    assert (await queue.get(later)).state == DELAYED
    clock.advance(30)
    assert (await queue.get(later)).state == READY
    assert (await one(queue)).message.message_id == later


async def test_an_expired_lease_is_delivered_again(queue, clock):
    """A worker that dies holding a job must not take the job with it; its attempt is counted."""
    await queue.publish(job("a"))
    first = await one(queue)
    clock.advance(61)

    second = await one(queue)

    assert second.message.message_id == first.message.message_id
    assert second.message.delivery_attempt == 2
    assert second.token != first.token
    lost, running = second.message.attempts
    assert (lost.number, lost.HasField("end_time")) == (1, False)
    assert running.number == 2


async def test_an_expired_lease_comes_before_what_was_published_later(queue, clock):
    """Its due time is kept: it must not wait behind the whole backlog again."""
    first = await queue.publish(job("a"))
    await one(queue)
    await queue.publish(job("b"))
    clock.advance(61)

    assert (await one(queue)).message.message_id == first


@pytest.mark.parametrize("end", ["expiry", "ack", "nack", "release", "dead_letter", "next"])
async def test_a_lost_lease_changes_nothing(queue, clock, end):
    """A slow worker that comes back must not finish, fail or prolong what is another's now."""
    await queue.publish(job("a"))
    old = await one(queue)
    if end in ("expiry", "next"):
        clock.advance(61)
    else:
        await END[end](queue, old)
    if end == "next":
        await one(queue)
    before = await queue.stats()

    for late in (*END.values(), lambda q, lease: q.extend(lease, MINUTE)):
        with pytest.raises(ConflictError) as error:
            await late(queue, old)
        assert error.value.reason == "LEASE_LOST"

    assert counts(await queue.stats()) == counts(before)


END = {
    "ack": lambda q, lease: q.ack(lease),
    "nack": lambda q, lease: q.nack(lease, delay=SECOND),
    "release": lambda q, lease: q.release(lease),
    "dead_letter": lambda q, lease: q.dead_letter(lease, cause=INVALID),
}


async def test_a_heartbeat_keeps_the_lease(queue, clock):
    """Work may take longer than a lease, as long as its worker lives."""
    await queue.publish(job("a"))
    lease = await one(queue)

    for _ in range(5):
        clock.advance(50)
        await queue.extend(lease, MINUTE)
        assert await queue.lease(limit=1, duration=MINUTE) == []

    await queue.ack(lease)


async def test_a_finished_job_is_gone(queue):
    """With its history: nobody asks the queue for what is done."""
    job_id = await queue.publish(job("a"))
    await queue.nack(await one(queue), delay=timedelta(0), error=TIMEOUT)

    await queue.ack(await one(queue))

    with pytest.raises(NotFoundError) as error:
        await queue.get(job_id)
    assert error.value.reason == "MESSAGE_NOT_FOUND"
    assert counts(await queue.stats()) == {}


async def test_a_failed_attempt_comes_again_after_its_delay_with_its_history(queue, clock):
    """Error, model and times of each attempt are what an operator looks at first."""
    job_id = await queue.publish(job("a"))
    lease = await one(queue)
    clock.advance(2)
    await queue.nack(lease, delay=timedelta(seconds=15), error=TIMEOUT, model="qwen2")

    waiting = await queue.get(job_id)
    assert waiting.state == DELAYED
    assert waiting.due_time.ToSeconds() == 1_800_000_017
    assert await queue.lease(limit=1, duration=MINUTE) == []
    clock.advance(15)
    again = (await one(queue)).message

    assert again.delivery_attempt == 2
    failed, _ = again.attempts
    assert (failed.error, failed.model) == (TIMEOUT, "qwen2")
    assert failed.end_time.ToSeconds() - failed.start_time.ToSeconds() == 2


async def test_a_released_message_was_never_leased(queue, clock):
    """A worker that stops gives back what it could not begin: nothing counts against the job."""
    first = await queue.publish(job("a"))
    await queue.publish(job("b"))
    lease = await one(queue)

    await queue.release(lease)

    again = await one(queue)
    assert (again.message.message_id, again.message.delivery_attempt) == (first, 1)
    assert len(again.message.attempts) == 1
    await queue.release(again, delay=MINUTE)
    assert (await one(queue)).message.job.track.title == "b"


async def test_a_dead_letter_says_why(queue, clock):
    """It is not handed out any more; cause, last error and time of death are kept."""
    job_id = await kill(queue)

    letter = await queue.get(job_id)
    assert (letter.state, letter.cause) == (DEAD, INVALID)
    assert letter.attempts[-1].error == TIMEOUT
    assert letter.dead_letter_time.ToSeconds() == 1_800_000_000
    assert await queue.lease(limit=1, duration=MINUTE) == []
    listed = await queue.list_dead_letters(queue_admin_pb2.ListDeadLettersRequest())
    assert list(listed.messages) == [letter]


async def test_bytes_that_are_no_job_are_leased_without_one(backend, queue):
    """Whoever leases it must be able to bury it."""
    job_id = await queue.publish(job("a"))
    await backend.spoil(queue, job_id)

    lease = await one(queue)

    assert lease.message.message_id == job_id
    assert not lease.message.HasField("job")
    await queue.dead_letter(lease, cause=queue_admin_pb2.DEAD_LETTER_CAUSE_UNDECODABLE)
    assert (await queue.get(job_id)).state == DEAD


async def test_priorities_are_served_by_weight_and_none_starves(queue):
    """8 : 3 : 1 while all have work; what is left when the high is done comes faster."""
    for priority in (LOW, MEDIUM, HIGH):
        for _ in range(24):
            await queue.publish(job("a", priority=priority))

    served = [(await one(queue)).message.priority for _ in range(36)]

    assert Counter(served[:12]) == {HIGH: 8, MEDIUM: 3, LOW: 1}
    assert Counter(served) == {HIGH: 24, MEDIUM: 9, LOW: 3}
    rest = await queue.lease(limit=100, duration=MINUTE)
    assert Counter(lease.message.priority for lease in rest[:8]) == {MEDIUM: 6, LOW: 2}
    assert len(rest) == 36


async def test_tenants_take_turns_within_a_priority(queue):
    """One tenant's overnight ingest must not hold up another's ten tracks."""
    for n in range(20):
        await queue.publish(job(f"bulk {n}", tenant="bulk"))
    for tenant in ("a", "z"):
        for n in range(2):
            await queue.publish(job(f"{tenant} {n}", tenant=tenant))

    served = [(await one(queue)).message.job.tenant for _ in range(3)]
    rest = [lease.message.job for lease in await queue.lease(limit=6, duration=MINUTE)]

    assert sorted(served) == ["a", "bulk", "z"]
    assert sorted(found.tenant for found in rest[:3]) == ["a", "bulk", "z"]
    bulk = [found.track.title for found in rest if found.tenant == "bulk"]
    assert bulk == ["bulk 1", "bulk 2", "bulk 3", "bulk 4"]


async def test_no_message_is_leased_twice_at_a_time(queue):
    """However many workers pull at once."""
    for n in range(50):
        await queue.publish(job(str(n)))

    pulled = await asyncio.gather(*(queue.lease(limit=5, duration=MINUTE) for _ in range(20)))

    ids = [lease.message.message_id for leases in pulled for lease in leases]
    assert len(ids) == len(set(ids)) == 50


async def test_a_waiting_worker_gets_a_job_as_soon_as_there_is_one(queue):
    """Nobody should have to poll; without any it comes back in time."""
    waiting = asyncio.create_task(queue.lease(limit=1, duration=MINUTE, wait=timedelta(seconds=20)))
    await asyncio.sleep(0)
    await queue.publish(job("a"))

    async with asyncio.timeout(5):
        [lease] = await waiting

    assert lease.message.job.track.title == "a"
    assert await queue.lease(limit=1, duration=MINUTE, wait=timedelta(milliseconds=50)) == []


async def test_nothing_is_lost_by_a_restart(backend, clock, tmp_path):
    """What was waiting, leased, delayed, dead or paused still is, and leases of the dead end."""
    async with backend.open(tmp_path, clock) as queue:
        dead = await kill(queue)
        held = await queue.publish(job("held"))
        await one(queue)
        await queue.publish(job("later"), not_before=_at(100))
        await queue.pause(by="ada", reason="night")
    async with backend.open(tmp_path, clock) as queue:
        stats = await queue.stats()
        assert (stats.paused, stats.paused_by, stats.pause_reason) == (True, "ada", "night")
        await queue.resume()
        clock.advance(61)
        again = await one(queue)
        after = await queue.stats()

        assert (again.message.message_id, again.message.delivery_attempt) == (held, 2)
        assert counts(after) == {MEDIUM: (0, 1, 1, 1)}
        assert (await queue.get(dead)).attempts[0].error == TIMEOUT


async def test_a_paused_queue_hands_out_nothing_and_loses_nothing(queue):
    """Publishing goes on, and what is leased may be finished. The first who paused is named."""
    await queue.publish(job("a"))
    lease = await one(queue)
    await queue.pause(by="ada", reason="model down")
    await queue.pause(by="bob", reason="?")
    await queue.publish(job("b"))

    assert await queue.lease(limit=1, duration=MINUTE) == []
    await queue.ack(lease)
    assert (await queue.stats()).paused_by == "ada"

    waiting = asyncio.create_task(queue.lease(limit=1, duration=MINUTE, wait=timedelta(seconds=20)))
    await asyncio.sleep(0)
    assert not (await queue.resume()).paused
    async with asyncio.timeout(5):
        assert len(await waiting) == 1


async def test_counts_are_right_by_priority_and_state(queue, clock):
    """And the age of the oldest due message is since it was due."""
    await kill(queue, priority=HIGH)
    await queue.publish(job("a", priority=LOW), not_before=_at(10))
    await queue.publish(job("b", priority=LOW, tenant="t"), not_before=_at(20))
    await queue.publish(job("c"))
    await one(queue)

    early = await queue.stats()
    clock.advance(15)
    late = await queue.stats()

    assert counts(early) == {HIGH: (0, 0, 0, 1), MEDIUM: (0, 0, 1, 0), LOW: (0, 2, 0, 0)}
    assert counts(late)[LOW] == (1, 1, 0, 0)
    ages = {p.priority: p.oldest_ready_age.ToSeconds() for p in late.priorities if p.ready}
    assert ages == {LOW: 5}
    assert [p.priority for p in late.priorities] == [HIGH, MEDIUM, LOW]
    assert late.read_time.ToSeconds() == 1_800_000_015


async def test_pages_list_every_message_once_in_order(queue):
    """Also when some are finished while the pages are read; dead ones are asked for by state."""
    ids = [await queue.publish(job(str(n))) for n in range(7)]
    pages, token = [], ""
    for _ in range(3):
        page = await queue.list_messages(
            queue_admin_pb2.ListMessagesRequest(page_size=3, page_token=token)
        )
        pages.append([message.message_id for message in page.messages])
        token = page.next_page_token
        await queue.ack(await one(queue))

    assert pages == [ids[:3], ids[3:6], ids[6:]]
    assert token == ""
    with pytest.raises(InvalidRequestError) as error:
        await queue.list_messages(queue_admin_pb2.ListMessagesRequest(page_token="what"))  # noqa: S106
    assert error.value.violations[0].reason == "PAGE_TOKEN"


async def test_filters_choose_messages(queue, clock):
    """Every set field must match."""
    old = await queue.publish(job("old", priority=HIGH))
    clock.advance(100)
    failed = await queue.publish(job("failed"))
    [lease] = [
        lease
        for lease in await queue.lease(limit=2, duration=MINUTE)
        if lease.message.message_id == failed
    ]
    await queue.nack(lease, delay=MINUTE, error=TIMEOUT)

    async def chosen(**fields) -> list[str]:
        request = queue_admin_pb2.ListMessagesRequest(filter=fields)
        return [m.message_id for m in (await queue.list_messages(request)).messages]

    assert await chosen(priorities=[HIGH, LOW]) == [old]
    assert await chosen(older_than=MINUTE) == [old]
    assert await chosen(newer_than=MINUTE) == [failed]
    assert await chosen(track_id="failed") == [failed]
    assert await chosen(error_contains="the model WAS") == [failed]
    assert await chosen(error_contains="deadline") == [failed]
    assert await chosen(error_contains="100%") == []
    assert await chosen(state=LEASED) == [old]
    assert await chosen(state=DELAYED) == [failed]
    assert await chosen(state=READY) == []
    assert await chosen(state=DELAYED, priorities=[HIGH]) == []
    assert await chosen() == [old, failed]
    clock.advance(61)
    assert failed in await chosen(state=READY)


async def test_dead_letters_are_listed_newest_first_and_by_filter(queue, clock):
    """By cause and by the time since death, which is what an operator knows."""
    ids = []
    for n in range(5):
        ids.append(await kill(queue, str(n)))
        clock.advance(60)
    lease_id = await queue.publish(job("spent"))
    await queue.dead_letter(await one(queue), cause=EXHAUSTED)

    async def chosen(token="", **fields):
        return await queue.list_dead_letters(
            queue_admin_pb2.ListDeadLettersRequest(page_size=4, page_token=token, filter=fields)
        )

    first = await chosen()
    second = await chosen(first.next_page_token)
    found = [m.message_id for page in (first, second) for m in page.messages]
    assert found == [lease_id, *reversed(ids)]
    assert second.next_page_token == ""
    assert [m.message_id for m in (await chosen(causes=[EXHAUSTED])).messages] == [lease_id]
    recent = await chosen(causes=[INVALID], newer_than=timedelta(seconds=130))
    assert [m.message_id for m in recent.messages] == [ids[4], ids[3]]


async def test_pages_fit_into_a_message_however_much_was_said_of_failures(queue):
    """A client that takes 4 MiB could not list what failed, just when it is most wanted."""
    said = track_pb2.Error(code=4, reason="DEADLINE", message="The model said: " + "é" * 20_000)
    said.violations.extend([track_pb2.FieldViolation(field="track", description="x" * 200)] * 500)
    ids = [await queue.publish(job(str(n))) for n in range(30)]
    for _ in range(40):
        leases = await queue.lease(limit=30, duration=MINUTE)
        await asyncio.gather(
            *(queue.nack(lease, delay=timedelta(0), error=said) for lease in leases)
        )
    for lease in await queue.lease(limit=30, duration=MINUTE):
        await queue.dead_letter(lease, cause=EXHAUSTED, error=said)

    listed, token = [], ""
    while True:
        page = await queue.list_dead_letters(
            queue_admin_pb2.ListDeadLettersRequest(page_size=500, page_token=token)
        )
        assert page.ByteSize() < 4 << 20
        listed += [message.message_id for message in page.messages]
        token = page.next_page_token
        if not token:
            break

    assert sorted(listed) == sorted(ids)
    last = (await queue.get(ids[0])).attempts[-1]
    assert last.error.message.startswith("The model said: é")


async def test_retry_makes_a_delayed_message_due(queue):
    """An operator who mended the cause does not want to wait; one that is due stays so."""
    job_id = await queue.publish(job("a"))
    await queue.nack(await one(queue), delay=MINUTE)

    message = await queue.retry(job_id)

    assert message.state == READY
    assert (await queue.retry(job_id)).state == READY
    assert (await one(queue)).message.message_id == job_id
    with pytest.raises(FailedPreconditionError) as leased:
        await queue.retry(job_id)
    with pytest.raises(NotFoundError):
        await queue.retry("none")
    with pytest.raises(FailedPreconditionError) as dead:
        await queue.retry(await kill(queue, "b"))
    assert (leased.value.reason, dead.value.reason) == ("MESSAGE_LEASED", "MESSAGE_DEAD")


async def test_replay_puts_dead_letters_back_with_their_attempts_counted_anew(queue):
    """The history stays, so that nobody replays the same failure for ever without knowing."""
    job_id = await kill(queue)
    other = await kill(queue, "b")

    replayed = await queue.replay(
        queue_admin_pb2.ReplayDeadLettersRequest(message_ids=[job_id, "none"])
    )

    assert (replayed.replayed_count, list(replayed.message_ids)) == (1, [job_id])
    message = (await one(queue)).message
    assert (message.message_id, message.delivery_attempt) == (job_id, 1)
    assert [attempt.error.reason for attempt in message.attempts] == ["DEADLINE", ""]
    assert message.cause == 0
    assert (await queue.get(other)).state == DEAD


async def test_replay_by_filter_takes_what_matches_and_everything_only_when_asked(queue):
    """`all` is a word of its own, so that an empty filter is never everything."""
    high = await kill(queue, "a", priority=HIGH)
    low = await kill(queue, "b", priority=LOW)

    by_filter = await queue.replay(
        queue_admin_pb2.ReplayDeadLettersRequest(filter={"priorities": [LOW]})
    )
    rest = await queue.replay(queue_admin_pb2.ReplayDeadLettersRequest(all=True))

    assert list(by_filter.message_ids) == [low]
    assert list(rest.message_ids) == [high]


async def test_replay_at_a_rate_spreads_the_due_times(queue, clock):
    """A thousand letters at once would only fail again for the same overload."""
    ids = [await kill(queue, str(n)) for n in range(4)]

    await queue.replay(queue_admin_pb2.ReplayDeadLettersRequest(all=True, max_per_second=2))

    taken = []
    for _ in range(4):
        taken.append([le.message.message_id for le in await queue.lease(limit=9, duration=MINUTE)])
        clock.advance(0.5)
    assert taken == [[ids[0]], [ids[1]], [ids[2]], [ids[3]]]


async def test_replay_with_an_edited_job_takes_the_place_of_the_bad_one(backend, queue):
    """Also of bytes that could not be read. Who asked for it, and under which id, stays."""
    job_id = await queue.publish(job("bad", priority=LOW, tenant="t", request_id="r"))
    await backend.spoil(queue, job_id)
    await queue.dead_letter(await one(queue), cause=INVALID)
    edited = job("good", priority=0, tenant="thief", request_id="other")

    await queue.replay(
        queue_admin_pb2.ReplayDeadLettersRequest(message_ids=[job_id], edited_job=edited)
    )

    found = (await one(queue)).message.job
    assert (found.track.title, found.job_id) == ("good", job_id)
    assert (found.tenant, found.request_id, found.priority) == ("t", "r", LOW)


async def test_a_replay_is_done_once_under_one_request_id(queue):
    """An operator whose connection broke asks again; what died since is not replayed by that."""
    job_id = await kill(queue)
    request = queue_admin_pb2.ReplayDeadLettersRequest(all=True, request_id="r")
    first = await queue.replay(request)
    await queue.dead_letter(await one(queue), cause=EXHAUSTED)

    again = await queue.replay(request)

    assert first == again
    assert first.replayed_count == 1
    assert (await queue.get(job_id)).state == DEAD


async def test_a_request_id_of_another_replay_is_refused(queue):
    """Or the operator is told that those letters live which another command put back."""
    first, other = await kill(queue, "a"), await kill(queue, "b")
    await queue.replay(
        queue_admin_pb2.ReplayDeadLettersRequest(message_ids=[first], request_id="r")
    )

    with pytest.raises(AlreadyExistsError) as error:
        await queue.replay(
            queue_admin_pb2.ReplayDeadLettersRequest(message_ids=[other], request_id="r")
        )

    assert error.value.reason == "REQUEST_ID_REUSED"
    assert (await queue.get(other)).state == DEAD


async def test_replays_at_once_under_one_request_id_get_one_answer(queue):
    """A client that repeats itself without waiting hears the truth each time."""
    job_id = await kill(queue)
    request = queue_admin_pb2.ReplayDeadLettersRequest(all=True, request_id="r")

    answers = await asyncio.gather(*(queue.replay(request) for _ in range(5)))

    assert [list(answer.message_ids) for answer in answers] == [[job_id]] * 5


async def test_letters_that_died_by_a_clock_that_was_ahead_are_chosen(queue, clock):
    """After the clock was set back nobody may have to wait for it to get there again."""
    ids = [await kill(queue, str(n)) for n in range(3)]
    clock.advance(-3600)

    replayed = await queue.replay(queue_admin_pb2.ReplayDeadLettersRequest(message_ids=[ids[0]]))
    purged = await queue.purge(queue_admin_pb2.PurgeDeadLettersRequest(all=True))

    assert list(replayed.message_ids) == [ids[0]]
    assert list(purged.message_ids) == ids[1:]


async def test_purge_deletes_for_good_what_it_chooses(queue):
    """And nothing else."""
    keep = await kill(queue, "keep")
    gone = await kill(queue, "gone")
    alive = await queue.publish(job("gone"))

    purged = await queue.purge(queue_admin_pb2.PurgeDeadLettersRequest(filter={"track_id": "gone"}))

    assert (purged.purged_count, list(purged.message_ids)) == (1, [gone])
    with pytest.raises(NotFoundError):
        await queue.get(gone)
    assert (await queue.get(keep)).state == DEAD
    assert (await queue.get(alive)).state == READY


async def test_what_is_only_tried_changes_nothing(queue):
    """validate_only says what would be done, also more than the ids it lists."""
    ids = [await kill(queue, str(n)) for n in range(3)]

    replayed = await queue.replay(
        queue_admin_pb2.ReplayDeadLettersRequest(all=True, validate_only=True, request_id="r")
    )
    purged = await queue.purge(
        queue_admin_pb2.PurgeDeadLettersRequest(message_ids=ids[:2], validate_only=True)
    )

    assert (replayed.replayed_count, list(replayed.message_ids)) == (3, ids)
    assert (purged.purged_count, list(purged.message_ids)) == (2, ids[:2])
    assert counts(await queue.stats()) == {MEDIUM: (0, 0, 0, 3)}


async def test_many_dead_letters_are_purged_in_parts_and_all_counted(queue):
    """More than one transaction's worth, and only the first hundred are named."""
    await asyncio.gather(*(queue.publish(job(str(n))) for n in range(1200)))
    while leases := await queue.lease(limit=200, duration=MINUTE):
        await asyncio.gather(*(queue.dead_letter(lease, cause=INVALID) for lease in leases))

    replayed = await queue.replay(queue_admin_pb2.ReplayDeadLettersRequest(all=True))
    while leases := await queue.lease(limit=200, duration=MINUTE):
        await asyncio.gather(*(queue.dead_letter(lease, cause=INVALID) for lease in leases))
    purged = await queue.purge(queue_admin_pb2.PurgeDeadLettersRequest(all=True))

    assert (replayed.replayed_count, len(replayed.message_ids)) == (1200, 100)
    assert (purged.purged_count, len(purged.message_ids)) == (1200, 100)
    assert counts(await queue.stats()) == {}
