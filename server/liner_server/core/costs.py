"""What model calls cost, and how much of it a day may hold. All money is in US dollars."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from liner.v1 import track_pb2

_NOTHING = Decimal(0)
_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, kw_only=True)
class Price:
    """Dollars for a million tokens of one model."""

    prompt: Decimal = _NOTHING
    completion: Decimal = _NOTHING

    def cost(self, usage: track_pb2.Usage) -> Decimal:
        """Return what the tokens of a usage cost."""
        total = self.prompt * usage.prompt_tokens + self.completion * usage.completion_tokens
        return total / _MILLION


class Prices:
    """The configured prices by model; a model without one costs nothing, as one's own does."""

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self._prices = dict(prices or {})

    def of(self, model: str) -> Price:
        """Return a model's price."""
        return self._prices.get(model, Price())


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one model call consumed, whether its answer could be used or not."""

    provider: str
    model: str
    usage: track_pb2.Usage
    usd: Decimal


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class DailyBudget:
    """Counts what was spent since midnight UTC, and says whether more may be.

    What a call may cost can be held back while it runs (`holding`), so that many at once do not
    overspend together. A clock that goes back does not give the day's money again.
    """

    def __init__(
        self, limit_usd: Decimal | None = None, *, clock: Callable[[], datetime] = now
    ) -> None:
        self._limit = limit_usd
        self._clock = clock
        self._day = date.min
        self._spent = _NOTHING
        self._held = _NOTHING

    @property
    def spent(self) -> Decimal:
        """What was spent today."""
        self._turn()
        return self._spent

    @property
    def spent_share(self) -> float:
        """Part of the day's limit that is spent, more than 1 if a call cost more than was
        reckoned; 0 without a limit. Only reads, so another thread may ask."""
        if not self._limit or self._clock().astimezone(UTC).date() > self._day:
            return 0.0
        return float(self._spent / self._limit)

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all: without one no call needs an estimate."""
        return self._limit is not None

    def allows(self, estimate: Decimal = _NOTHING) -> bool:
        """Whether a call that may cost so much fits into what is left of the day.

        With nothing left, not even a call that is said to be free is allowed.
        """
        self._turn()
        if self._limit is None:
            return True
        left = self._limit - self._spent - self._held
        return left > 0 and estimate <= left

    def spend(self, usd: Decimal) -> None:
        """Count what a call did cost."""
        self._turn()
        self._spent += max(usd, _NOTHING)

    @contextmanager
    def holding(self, estimate: Decimal) -> Iterator[None]:
        """Keep so much from other calls for as long as the context is open."""
        held = max(estimate, _NOTHING)
        self._held += held
        try:
            yield
        finally:
            self._held -= held

    def _turn(self) -> None:
        today = self._clock().astimezone(UTC).date()
        if today > self._day:
            self._day, self._spent = today, _NOTHING
