"""Pulls messages while somebody asks for them, and holds what it is given."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog

from liner_server.core.enums import Priority
from liner_server.errors import LinerError
from liner_server.queues import pubsub_file, pubsub_held, pubsub_wire
from liner_server.queues.pubsub_copies import Copies
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_wire import WORDS, Names, arrival_of
from liner_server.queues.rows import Times
from liner_server.sqlite_file import SqliteFile

_log = structlog.get_logger()

_LONGEST_BACKOFF = 5.0
_LONGEST_DEADLINE = 600
"""Seconds for which Pub/Sub can be told not to give a message out."""


class Puller:
    """One pull a priority at a time: `fetch` begins them, `close` waits for those under way."""

    def __init__(
        self,
        *,
        file: SqliteFile,
        gateway: Gateway,
        copies: Copies,
        names: Names,
        me: str,
        times: Callable[[], Times],
        pull_wait: timedelta,
        most_held: int,
        changed: Callable[[], None],
        unsent: Callable[[], None],
        lost: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        self._file = file
        self._gateway = gateway
        self._copies = copies
        self._names = names
        self._me = me
        self._times = times
        self._pull_wait = pull_wait
        self._most_held = most_held
        self._changed = changed
        self._unsent = unsent
        self._lose = lost
        self._pulls: dict[Priority, asyncio.Task[None]] = {}
        self._failing: set[Priority] = set()
        self._shaken: set[Priority] = set()
        """Whose pulls have failed since all were last well."""
        self._missing: set[Priority] = set()
        """Whose subscription may have been made anew, and be empty."""
        self._failures = 0
        self._closing = asyncio.Event()
        self.fault: LinerError | None = None
        """What the last pull failed with, if it did."""

    async def close(self) -> None:
        """Begin no more pulls and let those under way end.

        A cancelled pull may swallow messages until their lease ends.
        """
        self._closing.set()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    def fetch(self, limit: int, ready: Mapping[Priority, int]) -> None:
        """Pull what is missing to so many due messages a priority, where nobody pulls yet."""
        if self._closing.is_set():
            return
        for priority in WORDS:
            room = limit - ready.get(priority, 0)
            if room > 0 and priority not in self._pulls:
                self._pulls[priority] = asyncio.create_task(self._pull(priority, room))

    async def _pull(self, priority: Priority, room: int) -> None:
        subscription = self._names.subscription_of(priority)
        try:
            received = await self._gateway.pull(subscription, limit=room, wait=self._pull_wait)
            if priority in self._missing:
                await self._send_all_again(priority)
            await self._take_in(received, subscription)
            self._failing.discard(priority)
            if not self._failing:
                self._shaken.clear()
            self.fault, self._failures = None, 0
        except LinerError as error:
            if self.fault is None:
                _log.warning("pulling fails", subscription=subscription, error=error.message)
            self.fault = error
            self._failures += 1
            self._failing.add(priority)
            self._shaken.add(priority)
            if error.reason == "PUBSUB_MISSING" and priority not in self._missing:
                # Whatever forgot this one in an outage may have forgotten the others, which may be
                # there anew before they are asked. Of a job that is sent twice one copy counts.
                self._missing |= self._shaken
            self._changed()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_LONGEST_BACKOFF, 0.1 * 2**self._failures)):
                    await self._closing.wait()
        finally:
            del self._pulls[priority]
            self._changed()

    async def _take_in(self, received: Sequence[Any], subscription: str) -> None:
        if not received:
            return
        now = self._times().wall
        arrivals = [
            arrival_of(one.message, subscription, one.delivery_attempt, now) for one in received
        ]
        for one in received:
            self._copies.pulled(one.message.message_id, subscription, one.ack_id)
        try:
            kept = await self._file.write(
                lambda db: pubsub_held.arrive(db, arrivals, self._times(), self._me)
            )
        except LinerError:
            # A file that cannot be written holds nothing: another may have better luck.
            for one in received:
                self._copies.drop(one.message.message_id)
            await self._copies.give_back(subscription, [one.ack_id for one in received])
            raise
        late = [a.carrier for a, keeps in zip(arrivals, kept, strict=True) if not keeps]
        await asyncio.gather(*map(self._copies.finish_late, late))
        if len(self._copies) > self._most_held:
            await self._put_off(received, arrivals, subscription)

    async def _put_off(
        self, received: Sequence[Any], arrivals: Sequence[pubsub_wire.Arrival], subscription: str
    ) -> None:
        """Leave what is not due for long to Pub/Sub, which gives it out again before it is."""
        now = self._times().wall
        later = [
            (one.ack_id, arrival.carrier)
            for one, arrival in zip(received, arrivals, strict=True)
            if arrival.due - now > _LONGEST_DEADLINE
        ]
        if later:
            await self._lose([carrier for _, carrier in later if self._copies.drop(carrier)])
            await self._copies.give_back(
                subscription, [ack_id for ack_id, _ in later], seconds=_LONGEST_DEADLINE
            )

    async def _send_all_again(self, priority: Priority) -> None:
        subscription = self._names.subscription_of(priority)
        _log.warning("subscription is new and empty; sending again", subscription=subscription)
        self._copies.drop_all_of(subscription)
        times = self._times()
        await self._file.write(lambda db: pubsub_file.send_again(db, priority, times, self._me))
        self._missing.discard(priority)
        self._unsent()
