"""Joined work: done once, given to all, stopped when nobody waits."""

import asyncio

import pytest
from liner_server.core.flights import Flights
from support.eventually import eventually


class Work:
    """Work that ends when it is told to; counts how often it began and was stopped."""

    def __init__(self) -> None:
        self.begun = 0
        self.stopped = 0
        self.finish = asyncio.Event()

    async def __call__(self) -> int:
        """Wait for the word, and return which time this was."""
        self.begun += 1
        mine = self.begun
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return mine


async def test_callers_of_one_key_share_the_work() -> None:
    """Only the first is told that it was not joined: it alone pays."""
    flights: Flights[int] = Flights()
    work = Work()
    tasks = [asyncio.create_task(flights.join(b"a", work)) for _ in range(5)]
    other = asyncio.create_task(flights.join(b"b", work))
    await eventually(lambda: work.begun == 2)

    work.finish.set()

    assert await asyncio.gather(*tasks) == [(1, False), *[(1, True)] * 4]
    assert await other == (2, False)


async def test_the_work_outlives_the_caller_who_began_it() -> None:
    """Whoever is in no hurry must not lose because the first one was."""
    flights: Flights[int] = Flights()
    work = Work()
    first, second = (asyncio.create_task(flights.join(b"a", work)) for _ in range(2))
    await eventually(lambda: work.begun == 1)

    first.cancel()
    await asyncio.wait({first})
    work.finish.set()

    assert await second == (1, True)
    assert work.stopped == 0


async def test_when_the_last_caller_leaves_the_work_is_stopped_and_can_begin_anew() -> None:
    """Nobody pays for an answer that nobody waits for, and nobody joins dying work."""
    flights: Flights[int] = Flights()
    work = Work()
    leaving = [asyncio.create_task(flights.join(b"a", work)) for _ in range(2)]
    await eventually(lambda: work.begun == 1)

    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    late = asyncio.create_task(flights.join(b"a", work))
    await eventually(lambda: work.begun == 2 and work.stopped == 1)
    work.finish.set()

    assert await late == (2, False)


async def test_a_failure_reaches_everyone_and_is_not_kept() -> None:
    """The next caller may be luckier."""
    flights: Flights[int] = Flights()

    async def fail() -> int:
        raise ValueError("no")

    results = await asyncio.gather(
        *(flights.join(b"a", fail) for _ in range(3)), return_exceptions=True
    )
    work = Work()
    work.finish.set()

    assert [type(result) for result in results] == [ValueError] * 3
    assert await flights.join(b"a", work) == (1, False)


async def test_no_task_is_left_behind() -> None:
    """A server that runs for months must not collect them."""
    flights: Flights[int] = Flights()
    before = asyncio.all_tasks()

    for key in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await flights.join(str(key).encode(), Work())

    await eventually(lambda: asyncio.all_tasks() == before)
