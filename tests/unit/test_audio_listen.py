"""One file in, everything out, and every refusal typed."""

import hashlib
from datetime import timedelta
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from liner_server.audio import errors
from liner_server.audio.limits import Limits
from liner_server.audio.listen import listen
from liner_server.audio.measurements import Content, Listening, Problem
from support.audio_files import Signal, encode, piece, wav


def listened(
    folder: Path, data: bytes, *, name: str = "track.wav", limits: Limits | None = None
) -> Listening:
    """What is heard in a file of these bytes."""
    path = folder / "object"
    path.write_bytes(data)
    return listen(path, name=name, limits=limits or Limits())


def of_left(signal: Signal) -> Signal:
    """Both channels as the left one."""
    return np.repeat(signal[:1], 2, axis=0)


def test_one_pass_yields_all_that_is_known(tmp_path: Path) -> None:
    """The parts are tested on their own; this is that they arrive together."""
    data = encode(piece(8, seed=1), "flac", metadata={"title": "A", "ISRC": "USRC17607839"})

    found = listened(tmp_path, data, name="a.flac")

    assert (found.format.container, found.format.codec) == ("flac", "flac")
    assert (found.format.sample_rate_hz, found.format.channels) == (44_100, 2)
    assert found.format.bit_depth == 16
    assert found.format.duration_seconds == pytest.approx(8)
    assert found.format.size_bytes == len(data)
    assert found.format.bit_rate_bps == pytest.approx(len(data))
    assert found.format.sha256 == hashlib.sha256(data).hexdigest()
    assert found.format.crc32c == google_crc32c.value(data)
    assert found.tags == {"title": "A", "isrc": "USRC17607839"}
    assert found.loudness.integrated_lufs is not None
    assert found.fingerprint
    assert found.problems == ()


def test_silence_gets_no_tempo_and_no_key(tmp_path: Path) -> None:
    """Estimators answer anything; what is no music must not be asked."""
    found = listened(tmp_path, wav(np.zeros((2, 10 * 44_100), np.float32)))

    assert found.content is Content.SILENCE
    assert (found.tempo.bpm, found.key.key) == (None, None)
    assert found.tempo.doubt == found.key.doubt == "silence, not music"
    assert found.loudness.integrated_lufs is None


@pytest.mark.parametrize(
    ("name", "mismatch"),
    [
        ("a.wav", False),
        ("A.WAVE", False),
        ("a.mp3", True),
        ("a.wav.m4a", True),
        ("masters/2024/a", False),
        ("a.final", False),
        ("", False),
    ],
)
def test_only_a_known_extension_can_contradict_the_bytes(
    tmp_path: Path, name: str, mismatch: bool
) -> None:
    """Objects are often named without one; that is no fault."""
    found = listened(tmp_path, wav(piece(1, seed=1)), name=name)

    assert (Problem.AUDIO_EXTENSION_MISMATCH in found.problems) is mismatch


def test_an_inverted_channel_does_not_make_a_track_silent(tmp_path: Path) -> None:
    """The mean of its channels is nothing; it is still music to be heard and fingerprinted."""
    signal = of_left(piece(6, seed=1))
    straight = listened(tmp_path, wav(signal))
    signal[1] *= -1

    inverted = listened(tmp_path, wav(signal))

    assert inverted.technical.phase_inverted
    assert inverted.content is straight.content
    assert inverted.fingerprint == straight.fingerprint


@pytest.mark.parametrize(
    ("kind", "depth"),
    [("wav", 16), ("wav24", 24), ("wavfloat", 32), ("flac", 16), ("alac", 24)],
)
def test_bit_depth_is_told_for_lossless_formats(tmp_path: Path, kind: str, depth: int) -> None:
    """A 24-bit delivery is checked against what was ordered."""
    assert listened(tmp_path, encode(piece(1, seed=1), kind)).format.bit_depth == depth


def test_lossy_formats_have_no_bit_depth(tmp_path: Path) -> None:
    """Decoders answer in floats, which says nothing about the file."""
    assert listened(tmp_path, encode(piece(1, seed=1), "mp3")).format.bit_depth is None


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", errors.EmptyAudioError),
        (b"#EXTM3U\nhttp://127.0.0.1/a.mp3", errors.UnsupportedAudioError),
        (b"ffconcat version 1.0\nfile /etc/passwd", errors.UnsupportedAudioError),
        (b"fLaC" + bytes(100), errors.BrokenAudioError),
        (wav(np.zeros((9, 100), np.float32)), errors.OutOfLimitsError),
    ],
)
def test_each_refusal_is_typed(tmp_path: Path, data: bytes, kind: type[errors.AudioError]) -> None:
    """Callers tell a broken upload from a wrong file by the reason."""
    with pytest.raises(kind):
        listened(tmp_path, data)


def test_a_file_over_the_size_limit_is_not_read(tmp_path: Path) -> None:
    """The text names both numbers."""
    with pytest.raises(errors.TooLargeError, match="at most 1000"):
        listened(tmp_path, bytes(1001), limits=Limits(max_bytes=1000))


def test_a_file_that_says_it_is_too_long_is_not_heard_in_vain(tmp_path: Path) -> None:
    """It is only decoded up to the limit; one whose header lied is heard after all."""
    limits = Limits(max_duration=timedelta(seconds=2))
    honest = encode(piece(3, seed=1), "flac")
    lying = bytearray(encode(piece(1, seed=1), "flac"))
    lying[21] |= 0x0F

    with pytest.raises(errors.TooLongError):
        listened(tmp_path, honest, limits=limits)
    heard = listened(tmp_path, bytes(lying), limits=limits)

    assert heard.format.duration_seconds == pytest.approx(1)
    assert Problem.AUDIO_HEADER_LIES in heard.problems
