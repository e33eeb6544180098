"""Joins callers who ask the same question at the same time: one works, all get the answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class _Flight(Generic[_T]):
    def __init__(self, task: "asyncio.Task[_T]") -> None:
        self.task = task
        self.waiting = 0


class Flights(Generic[_T]):
    """Work in progress by key.

    The work runs in a task of its own: a caller who leaves does not stop it for the others, and
    when the last one left it is cancelled.
    """

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight[_T]] = {}

    async def join(self, key: bytes, work: Callable[[], Awaitable[_T]]) -> tuple[_T, bool]:
        """Return the result of the work under this key, and whether another caller began it.

        Raises:
            Exception: what the work raises; every caller who waited gets the same error.

        """
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = _Flight(asyncio.create_task(_awaited(work)))
            self._flights[key] = flight
            flight.task.add_done_callback(self._landed(key, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), joined
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Whoever comes next must begin anew, not join work that is being stopped.
                self._forget(key, flight)
                flight.task.cancel()

    def _landed(self, key: bytes, flight: _Flight[_T]) -> Callable[["asyncio.Task[_T]"], None]:
        def landed(task: "asyncio.Task[_T]") -> None:
            self._forget(key, flight)
            if not task.cancelled():
                # Asked for here, so that nobody complains of an error whose callers all left.
                task.exception()

        return landed

    def _forget(self, key: bytes, flight: _Flight[_T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _awaited(work: Callable[[], Awaitable[_T]]) -> _T:
    return await work()
