"""Intervals and tests that may be looked at as often as one likes.

An ordinary 95 % interval is right at one look that was planned; looked at every hour, one of them
excludes the truth sooner or later. These are mixture sequential tests: the likelihood ratio,
averaged over a normal prior of the effect, is a martingale under "no difference", so the chance
that it ever passes 1 / alpha is alpha, over all looks together (Robbins 1970; Johari et al. 2017).
With estimated variances that holds once each side has some dozens of tracks (Waudby-Smith et al.,
"Time-uniform central limit theory", 2024), which is why nothing is decided before `LEAST_TRACKS`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from liner_server.ports_analytics import NONE, Sums

LEAST_TRACKS = 100
"""Tracks a side below which a normal approximation is not to be trusted, so nothing is decided."""

_BEST_AT = 500.0
"""Effective tracks at which the intervals are narrowest for their level."""

_PRIOR_WEIGHT = 200.0
"""How many tracks' worth of belief the ratio test has in the shares that were set."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A difference and where it lies, at every look at once."""

    estimate: float
    lower: float
    upper: float


WIDE = Interval(estimate=0.0, lower=-math.inf, upper=math.inf)
"""What is known before there is anything."""


def difference(variant: Sums, control: Sums, *, alpha: float, unit: bool = False) -> Interval:
    """Return variant minus control in the mean, with an always-valid interval at 1 - alpha.

    `unit` says that the number lies in [0, 1]: one 0 and one 1 are then added to each side's
    variance, so that a run of nothing but successes is not taken for certainty.
    """
    if variant.count < 2 or control.count < 2:
        return WIDE
    estimate = variant.total / variant.count - control.total / control.count
    noise = _variance(variant, unit=unit) / variant.count + (
        _variance(control, unit=unit) / control.count
    )
    tracks = 1 / (1 / variant.count + 1 / control.count)
    # The prior's variance, in units of one effective track's.
    prior = (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha))) / _BEST_AT
    grown = tracks * prior + 1
    half = math.sqrt(noise * grown / (tracks * prior) * (2 * math.log(1 / alpha) + math.log(grown)))
    return Interval(estimate=estimate, lower=estimate - half, upper=estimate + half)


def ratio_mismatch(
    counts: Sequence[tuple[Mapping[str, float], Mapping[str, int]]], *, alpha: float
) -> bool:
    """Return whether numbers of tracks contradict the shares they were drawn with.

    One entry for each set of shares that was in force: the shares, and the tracks by variant. A
    sequential test of the multinomial (Lindon and Malek 2022), exact at any count; a change of
    shares begins a new factor.
    """
    evidence = 0.0
    for shares, found in counts:
        if any(found.get(name, 0) and not shares.get(name) for name in found):
            return True
        drawn = [(share, found.get(name, 0)) for name, share in shares.items() if share > 0]
        total = sum(count for _, count in drawn)
        belief = sum(_PRIOR_WEIGHT * share for share, _ in drawn)
        evidence += math.lgamma(belief) - math.lgamma(belief + total)
        for share, count in drawn:
            prior = _PRIOR_WEIGHT * share
            evidence += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return evidence >= math.log(1 / alpha)


def tracks_needed(effect: float, deviation: float, *, alpha: float, share: float = 0.5) -> int:
    """Return how many tracks in all find a true difference in about nine of ten experiments.

    `deviation` is one track's standard deviation, `share` the variant's part of the tracks.
    """
    low, high = 2, 1
    while high < 1 << 40:
        per_side = Sums(count=round(high * share)), Sums(count=round(high * (1 - share)))
        if min(side.count for side in per_side) >= 2 and _finds(
            effect, deviation, *per_side, alpha
        ):
            break
        low, high = high, high * 2
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        sides = Sums(count=round(middle * share)), Sums(count=round(middle * (1 - share)))
        if min(side.count for side in sides) >= 2 and _finds(effect, deviation, *sides, alpha):
            high = middle
        else:
            low = middle
    return high


def _finds(effect: float, deviation: float, one: Sums, other: Sums, alpha: float) -> bool:
    """Whether nine of ten estimates, and some more, are further from 0 than the interval goes."""
    sides = [
        Sums(count=side.count, total=0.0, squares=deviation**2 * (side.count - 1))
        for side in (one, other)
    ]
    half = difference(sides[0], sides[1], alpha=alpha).upper
    noise = deviation * math.sqrt(1 / one.count + 1 / other.count)
    return effect - 1.4 * noise >= half


def _variance(sums: Sums, *, unit: bool) -> float:
    if unit:
        sums += _PSEUDO
    mean = sums.total / sums.count
    return max(0.0, (sums.squares - sums.count * mean * mean) / (sums.count - 1))


_PSEUDO = NONE + Sums(count=2, total=1.0, squares=1.0)
