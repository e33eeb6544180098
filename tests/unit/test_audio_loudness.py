"""The meter against the signals EBU Tech 3341 and 3342 prescribe, synthesised."""

import numpy as np
import pytest
from liner_server.audio.loudness import LoudnessMeter
from liner_server.audio.measurements import Loudness
from support.audio_files import Signal, sine, stereo

RATE = 48_000


def measure(signal: Signal, *, rate: int = RATE, layout: str = "stereo") -> Loudness:
    """What the meter says of a signal that comes a second at a time."""
    meter = LoudnessMeter(sample_rate_hz=rate, channels=signal.shape[0], layout=layout)
    for start in range(0, signal.shape[1], rate):
        meter.add(signal[:, start : start + rate])
    return meter.result()


def steps(*parts: tuple[float, float], rate: int = RATE) -> Signal:
    """A 1 kHz tone in both channels, as (dBFS, seconds) after each other."""
    tones = [sine(1000, seconds, level_db=level, rate=rate) for level, seconds in parts]
    return stereo(np.concatenate(tones, axis=1))


@pytest.mark.parametrize(
    ("parts", "lufs"),
    [
        ([(-23, 20)], -23.0),
        ([(-33, 20)], -33.0),
        ([(-36, 10), (-23, 60), (-36, 10)], -23.0),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23.0),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23.0),
    ],
)
def test_integrated_loudness_meets_ebu_tech_3341(
    parts: list[tuple[float, float]], lufs: float
) -> None:
    """Cases 1 to 5: plain level, the absolute gate and the relative gate, within 0.1 LU."""
    assert measure(steps(*parts)).integrated_lufs == pytest.approx(lufs, abs=0.1)


def test_surround_channels_weigh_as_ebu_tech_3341_case_6() -> None:
    """Centre and surrounds count, the surrounds by 1.5 dB more."""
    levels = (-28, -28, -24, -30, -30)
    signal = np.concatenate([sine(1000, 20, level_db=level) for level in levels])

    loudness = measure(signal, layout="5.0")

    assert loudness.integrated_lufs == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000, 192_000])
def test_loudness_does_not_depend_on_the_sample_rate(rate: int) -> None:
    """The filter coefficients in the standard are for 48 kHz only; others must be derived."""
    loudness = measure(steps((-23, 10), rate=rate), rate=rate)

    assert loudness.integrated_lufs == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize(
    ("levels", "spread"),
    [
        ((-20, -30), 10),
        ((-20, -15), 5),
        ((-40, -20), 20),
        ((-50, -35, -20, -35, -50), 15),
    ],
)
def test_loudness_range_meets_ebu_tech_3342(levels: tuple[float, ...], spread: float) -> None:
    """Cases 1 to 4, within 1 LU."""
    loudness = measure(steps(*((level, 20) for level in levels)))

    assert loudness.range_lu == pytest.approx(spread, abs=1)


@pytest.mark.parametrize(
    ("divisor", "degrees", "amplitude", "dbtp"),
    [
        (4, 0.0, 0.5, -6.0),
        (4, 45.0, 0.5, -6.0),
        (6, 60.0, 0.5, -6.0),
        (8, 67.5, 0.5, -6.0),
        (4, 45.0, 1.41, 3.0),
    ],
)
def test_true_peak_meets_ebu_tech_3341(
    divisor: int, degrees: float, amplitude: float, dbtp: float
) -> None:
    """Cases 15 to 19: peaks between samples, within +0.2 and -0.4 dB.

    Faded in and out, because a tone that starts at once has a higher peak between samples.
    """
    tone = amplitude * sine(RATE / divisor, 5, phase=np.radians(degrees))
    fade = np.linspace(0, 1, RATE // 10)
    tone[:, : fade.size] *= fade
    tone[:, -fade.size :] *= fade[::-1]

    peak = measure(stereo(tone)).true_peak_dbtp

    assert peak is not None
    assert dbtp - 0.4 <= peak <= dbtp + 0.2


def test_the_last_samples_count_for_the_peak() -> None:
    """The filter reports every 100 ms; a click after the last report must not be lost."""
    signal = np.zeros((2, RATE * 2 + 1234), np.float32)
    signal[:, -3:] = 0.9

    assert measure(signal).true_peak_dbtp == pytest.approx(0, abs=1.5)


def test_silence_has_no_loudness_and_no_peak() -> None:
    """An answer of -70 LUFS would look like a measurement."""
    loudness = measure(np.zeros((2, 5 * RATE), np.float32))

    assert loudness == Loudness(integrated_lufs=None, range_lu=None, true_peak_dbtp=None)


def test_a_sound_shorter_than_a_gating_block_has_a_peak_only() -> None:
    """BS.1770 integrates over blocks of 400 ms; less than one is no loudness."""
    loudness = measure(stereo(sine(1000, 0.2, level_db=-6)))

    assert loudness.integrated_lufs is None
    assert loudness.true_peak_dbtp == pytest.approx(-6, abs=0.3)
