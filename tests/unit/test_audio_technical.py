"""Each fault of a master is found where it is, and not where it is not."""

import numpy as np
import pytest
from liner_server.audio.measurements import Technical
from liner_server.audio.technical import TechnicalMeter
from support.audio_files import Signal, encode, noise, piece, sine, stereo
from support.hearing import decoded

RATE = 44_100


def examined(signal: Signal, *, rate: int = RATE, block: int = 10_000) -> Technical:
    """What the meter says of a signal that comes in blocks."""
    meter = TechnicalMeter(sample_rate_hz=rate, channels=signal.shape[0])
    for start in range(0, signal.shape[1], block):
        meter.add(signal[:, start : start + block])
    return meter.result()


def test_a_clean_piece_has_no_faults() -> None:
    """What is right must not be sent back."""
    found = examined(piece(4, seed=1))

    assert found.clipped_samples == 0
    assert not found.dual_mono
    assert not found.phase_inverted
    assert abs(found.dc_offset) < 0.001
    assert found.cutoff_hz is None


@pytest.mark.parametrize("block", [7, 1_000, 100_000])
def test_clipped_samples_are_counted_across_blocks(block: int) -> None:
    """A run is one run wherever the decoder happened to cut the stream."""
    signal = 0.5 * stereo(sine(100, 0.5, rate=RATE))
    signal[0, 995:1_005] = 1.0
    signal[1, 0:3] = -1.0
    signal[1, -4:] = 1.0
    signal[1, 5_000:5_002] = 1.0

    assert examined(signal, block=block).clipped_samples == 10 + 3 + 4


def test_single_samples_at_full_scale_are_not_clipping() -> None:
    """A normalised master touches full scale once."""
    signal = 0.5 * noise(0.5, seed=1)
    signal[:, 1_000] = 1.0

    assert examined(signal).clipped_samples == 0


def test_silence_at_both_ends_is_measured() -> None:
    """Stores refuse long silence before and after a track."""
    quiet = np.zeros((2, RATE), np.float32)
    signal = np.concatenate([quiet, noise(1, seed=1), quiet, quiet], axis=1)

    found = examined(signal)

    assert found.leading_silence_seconds == pytest.approx(1, abs=0.01)
    assert found.trailing_silence_seconds == pytest.approx(2, abs=0.01)


def test_a_silent_file_is_all_leading_silence() -> None:
    """Nothing may divide by the sound that is not there."""
    found = examined(np.zeros((2, 2 * RATE), np.float32))

    assert found.leading_silence_seconds == pytest.approx(2)
    assert found.trailing_silence_seconds == 0
    assert not found.dual_mono
    assert not found.phase_inverted


@pytest.mark.parametrize("kind", ["wav", "mp3", "vorbis"])
def test_dual_mono_is_heard_through_codecs(kind: str) -> None:
    """A lossy codec codes two equal channels as nearly equal ones."""
    signal = stereo(piece(4, seed=2)[:1])

    found = examined(decoded(encode(signal, kind)))

    assert found.dual_mono
    assert not found.phase_inverted


@pytest.mark.parametrize("kind", ["wav", "mp3"])
def test_an_inverted_channel_is_heard_through_codecs(kind: str) -> None:
    """Such a track is silent on a telephone."""
    signal = stereo(piece(4, seed=2)[:1])
    signal[1] *= -1

    found = examined(decoded(encode(signal, kind)))

    assert found.phase_inverted
    assert not found.dual_mono


def test_mono_files_are_not_called_dual_mono() -> None:
    """The fault is wasted space and a wrong claim of stereo; mono has neither."""
    assert not examined(piece(1, seed=1)[:1]).dual_mono


def test_the_offset_of_the_worst_channel_is_told() -> None:
    """Only one converter may be faulty."""
    signal = noise(2, seed=3)
    signal[1] -= 0.05

    assert examined(signal).dc_offset == pytest.approx(-0.05, abs=0.002)


@pytest.mark.parametrize(("kbps", "hertz"), [(96, 15_200), (128, 16_700), (192, 18_800)])
def test_a_transcode_into_a_lossless_file_shows_its_cutoff(kbps: int, hertz: float) -> None:
    """An MP3 in a FLAC is still an MP3: its encoder's filter remains."""
    lossy = decoded(encode(piece(6, seed=4), "mp3", bit_rate=kbps * 1000))
    lossless = decoded(encode(lossy, "flac"))

    assert examined(lossless).cutoff_hz == pytest.approx(hertz, abs=400)


def test_a_few_tones_are_not_a_cutoff() -> None:
    """Nothing above 10 kHz is normal for a flute; only a wall in dense sound betrays a filter."""
    tones = [sine(hertz, 3, level_db=-20, rate=RATE) for hertz in (440, 5_000, 10_000, 15_000)]

    assert examined(stereo(np.sum(tones, axis=0))).cutoff_hz is None


@pytest.mark.parametrize("dead", [0, 1])
def test_a_channel_that_was_lost_on_export_is_told(dead: int) -> None:
    """One side of the headphones stays silent; in the mix of both it goes unnoticed."""
    signal = 0.3 * noise(1, seed=1)
    signal[dead] = 0

    assert examined(signal).silent_channel
    assert not examined(np.zeros_like(signal)).silent_channel
    assert not examined(piece(1, seed=1)).silent_channel
    assert not examined(signal[1 - dead : 2 - dead]).silent_channel
