"""Which fields a further model is asked about: those that its answer can help, and no others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.core.calibration import UNFITTED_CAP, Calibrated, Calibration
from liner_server.core.claims import Claim
from liner_server.core.ledger import Ledger, Policy
from liner_server.core.openings import EVEN, Openings

CALIBRATED = track_pb2.CONFIDENCE_BASIS_CALIBRATED
UNCALIBRATED = track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
RULE = track_pb2.CONFIDENCE_BASIS_RULE
UNFITTED = Calibrated(probability=UNFITTED_CAP, basis=UNCALIBRATED)


def claim(field="genre", value="Jazz", confidence=0.6, basis=UNCALIBRATED, **rest):
    """Return what a model says of the genre, fitted to nothing unless the test says otherwise."""
    return Claim(
        field=field,
        value=value,
        source=rest.pop("source", track_pb2.SOURCE_MODEL),
        confidence=confidence,
        basis=basis,
        **rest,
    )


def openings(*claims, fields=("genre",), min_confidence=0.8):
    """Return what is open of a track of which this was claimed before any model was asked."""
    policy = Policy(
        overwrite=enrichment_pb2.OVERWRITE_POLICY_NEVER,
        min_confidence=min_confidence,
        fields=frozenset(fields),
    )
    return Openings(Ledger(track_pb2.Track(title="A"), policy), claims, policy)


def worth(known, said, ceiling=UNFITTED):
    """Return the fields that a model no surer than `ceiling` is asked about."""
    return known.worth_another(said, lambda _: ceiling)


def test_two_scores_that_nothing_was_fitted_to_are_not_both_bought():
    """Both together stay at the cap: the second one changes nothing and costs as much."""
    assert openings().weak([claim()]) == {"genre"}
    assert worth(openings(), [claim()]) == frozenset()


def test_a_fitted_model_is_asked_where_it_can_settle_the_field():
    """It may be sure enough alone, whatever the first one guessed."""
    fitted = Calibrated(probability=0.9, basis=CALIBRATED)

    assert worth(openings(), [claim()], fitted) == {"genre"}


def test_a_fitted_model_that_is_never_sure_enough_is_not_asked():
    """Its curve says that no answer of it is right in more than 55 of 100 cases."""
    unsure = Calibrated(probability=0.55, basis=CALIBRATED)

    assert worth(openings(), [claim(confidence=0.6, basis=CALIBRATED)], unsure) == frozenset()


def test_a_field_without_a_value_is_asked_about():
    """A proposal is better than none, however weak."""
    silent = claim(value="", confidence=0.0, reason="qwen2: could not tell")

    assert worth(openings(), []) == {"genre"}
    assert worth(openings(), [silent]) == {"genre"}


def test_that_there_is_none_is_an_answer():
    """Most titles have no version: asking a second model about each would be most of its bill."""
    known = openings(fields=("version_title",))
    none = claim("version_title", "", 0.0, absent=True)

    assert known.weak([none]) == {"version_title"}
    assert worth(known, [none]) == frozenset()


def test_a_contradiction_is_asked_about():
    """The tagger says one thing and the model another: a third opinion decides what is offered."""
    tagger = claim(value="Rock", source=track_pb2.SOURCE_MEASURED)

    assert worth(openings(tagger), [claim()]) == {"genre"}


def test_what_the_label_states_against_the_model_may_be_confirmed():
    """Stated 0.9 against 0.6 is 0.72; a second model that agrees with the label makes it 0.83."""
    stated = claim(value="Rock", confidence=0.9, basis=RULE, source=track_pb2.SOURCE_GIVEN)

    assert worth(openings(stated), [claim()]) == {"genre"}


def test_what_is_settled_is_not_asked_about():
    """Also by a caller who is content with less."""
    assert worth(openings(), [claim(confidence=0.85, basis=CALIBRATED)]) == frozenset()
    assert worth(openings(min_confidence=0.5), [claim()]) == frozenset()
    assert worth(openings(min_confidence=0.0), []) == {"genre"}, "nothing is not a value"


@given(
    first=st.floats(0.01, 0.6), second=st.floats(0.01, 0.6), value=st.sampled_from(["Jazz", "Rock"])
)
def test_no_answer_of_a_model_that_was_passed_over_would_have_settled_the_field(
    first: float, second: float, value: str
) -> None:
    """The rule saves calls and never a result."""
    known, said = openings(), [claim(confidence=first)]

    if worth(known, said) == frozenset():
        assert first >= EVEN
        assert known.weak([*said, claim(value=value, confidence=second)]) == {"genre"}


@pytest.mark.parametrize(
    ("slope", "highest", "most"), [(1.0, 0.9, 0.9), (0.0, 0.9, 0.5), (1.0, 1.0, 0.999)]
)
def test_a_curve_tells_how_sure_it_can_get(slope: float, highest: float, most: float) -> None:
    """No answer can be surer than at the best score, nor than the data allowed."""
    row = {"field": "genre", "source": "q", "intercept": 0.0, "score": slope, "highest": highest}
    table = Calibration.parse({"curves": [row | {"weights": {}, "means": {}}]})

    found = table.ceiling("genre", "q")

    assert found.basis == CALIBRATED
    assert found.probability == pytest.approx(most)
    assert found.probability >= table.calibrated("genre", "q", 1.0).probability
    assert table.ceiling("genre", "another") == UNFITTED
