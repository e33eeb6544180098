"""What kind of sound a signal is, so that speech, animals and noise get no tempo and no key.

Music keeps its pitches on one grid and holds them, or repeats its strokes; speech glides, pauses
and never repeats; noise does neither. A table fitted on labelled sounds weighs some two dozen such
measures and the last layer of musicnn: a network that learned from records knows a drum loop from
rattling dishes. Of a short sound there is little to hear, so how its strokes lie in it is heard as
a witness of its own: on whole fractions of its length in a loop, anywhere in other sounds.
"""

import numpy as np
from numpy.typing import NDArray

from liner_server.audio import chroma, loop, musicnn, tagger
from liner_server.audio.measurements import Content
from liner_server.audio.spectra import (
    SAMPLE_RATE,
    Floats,
    autocorrelation,
    is_silent,
    magnitudes,
    softmax,
)
from liner_server.audio.tables import load_table

CLASSES = (Content.MUSIC, Content.SPEECH, Content.NOISE)
"""What the fitted table tells apart, in its order; animals count as noise."""

PATCHES = 4
"""Patches of three seconds that the gate hears where nobody has heard them yet."""

SHORT_SECONDS = 10.0
"""Longer sounds say enough by themselves."""

_SIZE, _HOP = 1024, 512
_RATE = SAMPLE_RATE / _HOP
_HEARD_SECONDS = 60


def classify_content(
    mono: NDArray[np.float32], *, embedding: Floats | None = None
) -> tuple[Content, float]:
    """Return what a mono signal at 22,050 Hz holds, and a raw score in [0, 1] for it.

    `embedding` is the last layer of musicnn's MSD network for the patches that the tagger hears,
    (patches, 200): who runs the tagger has it already. Left out, a few patches are heard here,
    for a quarter of a second of CPU. Music is the answer unless another kind is clearly likelier.
    """
    if is_silent(mono):
        return Content.SILENCE, 1.0
    if embedding is None:
        embedding = embedding_of(mono)
    return judge(describe(mono)[1], embedding.mean(0), loop.measure(mono))


def judge(values: Floats, embedding: Floats, cut: loop.Loop) -> tuple[Content, float]:
    """Return the kind and its score from what `describe` measured, the patches' mean, and how the
    strokes lie in the file."""
    scores, table = shares(values, embedding), load_table("gate")
    if cut.seconds < SHORT_SECONDS:
        table = load_table("loop_gate")
        witness = float(table.apply(loop.describe(cut)[1][None])[0, 0])
        # Not all short music is a loop: strokes that lie anywhere speak against it but softly.
        odds = log_odds(scores[0]) + max(table.numbers["least"], witness)
        music = 1 / (1 + np.exp(-odds))
        scores = np.concatenate([[music], scores[1:] * (1 - music) / (1 - scores[0] + 1e-9)])
    best = int(scores.argmax())
    if best and scores[0] > table.numbers["music_above"]:
        best = 0
    return CLASSES[best], float(scores[best])


def shares(values: Floats, embedding: Floats) -> Floats:
    """Return how likely each of `CLASSES` is, however short the sound."""
    return softmax(load_table("gate").apply(np.concatenate([values, embedding])[None])[0])


def log_odds(share: float) -> float:
    """Return the logarithm of a share's odds, for shares kept off 0 and 1."""
    share = float(np.clip(share, 1e-4, 1 - 1e-4))
    return float(np.log(share / (1 - share)))


def embedding_of(mono: Floats, *, patches: int = PATCHES) -> Floats:
    """Return what musicnn's MSD network makes of a signal, (patches, 200).

    Shorter signals than a patch are repeated until they fill one: silence after it would be heard
    as part of the sound.
    """
    heard = tagger.patches_of(mono)
    chosen = np.unique(np.linspace(0, len(heard) - 1, min(patches, len(heard))).round().astype(int))
    return musicnn.networks()["MSD"].run(musicnn.mel_patches(heard[chosen]))[1]


def describe(mono: Floats) -> tuple[list[str], Floats]:
    """Return the names of the features and their values for a signal that is not silent."""
    edges = _edge_features(mono)
    surplus = max(0, len(mono) - _HEARD_SECONDS * SAMPLE_RATE) // 2
    mono = mono[surplus : len(mono) - surplus]
    mono = mono / (np.abs(mono).max() + 1e-9)
    spectra = magnitudes(mono, _SIZE, _HOP)
    power = spectra**2
    features = {
        **_level_features(power),
        **_shape_features(spectra, power),
        **_pitch_features(mono),
        **_repetition_features(spectra),
        **edges,
        "log seconds": float(np.log(max(0.2, len(mono) / SAMPLE_RATE))),
    }
    return list(features), np.array(list(features.values()))


def _level_features(power: Floats) -> dict[str, float]:
    """Pauses and syllables: how the level moves."""
    energy = power.sum(1)
    decibels = 10 * np.log10(energy / (energy.max() + 1e-12) + 1e-8)
    mean = 10 * np.log10(energy.mean() / (energy.max() + 1e-12) + 1e-8)
    swing = np.abs(np.fft.rfft((decibels - decibels.mean()) * np.hanning(len(decibels)))) ** 2
    hertz = np.fft.rfftfreq(len(decibels), 1 / _RATE)
    moving = swing[(hertz > 0.5) & (hertz < 20)].sum() + 1e-9
    return {
        "quiet frames": float(np.mean(decibels < mean - 10)),
        "silent frames": float(np.mean(decibels < -50)),
        "level spread": float(decibels.std()),
        "syllable rate": float(swing[(hertz > 2.5) & (hertz < 8)].sum() / moving),
    }


def _shape_features(spectra: Floats, power: Floats) -> dict[str, float]:
    """Which frequencies there are, how flat the spectrum is and how much that varies."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, power.shape[1])
    energy = power.sum(1) + 1e-12
    loud = energy > energy.max() * 1e-4
    flatness = np.log(power + 1e-12).mean(1) - np.log(power.mean(1) + 1e-12)
    centroid = np.log2((power @ hertz) / energy + 50)
    total = power.sum() + 1e-12
    unit = spectra / (np.linalg.norm(spectra, axis=1, keepdims=True) + 1e-9)
    change = 1 - (unit[1:] * unit[:-1]).sum(1) if len(unit) > 1 else np.zeros(1)
    return {
        "flatness": float(flatness[loud].mean()),
        "flatness spread": float(flatness[loud].std()),
        "centroid": float(centroid[loud].mean()),
        "centroid spread": float(centroid[loud].std()),
        "share under 110 Hz": float(np.log10(power[:, hertz < 110].sum() / total + 1e-5)),
        "share over 5 kHz": float(np.log10(power[:, hertz > 5000].sum() / total + 1e-6)),
        "change": float(np.mean(change)),
        "change spread": float(np.std(change)),
    }


def _pitch_features(mono: Floats) -> dict[str, float]:
    """Whether pitches lie on one grid and stay where they are."""
    notes = chroma.measure(mono)
    steady = chroma.steadiness(mono)
    frames = notes.frames
    if len(frames) < 2:
        return dict.fromkeys(
            ("grid", "steady peaks", "notes held", "notes sharp", "notes overall"), 0.0
        )
    unit = frames / (np.linalg.norm(frames, axis=1, keepdims=True) + 1e-9)
    mean = frames.mean(0)
    return {
        "grid": notes.tuning_strength,
        "steady peaks": steady,
        "notes held": float((unit[1:] * unit[:-1]).sum(1).mean()),
        "notes sharp": float(frames.mean(1).mean()),
        "notes overall": float(mean.std() / (mean.mean() + 1e-9)),
    }


def _repetition_features(spectra: Floats) -> dict[str, float]:
    """Whether onsets come back after a beat, and how sharp they are."""
    logs = np.log1p(1000 * spectra / (spectra.max() + 1e-9))
    flux = np.maximum(logs[1:] - logs[:-1], 0).mean(1) if len(logs) > 1 else np.zeros(2)
    repeats = autocorrelation(flux)
    first, last = int(0.2 * _RATE), int(min(2.5 * _RATE, 0.6 * len(repeats)))
    best = float(repeats[first:last].max()) if last > first + 1 else 0.0
    double = 0.0
    if last > first + 1:
        lag = first + int(repeats[first:last].argmax())
        if 2 * lag < 0.8 * len(repeats):
            double = float(repeats[2 * lag - 1 : 2 * lag + 2].max())
    grid, chance = _onset_grid(flux)
    return {
        "repeats": best,
        "repeats twice": double,
        "onset crest": float(np.log(flux.max() / (flux.mean() + 1e-9) + 1e-9)),
        "onset spread": float(flux.std() / (flux.mean() + 1e-9)),
        "onsets on a grid": grid,
        "onsets on a grid beyond chance": grid - chance,
    }


def _onset_grid(flux: Floats) -> tuple[float, float]:
    """Return how well onsets fit one grid of 3 to 12 a second, and what chance would give.

    Strokes of a groove that never repeats still fall on its sixteenths.
    """
    middle = flux[1:-1]
    top = (middle > flux[:-2]) & (middle >= flux[2:]) & (middle > flux.mean() + 0.5 * flux.std())
    onsets = np.flatnonzero(top) + 1
    if len(onsets) < 4:
        return 0.0, 1.0
    # The true place of a peak, between frames: the grid is finer than a frame.
    left, centre, right = flux[onsets - 1], flux[onsets], flux[onsets + 1]
    place = onsets + 0.5 * (left - right) / (left - 2 * centre + right - 1e-9)
    seconds = place[:200] / _RATE
    weight = np.sqrt(centre[:200])
    rates = np.arange(3.0, 12.0, 0.02)
    fit = np.abs(weight @ np.exp(2j * np.pi * np.outer(seconds, rates))) / weight.sum()
    # Searching many rates finds something in any set of onsets: about this much.
    chance = np.sqrt(np.log(2 + seconds[-1] * 9) / len(seconds))
    return float(fit.max()), float(chance)


def _edge_features(mono: Floats) -> dict[str, float]:
    """Whether the sound begins and ends at full strength, as a loop cut from music does."""
    edge = SAMPLE_RATE // 20
    level = float(np.sqrt(np.mean(mono**2))) + 1e-9
    first = float(np.sqrt(np.mean(mono[:edge] ** 2))) / level
    last = float(np.sqrt(np.mean(mono[-edge:] ** 2))) / level
    return {
        "begins loud": float(np.log(first + 0.01)),
        "ends loud": float(np.log(last + 0.01)),
    }
