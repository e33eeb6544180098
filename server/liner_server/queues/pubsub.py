"""The queue on Google Pub/Sub: `async with PubSubQueue(path, names) as queue`.

Pub/Sub carries the jobs between hosts and decides which host has one. A file on each host
(`pubsub_file`) knows what this host published or was handed: leases and their tokens, attempts
with their errors, delays, dead letters, request ids. So listing, replay and purge are exact, and a
lease's end, a delay or a limit of attempts is not what Pub/Sub allows (10 s, 600 s, 5..100) but
what the port says. Processes that share the file see the same queue.

A pulled message is held: its deadline at Pub/Sub is moved on by a heartbeat until it is finished,
also while it is delayed. If the process dies the heartbeat ends, and Pub/Sub gives the message to
another. Whatever is put on the queue is in the file first and sent from there (the outbox), so a
crash in between sends it late, or twice, and of two copies one counts.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import structlog
from google.protobuf.message import DecodeError
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_server.core.enums import Cause, Priority
from liner_server.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    LinerError,
    UnavailableError,
)
from liner_server.ports_queue import NO_ATTRIBUTES, Lease
from liner_server.queues import admin, leasing, pubsub_file, pubsub_wire
from liner_server.queues.pubsub_file import TRANSIT_SCHEMA, Taken, Unsent
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_setup import check
from liner_server.queues.pubsub_wire import WORDS, Names
from liner_server.queues.rows import DEAD, messages_of
from liner_server.queues.schema import check_version
from liner_server.queues.sqlite import SqliteQueue
from liner_server.sqlite_file import SqliteFile

_log = structlog.get_logger()

_LONGEST_BACKOFF = 5.0


@dataclass
class _Copy:
    """A message that Pub/Sub gave to this process."""

    subscription: str
    ack_id: str = ""
    pushed: "asyncio.Future[bool] | None" = None
    """Set when it was pushed: True answers that it is finished, False gives it back."""


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
        settle: timedelta = timedelta(milliseconds=200),
        pull_wait: timedelta = timedelta(seconds=5),
        hold: timedelta = timedelta(seconds=30),
        takes_letters: bool = True,
        ordered: bool = False,
    ) -> None:
        """Set up; nothing is opened yet.

        `ahead` is how many due messages of a priority are held though nobody asked for so many,
        so that tenants can take turns; `settle` how long turns wait for messages that are known
        to be on their way; `hold` how soon another host gets what this process held when it died.
        `takes_letters` says that dead letters of all hosts are kept here; `ordered` that jobs for
        one track come in the order of their publication, if the subscriptions were made so.
        """
        super().__init__(path, clock=clock, steady=steady, keep=keep, look_every=look_every)
        self._file = SqliteFile(path, TRANSIT_SCHEMA, readers=1)
        self._names = names
        self._gateway = Gateway(emulator=emulator)
        self._ahead = ahead
        self._settle = settle.total_seconds()
        self._pull_wait = pull_wait
        self._hold = max(10, round(hold.total_seconds()))
        self._takes_letters = takes_letters
        self._ordered = ordered
        self._me = secrets.token_hex(8)
        self._copies: dict[str, _Copy] = {}
        self._unacked: dict[str, _Copy] = {}
        self._sending: set[str] = set()
        self._pulls: dict[Priority, asyncio.Task[None]] = {}
        self._missing: set[Priority] = set()
        self._fault: LinerError | None = None
        self._failures = 0
        self._closing = asyncio.Event()
        self._unsent = asyncio.Event()
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
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._post()),
        ]
        if self._takes_letters:
            self._tasks.append(asyncio.create_task(self._take_letters()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self._stir()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A cancelled pull may swallow messages until their lease ends, so it may finish.
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)
        with suppress(LinerError):
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
        fresh = leasing.letter_of(job, attributes, not_before, times)
        if len(fresh.body) > pubsub_wire.MOST_BYTES:
            raise InvalidRequestError.of("job", "is more than 9 MiB", "JOB_TOO_LARGE")
        letter = fresh
        if job.request_id and not job.job_id:
            named = queue_admin_pb2.EnrichmentJob()
            named.CopyFrom(job)
            named.job_id = _id_of(job.tenant, job.request_id)
            letter = leasing.letter_of(named, attributes, not_before, times)
        mine = {letter.job.job_id, fresh.job.job_id}
        self._sending |= mine
        try:
            job_id, unsent = await self._file.write(
                lambda db: pubsub_file.put(db, letter, fresh, times, self._keep, self._me)
            )
            if unsent is not None:
                try:
                    await self._send(unsent)
                except LinerError:
                    await self._file.write(lambda db: pubsub_file.take_back(db, job_id))
                    raise
        finally:
            self._sending -= mine
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
                if not found.paused:
                    self._fetch(limit, found.ready)
                if leases:
                    return leases
                now = loop.time()
                until = max(end, patience) if found.expected and not hurry else end
                if now >= until or self._closing.is_set():
                    if self._fault is not None and not found.paused:
                        raise self._fault
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
        carrier = await self._file.write(
            lambda db: pubsub_file.finish(db, lease, self._times()), reclaims=True
        )
        await self._forget_copy(carrier)

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
            lambda db: pubsub_file.bury(
                db, lease, self._times(), self._me, cause=cause, error=error, model=model
            ),
            reclaims=True,
        )
        self._unsent.set()

    async def replay(
        self, request: queue_admin_pb2.ReplayDeadLettersRequest
    ) -> queue_admin_pb2.ReplayDeadLettersResponse:
        """Put dead letters back; see the port. They are sent from the outbox."""
        response = await super().replay(request)
        self._unsent.set()
        return response

    def _put_back(
        self, db: Any, choice: admin.Choice
    ) -> list[tuple[int, str, bytes]]:
        times = self._times()
        rows = admin.replay(db, choice, times)
        pubsub_file.put_back(db, [row[1] for row in rows], times, self._me)
        return rows

    async def take_pushed(self, message: Any, subscription: str) -> bool:
        """Hand out a message that was pushed; return whether it is finished, once that is known.

        `subscription` is the path it came by. A cancelled call gives the message back.
        """
        arrival = self._arrival(message, subscription, delivery_attempt=0)
        known = self._copies.get(arrival.carrier)
        if known is not None and known.pushed is not None:
            return await asyncio.shield(known.pushed)
        pushed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._copies[arrival.carrier] = _Copy(subscription, pushed=pushed)
        try:
            [kept] = await self._file.write(
                lambda db: pubsub_file.arrive(db, [arrival], self._times(), self._me)
            )
            if not kept:
                return True
            self._stir()
            return await asyncio.shield(pushed)
        finally:
            if self._copies.pop(arrival.carrier, None) is not None and not pushed.done():
                pushed.cancel()
                if not self._closing.is_set():
                    await self._lose([arrival.carrier])

    async def _claim(
        self, limit: int, duration: timedelta, *, hurry: bool
    ) -> tuple[Taken, list[Lease]]:
        self._serial += 1
        prefix = f"{self._boot}.{self._serial}."
        times = self._times()

        def claim(db: Any) -> tuple[Taken, list[Lease]]:
            found = pubsub_file.take(
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

    # What comes from Pub/Sub.

    def _fetch(self, limit: int, ready: Mapping[Priority, int]) -> None:
        """Pull where there is room and nobody pulls yet."""
        if self._closing.is_set():
            return
        for priority in WORDS:
            room = max(limit, self._ahead) - ready.get(priority, 0)
            if room > 0 and priority not in self._pulls:
                self._pulls[priority] = asyncio.create_task(self._pull(priority, room))

    async def _pull(self, priority: Priority, room: int) -> None:
        subscription = self._names.subscription_of(priority)
        try:
            received = await self._gateway.pull(subscription, limit=room, wait=self._pull_wait)
            if priority in self._missing:
                await self._send_all_again(priority)
            await self._take_in(received, subscription)
            self._fault, self._failures = None, 0
        except LinerError as error:
            if self._fault is None:
                _log.warning("pulling fails", subscription=subscription, error=error.message)
            self._fault = error
            self._failures += 1
            if error.reason == "PUBSUB_MISSING":
                self._missing.add(priority)
            self._stir()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_LONGEST_BACKOFF, 0.1 * 2**self._failures)):
                    await self._closing.wait()
        finally:
            del self._pulls[priority]
            self._stir()

    async def _take_in(self, received: Sequence[Any], subscription: str) -> None:
        if not received:
            return
        arrivals = [
            self._arrival(one.message, subscription, delivery_attempt=one.delivery_attempt)
            for one in received
        ]
        for one in received:
            self._copies[one.message.message_id] = _Copy(subscription, one.ack_id)
        try:
            kept = await self._file.write(
                lambda db: pubsub_file.arrive(db, arrivals, self._times(), self._me)
            )
        except LinerError:
            # A file that cannot be written holds nothing: another may have better luck.
            for one in received:
                self._copies.pop(one.message.message_id, None)
            with suppress(LinerError):
                await self._gateway.keep(subscription, [r.ack_id for r in received], seconds=0)
            raise
        late = [a.carrier for a, keeps in zip(arrivals, kept, strict=True) if not keeps]
        await asyncio.gather(*(self._forget_copy(carrier, late=True) for carrier in late))

    def _arrival(
        self, message: Any, subscription: str, *, delivery_attempt: int
    ) -> pubsub_wire.Arrival:
        return pubsub_wire.arrival_of(
            message,
            priority=_priority_of(subscription),
            delivery_attempt=delivery_attempt,
            not_after=self._times().wall,
        )

    async def _send_all_again(self, priority: Priority) -> None:
        subscription = self._names.subscription_of(priority)
        _log.warning("subscription is new and empty; sending again", subscription=subscription)
        for carrier in [c for c, copy in self._copies.items() if copy.subscription == subscription]:
            del self._copies[carrier]
        times = self._times()
        await self._file.write(lambda db: pubsub_file.send_again(db, priority, times, self._me))
        self._missing.discard(priority)
        self._unsent.set()

    async def _take_letters(self) -> None:
        """Keep the dead letters of all hosts here, where they can be listed."""
        failures = 0
        while True:
            try:
                received = await self._gateway.pull(
                    self._names.dead_subscription, limit=100, wait=self._pull_wait
                )
                for one in received:
                    await self._take_letter(one.message, one.delivery_attempt)
                    with suppress(ConflictError):
                        await self._gateway.acknowledge(self._names.dead_subscription, one.ack_id)
                failures = 0
            except LinerError as error:
                failures += 1
                if failures == 1:
                    _log.warning("dead letters cannot be taken in", error=error.message)
                await asyncio.sleep(min(_LONGEST_BACKOFF, 0.1 * 2**failures))

    async def _take_letter(self, message: Any, delivery_attempt: int) -> None:
        if pubsub_wire.LETTER in message.attributes:
            with suppress(DecodeError, ValueError):
                letter, body = pubsub_wire.opened(message.data)
                number = int(message.attributes[pubsub_wire.ROUND])
                await self._file.write(
                    lambda db: pubsub_file.take_in(db, letter, body, number, self._times())
                )
                return
        source = message.attributes.get(pubsub_wire.NATIVE, "")
        arrival = self._arrival(message, source, delivery_attempt=delivery_attempt)
        lives_on = await self._file.write(
            lambda db: pubsub_file.give_up(db, arrival, self._times(), self._me)
        )
        _log.warning("Pub/Sub gave a message up", message_id=arrival.message_id, kept=lives_on)
        self._unsent.set()

    # What goes to Pub/Sub.

    async def _post(self) -> None:
        """Send what the file holds unsent, whenever there is some and at least now and then."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_every):
                    await self._unsent.wait()
            self._unsent.clear()
            try:
                await self._send_unsent()
            except LinerError as error:
                _log.warning("the outbox waits", error=error.message)
                await asyncio.sleep(1)
                self._unsent.set()

    async def _send_unsent(self, only: Sequence[str] = ()) -> None:
        while True:
            found = await self._file.read(
                lambda db: pubsub_file.unsent(db, self._times(), self._me, only)
            )
            rows = [row for row in found if row.message_id not in self._sending]
            self._sending |= {row.message_id for row in rows}
            try:
                await asyncio.gather(*map(self._send, rows))
            finally:
                self._sending -= {row.message_id for row in rows}
            if only or len(rows) < pubsub_file.AT_ONCE:
                return

    async def _send(self, row: Unsent) -> None:
        if row.state == DEAD:
            dead = await self.get(row.message_id)
            message = pubsub_wire.letter_of(dead, body=row.body, number=row.round)
            topic = self._names.dead_topic
        else:
            message = pubsub_wire.message_of(
                message_id=row.message_id,
                body=row.body,
                attributes=row.attributes,
                published=row.published,
                due=row.due,
                number=row.round,
                delivered=row.delivered,
                ordering_key=row.track_id if self._ordered else "",
            )
            topic = self._names.topic_of(row.priority)
        carrier = await self._gateway.publish(topic, message)
        old = await self._file.write(
            lambda db: pubsub_file.mark_sent(db, row.message_id, row.round, carrier), reclaims=True
        )
        await self._forget_copy(old, late=True)
        self._stir()

    async def _forget_copy(self, carrier: str, *, late: bool = False) -> None:
        """Let Pub/Sub forget a copy; if it cannot be reached, a little later."""
        copy = self._copies.pop(carrier, None)
        if copy is None:
            return
        if copy.pushed is not None:
            if not copy.pushed.done():
                copy.pushed.set_result(True)
            return
        try:
            await self._gateway.acknowledge(copy.subscription, copy.ack_id)
        except ConflictError:
            if not late:
                raise
        except LinerError:
            self._unacked[carrier] = copy

    async def _beat(self) -> None:
        """Keep what is held, and tell Pub/Sub again what it did not hear."""
        while True:
            await asyncio.sleep(self._hold / 3)
            for carrier, copy in list(self._unacked.items()):
                self._copies[carrier] = self._unacked.pop(carrier)
                await self._forget_copy(carrier, late=True)
            for subscription, held in self._pulled().items():
                try:
                    ack_ids = list(held)
                    lost = await self._gateway.keep(subscription, ack_ids, seconds=self._hold)
                    await self._lose([held[ack_id] for ack_id in lost])
                except LinerError as error:
                    _log.warning("leases are not kept", error=error.message)

    async def _lose(self, carriers: Sequence[str]) -> None:
        if not carriers:
            return
        for carrier in carriers:
            self._copies.pop(carrier, None)
        await self._file.write(lambda db: pubsub_file.lose(db, carriers, self._me), reclaims=True)

    def _pulled(self) -> dict[str, dict[str, str]]:
        """Return by subscription which copy each acknowledgement id stands for."""
        found: dict[str, dict[str, str]] = {}
        for carrier, copy in self._copies.items():
            if copy.pushed is None:
                found.setdefault(copy.subscription, {})[copy.ack_id] = carrier
        return found

    async def _leave(self) -> None:
        """Give back all that is held, so that others need not wait for it."""
        tried = await self._file.write(
            lambda db: pubsub_file.leave(db, self._times(), self._me), reclaims=True
        )
        if tried:
            with suppress(LinerError):
                await self._send_unsent(tried)
        for copy in self._copies.values():
            if copy.pushed is not None and not copy.pushed.done():
                copy.pushed.set_result(False)
        for subscription, held in self._pulled().items():
            await self._gateway.keep(subscription, list(held), seconds=0)

    def _tidy(self, db: Any) -> None:
        before = self._next_forget
        super()._tidy(db)
        if self._next_forget != before:
            pubsub_file.tidy(db, self._times(), self._keep)


def _id_of(tenant: str, request_id: str) -> str:
    return blake2b(f"{tenant}\0{request_id}".encode(), digest_size=16).hexdigest()


def _priority_of(subscription: str) -> Priority:
    for priority, word in WORDS.items():
        if subscription.endswith(f"-{word}"):
            return priority
    return enrichment_pb2.PRIORITY_MEDIUM
