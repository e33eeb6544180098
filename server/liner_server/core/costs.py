"""What model calls cost, and how much of it a day may hold. All money is in US dollars."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

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

    @property
    def renewed_in(self) -> timedelta:
        """How long until the day is over, and its money counts anew."""
        now = self._clock().astimezone(UTC)
        midnight = datetime.combine(now.date(), time.min, UTC) + timedelta(days=1)
        return midnight - now

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


class Spending:
    """What each provider consumed since midnight UTC, paid from one budget."""

    def __init__(self, budget: DailyBudget, *, clock: Callable[[], datetime] = now) -> None:
        self._budget = budget
        self._clock = clock
        self._day = date.min
        self._by_provider: dict[str, track_pb2.Usage] = {}

    def add(self, spent: Spent) -> None:
        """Count a call."""
        self._turn()
        self._budget.spend(spent.usd)
        self._count(spent.provider, spent.usage)

    def today(self, provider: str) -> track_pb2.Usage:
        """Return what calls to a provider consumed today; the caller's own copy."""
        self._turn()
        usage = track_pb2.Usage()
        usage.CopyFrom(self._by_provider.get(provider, usage))
        return usage

    def state(self) -> dict[str, Any]:
        """Return today's sums as JSON has them, for `restore`."""
        self._turn()
        return {
            "day": self._day.isoformat(),
            "providers": {
                name: [usage.prompt_tokens, usage.completion_tokens, usage.cost_usd]
                for name, usage in self._by_provider.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the sums that an earlier process kept; those of another day are over.

        Raises:
            ValueError, KeyError, TypeError: it is no such state; nothing was taken.

        """
        self._turn()
        kept = {
            str(name): track_pb2.Usage(
                prompt_tokens=sent, completion_tokens=received, cost_usd=_money(cost)
            )
            for name, (sent, received, cost) in state["providers"].items()
        }
        if date.fromisoformat(state["day"]) == self._day:
            for name, usage in kept.items():
                self._budget.spend(Decimal(str(usage.cost_usd)))
                self._count(name, usage)

    def _count(self, provider: str, usage: track_pb2.Usage) -> None:
        total = self._by_provider.setdefault(provider, track_pb2.Usage())
        total.prompt_tokens += usage.prompt_tokens
        total.completion_tokens += usage.completion_tokens
        total.cost_usd += usage.cost_usd

    def _turn(self) -> None:
        today = self._clock().astimezone(UTC).date()
        if today > self._day:
            self._day, self._by_provider = today, {}


def _money(cost: float) -> float:
    if not (math.isfinite(cost) and cost >= 0):
        raise ValueError("no sum of money")
    return cost
