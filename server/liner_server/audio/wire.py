"""How the server and a listening process talk: frames of JSON over one socket.

The process has handled hostile bytes, so what comes back from it is not believed: frames have a
largest size, no object is unpickled, and every value is rebuilt field by field with its type
checked.
"""

import base64
import dataclasses
import json
import math
import struct
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from liner_server.audio.limits import Limits
from liner_server.audio.measurements import (
    Content,
    Format,
    Key,
    Listening,
    Loudness,
    Problem,
    Tagging,
    Technical,
    Tempo,
)

LENGTH = struct.Struct(">I")
"""Each frame is its length in bytes, then that many bytes of JSON."""

MAX_FRAME_BYTES = 16 << 20
"""No honest frame comes near it: eight excerpts for a model are 10 MiB, a listening far less."""


class WireError(Exception):
    """A frame that no honest peer sends."""


def pack(message: Mapping[str, Any]) -> bytes:
    """Return one frame, its length in front."""
    body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body)} bytes")
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> dict[str, Any]:
    """Return the message in the body of a frame."""
    try:
        message = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError("a frame that is not JSON") from error
    if not isinstance(message, dict):
        raise WireError("a frame that is not an object")
    return message


def from_listening(listening: Listening) -> dict[str, Any]:
    """Return what was heard as values JSON knows; numbers that are not finite become unknown."""
    found = dataclasses.asdict(listening)
    found["fingerprint"] = from_bytes(listening.fingerprint)
    cleaned = _finite(found)
    assert isinstance(cleaned, dict)  # noqa: S101 - for the type checker: a dict stays one
    return cleaned


def from_limits(limits: Limits) -> dict[str, Any]:
    """Return limits as values JSON knows."""
    return {
        **dataclasses.asdict(limits),
        "max_duration": limits.max_duration.total_seconds(),
    }


def to_limits(message: Mapping[str, Any]) -> Limits:
    """Return the limits a server sent."""
    return Limits(**{**message, "max_duration": timedelta(seconds=message["max_duration"])})


def from_bytes(data: bytes) -> str:
    """Return bytes as text that JSON carries."""
    return base64.b64encode(data).decode()


def to_excerpts(message: object) -> list[bytes]:
    """Return excerpts from a reply.

    Raises:
        WireError: it is not a list of bytes.

    """
    if not isinstance(message, list):
        raise WireError("a reply that is not a list of excerpts")
    try:
        return [base64.b64decode(_text(text), validate=True) for text in message]
    except (TypeError, ValueError) as error:
        raise WireError("a reply whose excerpts are not bytes") from error


def to_listening(message: Mapping[str, Any]) -> Listening:
    """Return what was heard from a message, every value checked.

    Raises:
        WireError: a field is missing or of another type.

    """
    try:
        return _listening(message)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"a reply that is not a listening: {type(error).__name__}") from error


def _listening(message: Mapping[str, Any]) -> Listening:
    form, tempo, key = message["format"], message["tempo"], message["key"]
    loudness, technical = message["loudness"], message["technical"]
    tagging = message["tagging"]
    return Listening(
        format=Format(
            container=_text(form["container"]),
            codec=_text(form["codec"]),
            sample_rate_hz=_whole(form["sample_rate_hz"]),
            channels=_whole(form["channels"]),
            bit_depth=None if form["bit_depth"] is None else _whole(form["bit_depth"]),
            bit_rate_bps=_whole(form["bit_rate_bps"]),
            duration_seconds=_number(form["duration_seconds"]),
            size_bytes=_whole(form["size_bytes"]),
            sha256=_text(form["sha256"]),
            crc32c=_whole(form["crc32c"]),
        ),
        tags={_text(path): _text(value) for path, value in message["tags"].items()},
        content=Content(message["content"]),
        content_score=_number(message["content_score"]),
        tempo=Tempo(
            bpm=_maybe(tempo["bpm"]),
            score=_number(tempo["score"]),
            candidates=tuple((_number(b), _number(s)) for b, s in tempo["candidates"]),
            stability=_maybe(tempo["stability"]),
            doubt=_text(tempo["doubt"]),
            features=_features(tempo["features"]),
        ),
        key=Key(
            key=None if key["key"] is None else _text(key["key"]),
            score=_number(key["score"]),
            candidates=tuple((_text(k), _number(s)) for k, s in key["candidates"]),
            tuning_cents=_number(key["tuning_cents"]),
            doubt=_text(key["doubt"]),
            features=_features(key["features"]),
        ),
        loudness=Loudness(
            integrated_lufs=_maybe(loudness["integrated_lufs"]),
            range_lu=_maybe(loudness["range_lu"]),
            true_peak_dbtp=_maybe(loudness["true_peak_dbtp"]),
        ),
        technical=Technical(
            clipped_samples=_whole(technical["clipped_samples"]),
            leading_silence_seconds=_number(technical["leading_silence_seconds"]),
            trailing_silence_seconds=_number(technical["trailing_silence_seconds"]),
            dual_mono=_flag(technical["dual_mono"]),
            phase_inverted=_flag(technical["phase_inverted"]),
            silent_channel=_flag(technical["silent_channel"]),
            dc_offset=_number(technical["dc_offset"]),
            cutoff_hz=_maybe(technical["cutoff_hz"]),
        ),
        tagging=None if tagging is None else _tagging(tagging),
        problems=tuple(Problem(problem) for problem in message["problems"]),
        fingerprint=base64.b64decode(_text(message["fingerprint"]), validate=True),
    )


def _tagging(message: Mapping[str, Any]) -> Tagging:
    return Tagging(
        songs=_features(message["songs"]),
        sounds=_features(message["sounds"]),
        energy=_number(message["energy"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("not a whole number")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError("not a finite number")
    return float(value)


def _maybe(value: object) -> float | None:
    return None if value is None else _number(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a flag")
    return value


def _features(values: Mapping[str, Any]) -> dict[str, float]:
    return {_text(name): _number(value) for name, value in values.items() if value is not None}


def _finite(value: Any) -> Any:
    """Plain JSON values: numpy scalars become Python's, and what is not finite becomes null."""
    match value:
        case dict():
            return {str(name): _finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case bool() | None:
            return value
        case str():
            return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)
