from pathlib import Path

import av
import numpy as np
import pytest
from liner_server.evaluation.encode import FORMATS, write
from liner_server.evaluation.score import key_is_heard
from liner_server.evaluation.sounds import SOUNDS, render_sound
from liner_server.evaluation.styles import STYLES
from liner_server.evaluation.synth import Piece, draw, render

RATE = 22_050


@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_style_sounds_and_stays_below_full_scale(style: str) -> None:
    """A style that renders silence would teach and test nothing."""
    piece = Piece(bpm=120, key="G minor", style=style, seconds=4, seed=1)

    samples = render(piece, sample_rate=RATE)

    assert samples.shape == (4 * RATE, 2)
    assert samples.dtype == np.float32
    assert 0.05 < float(np.abs(samples).max()) < 1


def test_the_same_piece_is_the_same_samples() -> None:
    """Figures can only be compared if everyone scores the same sounds."""
    piece = draw(17)

    assert draw(17) == piece
    assert np.array_equal(render(piece, sample_rate=RATE), render(piece, sample_rate=RATE))


def test_another_seed_is_another_piece() -> None:
    """Fit and report must not share their examples."""
    assert len({draw(seed) for seed in range(50)}) == 50


def test_drums_fall_on_the_beat() -> None:
    """The known tempo is the tempo heard: the tests of listening rest on it."""
    piece = Piece(bpm=150, key="C major", style="metronome", seconds=6, seed=3)

    mono = np.abs(render(piece, sample_rate=RATE).mean(1))

    loud = mono[: 15 * int(RATE * 0.4)].reshape(15, -1)
    assert (loud[:, : RATE // 20].max(1) > 3 * loud[:, -RATE // 20 :].max(1)).all()


def test_loops_are_of_all_lengths_and_ends() -> None:
    """What the tables are fitted on decides what they can do: not only tidy ones."""
    drawn = [draw(seed, loop=True) for seed in range(300)]

    beats = [piece.seconds * piece.bpm / 60 for piece in drawn]
    exact = [abs(count - round(count)) < 0.01 for count in beats]
    assert 0.4 < sum(exact) / len(exact) < 0.8
    assert sum(piece.seconds < 3 for piece in drawn) > 60
    assert any(piece.stop_beat is not None for piece in drawn)
    assert any(piece.delay_seconds for piece in drawn)
    assert any(piece.octave_open for piece in drawn)
    assert all(piece.seconds >= 1 for piece in drawn if piece.stop_beat is None)


def test_after_the_last_beat_of_a_loop_nothing_begins() -> None:
    """What rings on after a loop must be a tail, and not the next bar."""
    piece = Piece(bpm=120, key="C major", style="metronome", seconds=4, stop_beat=4, seed=3)

    mono = np.abs(render(piece, sample_rate=RATE).mean(1))

    assert mono[: 2 * RATE].max() > 0.1
    assert mono[int(2.6 * RATE) :].max() < 0.01


def test_a_single_drum_can_be_left_of_a_groove() -> None:
    """Nobody can say whether a lone hat plays fourths or eighths: both are right."""
    hat = Piece(bpm=120, key="C major", style="drums", mute=("kick", "snare"))
    kit = Piece(bpm=120, key="C major", style="drums")

    assert hat.octave_open
    assert not kit.octave_open
    assert not Piece(bpm=120, key="C major", style="metronome").octave_open


def test_a_riff_of_one_chord_does_not_say_its_key() -> None:
    """A label that nobody can hear would count a good ear wrong."""
    riff = Piece(bpm=120, key="G major", style="riff", seconds=2, seed=3)
    ballad = Piece(bpm=70, key="G major", style="chorale", seconds=30, seed=3)

    assert not key_is_heard(riff)
    assert key_is_heard(ballad)


def test_drums_do_not_say_their_key() -> None:
    """Every piece is drawn with a key, and some have no note."""
    assert not key_is_heard(Piece(bpm=120, key="G major", style="drums", seconds=20))


@pytest.mark.parametrize("kind", sorted(SOUNDS))
def test_sounds_that_are_not_music_are_deterministic_too(kind: str) -> None:
    """The gate is judged on them."""
    once = render_sound(kind, seconds=2, seed=4, sample_rate=RATE)

    assert once.shape == (2 * RATE, 2)
    assert np.abs(once).max() <= 1
    assert np.array_equal(once, render_sound(kind, seconds=2, seed=4, sample_rate=RATE))


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_is_written_whole_and_tagged(tmp_path: Path, extension: str) -> None:
    """The demo and the tests of decoding hang on these files."""
    path = tmp_path / f"piece{extension}"
    rate = 48_000
    samples = render(Piece(bpm=120, key="A minor", seconds=2), sample_rate=rate)

    write(path, samples, rate, tags={"title": "Hé"})

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        titles = {**container.metadata, **stream.metadata}
        frames = sum(frame.samples for frame in container.decode(audio=0))
    assert frames == pytest.approx(2 * rate, abs=3000)
    assert titles["title"] == "Hé"
