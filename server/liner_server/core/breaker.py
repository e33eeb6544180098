"""Stops asking a provider that fails, and finds out by single calls when it answers again."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

_BUCKETS = 12
"""Parts that the window is counted in: an outcome leaves it at most a twelfth early."""

_TRIAL_WAIT = timedelta(seconds=1)
"""What a caller is told to wait while another's trial is under way: nobody knows how long."""


class BreakerState(StrEnum):
    """Whether calls pass; `BREAKER_STATE_` and the name are the contract's."""

    CLOSED = "closed"
    """Calls pass."""

    OPEN = "open"
    """Calls are refused until the rest is over."""

    HALF_OPEN = "half_open"
    """One call at a time is let through to see."""


@dataclass(slots=True)
class _Bucket:
    number: int
    requests: int = 0
    failures: int = 0


class Permit:
    """One call that the breaker let through; tell it how the call went.

    Only the first word counts, so `abandoned` may stand in a `finally` after the others.
    """

    def __init__(self, breaker: "Breaker", generation: int, *, trial: bool) -> None:
        self._breaker: Breaker | None = breaker
        self._generation = generation
        self._trial = trial

    def succeeded(self) -> None:
        """The provider answered, be it with an error that is the caller's fault."""
        self._settle(failed=False)

    def failed(self) -> None:
        """The provider failed, or was too slow."""
        self._settle(failed=True)

    def abandoned(self) -> None:
        """Nobody waited for the outcome: it says nothing of the provider."""
        self._settle(failed=None)

    def _settle(self, *, failed: bool | None) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._settle(self._generation, trial=self._trial, failed=failed)


class Breaker:
    """Guards one provider; made for a provider that has no siblings to take over, too.

    It opens when at least `minimum` calls ended within `window` and at least `share` of them
    failed. After `rest` one trial at a time may pass: its success closes the breaker and forgets
    what was counted, its failure opens it for another rest. Outcomes of calls that were let
    through before the breaker last changed tell of other times and are not counted.

    Not for several threads. Memory does not grow with the number of calls.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        window: timedelta = timedelta(seconds=60),
        minimum: int = 10,
        share: float = 0.6,
        rest: timedelta = timedelta(seconds=30),
    ) -> None:
        """Take a monotonic clock, in seconds."""
        self._clock = clock
        self._bucket_seconds = window.total_seconds() / _BUCKETS
        self._minimum = minimum
        self._share = share
        self._rest_seconds = rest.total_seconds()
        self._buckets: deque[_Bucket] = deque()
        self._opened_at: float | None = None
        self._trial_out = False
        self._generation = 0

    @property
    def state(self) -> BreakerState:
        """The state now."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        if self._rest_left() > 0:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    @property
    def retry_after(self) -> timedelta:
        """How long a caller who was refused should wait; zero when one would be let through."""
        left = self._rest_left()
        if left > 0:
            # Never rounded down to a moment at which the breaker would still refuse.
            return timedelta(seconds=left) + timedelta.resolution
        return _TRIAL_WAIT if self._trial_out else timedelta(0)

    def admit(self) -> Permit | None:
        """Return the permit for one call, or None when it must not be made.

        Every permit must be settled, or a trial's place stays taken.
        """
        state = self.state
        if state is BreakerState.CLOSED:
            return Permit(self, self._generation, trial=False)
        if state is BreakerState.OPEN or self._trial_out:
            return None
        self._trial_out = True
        return Permit(self, self._generation, trial=True)

    def _settle(self, generation: int, *, trial: bool, failed: bool | None) -> None:
        if generation != self._generation:
            return
        if trial:
            self._trial_out = False
        if failed is None:
            return
        if trial:
            self._change(opened=failed)
            return
        self._count(failed=failed)
        requests = sum(bucket.requests for bucket in self._buckets)
        failures = sum(bucket.failures for bucket in self._buckets)
        if requests >= self._minimum and failures / requests >= self._share:
            self._change(opened=True)

    def _count(self, *, failed: bool) -> None:
        number = int(self._clock() // self._bucket_seconds)
        while self._buckets and self._buckets[0].number <= number - _BUCKETS:
            self._buckets.popleft()
        if not self._buckets or self._buckets[-1].number != number:
            self._buckets.append(_Bucket(number))
        self._buckets[-1].requests += 1
        self._buckets[-1].failures += failed

    def _change(self, *, opened: bool) -> None:
        self._opened_at = self._clock() if opened else None
        self._buckets.clear()
        self._generation += 1

    def _rest_left(self) -> float:
        if self._opened_at is None:
            return 0.0
        return self._rest_seconds - (self._clock() - self._opened_at)
