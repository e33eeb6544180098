"""Takes jobs off the queue and answers them through the same `Enricher` as every RPC.

A job's result is stored before the job is acknowledged, and stored once however often it runs. A
job that cannot succeed is buried at once, one that failed comes again after 1, 5, 15, 30, then 60
seconds until its attempts are used up, and one whose worker died holding it comes again alone
among its kind, so that a job which kills its worker does not use up its neighbours' attempts.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import structlog
from google.rpc import code_pb2
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_server import tracing
from liner_server.context import Principal, RequestContext, current
from liner_server.core.enricher import Enricher
from liner_server.core.enums import Cause, Priority
from liner_server.errors import (
    ConflictError,
    InvalidRequestError,
    LinerError,
    NotFoundError,
    ResourceExhaustedError,
)
from liner_server.failpoints import Point, reach
from liner_server.ports import ResultStore
from liner_server.ports_queue import JobQueue, Lease
from liner_server.queues.concurrency import Concurrency
from liner_server.queues.consumer_policy import ConsumerPolicy, hopeless, is_overload

_log = structlog.get_logger()

Publish = Callable[[enrichment_pb2.Enrichment], Awaitable[None]]
"""Tells others of a result that is stored; may be called again for one they know."""


class Observer(Protocol):
    """Who is told what became of each job; the telemetry in the running service."""

    def job_ended(self, priority: Priority, outcome: str) -> None:
        """An attempt ended: "done", "known" (it had a result), "retried", "released", "lost", or
        the cause of its death in small letters."""


@dataclass(eq=False, kw_only=True)
class _Work:
    """A job being worked on."""

    lease: Lease
    suspect: bool
    task: "asyncio.Task[None]" = field(init=False)
    lost: bool = False


class Consumer:
    """Works on the queue's jobs between `run` and `drain`."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        results: ResultStore,
        enricher: Enricher,
        check: Callable[[queue_admin_pb2.EnrichmentJob], None],
        policy: ConsumerPolicy,
        observer: Observer,
        publish: Publish | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Take `check`, which raises InvalidRequestError for a job that no attempt can mend."""
        self._queue = queue
        self._results = results
        self._enricher = enricher
        self._check = check
        self._policy = policy
        self._observer = observer
        self._publish = publish
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._concurrency = Concurrency(least=policy.workers_least, most=policy.workers)
        self._working: dict[str, _Work] = {}
        self._stopping = asyncio.Event()
        self._freed = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def working(self) -> int:
        """Jobs being worked on now."""
        return len(self._working)

    @property
    def limit(self) -> int:
        """Jobs that would be worked on at once now, were there so many."""
        return self._concurrency.limit

    async def run(self) -> None:
        """Lease and work until drained; what the queue fails at is tried again."""
        heartbeat = asyncio.create_task(self._beat())
        try:
            while not self._stopping.is_set():
                await self._pull()
        finally:
            self._ended.set()
            heartbeat.cancel()

    async def drain(self, grace: timedelta) -> None:
        """Lease nothing more, give what is worked on `grace` to end, and release the rest.

        What is released counts no attempt. Returns within the grace, or two pulls' time, and a
        second.
        """
        end = asyncio.get_running_loop().time() + grace.total_seconds()
        self._stopping.set()
        self._freed.set()
        with suppress(TimeoutError):
            # A pull that is open may bring a last job: it is let end, or that job stays leased.
            async with asyncio.timeout(2 * self._policy.pull_wait.total_seconds()):
                await self._ended.wait()
        tasks = [work.task for work in self._working.values()]
        if not tasks:
            return
        heartbeat = asyncio.create_task(self._beat())
        left = end - asyncio.get_running_loop().time()
        _, late = await asyncio.wait(tasks, timeout=max(0.0, left))
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)
        heartbeat.cancel()

    async def _pull(self) -> None:
        free = self._concurrency.limit - len(self._working)
        if free <= 0:
            self._freed.clear()
            await self._freed.wait()
            return
        try:
            leases = await self._queue.lease(
                limit=free, duration=self._policy.lease, wait=self._policy.pull_wait
            )
        except Exception as error:
            # Whatever it is, the jobs must not wait for somebody to start a worker again.
            reason = error.reason if isinstance(error, LinerError) else type(error).__name__
            _log.error("queue cannot be leased from", reason=reason, error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._policy.store_delay.total_seconds()):
                    await self._stopping.wait()
            return
        if leases:
            reach(Point.AFTER_LEASE)
        for lease in leases:
            self._begin(lease)

    def _begin(self, lease: Lease) -> None:
        attempts = lease.message.attempts
        # The last one is this one; the one before has no end if its worker was lost.
        suspect = len(attempts) > 1 and not attempts[-2].HasField("end_time")
        alone = not any(work.suspect for work in self._working.values())
        work = _Work(lease=lease, suspect=suspect and alone)
        steps = self._put_off(work) if suspect and not alone else self._attend(work)
        work.task = asyncio.create_task(steps)
        self._working[lease.token] = work

        def ended(_: object) -> None:
            del self._working[lease.token]
            self._freed.set()

        work.task.add_done_callback(ended)

    async def _beat(self) -> None:
        """Keep the leases of what is worked on."""
        while True:
            await asyncio.sleep(self._policy.lease.total_seconds() / 3)
            await asyncio.gather(*(self._keep(work) for work in list(self._working.values())))

    async def _keep(self, work: _Work) -> None:
        try:
            await self._queue.extend(work.lease, self._policy.lease)
        except ConflictError:
            # Another worker has it, or it has just ended.
            work.lost = True
            work.task.cancel()
        except Exception as error:
            # Whatever it is, the other leases must be kept.
            _log.warning("lease not extended", job=_name(work), error=str(error))

    async def _put_off(self, work: _Work) -> None:
        await self._give_back(work, self._policy.suspect_delay)

    async def _attend(self, work: _Work) -> None:
        """Work on one job to its end, whatever that is."""
        try:
            outcome = await self._end_of(work)
        except asyncio.CancelledError:
            if work.lost:
                self._tell(work, "lost")
                return
            await self._give_back(work, timedelta(0))
            raise
        except ConflictError as error:
            if error.reason != "LEASE_LOST":
                raise
            outcome = "lost"
        except LinerError as error:
            # Neither the job's fault nor a model's: the stores do not take what became of it.
            _log.error("job cannot be ended", job=_name(work), reason=error.reason)
            await self._give_back(work, self._policy.store_delay)
            return
        except Exception as error:
            # A fault of ours: the lease ends by itself, and the attempt counts.
            _log.error("job cannot be ended", job=_name(work), exc_info=error)
            outcome = "lost"
        self._tell(work, outcome)

    async def _end_of(self, work: _Work) -> str:
        message = work.lease.message
        if not message.HasField("job"):
            error = InvalidRequestError.of("job", "the bytes are no job", "JOB_UNDECODABLE")
            return await self._bury(
                work, queue_admin_pb2.DEAD_LETTER_CAUSE_UNDECODABLE, error.to_item_error()
            )
        # Asked each time: what was released after it was stored does not count as delivered.
        known = await self._result_of(message)
        if known is not None:
            await self._finish(work, known)
            return "known"
        if message.delivery_attempt > self._policy.max_attempts:
            lost = track_pb2.Error(
                code=code_pb2.ABORTED,
                reason="WORKER_LOST",
                message=f"{message.delivery_attempt - 1} attempts, the last without an end",
            )
            return await self._bury(work, queue_admin_pb2.DEAD_LETTER_CAUSE_WORKER_LOST, lost)
        await self._results.update_state(
            message.message_id, enrichment_pb2.ENRICHMENT_STATE_RUNNING
        )
        try:
            answer = await self._enrich(message)
        except LinerError as error:
            return await self._failed(work, error, error.to_item_error())
        except Exception as error:
            _log.error("job failed", job=_name(work), exc_info=error)
            fault = track_pb2.Error(
                code=code_pb2.INTERNAL, reason="INTERNAL", message=type(error).__name__
            )
            return await self._failed(work, None, fault)
        enrichment = enrichment_pb2.Enrichment(
            enrichment_id=message.message_id,
            state=enrichment_pb2.ENRICHMENT_STATE_DONE,
            answer=answer,
            create_time=message.publish_time,
            request_id=message.job.request_id,
        )
        enrichment.answer.processing.enrichment_id = message.message_id
        reach(Point.BEFORE_STORE)
        try:
            await self._results.put(enrichment)
        except ResourceExhaustedError as error:
            if error.retryable:
                raise
            # It is too large, and would be the next time: the models would be asked for ever.
            return await self._bury(
                work, queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID, error.to_item_error()
            )
        reach(Point.AFTER_STORE)
        await self._finish(work, enrichment)
        return "done"

    async def _finish(self, work: _Work, enrichment: enrichment_pb2.Enrichment) -> None:
        """Tell others of a stored result, then acknowledge: a crash between tells them again."""
        if self._publish is not None:
            await self._publish(enrichment)
        reach(Point.BEFORE_ACK)
        await self._queue.ack(work.lease)

    async def _enrich(
        self, message: queue_admin_pb2.QueueMessage
    ) -> enrichment_pb2.EnrichMetadataResponse:
        job = message.job
        self._check(job)
        loop = asyncio.get_running_loop()
        context = RequestContext(
            request_id=job.request_id or message.message_id,
            principal=Principal(name=job.tenant, roles=frozenset({"enrich"})),
            deadline=loop.time() + self._policy.job_timeout.total_seconds(),
            enrichment_id=message.message_id,
        )
        current.set(context)
        began = loop.time()
        try:
            with tracing.span(
                "process job",
                tracing.Kind.CONSUMER,
                carrier=message.attributes,
                attributes={
                    "messaging.message.id": message.message_id,
                    "liner.delivery_attempt": message.delivery_attempt,
                },
            ):
                answer = await self._enricher.enrich(
                    job.track, job.options, context, operation="queue"
                )
        except LinerError as error:
            if is_overload(error.to_item_error().code):
                self._concurrency.overloaded()
            raise
        self._learn(job, answer.processing, loop.time() - began)
        return answer

    def _learn(
        self,
        job: queue_admin_pb2.EnrichmentJob,
        processing: track_pb2.ProcessingResult,
        seconds: float,
    ) -> None:
        """Let the concurrency follow how long the models took, or that one had too much."""
        if processing.HasField("error") and is_overload(processing.error.code):
            self._concurrency.overloaded()
        elif not processing.from_cache:
            kind = f"{processing.model} {job.track.HasField('audio')}"
            self._concurrency.ended(kind, seconds, working=len(self._working))

    async def _result_of(
        self, message: queue_admin_pb2.QueueMessage
    ) -> enrichment_pb2.Enrichment | None:
        try:
            found = await self._results.get(message.message_id)
        except NotFoundError:
            return None
        return found if found.state == enrichment_pb2.ENRICHMENT_STATE_DONE else None

    async def _failed(self, work: _Work, error: LinerError | None, told: track_pb2.Error) -> str:
        """Bury what cannot succeed or has used up its attempts; let the rest come again."""
        cause = hopeless(error)
        attempt = work.lease.message.delivery_attempt
        if cause is None and attempt >= self._policy.max_attempts:
            cause = queue_admin_pb2.DEAD_LETTER_CAUSE_ATTEMPTS_EXHAUSTED
        if cause is not None:
            return await self._bury(work, cause, told)
        delay = self._policy.delay(
            attempt, retry_after=error.retry_after if error else None, rng=self._rng
        )
        await self._queue.nack(
            work.lease, delay=delay, error=told, model=work.lease.message.job.options.model
        )
        return "retried"

    async def _bury(self, work: _Work, cause: Cause, error: track_pb2.Error) -> str:
        message = work.lease.message
        await self._results.update_state(
            message.message_id, enrichment_pb2.ENRICHMENT_STATE_FAILED, error=error
        )
        await self._queue.dead_letter(
            work.lease, cause=cause, error=error, model=message.job.options.model
        )
        name = queue_admin_pb2.DeadLetterCause.Name(cause).removeprefix("DEAD_LETTER_CAUSE_")
        _log.warning("dead letter", job=_name(work), cause=name, reason=error.reason)
        return name.lower()

    async def _give_back(self, work: _Work, delay: timedelta) -> None:
        """Release the lease; where that fails too, it will end by itself."""
        try:
            await self._queue.release(work.lease, delay=delay)
        except LinerError as error:
            _log.warning("lease not released", job=_name(work), reason=error.reason)
        self._tell(work, "released")

    def _tell(self, work: _Work, outcome: str) -> None:
        self._observer.job_ended(work.lease.message.priority, outcome)


def _name(work: _Work) -> str:
    return work.lease.message.message_id
