"""From the tagger's words to claims: Liner's vocabulary, honest numbers, nothing invented."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import track_pb2
from liner_server.audio import musicnn
from liner_server.audio.measurements import Tagging, Tempo
from liner_server.core import tagging
from liner_server.core.calibration import UNFITTED_CAP, Calibration
from liner_server.core.vocabulary import VOCABULARIES

NO_TEMPO = Tempo(bpm=None, score=0.0)
scores = st.floats(0, 1)


def heard(songs: dict[str, float], sounds: dict[str, float]) -> Tagging:
    """What the tagger would say with every other word at nothing."""
    return Tagging(
        songs=dict.fromkeys(musicnn.TAGS["MSD"], 0.0) | songs,
        sounds=dict.fromkeys(musicnn.TAGS["MTT"], 0.0) | sounds,
        energy=0.5,
    )


def test_every_word_that_is_read_exists_and_every_answer_is_in_the_vocabulary() -> None:
    """A misspelled word would never be heard, and nobody would notice."""
    for words, known in (
        (tagging.SONG_GENRES, "MSD"),
        (tagging.SOUND_GENRES, "MTT"),
        (tagging.MOODS, "MSD"),
        (tagging.INSTRUMENTS, "MTT"),
    ):
        assert {word for group in words.values() for word in group} <= set(musicnn.TAGS[known])
    genres = {*tagging.SONG_GENRES, *tagging.SOUND_GENRES}
    assert genres <= set(VOCABULARIES["genre"])
    assert set(tagging.MOODS) <= set(VOCABULARIES["moods"])
    assert {*tagging.INSTRUMENTS, "Vocals"} <= set(VOCABULARIES["instruments"])


@given(
    songs=st.fixed_dictionaries(dict.fromkeys(musicnn.TAGS["MSD"], scores)),
    sounds=st.fixed_dictionaries(dict.fromkeys(musicnn.TAGS["MTT"], scores)),
)
def test_no_claim_is_surer_than_an_unfitted_score_may_be(
    songs: dict[str, float], sounds: dict[str, float]
) -> None:
    """Nothing was fitted, so nothing here may fill a field by itself."""
    claims = list(tagging.tagging_claims(heard(songs, sounds), NO_TEMPO, Calibration({})))

    for claim in claims:
        assert claim.confidence <= UNFITTED_CAP
        assert claim.basis == track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
        assert claim.confidence + sum(p for _, p in claim.others) <= 1 + 1e-9
        if claim.field in VOCABULARIES:
            assert set(claim.value.split("; ")) <= set(VOCABULARIES[claim.field])


def test_a_tagger_that_hears_nothing_clear_names_no_genre() -> None:
    """An empty answer is better than the word that happens to stand first."""
    claims = list(tagging.tagging_claims(heard({}, {}), NO_TEMPO, Calibration({})))

    assert [claim.field for claim in claims] == ["energy"]


def test_strings_that_no_song_tag_fits_are_classical() -> None:
    """Nobody tagged songs with "classical": an orchestra is jazz to that network alone."""
    found = tagging.genres(heard({"jazz": 0.39}, {"classical": 0.68}))

    assert [name for name, _ in found] == ["Classical", "Jazz"]


def test_a_voice_counts_only_where_it_beats_the_words_for_none() -> None:
    """Both are always a little true."""
    sung = heard({}, {"male vocal": 0.3, "no vocals": 0.1})
    played = heard({"instrumental": 0.4}, {"male vocal": 0.3})

    assert tagging.instruments(sung) == [("Vocals", 0.3)]
    assert tagging.instruments(played) == []


@pytest.mark.parametrize(
    ("bpm", "stability", "least", "most"),
    [(118, 1.0, 0.99, 1.0), (118, 0.5, 0.45, 0.55), (60, 1.0, 0.0, 0.2), (174, 1.0, 0.3, 0.6)],
)
def test_danceability_wants_a_steady_beat_at_a_dancers_pace(
    bpm: float, stability: float, least: float, most: float
) -> None:
    """The rule as its docstring states it."""
    found = tagging.danceability(Tempo(bpm=bpm, score=0.9, stability=stability))

    assert found is not None
    assert least <= found <= most


def test_without_a_beat_there_is_no_danceability() -> None:
    """Unknown is not zero."""
    assert tagging.danceability(NO_TEMPO) is None
