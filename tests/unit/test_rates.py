import asyncio
import random
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.core.rates import BusyError, Places, RateLimit
from support.clock import ManualClock

NOW = timedelta(0)


def limit(
    clock: ManualClock, *, requests: int | None = None, tokens: int | None = None
) -> RateLimit:
    """Return limits as the service has them."""
    return RateLimit(requests_a_minute=requests, tokens_a_minute=tokens, clock=clock)


def test_without_limits_everything_goes_at_once() -> None:
    """A server of one's own states none."""
    rates = limit(ManualClock())

    assert all(rates.take(1_000_000) for _ in range(1000))
    assert rates.wait_for(1_000_000) == NOW


def test_requests_go_evenly_after_the_burst() -> None:
    """Providers enforce a minute's limit by the second, so it is not spent at once."""
    clock = ManualClock()
    rates = limit(clock, requests=60)
    burst = [rates.take(1) for _ in range(7)]

    wait = rates.wait_for(1)
    clock.advance(wait)

    assert burst == [True] * 6 + [False]
    assert wait == timedelta(seconds=1)
    assert rates.take(1)


def test_asking_how_long_reserves_nothing() -> None:
    """The router asks several providers before it takes one."""
    rates = limit(ManualClock(), requests=10)

    waits = {rates.wait_for(1) for _ in range(100)}

    assert waits == {NOW}
    assert rates.take(1)


def test_the_slowest_limit_decides() -> None:
    """A short question waits for requests, a long one for tokens."""
    rates = limit(ManualClock(), requests=600, tokens=6000)

    assert rates.take(600)

    assert rates.wait_for(0) == NOW
    assert rates.wait_for(100) == timedelta(seconds=1)
    assert not rates.take(100)


def test_a_request_larger_than_the_burst_goes_and_is_paid_afterwards() -> None:
    """A pack of eight tracks must not wait for ever for a bucket that never holds so much."""
    clock = ManualClock()
    rates = limit(clock, tokens=6000)

    assert rates.take(3000)

    assert rates.wait_for(1) == timedelta(seconds=24.01)
    clock.advance(30)
    assert rates.take(600)


def test_real_usage_corrects_the_estimate_both_ways() -> None:
    """Estimates are rough, and the provider counts what was really used."""
    rates = limit(ManualClock(), tokens=6000)
    assert rates.take(600)

    rates.settle(600, 100)
    given_back = rates.wait_for(500)
    rates.settle(100, 700)
    in_debt = rates.wait_for(100)

    assert (given_back, in_debt) == (NOW, timedelta(seconds=2))


def test_no_reported_usage_silences_a_provider_for_long() -> None:
    """A usage of a billion tokens is a provider's bug; after a minute it has forgotten it."""
    clock = ManualClock()
    rates = limit(clock, tokens=6000)

    rates.settle(0, 10**12)
    clock.advance(rates.wait_for(600))

    assert clock.now <= 1000 + 66.001
    assert rates.take(600)


def test_nothing_goes_before_the_providers_retry_after() -> None:
    """Sooner would be refused, and some providers count the refused ones too."""
    clock = ManualClock()
    rates = limit(clock)
    rates.penalise(timedelta(seconds=20))
    rates.penalise(timedelta(seconds=5))

    clock.advance(19)
    early = rates.take(1)
    wait = rates.wait_for(1)
    clock.advance(wait)

    assert (early, wait) == (False, timedelta(seconds=1))
    assert rates.take(1)


@pytest.mark.parametrize(
    ("stated", "believed"),
    [
        (timedelta(seconds=1e9), timedelta(minutes=10)),
        (timedelta.max, timedelta(minutes=10)),
        (timedelta(seconds=-5), NOW),
        (timedelta.min, NOW),
        (NOW, NOW),
    ],
)
def test_an_absurd_retry_after_is_not_believed(stated: timedelta, believed: timedelta) -> None:
    """A header of 1e9 seconds must not switch a provider off until somebody restarts."""
    rates = limit(ManualClock())

    rates.penalise(stated)

    assert rates.wait_for(1) == believed


@given(
    requests=st.integers(1, 600),
    tokens=st.integers(1, 100_000),
    steps=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 20_000)), max_size=40),
)
def test_no_minute_sees_more_than_the_limit_and_the_burst(
    requests: int, tokens: int, steps: list[tuple[int, int]]
) -> None:
    """Whatever is asked whenever, the provider's own count stays near what it allows."""
    clock = ManualClock()
    rates = limit(clock, requests=requests, tokens=tokens)
    went: list[tuple[float, int]] = []

    for milliseconds, amount in steps:
        clock.advance(milliseconds / 1000)
        if rates.take(amount):
            went.append((clock.now, amount))

    for end, _ in went:
        minute = [amount for when, amount in went if end - 60 < when <= end]
        largest = max(minute)
        assert len(minute) <= requests + max(1, requests / 10) + 1e-3
        assert sum(minute) <= tokens + max(1, tokens / 10) + largest + 1e-3


@given(
    requests=st.integers(1, 10_000),
    tokens=st.integers(1, 10_000_000),
    amounts=st.lists(st.integers(0, 20_000), min_size=1, max_size=20),
)
def test_whoever_waited_as_told_may_go(requests: int, tokens: int, amounts: list[int]) -> None:
    """A wait that is short by a rounding would spin, one call after another refused."""
    clock = ManualClock(1234.567891)
    rates = limit(clock, requests=requests, tokens=tokens)

    for amount in amounts:
        clock.advance(rates.wait_for(amount))

        assert rates.take(amount)


async def test_no_more_than_the_places_are_held_at_once() -> None:
    """A provider with eight slots answers nobody faster when it is asked nine things."""
    places = Places(3)
    inside, most = 0, 0

    async def call() -> None:
        nonlocal inside, most
        async with places.held(soon()):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(call() for _ in range(50)))

    assert (inside, most) == (0, 3)


async def test_places_are_given_in_the_order_of_asking() -> None:
    """Nobody waits to the deadline while later callers pass by."""
    places = Places(1)
    order: list[int] = []

    async def call(number: int) -> None:
        async with places.held(soon()):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(call(number) for number in range(20)))

    assert order == list(range(20))


async def test_without_a_place_by_the_deadline_the_caller_is_told() -> None:
    """The router goes elsewhere while there is time."""
    places = Places(1)
    async with places.held(soon()):
        with pytest.raises(BusyError):
            async with places.held(asyncio.get_running_loop().time() + 0.01):
                pass

    assert await free(places) == 1


async def test_an_error_inside_gives_the_place_back() -> None:
    """Calls fail; that must not use up places. Their own timeout stays their own."""
    places = Places(1)

    with pytest.raises(TimeoutError) as caught:
        async with places.held(soon()):
            raise TimeoutError

    assert not isinstance(caught.value, BusyError)
    assert await free(places) == 1


async def test_a_thousand_cancellations_lose_no_place() -> None:
    """Callers leave at any moment: while waiting, when just woken, while holding, at a deadline."""
    places = Places(4)
    rng = random.Random(7)
    loop = asyncio.get_running_loop()
    held = 0

    async def call(patience: float) -> None:
        nonlocal held
        with suppress(BusyError):
            async with places.held(loop.time() + patience):
                held += 1
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)

    cancelled = 0
    tasks: set[asyncio.Task[None]] = set()
    while cancelled < 1000:
        tasks |= {asyncio.create_task(call(rng.choice([0.0, 0.0005, 5.0]))) for _ in range(20)}
        await asyncio.sleep(0)
        for task in rng.sample(sorted(tasks, key=id), k=12):
            cancelled += task.cancel()
        tasks = {task for task in tasks if not task.done()}
    await asyncio.gather(*tasks, return_exceptions=True)

    assert held > 0
    assert await free(places) == 4


def soon() -> float:
    """Return a deadline that no test reaches."""
    return asyncio.get_running_loop().time() + 30


async def free(places: Places) -> int:
    """Return how many places can be held at once now."""
    count = 0
    while not places.locked():
        await places.acquire()
        count += 1
    for _ in range(count):
        places.release()
    return count
