"""From counts to a verdict: how sure it is that a variant does better or worse, and what to do.

The 5 % that a report may be wrong in is shared out among all that it compares (`SHARES_OF_ALPHA`),
so all its intervals and alarms hold together and none has to be discounted for its neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from liner.v1 import experiment_pb2

from liner_server.core.experiment import CONTROL, Experiment
from liner_server.core.sequential import (
    LEAST_TRACKS,
    Interval,
    difference,
    ratio_mismatch,
)
from liner_server.core.tallied import Counts, drawn
from liner_server.ports_analytics import Tally

ALPHA = 0.05
"""How often a report may be wrong in anything, over all its looks."""

SHARES_OF_ALPHA: Mapping[str, float] = {
    "accept_rate": 0.4,
    "agreement": 0.2,
    "success_rate": 0.1,
    "latency": 0.1,
    "confidence": 0.05,
    "cost": 0.05,
    "sample_ratio": 0.1,
}
"""Most for the metric that decides, little for guardrails: those fire on large effects only."""

_UNIT = frozenset({"accept_rate", "agreement", "success_rate", "confidence"})

Verdict: TypeAlias = "experiment_pb2.ExperimentVerdict.ValueType"
KEEP = experiment_pb2.EXPERIMENT_VERDICT_KEEP_RUNNING
ADOPT = experiment_pb2.EXPERIMENT_VERDICT_ADOPT
STOP = experiment_pb2.EXPERIMENT_VERDICT_STOP


@dataclass(frozen=True, kw_only=True)
class Guardrails:
    """How much worse than the control a variant may be before it is stopped for it."""

    success_rate: float = 0.02
    """Fewer answers without a failure, as a share of all."""
    latency: float = 0.5
    """Longer mean time, as a share of the control's."""
    confidence: float = 0.05
    """Lower mean confidence."""


@dataclass(frozen=True)
class Breach:
    """A guardrail that a variant certainly passed."""

    variant: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the counts say of an experiment."""

    verdict: Verdict
    why: str
    decides: str
    """The metric that decides."""
    mismatch: bool
    """Whether the numbers of tracks contradict the shares."""
    breaches: Sequence[Breach]
    differences: Mapping[tuple[str, str], Interval]
    """By variant and metric."""


def judge(
    experiment: Experiment,
    tally: Tally,
    *,
    guardrails: Guardrails | None = None,
    control: str = CONTROL,
) -> Judgement:
    """Return what to do with an experiment, and why."""
    counts, limits = Counts(tally), guardrails or Guardrails()
    tried = [variant.name for variant in experiment.variants]
    decides = "accept_rate" if any(r.accepted.count for r in tally.reviewed) else "agreement"
    found = {
        (name, metric): difference(
            counts.of(name, metric),
            counts.of(control, metric),
            alpha=alpha_of(metric, tried),
            unit=metric in _UNIT,
        )
        for name in tried
        for metric in SHARES_OF_ALPHA
        if metric != "sample_ratio"
    }
    # One alarm for all variants, so it is not divided among them.
    mismatch = ratio_mismatch(drawn(tally), alpha=ALPHA * SHARES_OF_ALPHA["sample_ratio"])
    breaches = [
        breach
        for name in tried
        if (breach := _breach(name, found, counts, limits, mismatch, control))
    ]
    if experiment.shadow:
        # All variants answer with the usual models: a difference would be chance.
        breaches, verdict = [], KEEP
        why = "in the shadow no answer of a model that is tried is used: a replay compares them"
    else:
        verdict, why = _verdict(tried, decides, found, counts, breaches, control)
    return Judgement(
        verdict=verdict,
        why=why,
        decides=decides,
        mismatch=mismatch,
        breaches=breaches,
        differences=found,
    )


def alpha_of(metric: str, tried: Sequence[str]) -> float:
    """Return how often one difference of a metric may be wrong."""
    return ALPHA * SHARES_OF_ALPHA[metric] / max(1, len(tried))


def _breach(
    name: str,
    found: Mapping[tuple[str, str], Interval],
    counts: Counts,
    guardrails: Guardrails,
    mismatch: bool,
    control: str,
) -> Breach | None:
    """Return the guardrail that a variant certainly passed, the gravest one."""
    if mismatch:
        return Breach(
            name, "the numbers of tracks contradict the shares: no figure here can be trusted"
        )

    def sure(metric: str) -> bool:
        sides = counts.of(name, metric).count, counts.of(control, metric).count
        return min(sides) >= LEAST_TRACKS

    success = found[name, "success_rate"]
    if sure("success_rate") and success.upper < -guardrails.success_rate:
        return Breach(
            name,
            f"{_points(-success.estimate)} fewer answers succeed, at least "
            f"{_points(-success.upper)}; the limit is {_points(guardrails.success_rate)}",
        )
    latency, usual = found[name, "latency"], counts.mean(control, "latency")
    if sure("latency") and usual > 0 and latency.lower > guardrails.latency * usual:
        return Breach(
            name,
            f"answers take {latency.estimate / usual:.0%} longer, at least "
            f"{latency.lower / usual:.0%}; the limit is {guardrails.latency:.0%}",
        )
    confidence = found[name, "confidence"]
    if sure("confidence") and confidence.upper < -guardrails.confidence:
        return Breach(
            name,
            f"confidence is {-confidence.estimate:.3f} lower, at least {-confidence.upper:.3f}; "
            f"the limit is {guardrails.confidence:g}",
        )
    return None


def _verdict(
    tried: Sequence[str],
    decides: str,
    found: Mapping[tuple[str, str], Interval],
    counts: Counts,
    breaches: Sequence[Breach],
    control: str,
) -> tuple[Verdict, str]:
    if breaches:
        told = "; ".join(f"{breach.variant}: {breach.why}" for breach in breaches)
        return STOP, f"guardrail: {told}"
    what = "accept rate" if decides == "accept_rate" else "agreement with other evidence"
    ready = [
        name
        for name in tried
        if min(counts.of(one, decides).count for one in (name, control)) >= LEAST_TRACKS
    ]
    best = max(ready, key=lambda name: found[name, decides].lower, default=None)
    if best is not None and found[best, decides].lower > 0:
        return ADOPT, f"{best} has the higher {what}: {_told(found[best, decides])}"
    if ready == list(tried) and all(found[name, decides].upper < 0 for name in tried):
        worst = "; ".join(f"{name} {_told(found[name, decides])}" for name in tried)
        return STOP, f"the control has the higher {what}: {worst}"
    if best is not None:
        return KEEP, f"the {what} of {best} differs by {_told(found[best, decides])}: not sure yet"
    seen = ", ".join(f"{name} {counts.of(name, decides).count}" for name in (control, *tried))
    unit = "reviewed tracks" if decides == "accept_rate" else "tracks with checked fields"
    return KEEP, f"too few {unit} to say anything, {LEAST_TRACKS} each are needed: {seen}"


def _told(interval: Interval) -> str:
    return (
        f"{100 * interval.estimate:+.1f} points "
        f"(95 %: {100 * interval.lower:+.1f} to {100 * interval.upper:+.1f})"
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
