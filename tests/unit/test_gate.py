import numpy as np
import pytest
from liner_server.audio import gate, loop
from liner_server.audio.gate import classify_content
from liner_server.audio.measurements import Content
from liner_server.audio.spectra import SAMPLE_RATE
from liner_server.audio.tables import load_table
from liner_server.evaluation.sounds import render_sound
from liner_server.evaluation.synth import Piece, render


@pytest.mark.parametrize("kind", ["speech", "noise", "engine", "calls", "knocks"])
def test_what_is_not_music_is_not_called_music(kind: str) -> None:
    """A tempo for a reading and a key for a bird are invented, however they were computed."""
    mono = render_sound(kind, seconds=12, seed=905, sample_rate=SAMPLE_RATE).mean(1)

    content, score = classify_content(mono)

    assert content is (Content.SPEECH if kind == "speech" else Content.NOISE)
    assert 0 < score <= 1


@pytest.mark.parametrize(
    ("style", "seconds"),
    [("drums", 4.0), ("solo", 15.0), ("ambient", 20.0), ("bass line", 8.0), ("chorale", 15.0)],
)
def test_thin_music_is_still_music(style: str, seconds: float) -> None:
    """Drum loops, one flute and drones are what people sell too: refusing them costs answers."""
    piece = Piece(bpm=120, key="D minor", style=style, seconds=seconds, seed=12)

    content, _ = classify_content(render(piece, sample_rate=SAMPLE_RATE).mean(1))

    assert content is Content.MUSIC


@pytest.mark.parametrize("style", ["drums", "metronome", "bass line", "techno", "riff"])
@pytest.mark.parametrize("beats", [4, 8])
def test_a_loop_of_a_bar_or_two_is_music(style: str, beats: int) -> None:
    """Sample packs hold little else, and a loop that is refused gets no answer at all."""
    piece = Piece(bpm=160, key="D minor", style=style, seconds=beats * 60 / 160, seed=12)

    content, _ = classify_content(render(piece, sample_rate=SAMPLE_RATE).mean(1))

    assert content is Content.MUSIC


@pytest.mark.parametrize("kind", ["speech", "noise", "engine", "calls"])
@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.0])
def test_a_short_sound_is_not_taken_for_a_loop(kind: str, seconds: float) -> None:
    """Letting loops through must not let words and cries through."""
    mono = render_sound(kind, seconds=seconds, seed=905, sample_rate=SAMPLE_RATE).mean(1)

    content, _ = classify_content(mono)

    assert content is not Content.MUSIC


@pytest.mark.parametrize("samples", [0, 1, 10 * SAMPLE_RATE])
def test_nothing_audible_is_silence(samples: int) -> None:
    """Ten seconds of dither hold as little as no samples at all."""
    content, score = classify_content(np.full(samples, 3e-5, np.float32))

    assert (content, score) == (Content.SILENCE, 1.0)


@pytest.mark.parametrize("samples", [1, 30, 1000])
def test_a_click_is_answered_without_failing(samples: int) -> None:
    """Some files hold a single sample; they are a status, not a crash."""
    content, score = classify_content(np.full(samples, 0.5, np.float32))

    assert content in gate.CLASSES
    assert np.isfinite(score)


def test_the_table_was_fitted_on_the_measures_that_the_code_takes() -> None:
    """A measure added or renamed without a new fit would silently weigh the wrong thing."""
    mono = np.sin(np.arange(SAMPLE_RATE) * 0.06).astype(np.float32)

    names, values = gate.describe(mono)
    embedding = gate.embedding_of(mono)

    assert load_table("gate").features[: len(names)] == tuple(names)
    assert len(load_table("gate").features) == len(names) + embedding.shape[1]
    assert values.shape == (len(names),)
    assert load_table("loop_gate").features == tuple(loop.describe(loop.measure(mono))[0])


def test_what_the_tagger_heard_need_not_be_heard_again() -> None:
    """The network costs most of the gate's time, and the tagger runs it anyway."""
    piece = Piece(bpm=120, key="D minor", style="rock", seconds=9, seed=4)
    mono = render(piece, sample_rate=SAMPLE_RATE).mean(1)

    alone = classify_content(mono)
    shared = classify_content(mono, embedding=gate.embedding_of(mono))

    assert alone == shared
