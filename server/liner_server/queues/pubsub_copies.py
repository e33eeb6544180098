"""The copies of messages that Pub/Sub gave to this process, kept until they are finished."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from liner_server.errors import ConflictError, LinerError
from liner_server.queues.pubsub_gateway import Gateway

_log = structlog.get_logger()


@dataclass
class _Copy:
    subscription: str
    ack_id: str = ""
    pushed: "asyncio.Future[bool] | None" = None


class Copies:
    """What this process holds, by Pub/Sub's id of the copy; `keep` must run."""

    def __init__(self, gateway: Gateway, *, hold_seconds: int) -> None:
        self._gateway = gateway
        self._hold = hold_seconds
        self._held: dict[str, _Copy] = {}
        self._unheard: dict[str, _Copy] = {}

    def __len__(self) -> int:
        """Return how many are held."""
        return len(self._held)

    def pulled(self, carrier: str, subscription: str, ack_id: str) -> None:
        """Hold a pulled copy, from now on by this acknowledgement id."""
        self._held[carrier] = _Copy(subscription, ack_id)

    def pushed(self, carrier: str, subscription: str) -> "asyncio.Future[bool]":
        """Hold a pushed copy; the future tells whether it is finished (or given back)."""
        known = self._held.get(carrier)
        if known is not None and known.pushed is not None:
            return known.pushed
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._held[carrier] = _Copy(subscription, pushed=future)
        return future

    def drop(self, carrier: str) -> bool:
        """Hold a copy no longer, without a word to Pub/Sub; return whether it was held."""
        return self._held.pop(carrier, None) is not None

    def drop_all_of(self, subscription: str) -> None:
        """Hold no copy of this subscription any longer."""
        self._held = {
            c: copy for c, copy in self._held.items() if copy.subscription != subscription
        }

    async def finish(self, carrier: str) -> None:
        """Let Pub/Sub forget a copy; where it cannot be reached it is told later.

        Raises:
            ConflictError: Pub/Sub gave the message to another.

        """
        copy = self._held.pop(carrier, None)
        if copy is None:
            return
        if copy.pushed is not None:
            if not copy.pushed.done():
                copy.pushed.set_result(True)
            return
        try:
            await self._gateway.acknowledge(copy.subscription, copy.ack_id)
        except ConflictError:
            raise
        except LinerError:
            self._unheard[carrier] = copy

    async def finish_late(self, carrier: str) -> None:
        """Let Pub/Sub forget a copy that nobody waits for."""
        with suppress(ConflictError):
            await self.finish(carrier)

    async def give_back(
        self, subscription: str, ack_ids: Sequence[str], *, seconds: int = 0
    ) -> None:
        """Let Pub/Sub give these to others, at once or in so many seconds, if it can be reached."""
        with suppress(LinerError):
            await self._gateway.keep(subscription, ack_ids, seconds=seconds)

    async def give_back_all(self) -> None:
        """Let others have all that is held."""
        for copy in self._held.values():
            if copy.pushed is not None and not copy.pushed.done():
                copy.pushed.set_result(False)
        for subscription, held in self._by_subscription().items():
            await self.give_back(subscription, list(held))
        self._held.clear()

    async def keep(self, lost: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        """Move the deadlines on until cancelled; `lost` hears which copies are another's now."""
        while True:
            await asyncio.sleep(self._hold / 3)
            for carrier in list(self._unheard):
                self._held[carrier] = self._unheard.pop(carrier)
                await self.finish_late(carrier)
            for subscription, held in self._by_subscription().items():
                try:
                    gone = await self._gateway.keep(subscription, list(held), seconds=self._hold)
                    carriers = [held[ack_id] for ack_id in gone if self.drop(held[ack_id])]
                    if carriers:
                        await lost(carriers)
                except LinerError as error:
                    _log.warning("leases are not kept", error=error.message)

    def _by_subscription(self) -> dict[str, dict[str, str]]:
        """Return by subscription which copy each acknowledgement id stands for."""
        found: dict[str, dict[str, str]] = {}
        for carrier, copy in self._held.items():
            if copy.pushed is None:
                found.setdefault(copy.subscription, {})[copy.ack_id] = carrier
        return found
