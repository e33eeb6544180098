"""Keeps calls to a provider within what it allows: a minute, and at once."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

_MINUTE = 60.0

LONGEST_PENALTY = timedelta(minutes=10)
"""No Retry-After silences a provider for longer: some are absurd, and one call then finds out."""

_ENOUGH = 1e-6
"""Sums of floats fall short of a whole token by less than this."""


class _Bucket:
    """Tokens that flow in continuously; it may be overdrawn, then it is in debt."""

    def __init__(self, a_minute: int, burst: timedelta) -> None:
        self._rate = a_minute / _MINUTE
        self._most = max(1.0, self._rate * burst.total_seconds())
        self._debt_limit = float(a_minute)
        self._level = self._most

    def refill(self, seconds: float) -> None:
        self._level = min(self._most, self._level + self._rate * seconds)

    def wait(self, amount: float) -> float:
        """Return the seconds until so much is there; for more than it holds, until it is full."""
        missing = min(amount, self._most) - self._level
        return missing / self._rate if missing > _ENOUGH else 0.0

    def take(self, amount: float) -> None:
        # A provider forgets what is a minute old, so no debt lasts for longer.
        self._level = min(self._most, max(-self._debt_limit, self._level - amount))


class RateLimit:
    """A provider's limits in requests and tokens a minute, None for none.

    Both are token buckets that fill evenly and hold `burst` worth of the limit: in any minute no
    more goes than the limit and that. A request that is larger than the bucket goes when the
    bucket is full and leaves a debt, which later ones wait for.

    Nothing is reserved and nobody queues: whoever waited calls `take` again, and may lose to
    another. Not for several threads.
    """

    def __init__(
        self,
        *,
        requests_a_minute: int | None,
        tokens_a_minute: int | None,
        clock: Callable[[], float],
        burst: timedelta = timedelta(seconds=6),
    ) -> None:
        """Take limits of at least 1 and a monotonic clock, in seconds."""
        self._requests = _Bucket(requests_a_minute, burst) if requests_a_minute else None
        self._tokens = _Bucket(tokens_a_minute, burst) if tokens_a_minute else None
        self._clock = clock
        self._filled_at = clock()
        self._silent_until = -math.inf

    def wait_for(self, tokens_estimate: int) -> timedelta:
        """Return how long a request of so many tokens has to wait; zero: it may go now."""
        seconds = self._wait_seconds(tokens_estimate)
        # Rounded up, so that it may really go after the wait.
        return timedelta(microseconds=math.ceil(seconds * 1e6))

    def take(self, tokens_estimate: int) -> bool:
        """Return whether a request of so many tokens may go now, and count it if so."""
        if self._wait_seconds(tokens_estimate) > 0:
            return False
        if self._requests:
            self._requests.take(1)
        if self._tokens:
            self._tokens.take(tokens_estimate)
        return True

    def settle(self, estimated: int, actual: int) -> None:
        """Correct what `take` counted by the usage that the provider reports.

        More than was estimated may leave a debt, at most of a minute's worth: whatever a
        provider reports, it is asked again after that.
        """
        if self._tokens:
            self._refill()
            self._tokens.take(max(0, actual) - estimated)

    def penalise(self, retry_after: timedelta) -> None:
        """Let nothing go before the provider's Retry-After is over, ten minutes at most."""
        wait = min(retry_after, LONGEST_PENALTY).total_seconds()
        # An earlier, longer one still holds.
        self._silent_until = max(self._silent_until, self._clock() + wait)

    @property
    def silence(self) -> timedelta:
        """How long the provider's Retry-After still holds; zero when it does not."""
        return timedelta(seconds=max(0.0, self._silent_until - self._clock()))

    def _wait_seconds(self, tokens: int) -> float:
        self._refill()
        return max(
            0.0,
            self._silent_until - self._clock(),
            self._requests.wait(1) if self._requests else 0.0,
            self._tokens.wait(tokens) if self._tokens else 0.0,
        )

    def _refill(self) -> None:
        now = self._clock()
        for bucket in (self._requests, self._tokens):
            if bucket:
                bucket.refill(now - self._filled_at)
        self._filled_at = now


class BusyError(TimeoutError):
    """No place became free in time."""


class Places(asyncio.BoundedSemaphore):
    """How many calls may be under way at once; who waits longest gets the next place."""

    @asynccontextmanager
    async def held(self, deadline: float) -> AsyncIterator[None]:
        """Hold a place while the context is open, if one is free by `deadline`, in the loop's time.

        A place that is free is given even after the deadline.

        Raises:
            BusyError: none was.

        """
        try:
            async with asyncio.timeout_at(deadline):
                await self.acquire()
        except TimeoutError as error:
            raise BusyError("no place became free in time") from error
        try:
            yield
        finally:
            self.release()
