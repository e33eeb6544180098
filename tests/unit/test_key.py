import numpy as np
import pytest
from liner_server.audio import chroma, key
from liner_server.audio.key import KEYS, estimate_key
from liner_server.audio.spectra import SAMPLE_RATE
from liner_server.audio.tables import load_table
from liner_server.core import keys
from liner_server.evaluation.synth import Piece, render


@pytest.mark.parametrize("name", ["C major", "F# minor", "Bb major", "E minor"])
def test_the_key_of_a_plain_piece_is_found(name: str) -> None:
    """The least that can be asked, in four corners of the circle of fifths."""
    piece = Piece(bpm=110, key=name, style="ballad", seconds=20, seed=2)

    found = estimate_key(render(piece, sample_rate=SAMPLE_RATE).mean(1))

    assert found.key == name
    assert found.candidates[0] == (name, found.score)


@pytest.mark.parametrize("cents", [-30, 30])
def test_a_detuned_piece_keeps_its_key(cents: float) -> None:
    """Tape, old pianos and early-music pitch are not a change of key."""
    piece = Piece(bpm=100, key="Eb major", style="ballad", seconds=20, seed=2, detune_cents=cents)

    found = estimate_key(render(piece, sample_rate=SAMPLE_RATE).mean(1))

    assert found.key == "Eb major"
    assert found.tuning_cents == pytest.approx(cents, abs=8)


def test_transposed_measures_are_rotated_measures() -> None:
    """What the table learned in one key holds in all: keys differ by their tonic alone."""
    rng = np.random.default_rng(7)
    frames, bass = rng.random((40, 12)), rng.random((40, 12))
    heard = chroma.Chroma(
        frames=frames, bass=bass, loudness=np.ones(40), tuning_cents=0, tuning_strength=1
    )
    higher = chroma.Chroma(
        frames=np.roll(frames, 3, 1), bass=np.roll(bass, 3, 1), loudness=np.ones(40),
        tuning_cents=0, tuning_strength=1,
    )  # fmt: skip

    _, before = key.describe(heard)
    _, after = key.describe(higher)

    assert np.allclose(np.roll(before[:12], 3, 0), after[:12])
    assert np.allclose(np.roll(before[12:], 3, 0), after[12:])


@pytest.mark.parametrize("style", ["drums", "clatter"])
def test_drums_alone_have_no_key(style: str) -> None:
    """Every drum has some pitch; a key made of it is invented."""
    piece = Piece(bpm=100, key="C major", style=style, seconds=12, seed=1)

    found = estimate_key(render(piece, sample_rate=SAMPLE_RATE).mean(1))

    assert found.key is None
    assert found.doubt == "no clear tonal centre"


@pytest.mark.parametrize("samples", [0, 1, SAMPLE_RATE // 4])
def test_what_is_too_short_has_no_key_and_says_why(samples: int) -> None:
    """One chord is in a dozen keys."""
    found = estimate_key(np.full(samples, 0.1, np.float32))

    assert found.key is None
    assert found.doubt


def test_keys_are_spelled_as_the_rest_of_liner_spells_them() -> None:
    """Two spellings of one key would be two claims that disagree."""
    assert KEYS == keys.KEYS


def test_the_tables_were_fitted_on_the_measures_that_the_code_takes() -> None:
    """A measure added or renamed without a new fit would silently weigh the wrong thing."""
    heard = chroma.measure(np.sin(np.arange(3 * SAMPLE_RATE) * 0.06).astype(np.float32))

    names, values = key.describe(heard)

    assert load_table("key").features == tuple(names)
    assert values.shape == (24, len(names))
    assert load_table("tonal").features == tuple(key.tonal_features(heard, np.ones(24))[0])
