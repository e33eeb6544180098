import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import track_pb2
from liner_server.core.calibration import UNFITTED_CAP, Calibration
from liner_server.evaluation import metrics

FEATURES = {"margin": 0.7, "agreement": 1.0, "beat": 0.98, "tonal": 0.98, "seconds": 180.0}


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """What ships."""
    return Calibration.load()


@given(st.floats(), st.dictionaries(st.sampled_from(sorted(FEATURES)), st.floats()))
def test_every_number_becomes_a_probability(score: float, features: dict[str, float]) -> None:
    """Scores and features come from sounds nobody foresaw; what is sent must stay a probability."""
    for field in ("bpm", "key", "genre"):
        found = Calibration.load().calibrated(field, "measured", score, features)

        assert 0 <= found.probability <= 1
        assert not math.isnan(found.probability)


@pytest.mark.parametrize("field", ["bpm", "key"])
def test_a_clearer_answer_is_never_less_probable(calibration: Calibration, field: str) -> None:
    """A curve that falls would have been fitted to chance."""
    found = [
        calibration.calibrated(field, "measured", score, FEATURES | {"margin": score}).probability
        for score in (0.05, 0.3, 0.6, 0.9, 0.99)
    ]

    assert found == sorted(found)
    assert found[-1] > 0.9


def test_a_field_without_a_fit_is_capped_and_says_so(calibration: Calibration) -> None:
    """Nothing was counted, so the number must not pass for one that was."""
    found = calibration.calibrated("genre", "measured", 0.99)

    assert found.probability == UNFITTED_CAP
    assert found.basis == track_pb2.CONFIDENCE_BASIS_UNCALIBRATED


def test_a_missing_feature_stands_at_its_mean(calibration: Calibration) -> None:
    """An estimator that could not measure one thing still gets its answer calibrated."""
    found = calibration.calibrated("bpm", "measured", 0.9)

    assert found.basis == track_pb2.CONFIDENCE_BASIS_CALIBRATED
    assert 0.5 < found.probability < 1


def test_calibration_needs_no_numpy() -> None:
    """The server process stays light; numpy lives in the listening processes."""
    code = (
        "import sys; from liner_server.core.calibration import Calibration; Calibration.load();"
        "sys.exit('numpy' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("key", "score"),
    [("A minor", 1.0), ("E minor", 0.5), ("D minor", 0.5), ("C major", 0.3), ("A major", 0.2),
     ("Bb major", 0.0), ("B minor", 0.0), (None, 0.0)],
)  # fmt: skip
def test_keys_are_scored_as_mirex_scores_them(key: str | None, score: float) -> None:
    """Figures are only worth comparing on the same scale as everybody's."""
    assert metrics.key_score(key, "A minor") == score


def test_relative_keys_are_relative_both_ways() -> None:
    """The relative of a major key lies below it, of a minor key above."""
    assert metrics.key_score("F# minor", "A major") == 0.3
    assert metrics.key_score("A major", "F# minor") == 0.3


def test_the_octave_is_forgiven_only_where_the_label_is_open() -> None:
    """Acc1 means the tempo a listener taps, unless the label itself leaves that open."""
    assert not metrics.tempo_right(70, 140)
    assert metrics.tempo_right(70, 140, octave_ok=True)
    assert metrics.tempo_related(70, 140)
    assert not metrics.tempo_related(105, 140)


def test_honest_probabilities_have_no_calibration_error() -> None:
    """Eight of ten right at 0.8 is what 0.8 means; an unanswered item is not a wrong one."""
    stated = [0.8] * 10 + [None]
    right = [True] * 8 + [False] * 3

    found = metrics.confidence(stated, right)

    assert found.ece == pytest.approx(0)
    assert found.answered == 10
    assert found.coverage_95 == 0


def test_few_answers_miss_their_probabilities_by_chance():
    """A calibration error of .08 says nothing against 70 answers, and much against 7,000."""
    few = np.random.default_rng(1).uniform(0.5, 1.0, 70)
    right = np.random.default_rng(2).random((200, 70)) < few
    errors = [metrics.confidence(list(few), list(row)).ece for row in right]
    found = metrics.confidence(list(few), list(right[0]))
    many = metrics.confidence(list(few) * 100, list(right[0]) * 100)

    assert found.ece_by_chance == pytest.approx(np.mean(errors), abs=0.005)
    assert many.ece_by_chance < found.ece_by_chance / 8


def test_coverage_counts_all_items_and_never_splits_a_tie() -> None:
    """An editor accepts everything above a threshold, so equal numbers stand or fall together."""
    found = metrics.confidence([0.9] * 19 + [0.5] * 2, [True] * 19 + [True, False])

    assert found.coverage_95 == pytest.approx(21 / 21)
