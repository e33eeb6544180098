"""When an experiment is decided, when it is not, and what stops one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import experiment_pb2
from liner_server.core import report, verdict
from liner_server.core.experiment import CONTROL, TREATMENT, Experiment, Variant
from liner_server.core.sequential import (
    LEAST_TRACKS,
    difference,
    ratio_mismatch,
    tracks_needed,
)
from liner_server.core.tallied import seconds_bin
from liner_server.ports_analytics import Assigned, Bin, Period, Reviewed, Sums, Tally, Window

KEEP = experiment_pb2.EXPERIMENT_VERDICT_KEEP_RUNNING
ADOPT = experiment_pb2.EXPERIMENT_VERDICT_ADOPT
STOP = experiment_pb2.EXPERIMENT_VERDICT_STOP
START = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = Window(
    experiment="e", start=START, end=START + timedelta(hours=10), width=timedelta(hours=1)
)
HALF = Experiment(name="e", variants=(Variant(traffic=0.5),))


def share(good: int, count: int) -> Sums:
    """Return the sums of `count` zeros and ones, `good` of them ones."""
    return Sums(count=count, total=good, squares=good)


def spread(mean: float, deviation: float, count: int) -> Sums:
    """Return the sums of numbers of this mean and deviation."""
    squares = count * mean * mean + deviation**2 * (count - 1)
    return Sums(count=count, total=mean * count, squares=squares)


def side(
    variant: str,
    *,
    count: int = 1000,
    success: int | None = None,
    seconds: float = 1.0,
    confidence: float = 0.8,
) -> Period:
    """Return what one variant did, all in one period."""
    return Period(
        variant=variant,
        period=0,
        success=share(count if success is None else success, count),
        confidence=spread(confidence, 0.1, count),
        seconds=spread(seconds, 0.5, count),
        cost=spread(0.001, 0.0005, count),
    )


def tally(
    accepted: tuple[Sums, Sums] | None = None, periods: Sequence[Period] | None = None
) -> Tally:
    """Return counts of two variants, the control's first."""
    names = (CONTROL, TREATMENT)
    return Tally(
        periods=periods if periods is not None else [side(name) for name in names],
        reviewed=[
            Reviewed(
                variant=name,
                period=0,
                accepted=sums,
                fields=sums.count,
                accepted_fields=int(sums.total),
            )
            for name, sums in zip(names, accepted or (), strict=False)
        ],
    )


@given(
    one=st.integers(2, 5000),
    other=st.integers(2, 5000),
    good=st.floats(0, 1),
    better=st.floats(0, 1),
    alpha=st.floats(0.0001, 0.2),
)
def test_an_interval_holds_its_estimate_and_has_an_end(
    one: int, other: int, good: float, better: float, alpha: float
) -> None:
    """Whatever the counts, and a run of nothing but successes is no certainty."""
    found = difference(
        share(round(good * one), one), share(round(better * other), other), alpha=alpha, unit=True
    )

    assert found.lower < found.estimate < found.upper
    assert math.isfinite(found.upper - found.lower)


def test_an_interval_narrows_with_tracks_and_widens_with_certainty() -> None:
    """More evidence says more; a stricter level says less."""

    def width(count: int, alpha: float) -> float:
        found = difference(share(count // 2, count), share(count // 2, count), alpha=alpha)
        return found.upper - found.lower

    assert width(1000, 0.05) > width(4000, 0.05)
    assert width(1000, 0.01) > width(1000, 0.05)
    # An interval for one planned look would be this narrow: looking at any time has its price.
    assert width(1000, 0.05) > 2 * 1.96 * math.sqrt(0.25 / 1000 * 2)


def test_the_price_of_looking_at_any_time_is_bounded() -> None:
    """At the place it is made for an always-valid interval is not twice as wide."""
    count = 1000
    found = difference(share(500, count), share(500, count), alpha=0.05)

    assert found.upper < 1.75 * 1.96 * math.sqrt(0.25 / count * 2)


@pytest.mark.parametrize(
    ("shares", "counts", "alarm"),
    [
        ({"control": 0.9, "experimental": 0.1}, {"control": 9000, "experimental": 1000}, False),
        ({"control": 0.9, "experimental": 0.1}, {"control": 9000, "experimental": 1060}, False),
        ({"control": 0.9, "experimental": 0.1}, {"control": 9000, "experimental": 800}, True),
        ({"control": 0.5, "experimental": 0.5}, {"control": 5000, "experimental": 5400}, True),
        ({"control": 0.5, "experimental": 0.5}, {"control": 5, "experimental": 1}, False),
        ({"control": 1.0, "experimental": 0.0}, {"control": 50, "experimental": 1}, True),
        ({"control": 0.5, "experimental": 0.5}, {}, False),
    ],
)
def test_lost_tracks_are_noticed(
    shares: dict[str, float], counts: dict[str, int], alarm: bool
) -> None:
    """A variant that loses its hard tracks looks better than it is."""
    assert ratio_mismatch([(shares, counts)], alpha=0.005) is alarm


def test_a_change_of_shares_is_no_mismatch() -> None:
    """10 % for a week and 50 % for the next is neither of both over all."""
    weeks = [
        ({"control": 0.9, "experimental": 0.1}, {"control": 9000, "experimental": 1000}),
        ({"control": 0.5, "experimental": 0.5}, {"control": 5000, "experimental": 5000}),
    ]

    assert not ratio_mismatch(weeks, alpha=0.005)
    assert ratio_mismatch([(weeks[0][0], {"control": 14_000, "experimental": 6000})], alpha=0.005)


def test_a_smaller_difference_needs_more_tracks() -> None:
    """Half the difference, four times the tracks, about; an uneven split costs more."""
    needed = [
        tracks_needed(effect, 0.4, alpha=0.02, share=split)
        for effect, split in ((0.1, 0.5), (0.05, 0.5), (0.05, 0.1))
    ]

    assert 3 < needed[1] / needed[0] < 5.5
    assert needed[2] > 2 * needed[1]


def test_a_clearly_better_variant_is_adopted() -> None:
    """By the accept rate of editors, and the reason has the figures."""
    found = verdict.judge(HALF, tally((share(700, 1000), share(850, 1000))))

    assert found.verdict == ADOPT
    assert found.decides == "accept_rate"
    assert "+15.0 points" in found.why


def test_a_clearly_worse_variant_is_stopped() -> None:
    """The other direction of the same."""
    found = verdict.judge(HALF, tally((share(850, 1000), share(700, 1000))))

    assert found.verdict == STOP
    assert found.breaches == []


def test_little_evidence_decides_nothing() -> None:
    """However clear it looks: a normal approximation of ten tracks is worth nothing."""
    few = LEAST_TRACKS - 1
    found = verdict.judge(HALF, tally((share(0, few), share(few, few))))

    assert found.verdict == KEEP
    assert f"control {few}, experimental {few}" in found.why


def test_without_reviews_agreement_decides() -> None:
    """The proxy is used where nobody reviews, and the report says which metric it was."""
    periods = [
        Period(variant=CONTROL, period=0, success=share(900, 900), agreement=share(600, 900)),
        Period(variant=TREATMENT, period=0, success=share(900, 900), agreement=share(800, 900)),
    ]

    found = verdict.judge(HALF, tally(periods=periods))

    assert (found.verdict, found.decides) == (ADOPT, "agreement")
    assert "agreement with other evidence" in found.why


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ({"success": 800}, "fewer answers succeed"),
        ({"seconds": 2.5}, "longer"),
        ({"confidence": 0.6}, "confidence is"),
    ],
)
def test_harm_stops_a_variant_however_good_its_answers(harm: dict[str, float], why: str) -> None:
    """Editors see the answers that came; those that did not come nobody reviews."""
    periods = [side(CONTROL), side(TREATMENT, **harm)]  # type: ignore[arg-type]

    found = verdict.judge(HALF, tally((share(700, 1000), share(900, 1000)), periods))

    assert found.verdict == STOP
    [breach] = found.breaches
    assert breach.variant == TREATMENT
    assert why in breach.why
    assert why in found.why


@pytest.mark.parametrize(
    "small", [{"success": 995}, {"seconds": 1.3}, {"confidence": 0.77}], ids=str
)
def test_small_harm_is_left_to_people(small: dict[str, float]) -> None:
    """A guardrail is for what cannot wait, not for every difference that can be measured."""
    periods = [side(CONTROL, count=5000), side(TREATMENT, count=5000, **small)]  # type: ignore[arg-type]
    if "success" in small:
        periods[1] = side(TREATMENT, count=5000, success=4975)

    assert verdict.judge(HALF, tally(periods=periods)).breaches == []


def test_tracks_that_got_lost_stop_the_experiment() -> None:
    """No other figure can be trusted then, so it says that first."""
    counts = [("control", 5000), ("experimental", 4000)]
    lost = Tally(
        periods=[side(CONTROL), side(TREATMENT)],
        reviewed=tally((share(700, 1000), share(900, 1000))).reviewed,
        assigned=[
            Assigned(allocation=HALF.allocation, variant=name, tracks=n) for name, n in counts
        ],
    )

    found = verdict.judge(HALF, lost)

    assert (found.verdict, found.mismatch) == (STOP, True)
    assert "contradict the shares" in found.why


def test_of_several_variants_each_is_compared_with_the_control() -> None:
    """The level is shared out, so that many variants find no winner by luck."""
    three = Experiment(
        name="e", variants=(Variant(name="b", traffic=0.3), Variant(name="c", traffic=0.3))
    )
    counts = Tally(
        periods=[side(CONTROL), side("b"), side("c", success=700)],
        reviewed=[
            Reviewed(variant=name, period=0, accepted=sums)
            for name, sums in (
                (CONTROL, share(700, 1000)),
                ("b", share(860, 1000)),
                ("c", share(700, 1000)),
            )
        ],
    )

    found = verdict.judge(three, counts)

    assert [breach.variant for breach in found.breaches] == ["c"]
    alone = verdict.judge(HALF, tally((share(700, 1000), share(860, 1000))))
    wide, narrow = (
        found.differences["b", "accept_rate"],
        alone.differences[TREATMENT, "accept_rate"],
    )
    assert wide.lower < narrow.lower


def test_a_report_says_how_each_variant_did() -> None:
    """Every figure of the contract, from the counts."""
    counts = Tally(
        periods=[side(CONTROL), side(TREATMENT, success=990)],
        reviewed=tally((share(700, 1000), share(850, 1000))).reviewed,
        seconds=[
            Bin(variant=TREATMENT, bin=seconds_bin(s), count=n)
            for s, n in ((0.5, 90), (2.0, 8), (9.0, 2))
        ],
        confidence=[Bin(variant=TREATMENT, bin=16, count=990)],
        reliability=[Bin(variant=TREATMENT, bin=8, count=10, accepted=9, total=8.4)],
    )

    said = report.report(HALF, counts, WINDOW, now=START + timedelta(hours=2))

    control, tried = said.variants
    assert (control.variant, tried.variant, tried.tracks) == (CONTROL, TREATMENT, 1000)
    assert tried.success_rate == 0.99
    assert tried.mean_confidence == pytest.approx(0.8)
    assert tried.latency_p50.ToTimedelta().total_seconds() == pytest.approx(0.5, rel=0.02)
    assert tried.latency_p95.ToTimedelta().total_seconds() == pytest.approx(2.0, rel=0.02)
    assert tried.latency_p99.ToTimedelta().total_seconds() == pytest.approx(9.0, rel=0.02)
    assert (tried.accept_rate, tried.reviewed_tracks) == (0.85, 1000)
    assert not control.HasField("agreement_rate")
    assert tried.reliability[0].accept_rate == 0.9
    assert said.trend[-1].difference.estimate == pytest.approx(0.15)
    assert said.trend[-1].time.ToDatetime(tzinfo=UTC) == START + timedelta(hours=1)


def test_the_trend_ends_where_the_report_stands() -> None:
    """The last point is today's interval, or the page would contradict the table."""
    half = (share(350, 500), share(425, 500))
    reviewed = [
        Reviewed(variant=name, period=period, accepted=sums)
        for period in (0, 3)
        for name, sums in zip((CONTROL, TREATMENT), half, strict=True)
    ]
    counts = Tally(periods=[side(CONTROL), side(TREATMENT)], reviewed=reviewed)

    said = report.report(HALF, counts, WINDOW, now=START + timedelta(hours=9))

    [now] = [d for d in said.differences if d.metric == "accept_rate"]
    last = said.trend[-1].difference
    assert (last.estimate, last.lower, last.upper) == (now.estimate, now.lower, now.upper)
    assert len(said.trend) == 2
    assert said.trend[0].difference.lower < last.lower


def test_a_shadow_is_never_judged() -> None:
    """Both sides answer with the same models: nobody may be told to adopt the other one."""
    clear = tally(
        (share(500, 1000), share(900, 1000)),
        [side(CONTROL), side(TREATMENT, success=500, seconds=9.0)],
    )

    told = verdict.judge(HALF, clear)
    shadow = verdict.judge(replace(HALF, shadow=True), clear)

    assert told.verdict == STOP
    assert told.breaches
    assert (shadow.verdict, shadow.breaches) == (KEEP, [])
    assert "shadow" in shadow.why
