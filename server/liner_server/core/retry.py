"""Whether another attempt is worth its cost, and when to make it."""

import random
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait between attempts at the same call."""

    initial: timedelta = timedelta(seconds=0.25)
    """Longest wait before the second attempt; doubles with each further one."""

    maximum: timedelta = timedelta(seconds=8)
    """No drawn wait is longer than this."""

    max_attempts: int = 3
    """Calls made to a provider in all, the first one counted."""

    least_call: timedelta = timedelta(seconds=0.25)
    """Time that must be left after the wait: a call that has less is not worth making."""

    def delay(
        self,
        attempt: int,
        *,
        retry_after: timedelta | None = None,
        remaining: timedelta,
        rng: random.Random,
    ) -> timedelta | None:
        """Return the wait before the next attempt, or None to give up.

        `attempt` is the number of the one that failed, from 1; `remaining` the time left to the
        deadline. The wait is drawn evenly, so that callers who failed together do not come back
        together. A provider's Retry-After is a floor: sooner would be refused. Where it does not
        fit, nor the drawn wait, it is better to know now: the fallback needs the time.
        """
        if attempt >= self.max_attempts:
            return None
        # Capping the exponent keeps a huge attempt number from overflowing a timedelta.
        bound = min(self.initial * (1 << min(attempt - 1, 20)), self.maximum)
        wait = bound * rng.random()
        if retry_after is not None:
            wait = max(wait, retry_after)
        # Taken from what is left, not added to the wait: Retry-After may be the largest timedelta.
        return wait if wait <= remaining - self.least_call else None


class RetryBudget:
    """Keeps retries to a share of the first attempts, so that an outage is not multiplied.

    Every first attempt deposits `ratio` of a token, every retry withdraws a whole one. The
    reserve lets a quiet service retry at all, and bounds what a burst may withdraw.
    """

    def __init__(self, *, ratio: float = 0.1, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._tokens = reserve

    def deposit(self) -> None:
        """Count one first attempt."""
        self._tokens = min(self._reserve, self._tokens + self._ratio)

    def withdraw(self) -> bool:
        """Return whether one retry may be made, and count it if so."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
