"""BeatNet's beat and downbeat activations in numpy, without torch or madmom.

The weights are read out of the installed `BeatNet` wheel (CC BY 4.0, M. Heydari, F. Cwitkowitz
and Z. Duan; attribution required) without importing it, since its import needs torch, and without
running its pickles: only float tensors load. The network is a log filterbank (24 bands an octave)
and its rise at 50 frames/s, one convolution, two LSTM layers and a softmax over beat, downbeat
and neither. Three sets of weights ship, each trained on other music, and all three are used.
"""

import collections
import importlib.util
import io
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import scipy.fft as sfft

from liner_server.audio.spectra import SAMPLE_RATE, Floats

FRAMES_PER_SECOND = 50.0

MODELS = (1, 2, 3)
"""Numbers of the weight files in the wheel."""

_WINDOW = int(0.064 * SAMPLE_RATE)
_HOP = int(0.020 * SAMPLE_RATE)
_CHUNK = 500
"""Frames (10 s) of one chunk: a long signal is cut so that the recurrence runs on all chunks at
once, which costs a fifth of running through it frame by frame."""

_WARM_UP = 200
"""Frames (4 s) run before each chunk and thrown away: the network needs to find the beat first."""


def activations(mono: Floats) -> Floats:
    """Return probabilities of (beat, downbeat, neither), shape (models, frames, 3).

    50 frames/s of a mono signal at 22,050 Hz. The first second or two of each result is weak: the
    network is causal and has heard nothing yet.
    """
    features = _features(mono)
    frames = len(features)
    starts = list(range(0, max(frames, 1), _CHUNK))
    chunks = []
    for start in starts:
        # Zeros in front of the first chunk stand for the silence before the music.
        piece = features[max(0, start - _WARM_UP) : start + _CHUNK]
        ahead = _WARM_UP - min(start, _WARM_UP)
        if len(starts) == 1:
            chunks.append(piece)
        else:
            behind = _WARM_UP + _CHUNK - ahead - len(piece)
            chunks.append(np.pad(piece, ((ahead, behind), (0, 0))))
    batch = np.stack(chunks)
    results = []
    for network in networks():
        output = network.run(batch)
        if len(starts) > 1:
            output = output[:, _WARM_UP:]
        results.append(output.reshape(-1, 3)[:frames])
    return np.stack(results)


@cache
def networks() -> tuple["Network", ...]:
    """Return the three networks, read from the installed wheel once a process."""
    return tuple(Network(load_weights(weights_path(model))) for model in MODELS)


def weights_path(model: int) -> Path:
    """Return where the installed wheel keeps the weights of one model."""
    spec = importlib.util.find_spec("BeatNet")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("BeatNet's weights are missing: run `make setup`", name="BeatNet")
    return Path(spec.submodule_search_locations[0]) / "models" / f"model_{model}_weights.pt"


def load_weights(path: Path) -> dict[str, Floats]:
    """Return the float32 arrays of a torch zip checkpoint by name; nothing else can load."""
    with zipfile.ZipFile(path) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith("data.pkl"))
        root = name.removesuffix("data.pkl")
        state = _TensorUnpickler(io.BytesIO(archive.read(name)), archive, root).load()
    return {str(key): np.asarray(value, np.float32) for key, value in dict(state).items()}


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles a state dict of float32 tensors; refuses every other class."""

    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Callable[..., object] | str:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch", "FloatStorage"):
            return name
        raise pickle.UnpicklingError(f"refused: {module}.{name}")

    def persistent_load(self, pid: tuple[str, ...]) -> Floats:
        return np.frombuffer(self._archive.read(f"{self._root}data/{pid[2]}"), "<f4")


def _rebuild_tensor(
    data: Floats, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Floats:
    """Return a tensor as an array; only the dense layouts that weights have are accepted."""
    dense = tuple(int(np.prod(size[i + 1 :])) for i in range(len(size)))
    if tuple(stride) != dense:
        raise pickle.UnpicklingError(f"refused: strides {stride} of shape {size}")
    return data[offset : offset + int(np.prod(size))].reshape(size)


class Network:
    """One set of weights, ready to run."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        self._weights = weights

    def run(self, features: Floats) -> Floats:
        """Return (chunks, frames, 3) probabilities for (chunks, frames, 272) features."""
        weights = self._weights
        hidden = self._front(features)
        for layer in (0, 1):
            hidden = self._recur(hidden, layer)
        scores = hidden @ weights["linear.weight"].T + weights["linear.bias"]
        exponents = np.exp(scores - scores.max(-1, keepdims=True))
        return np.asarray(exponents / exponents.sum(-1, keepdims=True))

    def _front(self, features: Floats) -> Floats:
        """Convolve along frequency, pool by two and project to the recurrent layers' width."""
        weights = self._weights
        kernel = weights["conv1.weight"][:, 0]
        taps = kernel.shape[1]
        width = features.shape[-1] - taps + 1
        pooled = []
        for channel, bias in zip(kernel, weights["conv1.bias"], strict=True):
            total = np.full((*features.shape[:-1], width), bias, np.float32)
            for tap in range(taps):
                total += channel[tap] * features[..., tap : tap + width]
            np.maximum(total, 0, out=total)
            pooled.append(
                np.maximum(total[..., : width // 2 * 2 : 2], total[..., 1::2][..., : width // 2])
            )
        joined = np.concatenate(pooled, axis=-1)
        return np.asarray(joined @ weights["linear0.weight"].T + weights["linear0.bias"])

    def _recur(self, inputs: Floats, layer: int) -> Floats:
        """Run one LSTM layer over the frames of all chunks at once."""
        weights = self._weights
        bias = weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"]
        gates = inputs @ weights[f"lstm.weight_ih_l{layer}"].T + bias
        # Frames first and contiguous: each step reads one slice of all chunks.
        gates = np.ascontiguousarray(gates.transpose(1, 0, 2))
        recurrent = np.ascontiguousarray(weights[f"lstm.weight_hh_l{layer}"].T)
        size = recurrent.shape[0]
        hidden = cell = np.zeros((inputs.shape[0], size), np.float32)
        output = np.empty((len(gates), inputs.shape[0], size), np.float32)
        for step, gate in enumerate(gates):
            total = gate + hidden @ recurrent
            # torch's order is input, forget, cell, output; one tanh call serves all four, since
            # sigmoid(x) = (1 + tanh(x / 2)) / 2.
            total[:, : 2 * size] *= 0.5
            total[:, 3 * size :] *= 0.5
            squashed = np.tanh(total)
            keep = 0.5 + 0.5 * squashed[:, size : 2 * size]
            admit = 0.5 + 0.5 * squashed[:, :size]
            cell = keep * cell + admit * squashed[:, 2 * size : 3 * size]
            hidden = (0.5 + 0.5 * squashed[:, 3 * size :]) * np.tanh(cell)
            output[step] = hidden
        return output.transpose(1, 0, 2)


@cache
def _filterbank() -> Floats:
    """Return the network's log-frequency filters, each summing to one, (bins, filters)."""
    bands, low, high, reference = 24, 30.0, 17_000.0, 440.0
    bins = _WINDOW >> 1
    bin_frequency = np.fft.fftfreq(bins * 2, 1 / SAMPLE_RATE)[:bins]
    first = np.floor(np.log2(low / reference) * bands)
    last = np.ceil(np.log2(high / reference) * bands)
    centres = reference * 2.0 ** (np.arange(first, last) / bands)
    centres = centres[(centres >= low) & (centres <= high)]
    index = np.clip(bin_frequency.searchsorted(centres), 1, bins - 1)
    left, right = bin_frequency[index - 1], bin_frequency[index]
    index = np.unique(index - (centres - left < right - centres))
    filters = []
    for start, middle, stop in zip(index, index[1:], index[2:], strict=False):
        if stop - start < 2:
            middle, stop = start, start + 1
        row = np.zeros(bins)
        row[start:middle] = np.linspace(0, 1, middle - start, endpoint=False)
        row[middle:stop] = np.linspace(1, 0, stop - middle, endpoint=False)
        filters.append(row / row.sum())
    return np.array(filters, np.float32).T


def _features(mono: Floats) -> Floats:
    """Return the network's input, (frames, 272): log spectrum and its rise since last frame."""
    count = max(1, int(np.ceil(len(mono) / _HOP)))
    padded = np.pad(mono.astype(np.float32, copy=False), (_WINDOW // 2, _WINDOW + _HOP))
    view = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:count]
    window, bank = np.hanning(_WINDOW).astype(np.float32), _filterbank()
    blocks = []
    for start in range(0, count, 1024):
        spectrum = np.abs(sfft.rfft(view[start : start + 1024] * window, axis=1))
        blocks.append(spectrum[:, : _WINDOW >> 1].astype(np.float32) @ bank)
    logs = np.log10(np.concatenate(blocks) + 1)
    rise = np.zeros_like(logs)
    rise[1:] = np.maximum(0, logs[1:] - logs[:-1])
    return np.hstack([logs, rise])
