"""`make experiment-sim`: how often the verdicts are wrong, on experiments made up by the thousand.

A/A: both variants are the same, and whoever looks acts on the first verdict that is not
KEEP_RUNNING; every one is a false stop, guardrails and sample ratio included. A/B: editors accept
five points more of the variant's fields; what counts is how many experiments end in ADOPT by the
number of reviewed tracks that `tracks_needed` states. All goes through the code that serves.
"""

import argparse
import sys
import time
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from liner_server.core import verdict
from liner_server.core.experiment import CONTROL, TREATMENT, Experiment, Variant
from liner_server.core.sequential import tracks_needed
from liner_server.ports_analytics import Assigned, Period, Reviewed, Sums, Tally

_LOOK = 100
_ACCEPT, _EFFECT = 0.80, 0.05
_UNITS = 1_000_000


def main(arguments: list[str] | None = None) -> int:
    """Print the figures and return 0 only if all are as promised."""
    parser = argparse.ArgumentParser(prog="make experiment-sim", description=__doc__)
    parser.add_argument("--experiments", type=int, default=10_000, help="A/A tests")
    parser.add_argument("--tracks", type=int, default=5_000, help="tracks of each A/A test")
    parser.add_argument("--ab", type=int, default=1_000, help="A/B tests a split")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    rng = np.random.default_rng(asked.seed)
    good = True
    for share, count in ((0.1, asked.experiments // 2), (0.5, asked.experiments // 2)):
        good &= _same(rng, share, count, asked.tracks)
    for share in (0.5, 0.1):
        good &= _better(rng, share, asked.ab)
    good &= _assignments()
    return 0 if good else 1


def _same(rng: np.random.Generator, share: float, count: int, tracks: int) -> bool:
    """A/A tests at one split: the share that ended in a verdict."""
    ends: Counter[str] = Counter()
    for _ in range(count):
        ends[_ends(rng, share, tracks, 0.0)[0]] += 1
    wrong = count - ends["KEEP"]
    rate = wrong / count
    told = ", ".join(f"{name} {ends[name]}" for name in sorted(ends))
    _say(
        f"A/A {_split(share)}: {count} tests of {tracks} tracks, a look every {_LOOK}: "
        f"{wrong} false stops, {100 * rate:.2f} % (at most 5 %)  [{told}]"
    )
    return rate <= 0.05


def _better(rng: np.random.Generator, share: float, count: int) -> bool:
    """A/B tests at one split: the share that found the better variant in time."""
    # Both sides' variances, pooled as the interval pools them.
    rates = (_ACCEPT, _ACCEPT + _EFFECT)
    deviation = float(np.sqrt(np.mean([rate * (1 - rate) for rate in rates])))
    alpha = verdict.ALPHA * verdict.SHARES_OF_ALPHA["accept_rate"]
    stated = tracks_needed(_EFFECT, deviation, alpha=alpha, share=share)
    stated += -stated % _LOOK
    ends = [_ends(rng, share, stated, _EFFECT) for _ in range(count)]
    found = sum(end == "ADOPT" for end, _ in ends) / count
    median = int(np.median([at for end, at in ends if end == "ADOPT"] or [0]))
    _say(
        f"A/B {_split(share)}: {count} tests, accept rate {_ACCEPT:.2f} against "
        f"{_ACCEPT + _EFFECT:.2f}: found in {100 * found:.1f} % by {stated} reviewed tracks "
        f"(at least 90 %), half of them by {median}"
    )
    return found >= 0.9


def _ends(rng: np.random.Generator, share: float, tracks: int, effect: float) -> tuple[str, int]:
    """Run one experiment to its first verdict; return it and the tracks until then."""
    tried = rng.random(tracks) < share
    accepted = rng.random(tracks) < np.where(tried, _ACCEPT + effect, _ACCEPT)
    values = {
        "accept": accepted.astype(float),
        "success": (rng.random(tracks) < 0.99).astype(float),
        "seconds": rng.lognormal(-0.5, 0.8, tracks),
        "confidence": rng.beta(8, 2, tracks),
        "cost": rng.gamma(2.0, 0.0005, tracks),
        "agreement": rng.binomial(3, 0.85, tracks) / 3,
    }
    sums = {
        (side, name): _cumulated(column * mask, mask)
        for name, column in values.items()
        for side, mask in ((CONTROL, ~tried), (TREATMENT, tried))
    }
    experiment = Experiment(name="sim", variants=(Variant(traffic=share),))
    for look in range(tracks // _LOOK):
        judged = verdict.judge(experiment, _tally(experiment, sums, look))
        if judged.verdict != verdict.KEEP:
            name = "ADOPT" if judged.verdict == verdict.ADOPT else "STOP"
            return "GUARDRAIL" if judged.breaches else name, (look + 1) * _LOOK
    return "KEEP", tracks


def _cumulated(column: NDArray[np.float64], mask: NDArray[np.bool_]) -> list[Sums]:
    """Return the sums of one side of a column at each look."""
    at = slice(_LOOK - 1, None, _LOOK)
    parts = (np.cumsum(mask)[at], np.cumsum(column)[at], np.cumsum(column**2)[at])
    return [
        Sums(count=int(n), total=float(total), squares=float(squares))
        for n, total, squares in zip(*parts, strict=True)
    ]


def _tally(experiment: Experiment, sums: dict[tuple[str, str], list[Sums]], look: int) -> Tally:
    sides = (CONTROL, TREATMENT)
    return Tally(
        periods=[
            Period(
                variant=side,
                period=0,
                success=sums[side, "success"][look],
                confidence=sums[side, "confidence"][look],
                seconds=sums[side, "seconds"][look],
                cost=sums[side, "cost"][look],
                agreement=sums[side, "agreement"][look],
            )
            for side in sides
        ],
        reviewed=[
            Reviewed(variant=side, period=0, accepted=sums[side, "accept"][look]) for side in sides
        ],
        assigned=[
            Assigned(
                allocation=experiment.allocation,
                variant=side,
                tracks=sums[side, "success"][look].count,
            )
            for side in sides
        ],
    )


def _assignments() -> bool:
    """The shares of a million tracks, and that a second draw changes none."""
    began = time.process_time()
    good = True
    for share in (0.1, 0.5):
        experiment = Experiment(name="sim", variants=(Variant(traffic=share),), salt="2026")
        drawn = [experiment.variant(f"track-{n}") == TREATMENT for n in range(_UNITS)]
        off = 100 * (sum(drawn) / _UNITS - share)
        again = Experiment(name="sim", variants=(Variant(traffic=share),), salt="2026")
        moved = sum(
            again.variant(f"track-{n}") != (TREATMENT if was else CONTROL)
            for n, was in enumerate(drawn)
            if n % 10 == 0
        )
        _say(
            f"assignment: {_UNITS} tracks at {share}: {off:+.3f} points off (at most 0.1), "
            f"{moved} moved"
        )
        good &= abs(off) <= 0.1 and not moved
    _say(f"assignment: {(time.process_time() - began) / (2.2 * _UNITS) * 1e6:.1f} us CPU each")
    return good


def _split(share: float) -> str:
    return f"{100 * (1 - share):.0f}/{100 * share:.0f}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
