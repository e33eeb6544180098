"""Pitch classes of a mono signal: which of the twelve notes sound, how low, and how they are tuned.

Spectral peaks vote for their pitch class and, as harmonics two to four, for a lower one. The
tuning is estimated from the same peaks and removed, so a recording 30 cents flat is read in its
own tuning.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liner_server.audio.spectra import SAMPLE_RATE, Floats, magnitudes

_SIZE = 8192
_HOP = 4096
FRAME_SECONDS = _HOP / SAMPLE_RATE

_LOW_HZ, _HIGH_HZ = 55.0, 2200.0
_BASS_HZ = 220.0
"""Notes below this count as bass, which carries the root more often than not."""

_HARMONICS = ((1, 1.0), (2, 0.6), (3, 0.36), (4, 0.22))
"""Harmonic a peak may be, and how much that reading counts."""


@dataclass(frozen=True, kw_only=True)
class Chroma:
    """Pitch classes over time, C first, about 5.4 frames a second."""

    frames: Floats
    """(frames, 12): strength of each pitch class, the strongest of a frame is 1."""

    bass: Floats
    """(frames, 12): the same from notes below 220 Hz, on the scale of `frames`."""

    loudness: Floats
    """(frames,): summed strength of a frame's peaks."""

    tuning_cents: float
    """Offset from A4 = 440 Hz, -50 to 50."""

    tuning_strength: float
    """1 if all peaks lie on one semitone grid, 0 if they lie anywhere, as in speech."""


def measure(mono: Floats) -> Chroma:
    """Return the pitch classes of a mono signal at 22,050 Hz; no frames if nothing sounds."""
    spectra = magnitudes(mono, _SIZE, _HOP)
    frame, pitch, height = _peaks(spectra)
    turn = (height * np.exp(2j * np.pi * pitch)).sum() / (height.sum() + 1e-9)
    tuning = float(np.angle(turn)) / (2 * np.pi)
    pitch = pitch - tuning
    weight = np.log1p(100 * height / (height.max(initial=0) + 1e-9))

    everything = np.zeros((len(spectra), 12))
    bass = np.zeros((len(spectra), 12))
    bass_pitch = 69 + 12 * np.log2(_BASS_HZ / 440)
    for harmonic, gain in _HARMONICS:
        fundamental = pitch - 12 * np.log2(harmonic)
        nearest = np.round(fundamental)
        # A peak half-way between two notes says nothing about either.
        vote = gain * weight * np.maximum(0, np.cos((fundamental - nearest) * np.pi)) ** 2
        note = nearest.astype(int) % 12
        np.add.at(everything, (frame, note), vote)
        if harmonic == 1:
            low = pitch < bass_pitch
            np.add.at(bass, (frame[low], note[low]), vote[low])
    loudness = everything.sum(1)
    heard = loudness > 0
    peak = everything.max(1, keepdims=True) + 1e-9
    return Chroma(
        frames=(everything / peak)[heard],
        bass=(bass / peak)[heard],
        loudness=loudness[heard],
        tuning_cents=100 * tuning,
        tuning_strength=float(np.abs(turn)),
    )


def steadiness(mono: Floats) -> float:
    """Return the share of spectral peaks that are still there a tenth of a second later.

    Held notes stay within a fifth of a semitone; a voice that speaks and a bird that calls glide
    away, and the peaks of noise come and go. 0 to 1, weighted by level.
    """
    spectra = magnitudes(mono, _SIZE // 2, _HOP // 2)
    frame, pitch, height = _peaks(spectra, _SIZE // 2)
    weight = np.sqrt(height)
    kept = total = 0.0
    bounds = np.searchsorted(frame, np.arange(len(spectra) + 1))
    for now in range(len(spectra) - 1):
        here = slice(bounds[now], bounds[now + 1])
        there = np.sort(pitch[bounds[now + 1] : bounds[now + 2]])
        total += float(weight[here].sum())
        if not len(there):
            continue
        place = np.searchsorted(there, pitch[here])
        nearest = np.minimum(
            np.abs(there[np.minimum(place, len(there) - 1)] - pitch[here]),
            np.abs(there[np.maximum(place - 1, 0)] - pitch[here]),
        )
        kept += float((weight[here] * (nearest < 0.2)).sum())
    return kept / total if total else 0.0


def _peaks(spectra: Floats, size: int = _SIZE) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return frame, MIDI pitch and height of every spectral peak worth a vote."""
    first = int(_LOW_HZ * size / SAMPLE_RATE)
    last = int(_HIGH_HZ * size / SAMPLE_RATE)
    around = spectra[:, first - 1 : last + 2]
    middle = around[:, 1:-1]
    is_peak = (middle > around[:, :-2]) & (middle >= around[:, 2:])
    # Within 40 dB of the frame's strongest: below that it is leakage and noise.
    is_peak &= middle > middle.max(1, keepdims=True) * 1e-2
    frame, index = np.nonzero(is_peak)
    left, centre, right = (np.log(around[frame, index + i] + 1e-9) for i in range(3))
    # A parabola through the logarithms finds the peak between two bins.
    shift = np.clip(0.5 * (left - right) / (left - 2 * centre + right - 1e-12), -0.5, 0.5)
    frequency = (first + index + shift) * SAMPLE_RATE / size
    pitch = 12 * np.log2(frequency / 440.0) + 69
    return frame, pitch, middle[frame, index]
