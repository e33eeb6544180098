"""The tagger: patches of any signal, and tags that follow what is played."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liner_server.audio import musicnn
from liner_server.audio.spectra import SAMPLE_RATE
from liner_server.audio.tagger import PATCHES, energy, impression_of, patches_of, tag
from liner_server.evaluation import synth


def played(style: str, *, seed: int = 5) -> np.ndarray:
    """A generated piece of a style, mono."""
    piece = synth.draw(seed, style=style)
    return synth.render(piece, sample_rate=SAMPLE_RATE).mean(1).astype(np.float32)


@given(samples=st.integers(1, 40 * SAMPLE_RATE))
@settings(max_examples=25, deadline=None)
def test_a_signal_of_any_length_gives_whole_patches(samples: int) -> None:
    """A loop of a tenth of a second and an hour are both heard, at a bounded cost."""
    signal = np.sin(np.arange(samples, dtype=np.float32))

    patches = patches_of(signal)

    assert 1 <= len(patches) <= PATCHES
    assert patches.shape[1] == musicnn.PATCH_SAMPLES
    assert patches.std(1).min() > 0 or samples == 1


def test_silence_inside_a_track_is_not_heard() -> None:
    """A gap before a hidden track would pull every score towards that of silence."""
    signal = np.zeros(60 * SAMPLE_RATE, np.float32)
    signal[: 20 * SAMPLE_RATE] = 0.3 * np.sin(np.arange(20 * SAMPLE_RATE, dtype=np.float32))

    patches = patches_of(signal)

    assert 0 < len(patches) < PATCHES
    assert np.sqrt((patches**2).mean(1)).min() > 0.01


def test_tags_follow_what_is_played() -> None:
    """The whole chain, resampling included: a machine's drums are electronic, strings are not."""
    techno, classical = played("techno"), played("classical")

    machine = tag(techno, impression_of(techno), integrated_lufs=-9)
    strings = tag(classical, impression_of(classical), integrated_lufs=-20)

    assert machine.songs["electronic"] > strings.songs["electronic"]
    assert machine.sounds["techno"] > 2 * strings.sounds["techno"]
    assert strings.sounds["classical"] > 2 * machine.sounds["classical"]
    assert set(machine.songs) == set(musicnn.TAGS["MSD"])
    assert machine.energy > strings.energy


@pytest.mark.parametrize("gain", [100.0, 1e6, 1e30])
def test_a_signal_far_over_full_scale_is_heard_as_at_full_scale(gain: float) -> None:
    """Files of floats may hold anything; a score that is no number would cost the whole answer."""
    signal = played("drums")
    loud = (signal / np.abs(signal).max()).astype(np.float32)

    usual, over = impression_of(loud), impression_of((loud * gain).astype(np.float32))

    assert np.isfinite(over.embedding).all()
    np.testing.assert_allclose(over.songs, usual.songs, atol=0.01)


@pytest.mark.parametrize("lufs", [None, -70.0, -28.0, -14.0, -8.0, 3.0])
def test_energy_stays_in_its_range_and_grows_with_loudness(lufs: float | None) -> None:
    """Whatever the level measured, the answer is a share."""
    signal = played("drums")

    found = energy(signal, lufs)

    assert 0 <= found <= 1
    assert found >= energy(signal, None)
