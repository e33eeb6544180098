"""The key of a mono signal: pitch classes held against key profiles."""

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import chroma
from liner_server.audio.measurements import Key
from liner_server.audio.spectra import SAMPLE_RATE, Floats, is_silent, softmax

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{note} {mode}" for mode in ("major", "minor") for note in NOTES)

PROFILES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "temperley": (
        (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
        (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
    ),
    "krumhansl": (
        (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
        (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
    ),
    "bgate": (
        (1.00, 0.00, 0.42, 0.00, 0.53, 0.37, 0.00, 0.77, 0.00, 0.38, 0.21, 0.30),
        (1.00, 0.00, 0.36, 0.39, 0.00, 0.38, 0.00, 0.74, 0.27, 0.00, 0.42, 0.23),
    ),
}
"""Published key profiles, major and minor, tonic first: Temperley's and Krumhansl's from
listeners and scores, bgate from electronic dance music."""

_SHORTEST = SAMPLE_RATE // 2
_LISTED = 4


def estimate_key(mono: NDArray[np.float32]) -> Key:
    """Return the key of a mono signal at 22,050 Hz, or a doubt where nothing tonal is heard."""
    if len(mono) < _SHORTEST or is_silent(mono):
        return Key(key=None, score=0.0, doubt="too short or silent")
    notes = chroma.measure(mono)
    if not len(notes.frames):
        return Key(key=None, score=0.0, doubt="no notes heard")
    scores = softmax(20 * np.mean([correlations(notes.frames, name) for name in PROFILES], axis=0))
    order = np.argsort(scores)[::-1][:_LISTED]
    candidates = tuple((KEYS[i], float(scores[i])) for i in order)
    return Key(
        key=candidates[0][0],
        score=candidates[0][1],
        candidates=candidates,
        tuning_cents=notes.tuning_cents,
        features={"margin": candidates[0][1] - candidates[1][1]},
    )


def correlations(frames: Floats, name: str) -> Floats:
    """Return how the mean pitch classes correlate with a profile in each of the 24 keys."""
    mean = frames.mean(0) - frames.mean()
    mean = mean / (np.linalg.norm(mean) + 1e-9)
    values = []
    for table in PROFILES[name]:
        profile = np.asarray(table) - np.mean(table)
        profile = profile / np.linalg.norm(profile)
        values += [float(mean @ np.roll(profile, tonic)) for tonic in range(12)]
    return np.asarray(values)
