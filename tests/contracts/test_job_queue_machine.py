"""The queue against a dictionary: any sequence of calls leaves what the simple model says."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from liner.v1 import queue_admin_pb2
from liner_server.errors import ConflictError, FailedPreconditionError
from liner_server.ports_queue import JobQueue, Lease
from support.clock import ManualClock
from support.queue_backends import BACKENDS, HIGH, LOW, MEDIUM, job

LEASE = 60.0
CAUSE = queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID


@dataclass(kw_only=True)
class Entry:
    """What the model knows of a message."""

    priority: int
    due: float
    delivered: int = 0
    token: str = ""
    lease_end: float = 0.0
    dead: bool = False


class QueueMachine(RuleBasedStateMachine):
    """Calls the queue and a dictionary alike, restarts included."""

    backend = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock(1_800_000_000.0)
        self.model: dict[str, Entry] = {}
        self.leases: list[Lease] = []
        self.paused = False
        self.open()

    def open(self) -> None:
        """Open the queue."""
        self.stack = AsyncExitStack()
        backend = BACKENDS[self.backend].open(Path(self.folder.name), self.clock)
        self.queue: JobQueue = self.runner.run(self.stack.enter_async_context(backend))

    def teardown(self) -> None:
        """Close everything."""
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.folder.cleanup()

    def state(self, entry: Entry) -> str:
        """Return where the model says that a message is now."""
        if entry.dead:
            return "dead"
        if entry.token and entry.lease_end > self.clock.now:
            return "leased"
        return "ready" if entry.due <= self.clock.now else "delayed"

    def held(self, lease: Lease) -> Entry | None:
        """Return the message that this lease still holds."""
        entry = self.model.get(lease.message.message_id)
        live = entry is not None and entry.token == lease.token and self.state(entry) == "leased"
        return entry if live else None

    @rule(priority=st.sampled_from([HIGH, MEDIUM, LOW]), tenant=st.sampled_from("ab"))
    def publish(self, priority: int, tenant: str) -> None:
        """A new job is due now."""
        job_id = self.runner.run(self.queue.publish(job("t", priority=priority, tenant=tenant)))
        assert job_id not in self.model
        self.model[job_id] = Entry(priority=priority, due=self.clock.now)

    @initialize(jobs=st.integers(2, 5))
    def begin(self, jobs: int) -> None:
        """Something is there to work on."""
        for _ in range(jobs):
            self.publish(MEDIUM, "a")

    @rule(wait=st.integers(1, 100))
    def publish_for_later(self, wait: int) -> None:
        """A new job is due later."""
        due = self.clock.now + wait
        at = datetime.fromtimestamp(due, UTC)
        job_id = self.runner.run(self.queue.publish(job("t"), not_before=at))
        self.model[job_id] = Entry(priority=MEDIUM, due=due)

    @rule(limit=st.integers(1, 5))
    def lease(self, limit: int) -> None:
        """As many as asked for or due are handed out, each due before and counted."""
        leases = self.runner.run(self.queue.lease(limit=limit, duration=timedelta(seconds=LEASE)))
        due = [i for i, entry in self.model.items() if self.state(entry) == "ready"]
        assert len(leases) == (0 if self.paused else min(limit, len(due)))
        for lease in leases:
            assert lease.message.message_id in due
            entry = self.model[lease.message.message_id]
            entry.delivered += 1
            entry.token, entry.lease_end = lease.token, self.clock.now + LEASE
            assert lease.message.delivery_attempt == entry.delivered
        self.leases += leases

    def chosen(self, number: int) -> Lease:
        """Return a lease, three times out of four one that is still held if there is any."""
        live = [lease for lease in self.leases if self.held(lease) is not None]
        among = live if live and number % 4 else self.leases
        return among[number % len(among)]

    def end(self, number: int, call: str, **options: object) -> Entry | None:
        """End a lease; return the message if that had an effect, else make sure it had none."""
        lease = self.chosen(number)
        entry = self.held(lease)
        work = getattr(self.queue, call)(lease, **options)
        if entry is None:
            with pytest.raises(ConflictError):
                self.runner.run(work)
            return None
        self.runner.run(work)
        return entry

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def ack(self, number: int) -> None:
        """A finished job is gone."""
        lease = self.chosen(number)
        if self.end(number, "ack") is not None:
            del self.model[lease.message.message_id]

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50), delay=st.integers(0, 90))
    def nack(self, number: int, delay: int) -> None:
        """A failed one comes again later."""
        entry = self.end(number, "nack", delay=timedelta(seconds=delay))
        if entry is not None:
            entry.token, entry.due = "", self.clock.now + delay

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def release(self, number: int) -> None:
        """One given back was not delivered."""
        entry = self.end(number, "release")
        if entry is not None:
            entry.token = ""
            entry.delivered -= 1

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def extend(self, number: int) -> None:
        """A heartbeat moves the end."""
        entry = self.end(number, "extend", duration=timedelta(seconds=LEASE))
        if entry is not None:
            entry.lease_end = self.clock.now + LEASE

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def dead_letter(self, number: int) -> None:
        """A hopeless one is kept apart."""
        entry = self.end(number, "dead_letter", cause=CAUSE)
        if entry is not None:
            entry.token, entry.dead = "", True

    @rule()
    def replay(self) -> None:
        """All dead letters come back as if new."""
        answer = self.runner.run(
            self.queue.replay(queue_admin_pb2.ReplayDeadLettersRequest(all=True))
        )
        dead = [entry for entry in self.model.values() if entry.dead]
        assert answer.replayed_count == len(dead)
        for entry in dead:
            entry.dead, entry.delivered, entry.due = False, 0, self.clock.now

    @rule(priority=st.sampled_from([HIGH, MEDIUM, LOW]))
    def purge(self, priority: int) -> None:
        """Dead letters of one priority are deleted, nothing else."""
        request = queue_admin_pb2.PurgeDeadLettersRequest(filter={"priorities": [priority]})
        answer = self.runner.run(self.queue.purge(request))
        gone = [i for i, e in self.model.items() if e.dead and e.priority == priority]
        assert sorted(answer.message_ids) == sorted(gone)
        for job_id in gone:
            del self.model[job_id]

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 50))
    def retry(self, number: int) -> None:
        """What waits is due; what is leased or dead is refused."""
        job_id = list(self.model)[number % len(self.model)]
        entry = self.model[job_id]
        if self.state(entry) in ("leased", "dead"):
            with pytest.raises(FailedPreconditionError):
                self.runner.run(self.queue.retry(job_id))
            return
        self.runner.run(self.queue.retry(job_id))
        entry.due = min(entry.due, self.clock.now)

    @rule(stay=st.integers(0, 3))
    def turn(self, stay: int) -> None:
        """Pause, seldom for more than a look, or go on: a paused queue shows little else."""
        if not self.paused:
            self.paused = True
            assert self.runner.run(self.queue.pause(by="a", reason="")).paused
            self.lease(5)
            if not stay:
                return
        self.paused = False
        assert not self.runner.run(self.queue.resume()).paused

    @rule(seconds=st.integers(1, 70))
    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.advance(float(seconds))

    @rule()
    def restart(self) -> None:
        """Close and open: every lease is of a dead process."""
        self.runner.run(self.stack.aclose())
        self.open()
        for entry in self.model.values():
            entry.token = ""

    @invariant()
    def counts_and_list_agree_with_the_model(self) -> None:
        """Nothing is lost, doubled or elsewhere than the model says."""
        stats = self.runner.run(self.queue.stats())
        for found in stats.priorities:
            states = [self.state(e) for e in self.model.values() if e.priority == found.priority]
            counted = (found.ready, found.delayed, found.leased, found.dead)
            assert counted == tuple(map(states.count, ("ready", "delayed", "leased", "dead")))
        listed = self.runner.run(
            self.queue.list_messages(queue_admin_pb2.ListMessagesRequest(page_size=500))
        )
        alive = [job_id for job_id, entry in self.model.items() if not entry.dead]
        assert [message.message_id for message in listed.messages] == alive


# Every step commits to a disk, which on a busy machine takes its time.
TestQueueMachine = pytest.mark.timeout(240)(QueueMachine.TestCase)
TestQueueMachine.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class PubSubMachine(QueueMachine):
    """The same on Pub/Sub, which may hand anything out later than it could."""

    backend = "pubsub"

    @rule()
    def restart(self) -> None:
        """Close and open: what was leased is given back before, as a draining worker does.

        A lease of a process that was killed ends when Pub/Sub says so, in its own time: the fault
        tests wait for that.
        """
        for lease in self.leases:
            entry = self.held(lease)
            if entry is not None:
                self.runner.run(self.queue.release(lease))
                entry.token = ""
                entry.delivered -= 1
        super().restart()


# Every example makes topics and subscriptions of its own.
TestPubSubMachine = pytest.mark.timeout(300)(PubSubMachine.TestCase)
TestPubSubMachine.settings = settings(
    max_examples=6,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
