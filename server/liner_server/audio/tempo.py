"""The tempo of a mono signal: two independent estimators and one vote."""

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import beatnet
from liner_server.audio.measurements import Tempo
from liner_server.audio.spectra import (
    SAMPLE_RATE,
    Floats,
    autocorrelation,
    is_silent,
    magnitudes,
    mel_filters,
    softmax,
)

_SHORTEST = SAMPLE_RATE
_LISTED = 4


def estimate_tempo(mono: NDArray[np.float32]) -> Tempo:
    """Return the tempo of a mono signal at 22,050 Hz, or a doubt where no beat is heard."""
    if len(mono) < _SHORTEST or is_silent(mono):
        return Tempo(bpm=None, score=0.0, doubt="too short or silent")
    beats = beatnet.activations(mono[: 60 * SAMPLE_RATE]).mean(0)[:, :2].sum(1)
    grid = np.exp(np.arange(np.log(50), np.log(220), 0.004))
    total = _comb(autocorrelation(beats), beatnet.FRAMES_PER_SECOND, grid)
    onsets, rate = _onset_envelope(mono)
    total = total + _comb(autocorrelation(onsets), rate, grid)
    total *= np.exp(-0.5 * (np.log2(grid / 118) / 0.7) ** 2)
    peaks = [i for i in range(1, len(grid) - 1) if total[i - 1] < total[i] >= total[i + 1]]
    if not peaks:
        return Tempo(bpm=None, score=0.0, doubt="no steady beat")
    peaks.sort(key=lambda i: -total[i])
    scores = softmax(8 * total[peaks] / total.max())
    candidates = tuple(
        (round(float(grid[i]), 2), float(s)) for i, s in zip(peaks, scores, strict=True)
    )[:_LISTED]
    return Tempo(bpm=candidates[0][0], score=candidates[0][1], candidates=candidates)


def _comb(correlation: Floats, rate: float, grid: Floats) -> Floats:
    lags = np.arange(len(correlation))
    total = np.zeros(len(grid))
    for multiple, weight in ((1, 1.0), (2, 0.6), (3, 0.4), (4, 0.6), (8, 0.3)):
        lag = 60 * rate / grid * multiple
        inside = lag < 0.8 * len(correlation)
        total += np.where(inside, weight * np.interp(lag, lags, correlation), 0)
    return np.maximum(total, 0)


def _onset_envelope(mono: Floats) -> tuple[Floats, float]:
    size, hop = 1024, 220
    mel = np.log1p(100 * magnitudes(mono, size, hop) @ mel_filters(size, 80, 30, 10_000) / 256)
    flux = np.maximum(mel[2:] - mel[:-2], 0).mean(1)
    rate = SAMPLE_RATE / hop
    width = int(rate) | 1
    flux = np.maximum(flux - np.convolve(flux, np.ones(width) / width, "same"), 0)
    return flux, rate
