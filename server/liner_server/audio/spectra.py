"""Spectra, filters and correlations that tempo, key and content share: arrays in, arrays out."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import scipy.fft as sfft
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
"""Any real array; the analysis computes in float32 where that is enough."""

SAMPLE_RATE = 22_050
"""Hz of every mono signal the music analysis takes."""

SILENT_PEAK = 1e-4
"""Below this peak (-80 dBFS) a signal is silence: dither and hum, nothing to analyse."""

_BLOCK = 512
"""Frames transformed at a time; keeps memory flat however long the signal."""


def is_silent(mono: Floats) -> bool:
    """Whether there is nothing to hear: no samples, or none above -80 dBFS."""
    return len(mono) == 0 or float(np.abs(mono).max()) < SILENT_PEAK


def frames_of(mono: Floats, size: int, hop: int) -> Iterator[Floats]:
    """Yield blocks of centred frames, so that no more than one block is held at a time."""
    padded = np.pad(mono, size // 2)
    if len(padded) < size:
        padded = np.pad(padded, (0, size - len(padded)))
    view = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    for start in range(0, len(view), _BLOCK):
        yield view[start : start + _BLOCK]


def magnitudes(mono: Floats, size: int, hop: int) -> Floats:
    """Return Hann-windowed, centred magnitude spectra, shape (frames, size // 2 + 1)."""
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    blocks = [
        np.abs(sfft.rfft(block * window, axis=1)).astype(np.float32)
        for block in frames_of(mono, size, hop)
    ]
    return np.concatenate(blocks)


def mel_filters(size: int, bands: int, low: float, high: float) -> Floats:
    """Return triangular filters even on the mel scale, shape (size // 2 + 1, bands)."""
    lowest, highest = 2595 * np.log10(1 + np.array([low, high]) / 700)
    edges = 700 * (10 ** (np.linspace(lowest, highest, bands + 2) / 2595) - 1)
    frequency = np.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)
    up = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down)).astype(np.float32).T


def autocorrelation(signal: Floats) -> Floats:
    """Return the unbiased autocorrelation of a signal, 1 at lag zero, one value a lag."""
    centred = signal - signal.mean()
    size = len(centred)
    length = 1 << int(np.ceil(np.log2(2 * size)))
    power = np.abs(sfft.rfft(centred, length)) ** 2
    result = sfft.irfft(power, length)[:size] / np.arange(size, 0, -1)
    return np.asarray(result / (result[0] + 1e-9))


def softmax(scores: Floats) -> Floats:
    """Return non-negative weights that sum to one."""
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())
