"""The ledger: which value wins, how sure it is, and what may be overwritten."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.core.claims import Claim
from liner_server.core.evidence import GIVEN_TRUST
from liner_server.core.fields import FIELDS, read, write
from liner_server.core.ledger import Policy, given_claims, settle
from liner_server.core.policy_page import page

GIVEN, TAG = track_pb2.SOURCE_GIVEN, track_pb2.SOURCE_TAG
MEASURED, MODEL = track_pb2.SOURCE_MEASURED, track_pb2.SOURCE_MODEL
CALIBRATED = track_pb2.CONFIDENCE_BASIS_CALIBRATED
RULE = track_pb2.CONFIDENCE_BASIS_RULE
UNCALIBRATED = track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
NEVER = enrichment_pb2.OVERWRITE_POLICY_NEVER
CONFIDENT = enrichment_pb2.OVERWRITE_POLICY_WHEN_CONFIDENT
ALWAYS = enrichment_pb2.OVERWRITE_POLICY_ALWAYS


def claim(field, value, source=MEASURED, confidence=0.9, basis=CALIBRATED, others=(), reason=""):
    """Return a claim, sure and fitted unless the test says otherwise."""
    return Claim(
        field=field,
        value=value,
        source=source,
        confidence=confidence,
        basis=basis,
        others=others,
        reason=reason,
    )


def decide(track, claims, overwrite=NEVER, fields=()):
    """Return the enriched track and the results by field."""
    policy = Policy(overwrite=overwrite, min_confidence=0.8, fields=frozenset(fields))
    enriched, results = settle(track, [*given_claims(track, GIVEN_TRUST), *claims], policy)
    return enriched, {result.field: result for result in results}


def test_an_empty_field_is_filled_when_the_claim_is_sure_enough():
    """What a caller asks for: the value, set in the track."""
    enriched, results = decide(track_pb2.Track(title="A"), [claim("bpm", "120", confidence=0.93)])

    assert enriched.bpm == 120
    assert results["bpm"].decision == track_pb2.DECISION_FILLED
    assert results["bpm"].confidence == pytest.approx(0.93)
    assert results["bpm"].confidence_basis == CALIBRATED


def test_a_doubtful_value_is_offered_and_not_written():
    """A value below the threshold in the catalogue is how catalogues rot."""
    enriched, results = decide(track_pb2.Track(title="A"), [claim("bpm", "120", confidence=0.7)])

    assert not enriched.HasField("bpm")
    assert results["bpm"].decision == track_pb2.DECISION_PROPOSED
    assert results["bpm"].value == "120"


def test_a_hopeless_value_is_not_even_offered():
    """Abstaining is an answer; a guess costs the editor time."""
    _, results = decide(track_pb2.Track(title="A"), [claim("bpm", "120", confidence=0.2)])

    assert results["bpm"].decision == track_pb2.DECISION_ABSTAINED
    assert results["bpm"].value == ""
    assert results["bpm"].confidence == 0


def test_a_listener_that_could_not_tell_says_why():
    """ "Unknown" without a reason is a support ticket."""
    _, results = decide(track_pb2.Track(title="A"), [claim("bpm", "", reason="speech, not music")])

    assert results["bpm"].decision == track_pb2.DECISION_ABSTAINED
    assert results["bpm"].reason == "speech, not music"


@pytest.mark.parametrize("overwrite", [NEVER, enrichment_pb2.OVERWRITE_POLICY_UNSPECIFIED])
def test_what_the_label_stated_stays_by_default(overwrite):
    """The first promise: no field that came in is overwritten silently."""
    given_track = track_pb2.Track(title="A", bpm=60)

    enriched, results = decide(given_track, [claim("bpm", "120", confidence=0.97)], overwrite)

    assert enriched.bpm == 60
    assert results["bpm"].decision == track_pb2.DECISION_PROPOSED
    assert (results["bpm"].given_value, results["bpm"].value) == ("60", "120")
    assert "half" in results["bpm"].reason


def test_a_sure_value_corrects_under_the_policy_that_allows_it():
    """WHEN_CONFIDENT is what an ingest engineer sets for a dirty catalogue."""
    enriched, results = decide(
        track_pb2.Track(title="A", bpm=60), [claim("bpm", "120", confidence=0.97)], CONFIDENT
    )

    assert enriched.bpm == 120
    assert results["bpm"].decision == track_pb2.DECISION_CORRECTED
    assert [a.value for a in results["bpm"].alternatives] == ["60"]


def test_identity_fields_need_the_policy_always():
    """A wrong title or ISRC is worse than none: they say which recording this is."""
    given_track = track_pb2.Track(title="Blue", isrc="USRC17607839")
    claims = [
        claim("title", "Red", TAG, 0.99, CALIBRATED),
        claim("isrc", "GBAYE6800011", TAG, 0.99, CALIBRATED),
    ]

    kept, _ = decide(given_track, claims, CONFIDENT)
    replaced, _ = decide(given_track, claims, ALWAYS)

    assert (kept.title, kept.isrc) == ("Blue", "USRC17607839")
    assert (replaced.title, replaced.isrc) == ("Red", "GBAYE6800011")


def test_agreement_keeps_the_callers_own_spelling():
    """A label's "Beyoncé" must not become the tag's "BEYONCE"."""
    enriched, results = decide(
        track_pb2.Track(title="Café del Mar"), [claim("title", "CAFE DEL MAR", TAG, 0.85, RULE)]
    )

    assert enriched.title == "Café del Mar"
    assert results["title"].decision == track_pb2.DECISION_KEPT
    assert list(results["title"].agreed_by) == [TAG]


def test_what_was_counted_is_filled_whatever_is_asked_for():
    """A caller who wants certainty alone still gets the duration."""
    exact = claim("properties.channels", "2", MEASURED, 1.0, track_pb2.CONFIDENCE_BASIS_EXACT)
    policy = Policy(overwrite=NEVER, min_confidence=1.0, fields=frozenset())

    enriched, _ = settle(track_pb2.Track(title="A"), [exact], policy)
    stated = track_pb2.Track(title="A")
    stated.properties.channels = 1
    kept, results = decide(stated, [exact])

    assert enriched.properties.channels == 2
    assert kept.properties.channels == 1
    assert results["properties.channels"].decision == track_pb2.DECISION_PROPOSED


def test_two_that_agree_are_surer_than_each_and_no_surer_than_their_basis_allows():
    """Unfitted agreement may raise a number to 0.9 and no further."""
    one, two = claim("key", "A minor", MEASURED, 0.8), claim("key", "A minor", TAG, 0.8, RULE)

    _, results = decide(track_pb2.Track(title="A"), [one, two])

    assert results["key"].confidence == pytest.approx(0.9)
    assert results["key"].confidence_basis == RULE


_STATED = {
    "genre": ("Jazz", "Rock", "Pop"),
    "bpm": ("70", "140", "97"),
    "key": ("C major", "A minor", "F# minor"),
    "energy": ("0.1", "0.5", "0.9"),
}


@settings(max_examples=400)
@given(data=st.data(), path=st.sampled_from(sorted(_STATED)))
def test_who_agrees_takes_nothing_away(data, path):
    """An editor who sees a second source join must not see the number fall for it."""
    values = st.sampled_from(_STATED[path])
    claims = data.draw(
        st.lists(
            st.builds(
                claim,
                field=st.just(path),
                value=values,
                source=st.sampled_from([TAG, MEASURED, MODEL]),
                confidence=st.floats(0.05, 0.98),
                basis=st.sampled_from([CALIBRATED, RULE, UNCALIBRATED]),
            ),
            min_size=1,
            max_size=4,
        )
    )
    joining = data.draw(st.floats(0.05, 0.98))
    _, before = decide(track_pb2.Track(title="A"), claims)
    chosen = before[path]
    if chosen.decision == track_pb2.DECISION_ABSTAINED:
        return

    more = [*claims, claim(path, chosen.value, MODEL, joining, UNCALIBRATED)]
    _, after = decide(track_pb2.Track(title="A"), more)

    assert after[path].value == chosen.value
    assert after[path].confidence >= chosen.confidence - 1e-4


def test_a_rival_that_means_the_same_makes_nothing_surer():
    """A list of candidates may hold 120 and 121: both are the answer, whose number was fitted."""
    twice = claim("bpm", "120", MEASURED, 0.7, others=(("121", 0.25), ("60", 0.05)))

    _, results = decide(track_pb2.Track(title="A"), [twice])

    assert results["bpm"].confidence == pytest.approx(0.7, abs=0.001)


def test_abstaining_does_not_hide_what_was_said():
    """ "No source says anything" beside an alternative would be untrue."""
    track = track_pb2.Track(title="A")
    _, fitted = decide(track, [claim("genre", "Jazz", MODEL, 0.2)])
    _, guessed = decide(track, [claim("genre", "Jazz", MODEL, 0.2, UNCALIBRATED)])
    _, silent = decide(track_pb2.Track(title="A"), [], fields=("genre",))

    assert fitted["genre"].reason == "the best that was said, Jazz, is only 20% sure"
    assert guessed["genre"].reason == (
        "the best that was said, Jazz, is only a guess: its score of 0.20 was fitted to nothing"
    )
    assert silent["genre"].reason == "no source says anything about it"


def test_what_was_counted_corrects_whatever_certainty_is_asked_for():
    """Under WHEN_CONFIDENT a caller asks for no more than certainty, and counting is that."""
    exact = claim("properties.channels", "2", MEASURED, 1.0, track_pb2.CONFIDENCE_BASIS_EXACT)
    stated = track_pb2.Track(title="A")
    stated.properties.channels = 1
    policy = Policy(overwrite=CONFIDENT, min_confidence=1.0, fields=frozenset())

    enriched, results = settle(stated, [*given_claims(stated, GIVEN_TRUST), exact], policy)

    [result] = [r for r in results if r.field == "properties.channels"]
    assert enriched.properties.channels == 2
    assert result.decision == track_pb2.DECISION_CORRECTED
    assert result.confidence + sum(a.confidence for a in result.alternatives) <= 1.0001


def test_a_reason_is_a_sentence_however_long_the_value_is():
    """Lyrics have up to 64 KiB; an editor reads a line."""
    words = "la " * 20_000
    track = track_pb2.Track(title="A", lyrics=words)

    _, results = decide(track, [claim("lyrics", "na " * 20_000, TAG, 0.98, CALIBRATED)])

    assert results["lyrics"].decision == track_pb2.DECISION_PROPOSED
    assert len(results["lyrics"].reason) < 200


def test_contradiction_lowers_confidence():
    """Two witnesses who disagree leave more doubt than either alone."""
    alone, _ = 0.9, None
    _, results = decide(
        track_pb2.Track(title="A"),
        [claim("bpm", "120", MEASURED, alone), claim("bpm", "97", TAG, 0.6, RULE)],
    )

    assert results["bpm"].value == "120"
    assert results["bpm"].confidence < alone


def chance(result, value):
    """Return the probability that a result gives a value, chosen or not."""
    if result.value == value:
        return result.confidence
    return next((a.confidence for a in result.alternatives if a.value == value), 0.0)


def test_an_octave_that_was_listed_as_possible_speaks_for_the_callers_value():
    """87 against 174: a rival that listening held possible is not a contradiction."""
    listed = claim("bpm", "174", MEASURED, 0.6, others=(("87", 0.35),))
    unlisted = claim("bpm", "174", MEASURED, 0.6, others=(("116", 0.35),))
    track = track_pb2.Track(title="A", bpm=87)

    _, with_it = decide(track, [listed])
    _, without = decide(track, [unlisted])

    assert with_it["bpm"].decision == track_pb2.DECISION_KEPT
    assert chance(with_it["bpm"], "87") > chance(without["bpm"], "87")


def test_who_errs_by_an_octave_or_a_relative_key_confirms_more_than_a_stranger():
    """A label that says 70 where 140 is heard counted every second beat: 140 gains by it."""
    for field, stated, akin, strange in (
        ("bpm", "70", "140", "97"),
        ("key", "C major", "A minor", "F# minor"),
    ):
        given = claim(field, stated, TAG, 0.7, RULE)

        _, close = decide(track_pb2.Track(title="A"), [claim(field, akin), given])
        _, far = decide(track_pb2.Track(title="A"), [claim(field, strange), given])

        assert close[field].value == akin
        assert chance(close[field], akin) > chance(far[field], strange) + 0.1


def test_lists_that_share_most_names_agree():
    """Two who hear guitar and drums agree, whatever else one of them hears."""
    same = [
        claim("instruments", "Guitar; Drums; Piano", MEASURED, 0.7, RULE),
        claim("instruments", "drums; guitar", MODEL, 0.7, RULE),
    ]
    other = [same[0], claim("instruments", "Harp; Flute", MODEL, 0.7, RULE)]

    _, agreed = decide(track_pb2.Track(title="A"), same)
    _, split = decide(track_pb2.Track(title="A"), other)

    assert list(agreed["instruments"].agreed_by) == [MODEL]
    assert agreed["instruments"].confidence > 0.7 > split["instruments"].confidence


def test_energies_that_round_alike_agree():
    """Nobody's rule for energy is exact to a tenth."""
    claims = [
        claim("energy", "0.71", MEASURED, 0.7, RULE),
        claim("energy", "0.8", MODEL, 0.7, RULE),
        claim("energy", "0.4", MODEL, 0.7, RULE),
    ]

    _, results = decide(track_pb2.Track(title="A"), claims)

    assert list(results["energy"].agreed_by) == [MODEL]
    assert [a.value for a in results["energy"].alternatives] == ["0.4"]


def test_a_model_alone_never_decides_tempo_or_key():
    """Audio language models are near chance at them: such a value is only offered."""
    claims = [
        claim("bpm", "120", MODEL, 0.99, CALIBRATED),
        claim("key", "A minor", MODEL, 0.99, CALIBRATED),
        claim("genre", "Techno", MODEL, 0.99, CALIBRATED),
    ]

    for overwrite in (NEVER, CONFIDENT, ALWAYS):
        enriched, results = decide(track_pb2.Track(title="A"), claims, overwrite)

        assert not enriched.HasField("bpm")
        assert not enriched.HasField("key")
        assert results["bpm"].decision == track_pb2.DECISION_PROPOSED
        assert enriched.genre == "Techno"


def test_an_asked_field_that_nobody_knows_is_answered_too():
    """A caller who asks for a field gets a line for it, even if the line says "unknown"."""
    _, results = decide(track_pb2.Track(title="A"), [], fields=("genre", "bpm"))

    assert list(results) == ["genre", "bpm"]
    assert {r.decision for r in results.values()} == {track_pb2.DECISION_ABSTAINED}


_texts = st.text(st.characters(codec="utf-8", exclude_characters=";()"), min_size=1, max_size=12)
_sources = st.sampled_from([TAG, MEASURED, MODEL])
_bases = st.sampled_from([CALIBRATED, RULE, UNCALIBRATED])
_shares = st.floats(0, 1)


@settings(max_examples=200)
@given(
    claims=st.lists(
        st.builds(
            claim,
            field=st.just("genre"),
            value=_texts,
            source=_sources,
            confidence=_shares,
            basis=_bases,
            others=st.lists(st.tuples(_texts, _shares), max_size=3).map(tuple),
        ),
        max_size=5,
    ),
    given_genre=st.none() | _texts,
    overwrite=st.sampled_from([NEVER, CONFIDENT, ALWAYS]),
)
def test_whatever_is_claimed_confidences_are_probabilities(claims, given_genre, overwrite):
    """Values exclude each other, so their probabilities are in [0, 1] and sum to at most one."""
    track = track_pb2.Track(title="A", genre=given_genre)
    before = track.SerializeToString()

    enriched, results = decide(track, claims, overwrite, fields=("genre",))

    result = results["genre"]
    total = result.confidence + sum(a.confidence for a in result.alternatives)
    assert 0 <= result.confidence <= 1
    assert total <= 1.001
    assert track.SerializeToString() == before
    if given_genre and overwrite == NEVER:
        assert enriched.genre == given_genre
    if result.decision == track_pb2.DECISION_ABSTAINED:
        assert result.value == ""
        assert result.reason


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_survives_being_written_and_read(path):
    """The text form is what the ledger compares; it must not lose anything."""
    examples = {
        "artists": "Ana; Ben (featured); Cy (remixer)",
        "parental_warning": "EXPLICIT",
        "properties.duration": "213.457",
        "territories": "DE; FR",
    }
    field = FIELDS[path]
    kind = field.kind.name
    text = examples.get(path) or {"NUMBER": "42", "TEMPO": "119.5", "LIST": "a; b"}.get(kind, "x")
    track = track_pb2.Track()

    assert read(track, path) is None
    write(track, path, text)

    assert read(track, path) == text


def test_what_is_known_of_an_artist_outlives_a_changed_list():
    """An ISNI that the label sent must not vanish because a featured artist was added."""
    track = track_pb2.Track(artists=[track_pb2.Artist(name="Ana", isni="0000000121032683")])

    write(track, "artists", "Ana; Ben (featured)")

    assert track.artists[0].isni == "0000000121032683"
    assert track.artists[1].role == track_pb2.ARTIST_ROLE_FEATURED


def test_the_published_policy_is_the_one_in_force():
    """`python -m liner_server.core.policy_page > docs/policy.md` writes it."""
    written = Path(__file__).parents[2] / "docs" / "policy.md"

    assert written.read_text(encoding="utf-8") == page()


def test_the_scores_of_every_model_are_kept_and_weigh_nothing():
    """Also that of the value which lost: a calibration needs the wrong answers above all."""
    scores = [
        track_pb2.ModelScore(model=model, prompt_version="p", value=value, score=score)
        for model, value, score in (("a:m", "Jazz", 0.99), ("b:m", "Rock", 0.2))
    ]
    claims = [
        claim("genre", "Jazz", MODEL, 0.4, UNCALIBRATED),
        claim("genre", "Rock", MODEL, 0.5, UNCALIBRATED),
    ]
    kept = [replace(c, score=s) for c, s in zip(claims, scores, strict=True)]

    _, without = decide(track_pb2.Track(title="A"), claims)
    _, results = decide(track_pb2.Track(title="A"), kept)

    assert list(results["genre"].model_scores) == scores
    results["genre"].ClearField("model_scores")
    assert results == without
