import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.core.keys import KEYS, NOTES, parse_key, relation

_SPELLINGS = {
    "A minor": ("A minor", "Am", "a min", "A-moll", "8A", "08a", "1m"),
    "C major": ("C", "C major", "Cmaj", "8B", "1d"),
    "F# minor": ("F♯m", "Gbm", "f# minor", "11A", "4m"),
    "C# major": ("Db", "C#", "D♭ major", "d-flat", "3B", "8d"),
    "Bb minor": ("A#m", "Bbm", "B♭ minor", "3A"),
    "B minor": ("Bm", "b minor", "Cb min"),
    "Ab minor": ("G#m", "g sharp minor", "1A"),
}


@pytest.mark.parametrize(
    ("text", "key"), [(text, key) for key, texts in _SPELLINGS.items() for text in texts]
)
def test_every_spelling_of_a_key_is_read_as_the_same_key(text: str, key: str) -> None:
    """Labels, DJ programs and notation programs all write keys their own way."""
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["", "H", "13A", "0A", "A dorian", "Am7", "unknown", "A" * 10_000])
def test_what_is_no_key_is_not_guessed_at(text: str) -> None:
    """A guess here would be published as the label's own statement."""
    assert parse_key(text) is None


def test_camelot_and_open_key_name_all_24_keys() -> None:
    """Both wheels are bijections; a slip in the arithmetic would name a key twice."""
    camelot = {parse_key(f"{hour}{side}") for hour in range(1, 13) for side in "AB"}
    open_key = {parse_key(f"{hour}{side}") for hour in range(1, 13) for side in "md"}

    assert camelot == open_key == set(KEYS)


@given(st.text(max_size=60))
def test_a_read_key_is_canonical_and_reads_as_itself(text: str) -> None:
    """Keys are compared as text everywhere else."""
    key = parse_key(text)

    assert key is None or (key in KEYS and parse_key(key) == key)


def test_relations_are_symmetric_and_the_relative_shares_its_notes() -> None:
    """The validator forgives the relative key in either direction."""
    assert all(relation(a, b) == relation(b, a) for a in KEYS for b in KEYS)
    assert relation("C major", "A minor") == "relative"
    assert relation("C major", "G major") == "fifth"
    assert relation("C major", "C minor") == "parallel"
    assert relation("C major", "F# major") == ""
    assert len(NOTES) == 12
