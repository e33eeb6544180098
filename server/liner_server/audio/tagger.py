"""What a trained listener would write on the sleeve: raw scores for tags, and how energetic it is.

A few patches spread over the signal are heard, not all of it: genre and instruments change slowly,
and a network's opinion costs sixty milliseconds of CPU a patch. Scores are not probabilities of
being right, and no accuracy of theirs was measured; `core.tagging` reads them.
"""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from liner_server.audio import musicnn
from liner_server.audio.measurements import Tagging
from liner_server.audio.spectra import SAMPLE_RATE, Floats, magnitudes

PATCHES = 8
"""Patches of three seconds heard of one signal."""

_PATCH = int(np.ceil(musicnn.PATCH_SAMPLES * SAMPLE_RATE / musicnn.RATE_HZ)) + 1
"""Samples at 22,050 Hz that give one patch at the network's rate."""

_SILENT = 10 ** (-50 / 20)
"""A patch this far below the loudest one says nothing: the gap before a hidden track."""

_SIZE, _HOP = 1024, 512
_QUIET_LUFS, _LOUD_LUFS = -28.0, -8.0
_DULL_HZ, _BRIGHT_HZ = 400.0, 4000.0
_CALM_RISE, _BUSY_RISE = 0.05, 0.35


@dataclass(frozen=True)
class Impression:
    """What the network for songs makes of a signal: the gate and the tagger both need it."""

    patches: Floats
    """What the networks see, (patches, frames, bands)."""

    songs: Floats
    """Scores of its tags, (patches, 50)."""

    embedding: Floats
    """Its last layer, (patches, 200)."""


def impression_of(mono: NDArray[np.float32]) -> Impression:
    """Return what the network for songs makes of a mono signal at 22,050 Hz."""
    patches = musicnn.mel_patches(patches_of(mono))
    return Impression(patches, *musicnn.networks()["MSD"].run(patches))


def tag(
    mono: NDArray[np.float32], impression: Impression, *, integrated_lufs: float | None
) -> Tagging:
    """Return tags and energy of a mono signal at 22,050 Hz that holds music.

    `integrated_lufs` is the loudness of the whole file; None where it was not measured.
    """
    sounds, _ = musicnn.networks()["MTT"].run(impression.patches)
    return Tagging(
        songs=_named("MSD", impression.songs),
        sounds=_named("MTT", sounds),
        energy=energy(mono, integrated_lufs),
    )


def _named(network: str, scores: Floats) -> dict[str, float]:
    means = scores.mean(0)
    return {word: float(mean) for word, mean in zip(musicnn.TAGS[network], means, strict=True)}


def patches_of(mono: Floats) -> Floats:
    """Return what the networks hear of a signal, (patches, samples) at 16 kHz.

    A signal shorter than a patch is repeated until it fills one, as a loop would be played.
    """
    if len(mono) < _PATCH:
        mono = np.tile(mono, -(-_PATCH // max(1, len(mono))))[:_PATCH]
    count = min(PATCHES, max(1, len(mono) // _PATCH))
    # From the middle of equal parts, so that neither the fade-in nor the fade-out is all of one.
    room = len(mono) - _PATCH
    starts = [int(room * (index + 0.5) / count) for index in range(count)]
    pieces = np.stack([mono[start : start + _PATCH] for start in starts])
    # Files of floats may go a hundred times over full scale, where the networks' half floats end.
    pieces = pieces / max(1.0, float(np.abs(pieces).max()))
    levels = np.sqrt(np.mean(pieces**2, axis=1))
    pieces = pieces[levels > levels.max() * _SILENT] if levels.max() else pieces
    lower = soxr.resample(pieces.T, SAMPLE_RATE, musicnn.RATE_HZ, quality="MQ").T
    return np.ascontiguousarray(lower[:, : musicnn.PATCH_SAMPLES], np.float32)


def energy(mono: Floats, integrated_lufs: float | None) -> float:
    """Return how energetic a signal sounds, 0 to 1: a published rule, fitted to nothing.

    Half of it is loudness (-28 to -8 LUFS), three tenths how much of the spectrum is new from one
    frame to the next, two tenths brightness (the spectral centroid from 400 to 4,000 Hz, by
    octaves): the cues on which listeners' ratings of arousal agree.
    """
    surplus = max(0, len(mono) - 60 * SAMPLE_RATE) // 2
    spectra = magnitudes(mono[surplus : len(mono) - surplus], _SIZE, _HOP)
    level = spectra.sum(1)
    heard = spectra[level > level.max() * 1e-3]
    hertz = np.linspace(0, SAMPLE_RATE / 2, spectra.shape[1])
    centroid = float(np.median((heard @ hertz) / (heard.sum(1) + 1e-9)))
    rise = np.maximum(np.diff(spectra, axis=0), 0).sum() / (spectra.sum() + 1e-9)
    loudness = integrated_lufs if integrated_lufs is not None else _QUIET_LUFS
    parts = (
        (0.5, (loudness - _QUIET_LUFS) / (_LOUD_LUFS - _QUIET_LUFS)),
        (0.3, (float(rise) - _CALM_RISE) / (_BUSY_RISE - _CALM_RISE)),
        (0.2, float(np.log(max(centroid, 1.0) / _DULL_HZ) / np.log(_BRIGHT_HZ / _DULL_HZ))),
    )
    return sum(weight * min(1.0, max(0.0, part)) for weight, part in parts)
