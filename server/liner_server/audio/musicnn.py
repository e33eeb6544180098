"""musicnn's music tagger in numpy, without TensorFlow or librosa.

The weights are read out of the installed `musicnn` wheel (ISC licence, Music Technology Group of
Universitat Pompeu Fabra; J. Pons and X. Serra, "musicnn: pre-trained convolutional neural networks
for music audio tagging", 2019) without importing it. Two sets ship: MSD was trained on last.fm's
tags of the Million Song Dataset (genres, moods, decades), MTT on MagnaTagATune (instruments,
voices). The network sees three seconds as 96 mel bands: filters as tall as a timbre and as long as
a beat, three convolutions over time, and their maximum and mean.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import scipy.fft as sfft

from liner_server.audio.checkpoint import load_checkpoint
from liner_server.audio.spectra import Floats

RATE_HZ = 16_000
"""Sample rate of what the network hears."""

FRAMES = 187
"""Spectra of one patch."""

_SIZE, _HOP, _BANDS = 512, 256, 96
PATCH_SAMPLES = (FRAMES - 1) * _HOP + _SIZE
"""Samples of one patch: three seconds."""

TAGS = {
    "MSD": (
        "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s",
        "alternative rock", "jazz", "beautiful", "metal", "chillout", "male vocalists",
        "classic rock", "soul", "indie rock", "Mellow", "electronica", "80s", "folk", "90s",
        "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient", "acoustic",
        "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country",
        "easy listening", "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock",
        "60s", "rnb", "indie pop", "sad", "House", "happy",
    ),
    "MTT": (
        "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast",
        "piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera",
        "male", "singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute",
        "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic",
        "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp",
        "cello", "no voice", "weird", "country", "metal", "female voice", "choral",
    ),
}  # fmt: skip
"""Tags by set of weights, in the order of the network's outputs."""

_EPSILON = 1e-3
"""What batch normalisation adds to the variance."""


@cache
def networks() -> dict[str, "Network"]:
    """Return both networks by set of weights, read from the installed wheel once a process."""
    return {name: Network(load_checkpoint(weights_path(name))) for name in TAGS}


def weights_path(name: str) -> Path:
    """Return the folder where the installed wheel keeps one set of weights."""
    spec = importlib.util.find_spec("musicnn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("musicnn's weights are missing: run `make setup`", name="musicnn")
    return Path(spec.submodule_search_locations[0]) / f"{name}_musicnn"


def mel_patches(patches: Floats) -> Floats:
    """Return what the network sees of patches at 16 kHz: (patches, 187, 96) from
    (patches, samples)."""
    frames = np.lib.stride_tricks.sliding_window_view(patches, _SIZE, axis=1)[:, ::_HOP]
    power = np.abs(sfft.rfft(frames * _window(), axis=2)) ** 2
    mel = power.astype(np.float32) @ _filters()
    # musicnn's own extractor keeps spectra as half floats, and the network learned from those.
    return np.asarray(np.log10(10_000 * mel.astype(np.float16).astype(np.float32) + 1))


@dataclass(frozen=True)
class _Affine:
    """Batch normalisation after training: a factor and an offset a channel."""

    factor: Floats
    offset: Floats

    def __call__(self, values: Floats) -> Floats:
        return np.asarray(values * self.factor + self.offset)


@dataclass(frozen=True)
class _Filters:
    """A convolution, its rectifier and normalisation, of which only the highest value counts."""

    kernel: Floats
    """(taps, channels); columns of channels whose factor is negative have the opposite sign."""

    sign: Floats
    bias: Floats
    norm: _Affine

    def strongest(self, windows: Floats) -> Floats:
        """Return the maximum over positions, (frames, channels), of (frames, positions, taps)."""
        frames, positions, taps = windows.shape
        found = windows.reshape(-1, taps) @ self.kernel
        # The maximum passes through the rectifier and the normalisation, which are monotonic.
        top = found.reshape(frames, positions, -1).max(1) * self.sign
        return self.norm(np.maximum(top + self.bias, 0))


class Network:
    """One set of weights, ready to run."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        self._weights = weights
        self._timbral = [self._filters(index) for index in (0, 1)]
        self._temporal = [self._filters(index) for index in (2, 3, 4)]
        self._widths = [
            self._variable("conv2d", index, "kernel").shape[:2] for index in (0, 1, 2, 3, 4)
        ]
        self._input = self._norm(0)

    def run(self, patches: Floats) -> tuple[Floats, Floats]:
        """Return probabilities (patches, 50) and the layer before them (patches, 200)."""
        results = [self._run(patch) for patch in patches]
        dense = np.stack(results)
        scores = dense @ self._weights["dense_1/kernel"] + self._weights["dense_1/bias"]
        return 1 / (1 + np.exp(-scores)), dense

    def _run(self, patch: Floats) -> Floats:
        mel = self._input(patch).astype(np.float32)
        front = np.concatenate([*self._tall(mel), *self._long(mel)], axis=1)
        first = self._over_time(front, 5)
        second = self._over_time(first, 6) + first
        third = self._over_time(second, 7) + second
        layers = np.concatenate([front, first, second, third], axis=1)
        pooled = np.stack([layers.max(0), layers.mean(0)], axis=1).reshape(-1)
        weights = self._weights
        hidden = self._norm(9)(pooled) @ weights["dense/kernel"] + weights["dense/bias"]
        return self._norm(10)(np.maximum(hidden, 0))

    def _tall(self, mel: Floats) -> list[Floats]:
        """Filters of seven spectra and most bands: timbres, at whatever pitch."""
        padded = np.pad(mel, ((3, 3), (0, 0)))
        found = []
        for filters, width in zip(self._timbral, self._widths[:2], strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(padded, width)
            found.append(filters.strongest(windows.reshape(*windows.shape[:2], -1)))
        return found

    def _long(self, mel: Floats) -> list[Floats]:
        """Filters of 32 to 128 spectra and one band: rhythms, at whatever pitch."""
        found = []
        for filters, (length, _) in zip(self._temporal, self._widths[2:], strict=True):
            before = (length - 1) // 2
            padded = np.pad(mel, ((before, length - 1 - before), (0, 0)))
            found.append(
                filters.strongest(np.lib.stride_tricks.sliding_window_view(padded, length, axis=0))
            )
        return found

    def _over_time(self, layer: Floats, index: int) -> Floats:
        """One convolution over time across all channels."""
        kernel = self._variable("conv2d", index, "kernel")
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(layer, ((3, 3), (0, 0))), kernel.shape[0], axis=0
        )
        flat = windows.transpose(0, 2, 1).reshape(len(layer), -1)
        found = flat @ kernel.reshape(-1, kernel.shape[-1])
        return self._norm(index + 1)(np.maximum(found + self._variable("conv2d", index, "bias"), 0))

    def _filters(self, index: int) -> _Filters:
        kernel = self._variable("conv2d", index, "kernel")
        norm = self._norm(index + 1)
        sign = np.where(norm.factor < 0, -1, 1).astype(np.float32)
        return _Filters(
            kernel=kernel.reshape(-1, kernel.shape[-1]) * sign,
            sign=sign,
            bias=self._variable("conv2d", index, "bias"),
            norm=norm,
        )

    def _norm(self, index: int) -> _Affine:
        gamma, beta, mean, variance = (
            self._variable("batch_normalization", index, name)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        factor = gamma / np.sqrt(variance + _EPSILON)
        return _Affine(factor, beta - mean * factor)

    def _variable(self, layer: str, index: int, name: str) -> Floats:
        """TensorFlow numbers layers of a kind from the second on."""
        return self._weights[f"{layer}_{index}/{name}" if index else f"{layer}/{name}"]


@cache
def _window() -> Floats:
    return np.hanning(_SIZE + 1)[:-1].astype(np.float32)


@cache
def _filters() -> Floats:
    """Slaney's mel filters, each of the same area, (bins, bands): librosa's default."""
    step, knee, log_step = 200 / 3, 1000.0, np.log(6.4) / 27
    top = knee / step + np.log(RATE_HZ / 2 / knee) / log_step
    mels = np.linspace(0, top, _BANDS + 2)
    edges = np.where(
        mels < knee / step, mels * step, knee * np.exp(log_step * (mels - knee / step))
    )
    hertz = np.linspace(0, RATE_HZ / 2, _SIZE // 2 + 1)
    rising = (hertz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hertz) / np.diff(edges)[1:, None]
    height = 2 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * height[:, None]).astype(np.float32).T
