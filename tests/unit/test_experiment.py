"""Who is in an experiment: the same tracks every time, the share that was asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.core.experiment import CONTROL, TREATMENT, Experiment

units = st.text(max_size=50)


@given(unit=units, lower=st.floats(0, 1), higher=st.floats(0, 1))
def test_raising_the_share_only_adds_tracks(unit: str, lower: float, higher: float) -> None:
    """A ramp that moved tracks back would spoil what was learned of them."""
    small, large = sorted((lower, higher))
    first = Experiment(name="e", provider="x", share=small)
    later = Experiment(name="e", provider="x", share=large)

    assert first.variant(unit) == CONTROL or later.variant(unit) == TREATMENT


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_is_kept(share: float) -> None:
    """90/10 means 90/10."""
    experiment = Experiment(name="e", provider="x", share=share)

    drawn = sum(experiment.variant(f"track-{n}") == TREATMENT for n in range(10_000))

    assert drawn / 10_000 == pytest.approx(share, abs=0.015)


def test_two_experiments_draw_independently() -> None:
    """Otherwise one model's tracks would always be the other's too."""
    one, other = (Experiment(name=name, provider="x", share=0.5) for name in ("a", "b"))

    both = sum(one.variant(f"t{n}") == other.variant(f"t{n}") == TREATMENT for n in range(10_000))

    assert both / 10_000 == pytest.approx(0.25, abs=0.02)


def test_a_name_and_a_unit_do_not_run_into_each_other() -> None:
    """Experiment "a" on "b1" is not experiment "ab" on "1"."""
    first = Experiment(name="a", provider="x").place("b1")

    assert first != Experiment(name="ab", provider="x").place("1")
