import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liner_server.audio import loop
from liner_server.audio.spectra import SAMPLE_RATE, Floats
from liner_server.evaluation.synth import Piece, render


def _rendered(
    beats: float, *, style: str = "metronome", bpm: float = 120, start: float = 0.0
) -> Floats:
    piece = Piece(
        bpm=bpm, key="A minor", style=style, seconds=beats * 60 / bpm, seed=3, start_beat=start
    )
    return render(piece, sample_rate=SAMPLE_RATE).mean(1)


def test_strokes_are_where_they_were_played() -> None:
    """A grid of sixteenths is 90 ms wide: a tenth of that is all they may be off."""
    heard = loop.measure(_rendered(8))

    assert heard.strokes == pytest.approx(np.arange(8) / 2, abs=0.01)
    assert heard.weights.sum() == pytest.approx(1)
    assert heard.quiet_before == 0


def test_a_loop_lies_on_the_grid_that_begins_with_it_and_a_careless_cut_does_not() -> None:
    """This is what the length of a file is trusted for, and when."""
    cut, careless = (loop.measure(_rendered(8, start=start)) for start in (0.0, 0.37))

    beat = np.array([2.0])
    assert cut.on_grid(beat)[0] > 0.95
    assert careless.on_grid(beat)[0] < 0.5


def test_a_sound_that_dies_away_says_so() -> None:
    """Its length tells nothing of its tempo."""
    ringing = np.concatenate([_rendered(4), np.zeros(2 * SAMPLE_RATE, np.float32)])

    heard = loop.measure(ringing)

    assert heard.quiet_after > 1.9


def test_a_long_file_is_no_loop() -> None:
    """With a hundred beats every tempo makes some whole number of them."""
    heard = loop.measure(np.zeros(int(31 * SAMPLE_RATE), np.float32))

    assert len(heard.strokes) == 0
    assert (heard.on_grid(np.array([1.0, 2.0])) == 0).all()


@pytest.mark.parametrize("level", [1.0, 1e30])
def test_a_click_at_the_very_end_of_silence_is_no_loop(level: float) -> None:
    """What fills no whole hundredth of a second has no level, and the file is still answered."""
    click = np.zeros(SAMPLE_RATE + 50, np.float32)
    click[-10:] = level

    heard = loop.measure(click)

    assert len(heard.strokes) == 0
    assert np.isfinite(loop.describe(heard)[1]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 2**32), st.sampled_from([0.0, 1e-9, 1.0, 1e4, 1e30]))
def test_any_signal_is_described_by_numbers(samples: int, seed: int, level: float) -> None:
    """One sample, silence and floats far over full scale all reach this."""
    rng = np.random.default_rng(seed)

    _, values = loop.describe(
        loop.measure((level * rng.standard_normal(samples)).astype(np.float32))
    )

    assert np.isfinite(values).all()
