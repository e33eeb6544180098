"""From counts to a report: how each variant did, how sure that is, and what to do.

The 5 % that a report may be wrong in is shared out among all that it compares (`SHARES_OF_ALPHA`),
so all its intervals and alarms hold together and none has to be discounted for its neighbours.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from liner.v1 import experiment_pb2

from liner_server.core.experiment import CONTROL, Experiment
from liner_server.core.sequential import (
    LEAST_TRACKS,
    WIDE,
    Interval,
    difference,
    ratio_mismatch,
)
from liner_server.ports_analytics import (
    CONFIDENCE_BINS,
    NONE,
    Bin,
    Period,
    Reviewed,
    Sums,
    Tally,
    Window,
)

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

SECONDS_BASE = 1.02
"""Ratio between the ends of a bin of times: quantiles are right to 1 %."""

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
    return _judged(experiment, tally, _Counts(tally), guardrails or Guardrails(), control)


def report(
    experiment: Experiment,
    tally: Tally,
    window: Window,
    *,
    now: datetime,
    guardrails: Guardrails | None = None,
    control: str = CONTROL,
) -> experiment_pb2.GetReportResponse:
    """Return what the counts say, for people."""
    counts = _Counts(tally)
    judged = _judged(experiment, tally, counts, guardrails or Guardrails(), control)
    tried = [variant.name for variant in experiment.variants]
    response = experiment_pb2.GetReportResponse(
        experiment=described(experiment, control=control),
        variants=[_variant_report(name, counts, tally) for name in (control, *tried)],
        differences=[
            _difference(name, metric, interval, counts, control)
            for (name, metric), interval in judged.differences.items()
            if interval is not WIDE
        ],
        verdict=judged.verdict,
        verdict_reason=judged.why,
        deciding_metric=judged.decides,
        sample_ratio_mismatch=judged.mismatch,
    )
    response.read_time.FromDatetime(now)
    alpha = _alpha(judged.decides, tried)
    for name in tried:
        response.trend.extend(_trend(name, judged.decides, tally, window, alpha, now, control))
    return response


def _alpha(metric: str, tried: Sequence[str]) -> float:
    return ALPHA * SHARES_OF_ALPHA[metric] / max(1, len(tried))


def _judged(
    experiment: Experiment,
    tally: Tally,
    counts: "_Counts",
    guardrails: Guardrails,
    control: str,
) -> Judgement:
    tried = [variant.name for variant in experiment.variants]
    decides = "accept_rate" if any(r.accepted.count for r in tally.reviewed) else "agreement"
    found = {
        (name, metric): difference(
            counts.of(name, metric),
            counts.of(control, metric),
            alpha=_alpha(metric, tried),
            unit=metric in _UNIT,
        )
        for name in tried
        for metric in SHARES_OF_ALPHA
        if metric != "sample_ratio"
    }
    # One alarm for all variants, so it is not divided among them.
    mismatch = ratio_mismatch(_drawn(tally), alpha=ALPHA * SHARES_OF_ALPHA["sample_ratio"])
    breaches = [
        breach
        for name in tried
        if (breach := _breach(name, found, counts, guardrails, mismatch, control))
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


def described(experiment: Experiment, *, control: str = CONTROL) -> experiment_pb2.Experiment:
    """Return an experiment as the contract has it, without its times."""
    said = experiment_pb2.Experiment(experiment_name=experiment.name, running=experiment.running)
    rest = 1 - sum(variant.traffic for variant in experiment.variants)
    said.variants.add(variant=control, traffic=max(0.0, round(rest, 9)))
    for variant in experiment.variants:
        said.variants.add(variant=variant.name, model=variant.model, traffic=variant.traffic)
    return said


class _Counts:
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
        return self._sums.get((variant, metric), NONE)

    def mean(self, variant: str, metric: str) -> float:
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


def _variant_report(name: str, counts: _Counts, tally: Tally) -> experiment_pb2.VariantReport:
    tracks = counts.of(name, "success_rate").count
    said = experiment_pb2.VariantReport(
        variant=name,
        tracks=tracks,
        success_rate=counts.mean(name, "success_rate"),
        mean_confidence=counts.mean(name, "confidence"),
        cost_usd_per_track=counts.mean(name, "cost"),
        cost_usd=counts.of(name, "cost").total,
        fallback_rate=counts.fallbacks.get(name, 0) / tracks if tracks else 0.0,
        assigned_tracks=sum(a.tracks for a in tally.assigned if a.variant == name),
        reviewed_tracks=counts.of(name, "accept_rate").count,
    )
    mine = [b for b in tally.seconds if b.variant == name]
    for share, into in (
        (0.5, said.latency_p50),
        (0.95, said.latency_p95),
        (0.99, said.latency_p99),
    ):
        into.FromTimedelta(timedelta(seconds=_quantile(mine, share)))
    reviewed = [r for r in tally.reviewed if r.variant == name]
    said.reviewed_fields = sum(r.fields for r in reviewed)
    if said.reviewed_fields:
        said.accept_rate = sum(r.accepted_fields for r in reviewed) / said.reviewed_fields
    if counts.of(name, "agreement").count:
        said.agreement_rate = counts.mean(name, "agreement")
    histogram = [0] * CONFIDENCE_BINS
    for entry in tally.confidence:
        if entry.variant == name:
            histogram[min(max(entry.bin, 0), CONFIDENCE_BINS - 1)] += entry.count
    said.confidence_histogram.extend(histogram)
    for entry in sorted(tally.reliability, key=lambda one: one.bin):
        if entry.variant == name:
            said.reliability.add(
                mean_confidence=entry.total / entry.count,
                accept_rate=entry.accepted / entry.count,
                fields=entry.count,
            )
    return said


def _quantile(bins: Sequence[Bin], share: float) -> float:
    total = sum(one.count for one in bins)
    seen = 0
    for one in sorted(bins, key=lambda entry: entry.bin):
        seen += one.count
        if seen >= share * total:
            return float(SECONDS_BASE ** (one.bin + 0.5))
    return 0.0


def _difference(
    name: str, metric: str, interval: Interval, counts: _Counts, control: str
) -> experiment_pb2.Difference:
    return experiment_pb2.Difference(
        variant=name,
        metric=metric,
        estimate=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
        variant_tracks=counts.of(name, metric).count,
        control_tracks=counts.of(control, metric).count,
    )


def _drawn(tally: Tally) -> list[tuple[Mapping[str, float], Mapping[str, int]]]:
    """Return tracks by variant for each set of shares that was in force."""
    found: dict[str, dict[str, int]] = {}
    for one in tally.assigned:
        counts = found.setdefault(one.allocation, {})
        counts[one.variant] = counts.get(one.variant, 0) + one.tracks
    return [(_shares(allocation), counts) for allocation, counts in found.items()]


def _shares(allocation: str) -> Mapping[str, float]:
    pairs = (part.rpartition("=") for part in allocation.split(",") if part)
    return {name: float(share) for name, _, share in pairs}


def _breach(
    name: str,
    found: Mapping[tuple[str, str], Interval],
    counts: _Counts,
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
    counts: _Counts,
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


def _trend(
    name: str,
    metric: str,
    tally: Tally,
    window: Window,
    alpha: float,
    now: datetime,
    control: str,
) -> Iterator[experiment_pb2.TrendPoint]:
    """Yield the deciding difference as it stood at the end of each period with news."""
    sums: dict[str, Sums] = {name: NONE, control: NONE}
    entries: list[tuple[int, str, Sums]] = [
        (one.period, one.variant, _deciding(one)) for one in _periods(tally, metric)
    ]
    for period in sorted({period for period, *_ in entries}):
        for at, variant, more in entries:
            if at == period and variant in sums:
                sums[variant] += more
        interval = difference(sums[name], sums[control], alpha=alpha, unit=True)
        if interval is WIDE:
            continue
        point = experiment_pb2.TrendPoint()
        end = min(now, window.end, window.start + (period + 1) * window.width)
        point.time.FromDatetime(end.astimezone(UTC))
        point.difference.CopyFrom(
            experiment_pb2.Difference(
                variant=name,
                metric=metric,
                estimate=interval.estimate,
                lower=interval.lower,
                upper=interval.upper,
                variant_tracks=sums[name].count,
                control_tracks=sums[control].count,
            )
        )
        yield point


def _periods(tally: Tally, metric: str) -> Sequence[Period | Reviewed]:
    return tally.reviewed if metric == "accept_rate" else tally.periods


def _deciding(one: Period | Reviewed) -> Sums:
    return one.accepted if isinstance(one, Reviewed) else one.agreement


def seconds_bin(seconds: float) -> int:
    """Return the bin of a time; see `Tally.seconds`."""
    return math.floor(math.log(max(seconds, 1e-4)) / math.log(SECONDS_BASE))
