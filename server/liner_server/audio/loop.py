"""Whether a short file may be a loop, and how its strokes lie in it: what its ends and length tell.

Most short files of music are loops, cut at whole beats: their first stroke is at the very start
and the others fall on whole fractions of the length. That is a witness of its own, since it needs
no repetition inside the file. Of a longer file, or one whose sound dies away, the length tells
nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liner_server.audio.spectra import SAMPLE_RATE, Floats, is_silent, magnitudes, mel_filters

LONGEST_SECONDS = 30.0
"""Longer files are no loops: not measured."""

_SIZE, _HOP = 512, 110
_RATE = SAMPLE_RATE / _HOP
_MOST_STROKES = 400
_FRACTIONS = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32])
_LEVEL = SAMPLE_RATE // 100
_QUIET = 10 ** (-40 / 20)
"""Below the loudest hundredth of a second: nothing is heard."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A file's length, the strokes in it, and what is at its ends."""

    seconds: float
    strokes: Floats
    """When something begins, seconds from the start; none if the file is long."""

    weights: Floats
    """How strongly, summing to one."""

    quiet_before: float
    """Seconds of silence before the first sound."""

    quiet_after: float

    def on_grid(self, hertz: Floats) -> Floats:
        """Return how well the strokes fall on grids that begin with the file: 1 on, -1 between.

        Zero where there are none.
        """
        turns = np.cos(2 * np.pi * np.outer(hertz, self.strokes))
        return np.asarray(turns @ self.weights) if len(self.strokes) else np.zeros(len(hertz))


def measure(mono: Floats) -> Loop:
    """Return what the ends and the length of a mono signal at 22,050 Hz tell."""
    seconds = len(mono) / SAMPLE_RATE
    nothing = np.zeros(0)
    unheard = Loop(
        seconds=seconds, strokes=nothing, weights=nothing, quiet_before=0.0, quiet_after=0.0
    )
    if seconds > LONGEST_SECONDS or len(mono) < 2 * _LEVEL or is_silent(mono):
        return unheard
    # Samples of a float file may be of any size: their squares need not fit.
    mono = mono / np.abs(mono).max()
    blocks = mono[: len(mono) // _LEVEL * _LEVEL].reshape(-1, _LEVEL)
    levels = np.sqrt(np.mean(blocks**2, axis=1))
    loud = np.flatnonzero(levels > levels.max() * _QUIET)
    if not len(loud):
        # All there is is a click in the last, cut hundredth.
        return unheard
    strokes, weights = _strokes(mono)
    return Loop(
        seconds=seconds,
        strokes=strokes,
        weights=weights,
        quiet_before=float(loud[0]) * 0.01,
        quiet_after=float(len(levels) - 1 - loud[-1]) * 0.01,
    )


def describe(loop: Loop) -> tuple[list[str], Floats]:
    """Return what tells a loop from a stray sound as long: names and values."""
    later = loop.strokes > 0.05
    total = float(loop.weights[later].sum())
    fit = chance = 0.0
    if total and loop.seconds:
        weights = loop.weights[later] / total
        turns = 2 * np.pi * np.outer(_FRACTIONS / loop.seconds, loop.strokes[later])
        fit = float((np.cos(turns) @ weights).max())
        # Of a few strokes some fraction fits by chance: about this much.
        chance = float(np.sqrt(2 * np.log(len(_FRACTIONS)) / 2 * (weights**2).sum()))
    features = {
        "strokes on fractions": fit,
        "strokes on fractions beyond chance": fit - min(1.0, chance),
    }
    return list(features), np.array(list(features.values()))


def _strokes(mono: Floats) -> tuple[Floats, Floats]:
    """Return when something begins, to a few milliseconds, and how strongly; `mono` peaks at 1."""
    # Silence in front, so that what is there from the start begins there too.
    padded = np.concatenate([np.zeros(_SIZE, mono.dtype), mono])
    bank = mel_filters(_SIZE, 40, 30, 10_000)
    mel = np.log1p(200 / (_SIZE / 4) * (magnitudes(padded, _SIZE, _HOP) @ bank))
    flux = np.maximum(mel[3:] - mel[:-3], 0).mean(1)
    width = int(0.3 * _RATE) | 1
    around = np.convolve(flux, np.ones(width) / width)[width // 2 :][: len(flux)]
    middle = flux[1:-1]
    top: NDArray[np.bool_] = (middle > flux[:-2]) & (middle >= flux[2:])
    places = np.flatnonzero(top & (middle > 1.3 * around[1:-1]) & (middle > 0.08 * flux.max())) + 1
    # Within a twentieth of a second only the strongest is a stroke.
    kept: list[int] = []
    for place in places:
        if kept and place - kept[-1] < 0.05 * _RATE:
            if flux[place] > flux[kept[-1]]:
                kept[-1] = int(place)
        else:
            kept.append(int(place))
    chosen = np.array(kept[:_MOST_STROKES], int)
    if not len(chosen):
        return np.zeros(0), np.zeros(0)
    left, centre, right = flux[chosen - 1], flux[chosen], flux[chosen + 1]
    place = chosen + 0.5 * (left - right) / (left - 2 * centre + right - 1e-9)
    # Frame n + 3 less frame n is steepest a frame and a half after n; the logarithm hears a stroke
    # as soon as it enters the window, a frame earlier.
    times = (place + 2.6) / _RATE - _SIZE / SAMPLE_RATE
    weights = np.sqrt(centre)
    return np.maximum(times, 0.0), weights / weights.sum()
