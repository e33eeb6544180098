"""What is read out of a tally: sums by variant and metric, quantiles, tracks by shares."""

import math
from collections.abc import Iterator, Mapping, Sequence

from liner_server.ports_analytics import NONE, Bin, Period, Sums, Tally

SECONDS_BASE = 1.02
"""Ratio between the ends of a bin of times: quantiles are right to 1 %."""


class Counts:
    """The sums of all periods, by variant and metric."""

    def __init__(self, tally: Tally) -> None:
        self._sums: dict[tuple[str, str], Sums] = {}
        self.fallbacks: dict[str, int] = {}
        for period in tally.periods:
            for metric, sums in _metrics(period):
                self._add(period.variant, metric, sums)
            self.fallbacks[period.variant] = (
                self.fallbacks.get(period.variant, 0) + period.fallbacks
            )
        for reviewed in tally.reviewed:
            self._add(reviewed.variant, "accept_rate", reviewed.accepted)

    def of(self, variant: str, metric: str) -> Sums:
        """Return the sums; of nothing where there is nothing."""
        return self._sums.get((variant, metric), NONE)

    def mean(self, variant: str, metric: str) -> float:
        """Return the mean; 0 of nothing."""
        sums = self.of(variant, metric)
        return sums.total / sums.count if sums.count else 0.0

    def _add(self, variant: str, metric: str, sums: Sums) -> None:
        self._sums[variant, metric] = self.of(variant, metric) + sums


def _metrics(period: Period) -> Iterator[tuple[str, Sums]]:
    yield "success_rate", period.success
    yield "confidence", period.confidence
    yield "latency", period.seconds
    yield "cost", period.cost
    yield "agreement", period.agreement


def quantile(bins: Sequence[Bin], share: float) -> float:
    """Return the time in seconds that this share of tracks kept within; 0 of none."""
    total = sum(one.count for one in bins)
    seen = 0
    for one in sorted(bins, key=lambda entry: entry.bin):
        seen += one.count
        if seen >= share * total:
            return float(SECONDS_BASE ** (one.bin + 0.5))
    return 0.0


def seconds_bin(seconds: float) -> int:
    """Return the bin of a time; see `Tally.seconds`."""
    return math.floor(math.log(max(seconds, 1e-4)) / math.log(SECONDS_BASE))


def drawn(tally: Tally) -> list[tuple[Mapping[str, float], Mapping[str, int]]]:
    """Return tracks by variant for each set of shares that was in force."""
    found: dict[str, dict[str, int]] = {}
    for one in tally.assigned:
        counts = found.setdefault(one.allocation, {})
        counts[one.variant] = counts.get(one.variant, 0) + one.tracks
    return [(_shares(allocation), counts) for allocation, counts in found.items()]


def _shares(allocation: str) -> Mapping[str, float]:
    pairs = (part.rpartition("=") for part in allocation.split(",") if part)
    return {name: float(share) for name, _, share in pairs}
