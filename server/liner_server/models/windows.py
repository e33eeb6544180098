"""Excerpts of sound as an OpenAI-compatible endpoint takes them."""

import base64
import io
import wave
from collections.abc import Sequence
from typing import Any

RATE_HZ = 16_000
MOST_SECONDS = 30
"""What an audio model hears of one excerpt; it drops the rest without a word."""

BYTES_A_TOKEN = RATE_HZ * 2 // 25
"""At 25 tokens a second, as Qwen2-Audio has them; OpenAI counts fewer."""


class ExcerptError(ValueError):
    """An excerpt that a model would hear wrongly."""


def parts(excerpts: Sequence[bytes], *, most: int) -> list[dict[str, Any]]:
    """Return the first `most` excerpts as content parts of a chat message.

    Raises:
        ExcerptError: one is not a WAV of 16 kHz, mono, 16 bit and at most 30 s.

    """
    for excerpt in excerpts[:most]:
        _check(excerpt)
    return [
        {
            "type": "input_audio",
            "input_audio": {"data": base64.b64encode(excerpt).decode(), "format": "wav"},
        }
        for excerpt in excerpts[:most]
    ]


def silence(seconds: float = 0.5) -> bytes:
    """Return a WAV without a sound: what an endpoint is asked with whether it hears."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(bytes(2 * int(RATE_HZ * seconds)))
    return file.getvalue()


def _check(excerpt: bytes) -> None:
    try:
        with wave.open(io.BytesIO(excerpt)) as reader:
            form = (reader.getframerate(), reader.getnchannels(), reader.getsampwidth())
            frames = reader.getnframes()
    except (wave.Error, EOFError) as error:
        raise ExcerptError("an excerpt is not a WAV file") from error
    if form != (RATE_HZ, 1, 2) or frames > MOST_SECONDS * RATE_HZ:
        raise ExcerptError("an excerpt is not 16 kHz, mono, 16 bit and at most 30 s")
