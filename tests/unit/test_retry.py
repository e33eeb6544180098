import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.core.retry import Backoff, RetryBudget

LONG = timedelta(hours=1)

waits = st.timedeltas(min_value=timedelta(0), max_value=timedelta(minutes=1))


class Highest(random.Random):
    """Draws the longest wait there is, for rules about bounds."""

    def random(self) -> float:
        """Return the largest number that a generator draws."""
        return 1 - 2**-53


@given(attempt=st.integers(1, 10_000), seed=st.integers())
def test_a_wait_never_exceeds_the_maximum(attempt: int, seed: int) -> None:
    """However often a call failed, its next wait stays within the cap."""
    backoff = Backoff(max_attempts=10_001)

    wait = backoff.delay(attempt, remaining=LONG, rng=random.Random(seed))

    assert wait is not None
    assert timedelta(0) <= wait <= backoff.maximum


def test_the_longest_wait_doubles_up_to_the_maximum() -> None:
    """A provider that stays down is asked less and less."""
    backoff = Backoff(max_attempts=100)

    longest = [backoff.delay(n, remaining=LONG, rng=Highest()) for n in range(1, 9)]

    seconds = [wait.total_seconds() for wait in longest if wait is not None]
    assert seconds == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 8, 8], abs=1e-5)


def test_waits_are_spread_from_zero_to_the_bound() -> None:
    """Callers who failed together must not come back together."""
    rng = random.Random(1)

    drawn = [Backoff().delay(1, remaining=LONG, rng=rng) for _ in range(1000)]

    seconds = sorted(wait.total_seconds() for wait in drawn if wait is not None)
    assert len(seconds) == 1000
    assert seconds[99] == pytest.approx(0.025, abs=0.01)
    assert seconds[500] == pytest.approx(0.125, abs=0.02)
    assert seconds[899] == pytest.approx(0.225, abs=0.01)


@given(attempt=st.integers(1, 100), retry_after=waits)
def test_a_provider_is_asked_three_times_at_most(attempt: int, retry_after: timedelta) -> None:
    """Attempts are counted with the first one, whatever the provider invites to."""
    wait = Backoff().delay(attempt, retry_after=retry_after, remaining=LONG, rng=Highest())

    assert (wait is None) == (attempt >= 3)


@given(retry_after=waits, seed=st.integers())
def test_a_retry_after_is_a_floor(retry_after: timedelta, seed: int) -> None:
    """Sooner would be refused, and cost one of three attempts."""
    backoff = Backoff()

    wait = backoff.delay(1, retry_after=retry_after, remaining=LONG, rng=random.Random(seed))

    assert wait is not None
    assert retry_after <= wait <= max(retry_after, backoff.initial)


@given(
    attempt=st.integers(1, 2),
    retry_after=st.none() | st.timedeltas(),
    remaining=st.timedeltas(min_value=timedelta(0)),
    seed=st.integers(),
)
def test_a_wait_leaves_time_for_a_call(
    attempt: int, retry_after: timedelta | None, remaining: timedelta, seed: int
) -> None:
    """A retry that begins at the deadline is a wait for nothing; the fallback needs that time."""
    backoff = Backoff()

    wait = backoff.delay(
        attempt, retry_after=retry_after, remaining=remaining, rng=random.Random(seed)
    )

    if wait is None:
        asked = max(backoff.maximum, retry_after or timedelta(0))
        assert remaining < backoff.least_call or asked > remaining - backoff.least_call
    else:
        assert timedelta(0) <= wait <= remaining - backoff.least_call


@pytest.mark.parametrize("retry_after", [timedelta(seconds=1e9), timedelta.max])
def test_a_retry_after_beyond_the_deadline_gives_up_at_once(retry_after: timedelta) -> None:
    """The caller learns now what waiting would not change."""
    remaining = timedelta(seconds=30)

    wait = Backoff().delay(1, retry_after=retry_after, remaining=remaining, rng=Highest())

    assert wait is None


@pytest.mark.parametrize("retry_after", [timedelta(seconds=-5), timedelta.min, timedelta(0)])
def test_a_retry_after_in_the_past_changes_nothing(retry_after: timedelta) -> None:
    """A date gone by, or a clock that is wrong, still leaves the drawn wait."""
    plain = Backoff().delay(1, remaining=LONG, rng=random.Random(3))

    wait = Backoff().delay(1, retry_after=retry_after, remaining=LONG, rng=random.Random(3))

    assert wait == plain


def test_retries_stay_a_tenth_of_the_calls() -> None:
    """In an outage every call fails, and retries must not double the load."""
    budget = RetryBudget()
    retries = 0

    for _ in range(1000):
        budget.deposit()
        retries += budget.withdraw()

    assert retries == pytest.approx(110, abs=2)


def test_a_quiet_service_may_retry() -> None:
    """The reserve is there before any call was counted, and is finite."""
    budget = RetryBudget(reserve=3)

    assert [budget.withdraw() for _ in range(4)] == [True, True, True, False]
