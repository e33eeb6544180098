import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liner_server.audio import beatnet, rhythm, witness
from liner_server.audio.spectra import SAMPLE_RATE, Floats
from liner_server.audio.tables import load_table
from liner_server.audio.tempo import beat_features, estimate_tempo
from liner_server.evaluation.sounds import render_sound
from liner_server.evaluation.synth import Piece, render


@pytest.mark.parametrize(
    ("style", "bpm"),
    [("house", 126), ("rock", 96), ("waltz", 150), ("drum and bass", 174), ("folk", 92)],
)
def test_the_tempo_of_a_plain_piece_is_found(style: str, bpm: float) -> None:
    """The least that can be asked: no octave lost on music with an ordinary groove."""
    piece = Piece(bpm=bpm, key="A minor", style=style, seconds=15, seed=3)

    tempo = estimate_tempo(render(piece, sample_rate=SAMPLE_RATE).mean(1))

    assert tempo.bpm == pytest.approx(bpm, rel=0.04)
    assert tempo.stability is not None
    assert tempo.stability > 0.5


def test_a_short_loop_is_told_from_its_length() -> None:
    """Two bars are too short for a network that needs seconds, but a loop is whole beats long."""
    piece = Piece(bpm=140, key="C minor", style="breakbeat", seconds=8 * 60 / 140, seed=5)

    tempo = estimate_tempo(render(piece, sample_rate=SAMPLE_RATE).mean(1))

    assert tempo.bpm == pytest.approx(140, rel=0.01)


@pytest.mark.parametrize("beats", [4, 8, 16])
def test_the_tempo_of_a_lone_kick_follows_from_the_length(beats: int) -> None:
    """Sample packs hold single drums; their octave is anyone's guess, but not their grid."""
    piece = Piece(bpm=132, key="C minor", style="metronome", seconds=beats * 60 / 132, seed=7)

    tempo = estimate_tempo(render(piece, sample_rate=SAMPLE_RATE).mean(1))

    assert any(tempo.bpm == pytest.approx(132 * ratio, rel=0.01) for ratio in (0.5, 1, 2))
    assert any(bpm == pytest.approx(132, rel=0.01) for bpm, _ in tempo.candidates)


def test_the_length_of_a_song_is_no_evidence() -> None:
    """With a hundred beats a whole number of them is near any tempo."""
    piece = Piece(bpm=123.4, key="A minor", style="rock", seconds=50, seed=3)
    heard = rhythm.hear(render(piece, sample_rate=SAMPLE_RATE).mean(1))
    tempi = np.array([100.8, 120.0, 123.4])
    measured = dict(zip(*_columns(heard, tempi), strict=True))

    names, values = witness.describe(heard, tempi, measured, np.zeros(3))

    told = [name for name in names if "loop" in name or "strokes" in name or "power" in name]
    assert np.abs(values[:, [names.index(name) for name in told]]).max() == 0


def _columns(heard: rhythm.Rhythm, tempi: Floats) -> tuple[list[str], Floats]:
    names, values = rhythm.describe(heard, tempi)
    return names, values.T


@pytest.mark.parametrize("samples", [0, 1, 100, SAMPLE_RATE // 2])
def test_what_is_too_short_has_no_tempo_and_says_why(samples: int) -> None:
    """A guess from half a second would look like any other answer."""
    tempo = estimate_tempo(np.full(samples, 0.1, np.float32))

    assert tempo.bpm is None
    assert tempo.doubt


def test_silence_has_no_tempo() -> None:
    """Dither repeats at every rate."""
    tempo = estimate_tempo(np.full(5 * SAMPLE_RATE, 1e-6, np.float32))

    assert (tempo.bpm, tempo.doubt) == (None, "silence")


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.8, 3.0), st.sampled_from(["steps", "noise", "spike"]))
def test_candidates_are_ordered_shares_whatever_the_signal(
    seed: int, seconds: float, kind: str
) -> None:
    """Whoever reads the answer may rely on its form, however odd the sound."""
    rng = np.random.default_rng(seed)
    mono = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    if kind == "noise":
        mono += rng.standard_normal(len(mono)).astype(np.float32)
    elif kind == "spike":
        mono[rng.integers(len(mono))] = 1
    else:
        mono += np.sign(np.sin(np.arange(len(mono)) / rng.integers(5, 4000))).astype(np.float32)

    tempo = estimate_tempo(mono)

    scores = [score for _, score in tempo.candidates]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1 + 1e-9
    assert all(20 <= bpm <= 400 for bpm, _ in tempo.candidates)
    assert tempo.bpm is None or tempo.bpm == tempo.candidates[0][0]
    assert (tempo.bpm is None) == bool(tempo.doubt)


def test_a_long_signal_is_heard_in_chunks_as_it_would_be_whole() -> None:
    """Chunks run side by side to save time; the warm-up before each must make up for the cut."""
    piece = Piece(bpm=120, key="A minor", style="house", seconds=24, seed=1)
    mono = render(piece, sample_rate=SAMPLE_RATE).mean(1)

    chunked = beatnet.activations(mono)[0]
    whole = beatnet.networks()[0].run(beatnet._features(mono)[None])[0]

    assert chunked.shape == whole.shape
    assert np.allclose(chunked.sum(1), 1, atol=1e-5)
    assert np.corrcoef(chunked[:, 0], whole[:, 0])[0, 1] > 0.9


def test_weights_that_hold_anything_but_tensors_are_refused(tmp_path: Path) -> None:
    """A checkpoint is a pickle, and a pickle can run any code."""

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("harm",)

    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harm()))

    with pytest.raises(pickle.UnpicklingError, match=r"refused: builtins\.print"):
        beatnet.load_weights(path)


def test_the_tables_were_fitted_on_the_measures_that_the_code_takes() -> None:
    """A measure added or renamed without a new fit would silently weigh the wrong thing."""
    heard = rhythm.hear(render_sound("knocks", seconds=3, seed=1, sample_rate=SAMPLE_RATE).mean(1))

    names, values = rhythm.describe(heard, np.array([100.0, 120.0]))

    assert load_table("tempo").features == tuple(names)
    assert values.shape == (2, len(names))
    assert np.isfinite(values).all()
    assert load_table("pulse").features == tuple(beat_features(heard, np.ones(1))[0])
    told, rows = witness.describe(
        heard,
        np.array([100.0, 120.0]),
        dict(zip(names, values.T, strict=True)),
        np.zeros(2),
    )
    assert load_table("loop_tempo").features == tuple(told)
    assert np.isfinite(rows).all()
