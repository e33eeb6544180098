"""An experiment's report for people: how each variant did, and the differences over time."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from liner.v1 import experiment_pb2

from liner_server.core.experiment import CONTROL, Experiment
from liner_server.core.sequential import WIDE, Interval, difference
from liner_server.core.tallied import Counts, quantile
from liner_server.core.verdict import Guardrails, alpha_of, judge
from liner_server.ports_analytics import (
    CONFIDENCE_BINS,
    NONE,
    Period,
    Reviewed,
    Sums,
    Tally,
    Window,
)


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
    counts = Counts(tally)
    judged = judge(experiment, tally, guardrails=guardrails, control=control)
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
    alpha = alpha_of(judged.decides, tried)
    for name in tried:
        response.trend.extend(_trend(name, judged.decides, tally, window, alpha, now, control))
    return response


def described(experiment: Experiment, *, control: str = CONTROL) -> experiment_pb2.Experiment:
    """Return an experiment as the contract has it, without its times."""
    said = experiment_pb2.Experiment(experiment_name=experiment.name, running=experiment.running)
    rest = 1 - sum(variant.traffic for variant in experiment.variants)
    said.variants.add(variant=control, traffic=max(0.0, round(rest, 9)))
    for variant in experiment.variants:
        said.variants.add(variant=variant.name, model=variant.model, traffic=variant.traffic)
    return said


def _variant_report(name: str, counts: Counts, tally: Tally) -> experiment_pb2.VariantReport:
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
        into.FromTimedelta(timedelta(seconds=quantile(mine, share)))
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


def _difference(
    name: str, metric: str, interval: Interval, counts: Counts, control: str
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
