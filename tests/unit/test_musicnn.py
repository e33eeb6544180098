"""musicnn in numpy: the published weights, the published tags, and the network as published."""

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from liner_server.audio import musicnn
from liner_server.audio.checkpoint import load_checkpoint
from liner_server.audio.spectra import Floats
from scipy.signal import correlate


def published() -> ModuleType:
    """The wheel's own configuration, without the package around it, which needs TensorFlow."""
    path = musicnn.weights_path("MSD").parent / "configuration.py"
    spec = importlib.util.spec_from_file_location("published", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_patch() -> Floats:
    """Three seconds with tones, strokes and noise, as the network sees them."""
    time = np.arange(musicnn.PATCH_SAMPLES) / musicnn.RATE_HZ
    strokes = np.exp(-8 * ((2 * time) % 1))
    sound = 0.4 * np.sin(2 * np.pi * 220 * time) * strokes
    sound += 0.05 * np.random.default_rng(1).standard_normal(len(time))
    return musicnn.mel_patches(sound[None].astype(np.float32))[0]


def by_the_book(weights: dict[str, Floats], mel: Floats) -> Floats:
    """The network as its paper draws it, one filter at a time: slow, and nothing shared."""

    def layer(kind: str, index: int, name: str) -> Floats:
        return weights[f"{kind}_{index}/{name}" if index else f"{kind}/{name}"]

    def normal(values: Floats, index: int) -> Floats:
        gamma, beta, mean, variance = (
            layer("batch_normalization", index, name)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return np.asarray(gamma * (values - mean) / np.sqrt(variance + 1e-3) + beta)

    def convolved(image: Floats, index: int) -> Floats:
        kernel, bias = layer("conv2d", index, "kernel"), layer("conv2d", index, "bias")
        found = [
            np.maximum(correlate(image, kernel[:, :, 0, k], "valid") + bias[k], 0)
            for k in range(len(bias))
        ]
        return normal(np.stack(found, axis=-1), index + 1)

    image = normal(mel[..., None], 0)[..., 0]
    views = [convolved(np.pad(image, ((3, 3), (0, 0))), index).max(1) for index in (0, 1)]
    for index, length in ((2, 128), (3, 64), (4, 32)):
        padded = np.pad(image, (((length - 1) // 2, length // 2), (0, 0)))
        views.append(convolved(padded, index).max(1))
    layers = [np.concatenate(views, axis=1)]
    for index in (5, 6, 7):
        before = layers[-1]
        found = convolved(np.pad(before, ((3, 3), (0, 0))), index)[:, 0]
        layers.append(found + before if index > 5 else found)
    everything = np.concatenate(layers, axis=1)
    pooled = np.ravel(np.column_stack([everything.max(0), everything.mean(0)]))
    hidden = normal(pooled, 9) @ weights["dense/kernel"] + weights["dense/bias"]
    scores = normal(np.maximum(hidden, 0), 10) @ weights["dense_1/kernel"]
    return 1 / (1 + np.exp(-(scores + weights["dense_1/bias"])))


@pytest.mark.parametrize("name", ["MSD", "MTT"])
def test_tags_stand_in_the_published_order(name: str) -> None:
    """One name out of place and every answer after it is another instrument's."""
    assert list(musicnn.TAGS[name]) == getattr(published(), f"{name}_LABELS")


@pytest.mark.parametrize("name", ["MSD", "MTT"])
def test_the_network_answers_as_drawn_in_the_paper(name: str) -> None:
    """The fast form shares and reorders work; an independent slow one must agree."""
    patch = a_patch()

    fast = musicnn.networks()[name].run(patch[None])[0][0]

    slow = by_the_book(load_checkpoint(musicnn.weights_path(name)), patch)
    np.testing.assert_allclose(fast, slow, atol=1e-4)


def test_the_network_sees_what_the_published_extractor_computes() -> None:
    """The settings of the spectra are those the weights were trained with."""
    settings = published()

    assert settings.SR == musicnn.RATE_HZ
    assert a_patch().shape[1] == settings.N_MELS
    assert a_patch().shape[0] == musicnn.FRAMES
    assert settings.FFT_HOP * (musicnn.FRAMES - 1) + settings.FFT_SIZE == musicnn.PATCH_SAMPLES


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """A broken installation is told as such, not as a tagger that hears nonsense."""
    (tmp_path / ".data-00000-of-00001").write_bytes(b"")

    for index in (b"", b"x" * 47, struct.pack("<12I", *range(12)), bytes(48), b"\xff" * 64):
        (tmp_path / ".index").write_bytes(index)

        with pytest.raises(ValueError, match=r"checkpoint|compressed|wire"):
            load_checkpoint(tmp_path)
