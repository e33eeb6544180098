"""What goes wrong with Pub/Sub between hosts, on the real emulator: nothing is lost by it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf import json_format
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2
from liner_server.errors import (
    FailedPreconditionError,
    InvalidRequestError,
    LinerError,
    UnavailableError,
)
from liner_server.ports_queue import JobQueue, Lease
from liner_server.queues import publishing, pubsub_file, pubsub_wire
from liner_server.queues.pubsub import PubSubQueue
from liner_server.queues.pubsub_file import TRANSIT_SCHEMA
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_setup import set_up
from liner_server.queues.pubsub_wire import Names, PubsubMessage
from liner_server.queues.rows import Times
from liner_server.results.sqlite import SqliteResultStore
from liner_server.sqlite_file import SqliteFile
from support.eventually import eventually
from support.pubsub_emulator import Emulator, create, fresh_names, gateway, shared_emulator
from support.queue_backends import HIGH, LOW, MEDIUM, job

MINUTE = timedelta(minutes=1)
WAIT = timedelta(seconds=20)
DEAD = queue_admin_pb2.MESSAGE_STATE_DEAD
DONE = enrichment_pb2.ENRICHMENT_STATE_DONE
QUEUED = enrichment_pb2.ENRICHMENT_STATE_QUEUED
INVALID = queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID
EXHAUSTED = queue_admin_pb2.DEAD_LETTER_CAUSE_ATTEMPTS_EXHAUSTED
FAILED = track_pb2.Error(code=14, reason="PROVIDER", message="down")


class Hosts:
    """Queues of the same names on hosts that share nothing but Pub/Sub."""

    def __init__(self, emulator: Emulator, names: Names, folder: Path) -> None:
        self.emulator = emulator
        self.names = names
        self.folder = folder
        self.stack = AsyncExitStack()

    async def open(self, host: str, **options: object) -> PubSubQueue:
        """Start a host; the same one again has its file still."""
        usual = {"takes_letters": host == "a", "settle": timedelta(seconds=2)}
        queue = PubSubQueue(
            self.folder / host / "queue",
            self.names,
            emulator=self.emulator.address,
            pull_wait=timedelta(seconds=2),
            hold=timedelta(seconds=10),
            **{**usual, **options},
        )
        return await self.stack.enter_async_context(queue)


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    """Fresh names on the shared emulator."""
    emulator = shared_emulator()
    names = fresh_names()
    await create(emulator, names)
    hosts = Hosts(emulator, names, tmp_path)
    async with hosts.stack:
        yield hosts


async def one(queue: JobQueue) -> Lease:
    """Lease the next message, when it comes."""
    [lease] = await queue.lease(limit=1, duration=MINUTE, wait=WAIT)
    return lease


async def total(queue: JobQueue) -> tuple[int, int]:
    """Return how many messages the queue counts as living and as dead."""
    priorities = (await queue.stats()).priorities
    return sum(p.ready + p.delayed + p.leased for p in priorities), sum(p.dead for p in priorities)


WORKER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from liner_server.errors import LinerError
from liner_server.queues.pubsub import PubSubQueue
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_setup import set_up
from liner_server.queues.pubsub_wire import Names

async def main(path, project, word, emulator):
    names = Names(project=project, topic=word, subscription=word)
    async with PubSubQueue(Path(path), names, emulator=emulator, takes_letters=False) as queue:
        [lease] = await queue.lease(
            limit=1, duration=timedelta(minutes=1), wait=timedelta(seconds=30)
        )
        print(lease.message.message_id, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await queue.ack(lease)
            print("acked", flush=True)
        except LinerError as error:
            print(error.reason, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def worker_process(hosts: Hosts, job_id: str) -> AsyncIterator["subprocess.Popen[str]"]:
    """Yield a process of its own that holds this job and ends it when it is sent a line."""
    path = hosts.folder / "victim" / "queue"
    arguments = [path, hosts.names.project, hosts.names.topic, hosts.emulator.address]
    with subprocess.Popen(  # noqa: ASYNC220 - it only has to start
        [sys.executable, "-c", WORKER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as victim:
        try:
            assert await line_of(victim) == job_id
            yield victim
        finally:
            victim.kill()


async def line_of(process: "subprocess.Popen[str]") -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


@pytest.mark.parametrize("survivor", ["same host", "other host"])
async def test_what_a_killed_worker_held_is_done_by_another_and_counts_as_an_attempt(
    hosts: Hosts, survivor: str
) -> None:
    """SIGKILL leaves no time to give anything back: Pub/Sub notices that the heartbeat ended."""
    publisher = await hosts.open("a")
    job_id = await publisher.publish(job("a"))
    async with worker_process(hosts, job_id) as victim:
        victim.kill()

    worker = await hosts.open("victim" if survivor == "same host" else "other")
    [lease] = await worker.lease(limit=1, duration=MINUTE, wait=2 * WAIT)

    assert (lease.message.message_id, lease.message.delivery_attempt) == (job_id, 2)
    await worker.ack(lease)


async def test_a_worker_that_froze_cannot_finish_what_is_anothers_now(hosts: Hosts) -> None:
    """Its machine slept through its lease: when it wakes it still believes that the job is its."""
    publisher = await hosts.open("a")
    job_id = await publisher.publish(job("a"))
    async with worker_process(hosts, job_id) as frozen:
        frozen.send_signal(signal.SIGSTOP)
        other = await hosts.open("other")
        [lease] = await other.lease(limit=1, duration=MINUTE, wait=2 * WAIT)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.stdin is not None
        frozen.stdin.write("go on\n")
        frozen.stdin.flush()

        assert await line_of(frozen) == "LEASE_LOST"
        await other.ack(lease)


async def test_tracks_keep_their_order_where_that_was_asked_for(tmp_path: Path) -> None:
    """A correction must not be overtaken by what it corrects."""
    names = fresh_names()
    async with gateway(shared_emulator()) as opened:
        parts = [part async for part in set_up(opened, names, ordered=True)]
    assert {part.state for part in parts} == {"created"}
    hosts = Hosts(shared_emulator(), names, tmp_path)
    async with hosts.stack:
        publisher = await hosts.open("a", ordered=True)
        ids = [await publisher.publish(job("same track")) for _ in range(20)]
        worker = await hosts.open("b", ordered=True)

        served: list[str] = []
        async with asyncio.timeout(30):
            while len(served) < 20:
                leases = await worker.lease(limit=3, duration=MINUTE, wait=WAIT)
                served += [lease.message.message_id for lease in leases]
                await asyncio.gather(*map(worker.ack, leases))

    assert served == ids


async def test_jobs_for_much_later_are_left_to_pubsub(hosts: Hosts) -> None:
    """A million of them must not be held in memory, nor keep due ones from being pulled."""
    later = datetime.now(UTC) + timedelta(days=2)
    queue = await hosts.open("a", most_held=5)
    await asyncio.gather(*(queue.publish(job("later"), not_before=later) for _ in range(60)))
    assert await queue.lease(limit=9, duration=MINUTE, wait=timedelta(seconds=3)) == []

    await queue.publish(job("now"))

    assert (await one(queue)).message.job.track.title == "now"
    assert len(queue._copies) <= 6
    [_, medium, _] = (await queue.stats()).priorities
    assert medium.delayed == 60


async def test_a_heartbeat_keeps_a_message_longer_than_pubsub_would(hosts: Hosts) -> None:
    """Listening to an hour of audio must not let another host begin the same job."""
    worker, other = await hosts.open("a"), await hosts.open("b")
    await worker.publish(job("slow"))
    lease = await one(worker)

    assert await other.lease(limit=1, duration=MINUTE, wait=timedelta(seconds=14)) == []
    await worker.ack(lease)


@pytest.mark.parametrize("most", [1, 2, 7])
async def test_a_job_is_a_dead_letter_after_as_many_attempts_as_were_asked_for(
    hosts: Hosts, most: int
) -> None:
    """Pub/Sub's own policy knows 5 to 100; ours counts leases."""
    queue = await hosts.open("a")
    job_id = await queue.publish(job("bad"))

    for _ in range(most - 1):
        await queue.nack(await one(queue), delay=timedelta(0), error=FAILED, model="qwen2")
    last = await one(queue)
    assert last.message.delivery_attempt == most
    await queue.dead_letter(last, cause=EXHAUSTED, error=FAILED)

    letter = await queue.get(job_id)
    assert (letter.state, len(letter.attempts)) == (DEAD, most)
    assert await queue.lease(limit=1, duration=MINUTE, wait=timedelta(seconds=1)) == []


async def test_attempts_and_delays_survive_a_change_of_host(hosts: Hosts) -> None:
    """A worker that is scaled away gives its messages back with what was tried."""
    worker = await hosts.open("a")
    await worker.publish(job("a"))
    for _ in range(3):
        await worker.nack(await one(worker), delay=timedelta(0), error=FAILED)
    await hosts.stack.aclose()

    other = await hosts.open("b")

    assert (await one(other)).message.delivery_attempt == 4


async def test_bytes_that_are_no_job_are_leased_and_can_be_buried(hosts: Hosts) -> None:
    """Anybody may publish anything: poison must not stop a worker, nor come back for ever."""
    queue = await hosts.open("a")
    async with gateway(hosts.emulator) as raw:
        await raw.publish(hosts.names.topic_of(HIGH), PubsubMessage(data=b"\xff\xff\xff"))

    lease = await one(queue)

    assert not lease.message.HasField("job")
    assert lease.message.priority == HIGH
    await queue.dead_letter(lease, cause=queue_admin_pb2.DEAD_LETTER_CAUSE_UNDECODABLE)
    [letter] = (await queue.list_dead_letters(queue_admin_pb2.ListDeadLettersRequest())).messages
    assert letter.message_id == lease.message.message_id


async def test_a_job_that_another_system_published_is_done(hosts: Hosts) -> None:
    """The data is the job; nothing else is needed."""
    queue = await hosts.open("a")
    bare = PubsubMessage(data=job("theirs").SerializeToString(), attributes={"who": "ingest"})
    async with gateway(hosts.emulator) as raw:
        await raw.publish(hosts.names.topic_of(LOW), bare)

    lease = await one(queue)

    assert lease.message.job.track.title == "theirs"
    assert lease.message.job.job_id == lease.message.message_id != ""
    assert dict(lease.message.attributes) == {"who": "ingest"}
    await queue.ack(lease)
    assert await total(queue) == (0, 0)


@pytest.mark.parametrize("number", ["1e16", "9" * 16, "nan", "-5", "x" * 1000])
async def test_what_others_write_into_attributes_keeps_nobody_from_working(
    hosts: Hosts, number: str
) -> None:
    """Times and counts that no message can carry would end every lease and every listing."""
    queue = await hosts.open("a")
    names = (pubsub_wire.PUBLISHED, pubsub_wire.ATTEMPTS, pubsub_wire.ROUND)
    theirs = PubsubMessage(
        data=job("theirs").SerializeToString(), attributes=dict.fromkeys(names, number)
    )
    async with gateway(hosts.emulator) as raw:
        await raw.publish(hosts.names.topic_of(LOW), theirs)

    lease = await one(queue)

    listed = await queue.list_messages(queue_admin_pb2.ListMessagesRequest())
    assert json_format.MessageToJson(listed)
    assert lease.message.delivery_attempt > 0
    await queue.ack(lease)
    assert await total(queue) == (0, 0)


@pytest.mark.parametrize("job_id", ["a" * 5000, "two\nlines"])
async def test_ids_that_others_chose_are_of_a_kind_that_every_store_takes(
    hosts: Hosts, tmp_path: Path, job_id: str
) -> None:
    """A job whose result cannot be stored under its id would come again for ever."""
    queue = await hosts.open("a")
    theirs = job("theirs")
    theirs.job_id = job_id
    async with gateway(hosts.emulator) as raw:
        await raw.publish(hosts.names.topic_of(LOW), PubsubMessage(data=theirs.SerializeToString()))

    message = (await one(queue)).message

    assert message.message_id.isprintable()
    assert message.job.job_id == message.message_id
    async with SqliteResultStore(tmp_path / "results") as results:
        await results.put(enrichment_pb2.Enrichment(enrichment_id=message.message_id, state=DONE))


async def test_a_job_that_json_cannot_tell_is_undecodable_and_hides_no_others(
    hosts: Hosts,
) -> None:
    """Grpcurl would show nothing of a page with one such job on it."""
    queue = await hosts.open("a")
    bad = [job("long"), job("path")]
    bad[0].track.properties.duration.seconds = 10**18
    bad[1].options.fields.paths.append("NoSuchField")
    async with gateway(hosts.emulator) as raw:
        for theirs in bad:
            await raw.publish(
                hosts.names.topic_of(LOW), PubsubMessage(data=theirs.SerializeToString())
            )

    leases = [await one(queue), await one(queue)]

    listed = await queue.list_messages(queue_admin_pb2.ListMessagesRequest())
    assert json_format.MessageToJson(listed)
    assert not any(lease.message.HasField("job") for lease in leases)


async def test_messages_larger_than_grpcs_usual_limit_come_in(hosts: Hosts) -> None:
    """A hundred jobs with lyrics in one answer are more than 4 MiB; nothing would come any more."""
    queue = await hosts.open("a")
    for _ in range(80):
        long = job("long")
        long.track.lyrics = "x" * 65_536
        await queue.publish(long)

    found = []
    while len(found) < 80:
        leases = await queue.lease(limit=100, duration=MINUTE, wait=WAIT)
        assert leases
        found += leases


async def test_a_job_too_large_to_be_listed_is_undecodable(hosts: Hosts) -> None:
    """Its page would be larger than any client takes, and all behind it out of reach."""
    queue = await hosts.open("a")
    large = job("large")
    large.track.lyrics = "x" * (9 << 20)
    async with gateway(hosts.emulator) as raw:
        await raw.publish(hosts.names.topic_of(LOW), PubsubMessage(data=large.SerializeToString()))

    lease = await one(queue)

    assert not lease.message.HasField("job")
    assert lease.message.ByteSize() < 1000
    # Its letter fits into a message of Pub/Sub, which its bytes in base64 would not.
    await queue.dead_letter(lease, cause=queue_admin_pb2.DEAD_LETTER_CAUSE_UNDECODABLE)
    await eventually(lambda: len(queue._copies) == 0)


async def test_nonsense_among_letters_and_results_keeps_out_nothing(
    hosts: Hosts, tmp_path: Path
) -> None:
    """Whoever may publish there writes what they like; what comes behind it is still taken in."""
    results = await hosts.stack.enter_async_context(SqliteResultStore(tmp_path / "results"))
    server = await hosts.open("a", results=results)
    worker = await hosts.open("b")
    nameless = enrichment_pb2.Enrichment(state=DONE).SerializeToString()

    # Twice: what ends the taking in may still take in what comes with it.
    for _ in range(2):
        async with gateway(hosts.emulator) as raw:
            for number in ("\u00b2", "9" * 400, "nan", "", "5"):
                marks = {pubsub_wire.ID: "zz", pubsub_wire.ROUND: number}
                await raw.publish(
                    hosts.names.results_topic, PubsubMessage(data=nameless, attributes=marks)
                )
                await raw.publish(
                    hosts.names.dead_topic,
                    PubsubMessage(data=b"?", attributes={**marks, pubsub_wire.LETTER: "?"}),
                )
        done, bad = await server.publish(job("done")), await server.publish(job("bad"))
        by_id = {
            lease.message.message_id: lease for lease in [await one(worker), await one(worker)]
        }
        await worker.announce(enrichment_pb2.Enrichment(enrichment_id=done, state=DONE))
        await worker.ack(by_id[done])
        await worker.dead_letter(by_id[bad], cause=INVALID, error=FAILED)

        async def is_known(done: str = done, bad: str = bad) -> bool:
            with suppress(LinerError):
                died = (await server.get(bad)).state == DEAD
                return died and (await results.get(done)).state == DONE
            return False

        await eventually(is_known, within=20)


async def test_a_result_that_cannot_be_announced_is_not_finished(hosts: Hosts) -> None:
    """The host that serves would never learn of it, and its caller would wait for ever."""
    worker = await hosts.open("a")
    enrichment = enrichment_pb2.Enrichment(enrichment_id="x", state=DONE)
    async with gateway(hosts.emulator) as raw:
        await raw.publisher.delete_topic(request={"topic": hosts.names.results_topic})

        with pytest.raises(FailedPreconditionError) as error:
            await worker.announce(enrichment)

        await raw.publisher.create_topic(request={"name": hosts.names.results_topic})
    assert error.value.reason == "PUBSUB_MISSING"
    await worker.announce(enrichment)


async def test_what_pubsub_would_forget_before_its_time_is_refused(hosts: Hosts) -> None:
    """It keeps nothing for longer than seven days, and an acknowledged job must not be lost."""
    queue = await hosts.open("a")
    for title in ("one", "two"):
        await queue.publish(job(title))
        await queue.dead_letter(await one(queue), cause=INVALID)
    slowly = queue_admin_pb2.ReplayDeadLettersRequest(all=True, max_per_second=1e-6)

    with pytest.raises(InvalidRequestError) as published:
        await queue.publish(job("x"), not_before=datetime.now(UTC) + timedelta(days=6.1))
    with pytest.raises(InvalidRequestError) as replayed:
        await queue.replay(slowly)

    reasons = [error.value.violations[0].reason for error in (published, replayed)]
    assert reasons == ["TOO_LATE", "TOO_LATE"]
    assert await total(queue) == (0, 2)


async def test_copies_of_a_message_are_done_once(hosts: Hosts) -> None:
    """Publishers send again what they had no answer to; a copy may even come after the work."""
    queue = await hosts.open("a")
    job_id = await queue.publish(job("a"))
    stored = await queue._file.read(
        lambda db: db.execute(
            "SELECT round FROM transit WHERE message_id = ?", (job_id,)
        ).fetchone()
    )
    found = await queue.get(job_id)
    copy = pubsub_wire.message_of(
        message_id=job_id,
        body=found.job.SerializeToString(),
        attributes="",
        published=found.publish_time.ToMicroseconds() / 1e6,
        due=0,
        number=stored[0],
        delivered=0,
    )
    async with gateway(hosts.emulator) as raw:
        await asyncio.gather(*(raw.publish(hosts.names.topic_of(MEDIUM), copy) for _ in range(9)))

        lease = await one(queue)
        assert await queue.lease(limit=9, duration=MINUTE, wait=timedelta(seconds=3)) == []
        await queue.ack(lease)
        await raw.publish(hosts.names.topic_of(MEDIUM), copy)

    assert await queue.lease(limit=9, duration=MINUTE, wait=timedelta(seconds=3)) == []
    assert await total(queue) == (0, 0)


async def test_hosts_that_share_nothing_agree_on_what_is_done_dead_and_paused(
    hosts: Hosts,
) -> None:
    """One host serves operators, others work: its lists must not fill with what is long done."""
    server, worker = await hosts.open("a"), await hosts.open("b")
    done, bad = await server.publish(job("done")), await server.publish(job("bad"))
    leases = [await one(worker), await one(worker)]
    by_id = {lease.message.message_id: lease for lease in leases}

    await worker.announce(enrichment_pb2.Enrichment(enrichment_id=done))
    await worker.ack(by_id[done])
    await worker.nack(by_id[bad], delay=timedelta(0), error=FAILED, model="qwen2")
    await worker.dead_letter(await one(worker), cause=EXHAUSTED, error=FAILED)

    async def is_known() -> bool:
        return await total(server) == (0, 1)

    await eventually(is_known)
    letter = await server.get(bad)
    assert (letter.state, letter.cause, len(letter.attempts)) == (DEAD, EXHAUSTED, 2)
    assert letter.attempts[0].model == "qwen2"

    await server.replay(queue_admin_pb2.ReplayDeadLettersRequest(message_ids=[bad]))
    again = await one(worker)
    assert (again.message.message_id, again.message.delivery_attempt) == (bad, 1)

    await server.pause(by="ada", reason="night")

    async def is_paused() -> bool:
        return (await worker.stats()).paused

    await eventually(is_paused)
    await server.publish(job("later"))
    assert await worker.lease(limit=1, duration=MINUTE, wait=timedelta(seconds=1)) == []
    await server.resume()
    assert (await one(worker)).message.job.track.title == "later"


async def test_the_host_that_serves_has_the_results_of_those_that_work(hosts: Hosts) -> None:
    """Whoever submitted asks there: nobody may be told QUEUED for ever."""
    async with SqliteResultStore(hosts.folder / "results") as results, hosts.stack:
        server, worker = await hosts.open("a", results=results), await hosts.open("b")
        done, bad = await server.publish(job("done")), await server.publish(job("bad"))
        for job_id in (done, bad):
            await results.put(enrichment_pb2.Enrichment(enrichment_id=job_id, state=QUEUED))
        for _ in range(2):
            lease = await one(worker)
            if lease.message.message_id == bad:
                await worker.dead_letter(lease, cause=INVALID, error=FAILED)
                continue
            answer = enrichment_pb2.EnrichMetadataResponse(track=lease.message.job.track)
            await worker.announce(
                enrichment_pb2.Enrichment(enrichment_id=done, state=DONE, answer=answer)
            )
            await worker.ack(lease)

        async def are_known() -> bool:
            states = [(await results.get(job_id)).state for job_id in (done, bad)]
            known = states == [DONE, enrichment_pb2.ENRICHMENT_STATE_FAILED]
            return known and await total(server) == (0, 1)

        await eventually(are_known)
        assert (await results.get(done)).answer.track.title == "done"
        assert (await results.get(bad)).error == FAILED


@pytest.mark.parametrize("what", ["purge", "replay"])
async def test_a_letter_that_leaves_before_it_was_sent_leaves_no_copy_behind(
    hosts: Hosts, what: str
) -> None:
    """Held until the process ends, another host would be given it then, and do it."""
    queue = await hosts.open("a")
    job_id = await queue.publish(job("a"))
    with queue._outbox.sending({job_id}):
        await queue.dead_letter(await one(queue), cause=INVALID)
        assert len(queue._copies) == 1

        if what == "purge":
            await queue.purge(queue_admin_pb2.PurgeDeadLettersRequest(all=True))
        else:
            await queue.replay(queue_admin_pb2.ReplayDeadLettersRequest(all=True))

        assert len(queue._copies) == 0


async def test_a_purged_letter_stays_purged(hosts: Hosts) -> None:
    """Its copy on the dead-letter topic may still be on its way."""
    queue = await hosts.open("a")
    job_id = await queue.publish(job("a"))
    lease = await one(queue)

    await queue.dead_letter(lease, cause=INVALID)
    purged = await queue.purge(queue_admin_pb2.PurgeDeadLettersRequest(all=True))

    assert list(purged.message_ids) == [job_id]
    assert await queue.lease(limit=1, duration=MINUTE, wait=timedelta(seconds=3)) == []
    assert await total(queue) == (0, 0)


@pytest.mark.parametrize("waits", [False, True])
async def test_what_pubsub_itself_gave_up_is_a_dead_letter_unless_it_only_waited(
    hosts: Hosts, waits: bool
) -> None:
    """It counts deliveries; a job for next week is delivered often and is as good as new."""
    queue = await hosts.open("a")
    now = time.time()
    forwarded = pubsub_wire.message_of(
        message_id="forwarded",
        body=job("a").SerializeToString(),
        attributes="",
        published=now,
        due=now + (3600 if waits else 0),
        number=round(now * 1e6),
        delivered=0,
    )
    forwarded.attributes[pubsub_wire.NATIVE] = hosts.names.subscription_of(LOW)
    async with gateway(hosts.emulator) as raw:
        await raw.publish(hosts.names.dead_topic, forwarded)

    async def is_in() -> bool:
        return await total(queue) == ((1, 0) if waits else (0, 1))

    await eventually(is_in)
    found = await queue.get("forwarded")
    assert found.priority == LOW
    if waits:
        await queue.retry("forwarded")
        assert (await one(queue)).message.message_id == "forwarded"
    else:
        assert found.cause == queue_admin_pb2.DEAD_LETTER_CAUSE_WORKER_LOST


async def test_what_a_dead_process_had_not_sent_is_sent_by_the_next(hosts: Hosts) -> None:
    """The file is written first: between the two a process may be killed."""
    path = hosts.folder / "a" / "queue"
    past = Times(wall=time.time() - 120, steady=0)
    letter = publishing.letter_of(job("left behind"), {}, None, past)
    async with SqliteFile(path, TRANSIT_SCHEMA) as file:
        await file.write(
            lambda db: pubsub_file.put(db, letter, letter, past, keep=1e9, me="the dead")
        )

    queue = await hosts.open("a")

    assert (await one(queue)).message.job.track.title == "left behind"


async def test_what_pubsub_keeps_no_longer_is_not_counted_for_ever(tmp_path: Path) -> None:
    """A host that was killed at the wrong moment never said that it had finished a job."""
    week = timedelta(days=7).total_seconds()
    then = Times(wall=1_800_000_000, steady=0)
    now = Times(wall=then.wall + week, steady=week)
    old, waits = (
        publishing.letter_of(job("old"), {}, None, then),
        publishing.letter_of(job("waits"), {}, datetime.fromtimestamp(now.wall, UTC), then),
    )
    async with SqliteFile(tmp_path / "queue", TRANSIT_SCHEMA) as file:
        for letter in (old, waits):
            _, unsent = await file.write(
                lambda db, letter=letter: pubsub_file.put(db, letter, letter, then, week, "me")
            )
            await file.write(
                lambda db, row=unsent: pubsub_file.mark_sent(db, row.message_id, row.round, "1")
            )

        for drop_lost in (False, True):
            await file.write(
                lambda db, drop=drop_lost: pubsub_file.tidy(db, now, week - 60, drop_lost=drop)
            )
            left = await file.read(
                lambda db: db.execute("SELECT track_id FROM messages ORDER BY id").fetchall()
            )
            assert left == ([("waits",)] if drop_lost else [("old",), ("waits",)])


async def test_without_credentials_the_start_says_so() -> None:
    """Neither a stack trace nor a minute of silent retries."""
    with pytest.raises(FailedPreconditionError, match="credentials") as error:
        async with Gateway():
            pytest.fail("it opened without credentials")

    assert error.value.reason == "PUBSUB_CREDENTIALS"


async def test_without_its_topics_a_queue_says_how_to_make_them(tmp_path: Path) -> None:
    """A worker that starts on nothing would wait for ever in silence."""
    hosts = Hosts(shared_emulator(), fresh_names(), tmp_path)

    with pytest.raises(FailedPreconditionError, match="setup-cloud") as error:
        await hosts.open("a")

    assert error.value.reason == "PUBSUB_MISSING"
    assert hosts.names.topic_of(HIGH) in error.value.message


@pytest.mark.timeout(150)  # the emulator starts twice
async def test_an_outage_is_told_at_once_and_afterwards_all_goes_on(tmp_path: Path) -> None:
    """Whoever publishes must know; and a service that lost its memory gets everything again."""
    with Emulator() as emulator:
        hosts = Hosts(emulator, fresh_names(), tmp_path)
        await create(emulator, hosts.names)
        async with hosts.stack:
            queue = await hosts.open("a")
            finished = await queue.publish(job("finished"))
            done = await one(queue)
            assert done.message.message_id == finished
            ids = {await queue.publish(job(str(n))) for n in range(3)}
            held = await one(queue)
            await asyncio.to_thread(emulator.stop)

            with pytest.raises(UnavailableError):
                await queue.publish(job("refused"))
            assert await total(queue) == (4, 0)
            await queue.ack(done)
            assert await total(queue) == (3, 0)

            await asyncio.to_thread(emulator.start)
            # That of the jobs is there anew, and empty, before anybody could miss it.
            async with gateway(emulator) as opened:
                topic = hosts.names.topic_of(MEDIUM)
                await opened.publisher.create_topic({"name": topic})
                await opened.subscriber.create_subscription(
                    {"name": hosts.names.subscription_of(MEDIUM), "topic": topic}
                )

            async def misses_a_subscription() -> bool:
                try:
                    await queue.lease(limit=9, duration=MINUTE, wait=timedelta(seconds=0.1))
                except LinerError as error:
                    return error.reason == "PUBSUB_MISSING"
                return False

            await eventually(misses_a_subscription, within=20)
            await create(emulator, hosts.names)
            found: dict[str, Lease] = {}
            async with asyncio.timeout(60):
                while len(found) < 3:
                    with suppress(LinerError):
                        leases = await queue.lease(limit=9, duration=MINUTE, wait=WAIT)
                        found.update({lease.message.message_id: lease for lease in leases})
            assert found.keys() == ids
            assert found[held.message.message_id].message.delivery_attempt == 2
            for lease in found.values():
                await queue.ack(lease)
            assert await total(queue) == (0, 0)
