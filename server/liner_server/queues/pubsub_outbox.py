"""Sends what the file holds unsent: jobs, dead letters, and what was put back."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import structlog

from liner_server.errors import LinerError
from liner_server.failpoints import Point, reach
from liner_server.queues import admin, pubsub_file, pubsub_wire
from liner_server.queues.pubsub_copies import Copies
from liner_server.queues.pubsub_file import Unsent
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_wire import Names
from liner_server.queues.rows import DEAD, Times
from liner_server.sqlite_file import SqliteFile

_log = structlog.get_logger()


class Outbox:
    """Everything that is on its way to Pub/Sub; `run` must run."""

    def __init__(
        self,
        *,
        file: SqliteFile,
        gateway: Gateway,
        copies: Copies,
        names: Names,
        me: str,
        times: Callable[[], Times],
        sent: Callable[[], None],
        ordered: bool,
        look_every: float,
    ) -> None:
        self._file = file
        self._gateway = gateway
        self._copies = copies
        self._names = names
        self._me = me
        self._times = times
        self._sent = sent
        self._ordered = ordered
        self._look_every = look_every
        self._sending: set[str] = set()
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Say that the file holds something unsent."""
        self._asked.set()

    @contextmanager
    def sending(self, message_ids: set[str]) -> Iterator[None]:
        """Keep `run` from sending these: the caller does."""
        self._sending |= message_ids
        try:
            yield
        finally:
            self._sending -= message_ids

    async def run(self) -> None:
        """Send, whenever asked and now and then, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_every):
                    await self._asked.wait()
            self._asked.clear()
            try:
                await self.send_all()
            except LinerError as error:
                _log.warning("the outbox waits", error=error.message)
                await asyncio.sleep(1)
                self._asked.set()

    async def send_all(self, only: Sequence[str] = ()) -> None:
        """Send what is unsent, or only these.

        Raises:
            LinerError: some could not be sent; they stay unsent.

        """
        while True:
            found = await self._file.read(
                lambda db: pubsub_file.unsent(db, self._times(), self._me, only)
            )
            rows = [row for row in found if row.message_id not in self._sending]
            with self.sending({row.message_id for row in rows}):
                outcomes = await asyncio.gather(*map(self.send, rows), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            if only or len(rows) < pubsub_file.AT_ONCE:
                return

    async def send(self, row: Unsent) -> None:
        """Send one; afterwards Pub/Sub has it, and an older copy is finished.

        Raises:
            LinerError: it could not be sent.

        """
        if row.state == DEAD:
            dead = await self._file.read(lambda db: admin.get(db, row.message_id, self._times()))
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
        reach(Point.AFTER_SEND)
        old = await self._file.write(
            lambda db: pubsub_file.mark_sent(db, row.message_id, row.round, carrier), reclaims=True
        )
        await self._copies.finish_late(old)
        self._sent()
