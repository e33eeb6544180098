"""Sounds that are not music, with the same promise: a seed gives the same samples anywhere."""

from collections.abc import Callable

import numpy as np
import scipy.fft as sfft
from numpy.typing import NDArray
from scipy.signal import lfilter

from liner_server.evaluation.voices import Samples

_Mono = NDArray[np.float64]


def render_sound(kind: str, *, seconds: float, seed: int, sample_rate: int = 44_100) -> Samples:
    """Return (frames, 2) float32 of a kind in `SOUNDS`."""
    rng = np.random.default_rng([seed, 3])
    mono: _Mono = SOUNDS[kind](round(seconds * sample_rate), sample_rate, rng)
    level = float(np.sqrt(np.mean(mono**2)))
    if level > 0:
        mono = 0.89 * np.tanh(mono * (0.12 / level))
        mono = mono + rng.standard_normal(len(mono)) * 10 ** (rng.uniform(-90, -45) / 20)
    return np.repeat(mono.astype(np.float32)[:, None], 2, axis=1)


def _speech(frames: int, rate: int, rng: np.random.Generator) -> _Mono:
    """Babble: syllables of gliding pitch through moving formants, hisses and pauses."""
    parts: list[_Mono] = []
    total = 0
    base = rng.uniform(85, 230)
    phase = 0.0
    while total < frames:
        if rng.random() < 0.12:
            part = np.zeros(int(rng.uniform(0.15, 0.7) * rate))
        elif rng.random() < 0.25:
            count = int(rng.uniform(0.05, 0.14) * rate)
            hiss = rng.standard_normal(count)
            part = lfilter([1, -rng.uniform(0.3, 0.95)], [1], hiss) * 0.25 * np.hanning(count)
        else:
            count = int(rng.uniform(0.07, 0.28) * rate)
            glide = np.linspace(rng.uniform(0.85, 1.25), rng.uniform(0.75, 1.15), count)
            frequency = base * glide * (1 + 0.015 * np.cumsum(rng.standard_normal(count)) / 40)
            cycles = phase + np.cumsum(frequency) / rate
            phase = float(cycles[-1])
            # A pulse for every turn of the glottis, smoothed.
            pulses = np.diff(np.floor(cycles), prepend=np.floor(cycles[0])) * 8
            part = pulses + 0.02 * rng.standard_normal(count)
            for low, high, width in ((280, 850, 80), (850, 2300, 110), (2200, 3200, 160)):
                centre = rng.uniform(low, high)
                radius = np.exp(-np.pi * width / rate)
                poles = [1, -2 * radius * np.cos(2 * np.pi * centre / rate), radius**2]
                part = part * 0.25 + lfilter([1 - radius], poles, part)
            part = part * np.hanning(count) ** 0.5 * rng.uniform(0.4, 1.0)
        parts.append(part)
        total += len(part)
    return np.concatenate(parts)[:frames]


def _calls(frames: int, rate: int, rng: np.random.Generator) -> _Mono:
    """Chirps, howls and whale song: gliding tones with few harmonics and irregular gaps."""
    signal = np.zeros(frames)
    low, length = ((1800, 0.12), (250, 1.2), (120, 1.8), (600, 0.4))[rng.integers(4)]
    begin = int(rng.uniform(0, 0.5) * rate)
    while begin < frames:
        count = max(64, int(length * rng.uniform(0.4, 1.8) * rate))
        knots = low * 2 ** rng.uniform(0, 1.4, 5)
        frequency = np.interp(np.linspace(0, 4, count), range(5), knots)
        if rng.random() < 0.3:
            frequency *= 1 + 0.08 * np.sin(
                2 * np.pi * rng.uniform(15, 40) * np.arange(count) / rate
            )
        cycles = 2 * np.pi * np.cumsum(frequency) / rate
        call = sum(np.sin(h * cycles) * rng.uniform(0, 1) / h**1.5 for h in (1, 2, 3, 4))
        call = call * np.hanning(count) * rng.uniform(0.3, 1)
        stop = min(frames, begin + count)
        signal[begin:stop] += call[: stop - begin]
        begin += int(count + rate * rng.exponential(length * 0.8))
    # Out of doors there is always some wind.
    return signal + 0.3 * rng.uniform(0, 0.2) * _noise(frames, rate, rng)


def _noise(frames: int, rate: int, rng: np.random.Generator) -> _Mono:
    """White, pink or brown noise, steady or swelling as wind and surf do."""
    white = rng.standard_normal(frames)
    spectrum = sfft.rfft(white)
    frequency = np.maximum(sfft.rfftfreq(frames, 1 / rate), 20.0)
    noise = sfft.irfft(spectrum * frequency ** -rng.choice([0.0, 0.5, 1.0]), frames)
    if rng.random() < 0.5:
        time = np.arange(frames) / rate
        knots = rng.uniform(0.1, 1.0, int(time[-1] / 1.7) + 3)
        noise = noise * np.interp(time / 1.7, range(len(knots)), knots)
    return np.asarray(noise / (np.std(noise) + 1e-12))


def _engine(frames: int, rate: int, rng: np.random.Generator) -> _Mono:
    """A motor: a low buzz whose pitch wanders, under noise."""
    wander = np.cumsum(rng.standard_normal(frames // 512 + 2)) * 0.6
    frequency = rng.uniform(40, 110) + np.interp(
        np.arange(frames) / 512, range(len(wander)), wander
    )
    cycles = 2 * np.pi * np.cumsum(frequency) / rate
    buzz = sum(np.sin(h * cycles + h) / h for h in range(1, 12))
    return np.asarray(buzz + rng.uniform(0.3, 1.5) * _noise(frames, rate, rng))


def _knocks(frames: int, rate: int, rng: np.random.Generator) -> _Mono:
    """Steps, drops and clatter at no steady rate."""
    signal = 0.01 * _noise(frames, rate, rng)
    begin = 0
    gap = rng.uniform(0.15, 0.8)
    while begin < frames:
        count = int(rng.uniform(0.02, 0.2) * rate)
        fall = np.exp(-np.arange(count) / (0.25 * count))
        knock = rng.standard_normal(count) * fall
        knock = lfilter([1], [1, -rng.uniform(0, 0.95)], knock)
        stop = min(frames, begin + count)
        signal[begin:stop] += (knock * rng.uniform(0.2, 1))[: stop - begin]
        begin += int(rate * rng.exponential(gap)) + 1
    return signal


def _silence(frames: int, rate: int, rng: np.random.Generator) -> _Mono:
    return np.zeros(frames)


SOUNDS: dict[str, Callable[[int, int, np.random.Generator], _Mono]] = {
    "speech": _speech,
    "calls": _calls,
    "noise": _noise,
    "engine": _engine,
    "knocks": _knocks,
    "silence": _silence,
}
"""Every kind by name; all are answered with no tempo and no key."""
