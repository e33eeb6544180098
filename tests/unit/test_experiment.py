"""Who is in an experiment: the same tracks every time, the share that was asked for."""

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.core.experiment import (
    CONTROL,
    TREATMENT,
    Experiment,
    Variant,
    assign,
    overlapping,
)

units = st.text(max_size=50)


def sharing(share: float, name: str = "e", **more: object) -> Experiment:
    """Return an experiment with one variant of this share."""
    return Experiment(name=name, variants=(Variant(traffic=share),), **more)  # type: ignore[arg-type]


@given(unit=units, lower=st.floats(0, 1), higher=st.floats(0, 1))
def test_raising_the_share_only_adds_tracks(unit: str, lower: float, higher: float) -> None:
    """A ramp that moved tracks back would spoil what was learned of them."""
    small, large = sorted((lower, higher))

    first, later = sharing(small).variant(unit), sharing(large).variant(unit)

    assert first == CONTROL or later == TREATMENT


@given(
    unit=units,
    shares=st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted),
    which=st.sampled_from([0, 1]),
)
def test_a_ramp_of_one_of_two_variants_leaves_the_others_tracks_alone(
    unit: str, shares: list[float], which: int
) -> None:
    """A track that went from one model to another would spoil what is learned of both."""
    others = 1 - shares[2]
    drawn = [
        Experiment(
            name="e",
            variants=tuple(
                Variant(name=name, traffic=share if place == which else others)
                for place, name in enumerate("ab")
            ),
        ).variant(unit)
        # Stopped, small, large: what it gains comes from the control, what it loses goes there.
        for share in (0.0, *shares[:2])
    ]
    mine = "ab"[which]

    for before, after in pairwise(drawn):
        assert before == after or (before, after) == (CONTROL, mine)


def test_many_variants_keep_their_tracks_while_none_has_more_than_its_part() -> None:
    """Eight at a tenth: one is stopped, and nobody else's tracks move."""
    names = "abcdefgh"
    before = Experiment(name="e", variants=tuple(Variant(name=n, traffic=0.1) for n in names))
    after = before.with_traffic({"c": 0.0})

    moved = {
        (one, other)
        for n in range(5000)
        if (one := before.variant(f"t{n}")) != (other := after.variant(f"t{n}"))
    }

    assert moved == {("c", CONTROL)}


@pytest.mark.parametrize("shares", [(0.7, 0.3), (0.1, 0.6), (0.5, 0.2, 0.3), (0.9, 0.02, 0.02)])
def test_shares_beyond_an_equal_part_are_kept(shares: tuple[float, ...]) -> None:
    """Three at 50/20/30 means that, though each owns a third only."""
    experiment = Experiment(
        name="e",
        variants=tuple(Variant(name=f"v{n}", traffic=share) for n, share in enumerate(shares)),
    )

    drawn = [experiment.variant(f"t{n}") for n in range(20_000)]

    for place, share in enumerate(shares):
        assert drawn.count(f"v{place}") / 20_000 == pytest.approx(share, abs=0.012)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_is_kept(share: float) -> None:
    """90/10 means 90/10."""
    experiment = sharing(share)

    drawn = sum(experiment.variant(f"track-{n}") == TREATMENT for n in range(10_000))

    assert drawn / 10_000 == pytest.approx(share, abs=0.015)


def test_two_experiments_draw_independently() -> None:
    """Otherwise one model's tracks would always be the other's too."""
    one, other = sharing(0.5, "a"), sharing(0.5, "b")

    both = sum(one.variant(f"t{n}") == other.variant(f"t{n}") == TREATMENT for n in range(10_000))

    assert both / 10_000 == pytest.approx(0.25, abs=0.02)


def test_a_name_a_salt_and_a_unit_do_not_run_into_each_other() -> None:
    """Experiment "a" on "b1" is not experiment "ab" on "1"."""
    places = {
        Experiment(name="a").place("b1"),
        Experiment(name="ab").place("1"),
        Experiment(name="a", salt="b").place("1"),
        Experiment(name="a", salt="1").place("b"),
    }

    assert len(places) == 4


def test_a_salt_draws_other_tracks() -> None:
    """A second run under the same name must not fall on the tracks of the first."""
    first, again = sharing(0.5), sharing(0.5, salt="again")

    same = sum(first.variant(f"t{n}") == again.variant(f"t{n}") for n in range(10_000))

    assert same / 10_000 == pytest.approx(0.5, abs=0.02)


@given(unit=units)
def test_no_track_is_in_two_experiments(unit: str) -> None:
    """Two models tried on one track could not be told apart."""
    parts = [sharing(0.5, "a", population=(0.0, 0.4)), sharing(0.5, "b", population=(0.4, 1.0))]

    found = [one.experiment for one in (e.assign(unit) for e in parts) if one is not None]

    assert overlapping(parts) is None
    assert len(found) == 1
    assert assign(parts, unit) is not None


def test_one_experiments_variant_says_nothing_of_anothers_population() -> None:
    """If the same hash cut both, one part of the population would hold one variant only."""
    half = sharing(0.5, "a", population=(0.0, 0.5))

    drawn = [one for n in range(20_000) if (one := half.assign(f"t{n}")) is not None]

    assert len(drawn) / 20_000 == pytest.approx(0.5, abs=0.015)
    tried = sum(one.variant == TREATMENT for one in drawn)
    assert tried / len(drawn) == pytest.approx(0.5, abs=0.02)


def test_populations_that_overlap_are_found() -> None:
    """The start must refuse them."""
    parts = [sharing(0.1, "b", population=(0.3, 1.0)), sharing(0.1, "a", population=(0.0, 0.31))]

    assert overlapping(parts) == ("a", "b")


def test_what_is_excluded_takes_part_in_nothing() -> None:
    """A label that must not be tried on is not in the control either: it would bias it."""
    experiment = sharing(1.0, excluded=frozenset({"vip"}))

    assert experiment.assign("vip") is None
    assert experiment.assign("other") is not None


def test_a_stopped_experiment_draws_nobody() -> None:
    """Its control would go on counting tracks that nothing is compared with."""
    experiment = sharing(0.1).with_traffic({TREATMENT: 0.0})

    assert not experiment.running
    assert experiment.assign("t") is None


def test_several_variants_get_their_shares() -> None:
    """A, B and C at once."""
    experiment = Experiment(
        name="e", variants=(Variant(name="b", traffic=0.2), Variant(name="c", traffic=0.3))
    )

    drawn = [experiment.variant(f"t{n}") for n in range(20_000)]

    assert drawn.count("b") / 20_000 == pytest.approx(0.2, abs=0.015)
    assert drawn.count("c") / 20_000 == pytest.approx(0.3, abs=0.015)
    assert experiment.allocation == "control=0.5,b=0.2,c=0.3"


def test_another_process_draws_the_same() -> None:
    """Hosts and restarts agree: nothing of the draw may depend on the process."""
    asked = (
        "from liner_server.core.experiment import Experiment; e = Experiment(name='e', salt='s'); "
        "print([e.variant(f't{n}') for n in range(200)])"
    )
    paths = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"}

    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True, env=paths)

    here = Experiment(name="e", salt="s")
    assert told.stdout.decode().strip() == str([here.variant(f"t{n}") for n in range(200)])


def test_a_name_that_is_no_unicode_is_drawn_too() -> None:
    """A lone surrogate can come out of JSON; it must not fail the answer."""
    assert sharing(0.5).variant("\ud800") in (CONTROL, TREATMENT)
