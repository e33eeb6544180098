"""What crosses from a listening process is rebuilt and checked, never believed."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from liner_server.audio import wire
from liner_server.audio.measurements import (
    Content,
    Format,
    Key,
    Listening,
    Loudness,
    Problem,
    Technical,
    Tempo,
)

LISTENING = Listening(
    format=Format(
        container="flac",
        codec="flac",
        sample_rate_hz=44_100,
        channels=2,
        bit_depth=16,
        bit_rate_bps=900_000,
        duration_seconds=12.5,
        size_bytes=1_400_000,
        sha256="ab" * 32,
        crc32c=123,
    ),
    tags={"title": "Größe", "isrc": "USRC17607839"},
    content=Content.MUSIC,
    content_score=0.9,
    tempo=Tempo(
        bpm=124.0,
        score=0.8,
        candidates=((124.0, 0.8), (62.0, 0.1)),
        stability=0.97,
        features={"margin": 0.4},
    ),
    key=Key(key=None, score=0.1, candidates=(("A minor", 0.1),), tuning_cents=-3.0, doubt="flat"),
    loudness=Loudness(integrated_lufs=-9.5, range_lu=4.0, true_peak_dbtp=None),
    technical=Technical(clipped_samples=3, dual_mono=True, silent_channel=True, cutoff_hz=16_000.0),
    problems=(Problem.AUDIO_TRUNCATED, Problem.AUDIO_EXTENSION_MISMATCH),
    fingerprint=bytes(range(100)),
)


def crossed(message: dict[str, Any]) -> Listening:
    """The listening at the other end of the socket."""
    frame = wire.pack(message)
    return wire.to_listening(wire.unpack(frame[wire.LENGTH.size :]))


def test_a_listening_comes_out_as_it_went_in() -> None:
    """Every field crosses, whatever is added to the dataclasses later."""
    assert crossed(wire.from_listening(LISTENING)) == LISTENING


def test_numbers_of_numpy_and_numbers_that_are_none_cross_as_plain_ones() -> None:
    """An estimator that forgets to convert must not cost the file its answer."""
    tempo: Any = Tempo(bpm=np.float64(100), score=np.float32(0.5), features={"x": math.nan})  # type: ignore[arg-type]

    found = crossed(wire.from_listening(dataclasses.replace(LISTENING, tempo=tempo)))

    assert found.tempo == Tempo(bpm=100.0, score=0.5)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format", "sample_rate_hz"), "44100"),
        (("format", "channels"), True),
        (("tags", "title"), 5),
        (("content",), "music; rm -rf /"),
        (("tempo", "bpm"), "fast"),
        (("tempo", "candidates"), [[1]]),
        (("key", "key"), 5),
        (("technical", "dual_mono"), 1),
        (("problems",), ["NO_SUCH_PROBLEM"]),
        (("fingerprint",), "not base64!"),
        (("loudness",), None),
    ],
)
def test_a_reply_of_another_shape_is_refused(path: tuple[str, ...], value: object) -> None:
    """A process taken over by a hostile file may answer anything."""
    message = wire.from_listening(LISTENING)
    inner = message
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value

    with pytest.raises(wire.WireError):
        crossed(message)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_a_frame_that_is_no_json_object_is_refused(body: bytes) -> None:
    """Including the constants that only Python's JSON accepts, and nesting without end."""
    with pytest.raises(wire.WireError):
        wire.unpack(body)


def test_infinity_by_overflow_is_refused() -> None:
    """1e999 is valid JSON and parses to infinity."""
    text = json.dumps(wire.from_listening(LISTENING)).replace("12.5", "1e999")

    with pytest.raises(wire.WireError):
        wire.to_listening(wire.unpack(text.encode()))


def test_a_frame_over_the_limit_is_not_sent() -> None:
    """The other end would cut the connection; better to fail where the fault is."""
    with pytest.raises(wire.WireError):
        wire.pack({"text": "x" * wire.MAX_FRAME_BYTES})
