"""Excerpts of sound on their way to a model, and what the server process must not load for them."""

import base64
import io
import subprocess
import sys
import wave

import pytest
from liner_server.models import windows


def wav(*, rate: int = 16_000, channels: int = 1, width: int = 2, seconds: float = 1.0) -> bytes:
    """Return a silent WAV of this form."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(bytes(int(rate * seconds) * channels * width))
    return file.getvalue()


def test_an_excerpt_becomes_a_part_without_a_prefix() -> None:
    """OpenAI and vLLM take bare base64; a data: URL is refused."""
    [part] = windows.parts([wav()], most=2)

    assert part["type"] == "input_audio"
    assert part["input_audio"]["format"] == "wav"
    assert base64.b64decode(part["input_audio"]["data"], validate=True) == wav()


def test_no_more_are_sent_than_configured() -> None:
    """vLLM refuses a request with more sounds than it was started for."""
    assert len(windows.parts([wav(seconds=0.1)] * 5, most=3)) == 3
    assert windows.parts([wav()], most=0) == []


@pytest.mark.parametrize(
    "excerpt",
    [
        wav(rate=44_100),
        wav(channels=2),
        wav(width=1),
        wav(seconds=30.1),
        b"",
        b"RIFF",
        wav()[:20],
        b"ID3\x04 not a wav",
    ],
)
def test_what_a_model_would_hear_wrongly_is_refused(excerpt: bytes) -> None:
    """Qwen2-Audio drops what is behind 30 s, and takes any rate for its own, without a word."""
    with pytest.raises(ValueError, match="an excerpt is not"):
        windows.parts([excerpt], most=1)


def test_half_a_minute_fits() -> None:
    """The largest that a listening process cuts."""
    [part] = windows.parts([wav(seconds=30)], most=1)

    assert len(part["input_audio"]["data"]) == 1_280_060


def test_the_silence_of_a_probe_is_an_excerpt() -> None:
    """A probe that is refused for its form would call a model deaf."""
    assert windows.parts([windows.silence()], most=1)


def test_asking_models_loads_no_numpy() -> None:
    """The server process answers calls; arrays live in the listening processes."""
    code = (
        "import sys, liner_server.models.qwen2, liner_server.models.openai;"
        "print([n for n in ('numpy', 'soxr', 'av') if n in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
    )

    assert done.stdout.strip() == "[]"
