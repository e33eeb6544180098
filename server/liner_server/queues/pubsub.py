"""The queue on Google Pub/Sub: `async with PubSubQueue(path, names) as queue`.

Pub/Sub carries the jobs between hosts and decides which host has one. A file on each host
(`pubsub_file`) knows what this host published or was handed: leases and their tokens, attempts
with their errors, delays, dead letters, request ids. So listing, replay and purge are exact, and a
lease's end, a delay or a limit of attempts is not what Pub/Sub allows (10 s, 600 s, 5..100) but
what the port says.

A pulled message is held: its deadline at Pub/Sub is moved on by a heartbeat until it is finished,
also while it is delayed. If the process dies the heartbeat ends, and Pub/Sub gives the message to
another. Whatever is put on the queue is in the file first and sent from there (the outbox), so a
crash in between sends it late, or twice, and of two copies one counts.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import structlog
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_server.core.enums import Cause
from liner_server.errors import (
    ConflictError,
    InvalidRequestError,
    LinerError,
)
from liner_server.ports import ResultStore
from liner_server.ports_queue import NO_ATTRIBUTES, Lease
from liner_server.queues import (
    admin,
    publishing,
    pubsub_file,
    pubsub_held,
    pubsub_letters,
    pubsub_wire,
)
from liner_server.queues.pubsub_copies import Copies
from liner_server.queues.pubsub_file import TRANSIT_SCHEMA
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_held import Taken
from liner_server.queues.pubsub_letters import Letters
from liner_server.queues.pubsub_outbox import Outbox
from liner_server.queues.pubsub_pull import Puller
from liner_server.queues.pubsub_setup import check, is_paused, set_paused
from liner_server.queues.pubsub_wire import Names, arrival_of
from liner_server.queues.rows import messages_of
from liner_server.queues.schema import check_version
from liner_server.queues.sqlite import STEADY_FOR, SqliteQueue
from liner_server.sqlite_file import SqliteFile

_log = structlog.get_logger()

_LOOK_FOR_PAUSE = 3.0
_LONGEST_WAIT = (pubsub_wire.LONGEST_RETENTION - timedelta(days=1)).total_seconds()
"""What is put off for longer may be gone before anybody has had a day to do it."""

_LEAVE_SECONDS = 1.0
"""What does not answer at the end must not keep the process beyond its grace period."""


class PubSubQueue(SqliteQueue):
    """The `JobQueue` of a Pub/Sub project; what is on the file alone is as with `SqliteQueue`."""

    def __init__(
        self,
        path: Path,
        names: Names,
        *,
        emulator: str | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        keep: timedelta = timedelta(days=7),
        look_every: timedelta = timedelta(seconds=1),
        ahead: int = 10,
        most_held: int = 1000,
        settle: timedelta = timedelta(milliseconds=200),
        pull_wait: timedelta = timedelta(seconds=5),
        hold: timedelta = timedelta(seconds=30),
        pulls: bool = True,
        takes_letters: bool = True,
        results: ResultStore | None = None,
        ordered: bool = False,
    ) -> None:
        """Set up; nothing is opened yet.

        `ahead` is how many due messages of a priority are held though nobody asked for so many,
        so that tenants can take turns; of those that are not due for long `most_held` are held and
        the others left to Pub/Sub. `settle` says how long turns wait for messages that are known
        to be on their way; `hold` how soon another host gets what this process held when it died.
        Without `pulls` jobs only come by `take_pushed`.
        `takes_letters` says that dead letters of all hosts are kept here, and what other hosts
        finished in `results`; `ordered` that jobs for
        one track come in the order of their publication, if the subscriptions were made so.
        """
        super().__init__(path, clock=clock, steady=steady, keep=keep, look_every=look_every)
        self._file = SqliteFile(path, TRANSIT_SCHEMA, readers=1)
        self._names = names
        self._gateway = Gateway(emulator=emulator)
        self._ahead = ahead
        self._settle = settle.total_seconds()
        self._pulls = pulls
        self._takes_letters = takes_letters
        self._me = secrets.token_hex(8)
        self._copies = Copies(self._gateway, hold_seconds=max(10, round(hold.total_seconds())))
        self._outbox = Outbox(
            file=self._file,
            gateway=self._gateway,
            copies=self._copies,
            names=names,
            me=self._me,
            times=self._times,
            sent=self._stir,
            ordered=ordered,
            look_every=look_every.total_seconds(),
        )
        self._letters = Letters(
            file=self._file,
            gateway=self._gateway,
            names=names,
            me=self._me,
            times=self._times,
            pull_wait=pull_wait,
            changed=self._outbox.ask,
            results=results,
        )
        self._pausing = asyncio.Lock()
        self._puller = Puller(
            file=self._file,
            gateway=self._gateway,
            copies=self._copies,
            names=names,
            me=self._me,
            times=self._times,
            pull_wait=pull_wait,
            most_held=most_held,
            changed=self._stir,
            unsent=self._outbox.ask,
            lost=self._lose,
        )
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stack: AsyncExitStack

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._gateway)
            await check(self._gateway, self._names)
            await stack.enter_async_context(self._file)
            await self._file.write(check_version, reclaims=True)
            self._stack = stack.pop_all()
        self._tasks = [
            asyncio.create_task(self._keep_house()),
            asyncio.create_task(self._copies.keep(self._lose)),
            asyncio.create_task(self._outbox.run()),
            asyncio.create_task(self._follow_pause()),
        ]
        if self._takes_letters:
            self._tasks.append(asyncio.create_task(self._letters.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self._stir()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._puller.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._leave()
        await self._stack.aclose()

    async def publish(
        self,
        job: queue_admin_pb2.EnrichmentJob,
        *,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        not_before: datetime | None = None,
    ) -> str:
        """Put a job on the queue; see the port.

        The id of a job with a request id follows from it, so that a request which reaches two
        hosts makes one job. An UnavailableError leaves nothing behind that this host knows of.
        """
        pubsub_wire.check_attributes(attributes)
        times = self._times()
        if not_before is not None and not_before.timestamp() - times.wall > _LONGEST_WAIT:
            raise InvalidRequestError.of(
                "not_before", "is more than 6 days ahead: Pub/Sub forgets after 7", "TOO_LATE"
            )
        fresh = publishing.letter_of(job, attributes, not_before, times)
        if len(fresh.body) > pubsub_wire.MOST_BYTES:
            raise InvalidRequestError.of("job", "is more than 9 MiB", "JOB_TOO_LARGE")
        letter = fresh
        if job.request_id and not job.job_id:
            named = queue_admin_pb2.EnrichmentJob()
            named.CopyFrom(job)
            named.job_id = _id_of(job.tenant, job.request_id)
            letter = publishing.letter_of(named, attributes, not_before, times)
        with self._outbox.sending({letter.job_id, fresh.job_id}):
            job_id, unsent = await self._file.write(
                lambda db: pubsub_file.put(db, letter, fresh, times, self._keep, self._me)
            )
            if unsent is not None:
                try:
                    await self._outbox.send(unsent)
                except LinerError:
                    await self._file.write(lambda db: pubsub_file.take_back(db, job_id))
                    raise
        self._stir()
        return job_id

    async def lease(
        self, *, limit: int, duration: timedelta, wait: timedelta = timedelta(0)
    ) -> list[Lease]:
        """Lease due messages; see the port.

        Messages are pulled while somebody asks for them, and only as many as are asked for or
        `ahead` says.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + wait.total_seconds()
        patience = loop.time() + self._settle
        while True:
            woken = loop.create_future()
            self._sleepers.add(woken)
            try:
                hurry = loop.time() >= patience
                found, leases = await self._claim(limit, duration, hurry=hurry)
                if self._pulls and not found.paused and not self._closing.is_set():
                    self._puller.fetch(max(limit, self._ahead), found.ready)
                if leases:
                    return leases
                now = loop.time()
                until = max(end, patience) if found.expected and not hurry else end
                if now >= until or self._closing.is_set():
                    if self._puller.fault is not None and not found.paused:
                        raise self._puller.fault
                    return []
                left = until - now
                if found.expected and not hurry:
                    left = min(left, max(0.001, patience - now))
                if found.next_due is not None:
                    left = min(left, max(0.001, found.next_due))
                await asyncio.wait([woken], timeout=left)
            finally:
                self._sleepers.discard(woken)

    async def ack(self, lease: Lease) -> None:
        """Take the message off the queue; see the port."""
        carrier: str = await self._file.write_together(self._finish_all, lease, reclaims=True)
        await self._copies.finish(carrier)

    def _finish_all(self, db: Any, leases: Sequence[Lease]) -> list[str | ConflictError]:
        return pubsub_held.finish_all(db, leases, self._times())

    async def dead_letter(
        self,
        lease: Lease,
        *,
        cause: Cause,
        error: track_pb2.Error | None = None,
        model: str = "",
    ) -> None:
        """End the last attempt; see the port.

        The letter is in the file when this returns, and on its way to the dead-letter topic; the
        message stays held until it is there.
        """
        await self._file.write(
            lambda db: pubsub_letters.bury(
                db, lease, self._times(), self._me, cause=cause, error=error, model=model
            ),
            reclaims=True,
        )
        self._outbox.ask()

    async def replay(
        self, request: queue_admin_pb2.ReplayDeadLettersRequest
    ) -> queue_admin_pb2.ReplayDeadLettersResponse:
        """Put dead letters back; see the port. They are sent from the outbox."""
        if request.max_per_second > 0:
            tried = queue_admin_pb2.ReplayDeadLettersRequest()
            tried.CopyFrom(request)
            tried.validate_only = True
            count = (await super().replay(tried)).replayed_count
            if count / request.max_per_second > _LONGEST_WAIT:
                raise InvalidRequestError.of(
                    "max_per_second",
                    f"puts the last of {count} off by more than 6 days: Pub/Sub forgets after 7",
                    "TOO_LATE",
                )
        async with self._finishing_unsent():
            response = await super().replay(request)
        self._outbox.ask()
        return response

    async def purge(
        self, request: queue_admin_pb2.PurgeDeadLettersRequest
    ) -> queue_admin_pb2.PurgeDeadLettersResponse:
        """Delete dead letters; see the port."""
        async with self._finishing_unsent():
            return await super().purge(request)

    @asynccontextmanager
    async def _finishing_unsent(self) -> AsyncIterator[None]:
        """Finish the copies of letters that leave before they were sent: nobody else would."""
        before = await self._file.read(lambda db: pubsub_file.unsent_letters(db, self._me))
        yield
        if before:
            after = await self._file.read(lambda db: pubsub_file.unsent_letters(db, self._me))
            await asyncio.gather(*map(self._copies.finish_late, before - after))

    async def pause(self, *, by: str, reason: str) -> queue_admin_pb2.QueueStats:
        """Stop handing out, on all hosts; see the port. Others follow within seconds."""
        async with self._pausing:
            await set_paused(self._gateway, self._names, paused=True)
            return await super().pause(by=by, reason=reason)

    async def resume(self) -> queue_admin_pb2.QueueStats:
        """Hand out again, on all hosts; see the port. Others follow within seconds."""
        async with self._pausing:
            await set_paused(self._gateway, self._names, paused=False)
            return await super().resume()

    async def announce(self, enrichment: enrichment_pb2.Enrichment) -> None:
        """Publish a finished job's result on the topic of results.

        The host that serves knows of it by that alone, so the job is not finished before. One
        that Pub/Sub does not take, for its size, is left out.

        Raises:
            LinerError: Pub/Sub cannot be reached, or the topic is gone.

        """
        number = await self._file.read(
            lambda db: pubsub_file.round_of(db, enrichment.enrichment_id)
        )
        try:
            await self._gateway.publish(
                self._names.results_topic, pubsub_wire.result_of(enrichment, number=number)
            )
        except InvalidRequestError as error:
            _log.error("result is not announced", job=enrichment.enrichment_id, error=error.message)

    async def _follow_pause(self) -> None:
        """Pause and resume as other hosts say."""
        while True:
            await asyncio.sleep(_LOOK_FOR_PAUSE)
            try:
                async with self._pausing:
                    paused = await is_paused(self._gateway, self._names)
                    if paused != await self._file.read(admin.paused):
                        if paused:
                            await super().pause(by="another host", reason="")
                        else:
                            await super().resume()
            except LinerError as error:
                _log.warning("cannot see whether the queue is paused", error=error.message)

    def _put_back(self, db: Any, choice: admin.Choice) -> list[tuple[int, str, bytes]]:
        times = self._times()
        rows = admin.replay(db, choice, times)
        pubsub_file.put_back(db, [row[1] for row in rows], times, self._me)
        return rows

    async def take_pushed(self, message: Any, subscription: str) -> bool:
        """Hand out a message that was pushed; return whether it is finished, once that is known.

        `subscription` is the path it came by. A cancelled call gives the message back.
        """
        arrival = arrival_of(message, subscription, 0, self._times().wall)
        pushed = self._copies.pushed(arrival.carrier, subscription)
        try:
            [kept] = await self._file.write(
                lambda db: pubsub_held.arrive(db, [arrival], self._times(), self._me)
            )
            if not kept:
                return True
            self._stir()
            return await asyncio.shield(pushed)
        finally:
            if self._copies.drop(arrival.carrier) and not self._closing.is_set():
                await self._lose([arrival.carrier])

    async def _claim(
        self, limit: int, duration: timedelta, *, hurry: bool
    ) -> tuple[Taken, list[Lease]]:
        self._serial += 1
        prefix = f"{self._boot}.{self._serial}."
        times = self._times()

        def claim(db: Any) -> tuple[Taken, list[Lease]]:
            found = pubsub_held.take(
                db,
                limit=limit,
                window=max(limit, self._ahead),
                hurry=hurry,
                until=times.steady + duration.total_seconds(),
                times=times,
                prefix=prefix,
                me=self._me,
                rota=self._rota,
                last_tenant=self._last_tenant,
            )
            leases = [
                Lease(message=message, token=f"{prefix}{row[0]}")
                for message, row in zip(messages_of(db, found.rows, times), found.rows, strict=True)
            ]
            return found, leases

        return await self._file.write(claim, reclaims=True)

    async def _lose(self, carriers: Sequence[str]) -> None:
        await self._file.write(lambda db: pubsub_held.lose(db, carriers, self._me), reclaims=True)
        self._stir()

    async def _leave(self) -> None:
        """Give back all that is held, so that others need not wait for it."""
        with suppress(LinerError):
            tried = await self._file.write(
                lambda db: pubsub_file.leave(db, self._times(), self._me), reclaims=True
            )
            if tried:
                await self._outbox.send_all(tried)
        await self._copies.give_back_all()

    def _tidy(self, db: Any) -> None:
        before = self._next_forget
        super()._tidy(db)
        if self._next_forget != before:
            times = self._times()
            even = times.steady - self._even_since >= STEADY_FOR
            pubsub_file.tidy(db, times, self._keep, drop_lost=even)


def _id_of(tenant: str, request_id: str) -> str:
    return blake2b(f"{tenant}\0{request_id}".encode(), digest_size=16).hexdigest()
