"""The queue in one SQLite file, for one process: `async with SqliteQueue(path) as queue`.

    queue.sqlite          see `schema`; WAL, synchronous=FULL
    queue.sqlite.lock     held for as long as the queue is open: one process a file
    queue.sqlite.ballast  room that is given up when the disk is full, see `sqlite_file`

Whoever holds the lock knows that every lease in the file is of a process that has died, so the
next start hands its messages out at once.
"""

import asyncio
import fcntl
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import structlog
from liner.v1 import queue_admin_pb2, track_pb2

from liner_server.core.enums import Cause, Priority
from liner_server.errors import (
    ConflictError,
    FailedPreconditionError,
    ResourceExhaustedError,
    UnavailableError,
)
from liner_server.ports_queue import NO_ATTRIBUTES, Lease
from liner_server.queues import admin, leasing, publishing
from liner_server.queues.rota import Rota
from liner_server.queues.rows import Row, Times, messages_of
from liner_server.queues.schema import SCHEMA, check_version
from liner_server.sqlite_file import SqliteFile

_log = structlog.get_logger()
_T = TypeVar("_T")

_FORGET_EVERY = 60.0
STEADY_FOR = 3600.0
"""Seconds that the clock must have gone evenly before anything is dropped for its age."""
_JUMP = 60.0


class SqliteQueue:
    """The `JobQueue` of one file."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        keep: timedelta = timedelta(days=7),
        look_every: timedelta = timedelta(seconds=1),
    ) -> None:
        self._path = path
        self._clock = clock
        self._steady = steady
        self._keep = keep.total_seconds()
        self._look_every = look_every.total_seconds()
        self._file = SqliteFile(path, SCHEMA, readers=1)
        self._lock: BinaryIO
        self._rota = Rota()
        self._last_tenant: dict[Priority, str] = {}
        self._boot = secrets.token_hex(6)
        self._serial = 0
        self._sleepers: set[asyncio.Future[None]] = set()
        self._replaying = asyncio.Lock()
        self._even_since = 0.0
        self._offset = 0.0
        self._next_forget = 0.0
        self._housekeeping: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        # Held before the file is touched: what is open elsewhere must not be mended here.
        self._lock = _locked(self._path)
        try:
            await self._file.__aenter__()
            try:
                await self._file.write(_take_over, reclaims=True)
            except BaseException:
                await self._file.__aexit__()
                raise
        except BaseException:
            self._lock.close()
            raise
        self._housekeeping = asyncio.create_task(self._keep_house())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._housekeeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._housekeeping
        await self._file.__aexit__()
        self._lock.close()

    async def publish(
        self,
        job: queue_admin_pb2.EnrichmentJob,
        *,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        not_before: datetime | None = None,
    ) -> str:
        """Put a job on the queue; see the port."""
        times = self._times()
        letter = publishing.letter_of(job, attributes, not_before, times)
        job_id = await self._file.write_together(self._publish_all, (letter, times))
        self._stir()
        return job_id

    async def lease(
        self, *, limit: int, duration: timedelta, wait: timedelta = timedelta(0)
    ) -> list[Lease]:
        """Lease due messages; see the port."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait.total_seconds()
        while True:
            woken = loop.create_future()
            self._sleepers.add(woken)
            try:
                leases, next_due = await self._take(limit, duration)
                left = end - loop.time()
                if leases or left <= 0:
                    return leases
                if next_due is not None:
                    left = min(left, max(0.001, next_due))
                await asyncio.wait([woken], timeout=left)
            finally:
                self._sleepers.discard(woken)

    async def extend(self, lease: Lease, duration: timedelta) -> None:
        """Move the lease's end; see the port."""
        await self._file.write(
            lambda db: leasing.extend(db, lease, self._times(), duration), reclaims=True
        )

    async def ack(self, lease: Lease) -> None:
        """Take the message off the queue; see the port."""
        await self._file.write_together(self._ack_all, lease, reclaims=True)

    async def nack(
        self,
        lease: Lease,
        *,
        delay: timedelta,
        error: track_pb2.Error | None = None,
        model: str = "",
    ) -> None:
        """End a failed attempt; see the port."""
        await self._file.write(
            lambda db: leasing.nack(db, lease, self._times(), delay, error, model), reclaims=True
        )
        self._stir()

    async def release(self, lease: Lease, *, delay: timedelta = timedelta(0)) -> None:
        """Give a message back; see the port."""
        await self._file.write(
            lambda db: leasing.release(db, lease, self._times(), delay), reclaims=True
        )
        self._stir()

    async def dead_letter(
        self,
        lease: Lease,
        *,
        cause: Cause,
        error: track_pb2.Error | None = None,
        model: str = "",
    ) -> None:
        """End the last attempt; see the port."""
        await self._file.write(
            lambda db: leasing.dead_letter(db, lease, self._times(), cause, error, model),
            reclaims=True,
        )

    async def stats(self) -> queue_admin_pb2.QueueStats:
        """Return the counts; see the port."""
        return await self._file.read(lambda db: admin.stats(db, self._times()))

    async def get(self, message_id: str) -> queue_admin_pb2.QueueMessage:
        """Return a message; see the port."""
        return await self._file.read(lambda db: admin.get(db, message_id, self._times()))

    async def list_messages(
        self, request: queue_admin_pb2.ListMessagesRequest
    ) -> queue_admin_pb2.ListMessagesResponse:
        """Return a page of messages; see the port."""
        return await self._file.read(lambda db: admin.living(db, request, self._times()))

    async def list_dead_letters(
        self, request: queue_admin_pb2.ListDeadLettersRequest
    ) -> queue_admin_pb2.ListDeadLettersResponse:
        """Return a page of dead letters; see the port."""
        return await self._file.read(lambda db: admin.dead(db, request, self._times()))

    async def retry(self, message_id: str) -> queue_admin_pb2.QueueMessage:
        """Make a delayed message due; see the port."""
        message = await self._file.write(
            lambda db: admin.retry(db, message_id, self._times()), reclaims=True
        )
        self._stir()
        return message

    async def replay(
        self, request: queue_admin_pb2.ReplayDeadLettersRequest
    ) -> queue_admin_pb2.ReplayDeadLettersResponse:
        """Put dead letters back; see the port."""
        choice = admin.Choice(request=request, times=self._times())
        if request.validate_only:
            await self._count(choice)
            return choice.replayed()
        # Of two with one request id the second gets the first one's answer.
        async with self._replaying if request.request_id else nullcontext():
            if request.request_id:
                known = await self._file.read(partial(admin.answered, request=request))
                if known is not None:
                    return known
            while not choice.done:
                choice.took(await self._file.write(lambda db: self._put_back(db, choice)))
                self._stir()
        return choice.replayed()

    def _put_back(self, db: sqlite3.Connection, choice: admin.Choice) -> list[Row]:
        return admin.replay(db, choice, self._times())

    async def purge(
        self, request: queue_admin_pb2.PurgeDeadLettersRequest
    ) -> queue_admin_pb2.PurgeDeadLettersResponse:
        """Delete dead letters; see the port."""
        choice = admin.Choice(request=request, times=self._times())
        if request.validate_only:
            await self._count(choice)
        while not choice.done:
            choice.took(await self._file.write(lambda db: admin.purge(db, choice), reclaims=True))
        return queue_admin_pb2.PurgeDeadLettersResponse(
            purged_count=choice.count, message_ids=choice.ids
        )

    async def pause(self, *, by: str, reason: str) -> queue_admin_pb2.QueueStats:
        """Stop handing out; see the port."""
        await self._file.write(lambda db: admin.pause(db, by, reason), reclaims=True)
        return await self.stats()

    async def resume(self) -> queue_admin_pb2.QueueStats:
        """Hand out again; see the port."""
        await self._file.write(admin.resume, reclaims=True)
        self._stir()
        return await self.stats()

    def _times(self) -> Times:
        return Times(wall=self._clock(), steady=self._steady())

    def _stir(self) -> None:
        """Let everybody who waits for a message look again."""
        for woken in self._sleepers:
            if not woken.done():
                woken.set_result(None)

    def _publish_all(
        self, db: sqlite3.Connection, letters: Sequence[tuple[publishing.Letter, Times]]
    ) -> list[str]:
        return publishing.publish_all(db, letters, self._keep)

    def _ack_all(
        self, db: sqlite3.Connection, leases: Sequence[Lease]
    ) -> list[ConflictError | None]:
        return leasing.ack_all(db, leases, self._times())

    async def _take(self, limit: int, duration: timedelta) -> tuple[list[Lease], float | None]:
        """Lease what is due; return it, and in how many seconds the next is if nothing was."""
        return await self._file.write_together(
            self._take_all, (limit, duration.total_seconds()), reclaims=True
        )

    def _take_all(
        self, db: sqlite3.Connection, wanted: Sequence[tuple[int, float]]
    ) -> list[tuple[list[Lease], float | None]]:
        """Lease for all who ask, in the order in which they asked."""
        if len({seconds for _, seconds in wanted}) > 1:
            raise publishing.OneByOne
        times = self._times()
        leasing.wake(db, times)
        if admin.paused(db):
            return [([], None) for _ in wanted]
        # Unique for good: a lease of one transaction never has the token of another's.
        self._serial += 1
        prefix = f"{self._boot}.{self._serial}."
        rows = leasing.claim(
            db,
            limit=sum(limit for limit, _ in wanted),
            until=times.steady + wanted[0][1],
            times=times,
            prefix=prefix,
            rota=self._rota,
            last_tenant=self._last_tenant,
        )
        leases = [
            Lease(message=message, token=f"{prefix}{row[0]}")
            for message, row in zip(messages_of(db, rows, times), rows, strict=True)
        ]
        next_due = None
        if len(leases) < len(wanted):
            due = db.execute("SELECT min(due) FROM messages WHERE state = 2").fetchone()[0]
            next_due = None if due is None else due - times.wall
        parts = []
        for limit, _ in wanted:
            part, leases = leases[:limit], leases[limit:]
            parts.append((part, None if part else next_due))
        return parts

    async def _count(self, choice: admin.Choice) -> None:
        while not choice.done:
            await self._file.read(lambda db: admin.look(db, choice))

    async def _keep_house(self) -> None:
        """Look every second for what is due, lost or old; a queue that nobody leases from too."""
        started = self._times()
        self._offset, self._even_since = started.wall - started.steady, started.steady
        while True:
            await asyncio.sleep(self._look_every)
            try:
                await self._file.write(self._tidy, reclaims=True)
                self._stir()
            except (UnavailableError, ResourceExhaustedError, FailedPreconditionError) as error:
                _log.warning("queue housekeeping waits", reason=error.reason)
            except Exception as error:
                # It looks again: what waits for its time must not wait for a restart.
                _log.error("queue housekeeping failed", error=str(error))

    def _tidy(self, db: sqlite3.Connection) -> None:
        times = self._times()
        leasing.wake(db, times)
        offset = times.wall - times.steady
        if abs(offset - self._offset) > _JUMP:
            # Somebody set the clock, or the machine slept: by which of the two times are the
            # letters old? Let it be for a while; an operator may see it and mend it.
            self._even_since = times.steady
        self._offset = offset
        if times.steady >= self._next_forget:
            self._next_forget = times.steady + _FORGET_EVERY
            even = times.steady - self._even_since >= STEADY_FOR
            admin.forget(db, times, self._keep, drop_dead=even)


def _take_over(db: sqlite3.Connection) -> None:
    check_version(db)
    leasing.orphan(db)


def _locked(path: Path) -> BinaryIO:
    """Return the lock of a queue's file, held."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise FailedPreconditionError(
            f"the queue's folder cannot be written: {error.strerror}", reason="DISK_READ_ONLY"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise FailedPreconditionError(
            f"another process has the queue {path}", reason="QUEUE_IN_USE"
        ) from error
    return lock
