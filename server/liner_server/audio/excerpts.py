"""Excerpts of a file for a model that hears: what an OpenAI-compatible endpoint takes.

Models hear 30 s at 16 kHz and drop the rest without a word. So a few windows are cut, spread
evenly, away from fade-in and applause. Runs in a listening process, like all that touches audio.
"""

import io
import wave
from pathlib import Path

import numpy as np
import soxr

from liner_server.audio.decode import Decoding
from liner_server.audio.errors import EmptyAudioError, TooLargeError
from liner_server.audio.limits import Limits
from liner_server.audio.mono import mono
from liner_server.audio.sniff import sniff
from liner_server.audio.spectra import Floats
from liner_server.audio.windows import Windows

RATE_HZ = 16_000
SECONDS = 30
_LENGTH = RATE_HZ * SECONDS


def cut_excerpts(path: Path, *, count: int, limits: Limits) -> list[bytes]:
    """Return at most `count` WAV files, mono, 16 kHz, 16 bit, at most 30 s each, in order.

    A file of 30 s or less gives one, all of it.

    Raises:
        AudioError: one of its kinds, as `listen` raises them.

    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            raise EmptyAudioError("the file has no bytes")
        if size > limits.max_bytes:
            raise TooLargeError(f"{size} bytes; Liner reads at most {limits.max_bytes}")
        windows = Windows(window_seconds=SECONDS, rate_hz=RATE_HZ)
        with Decoding(file, sniff(file), size=size, limits=limits) as decoding:
            resampler = soxr.ResampleStream(
                decoding.sample_rate_hz, RATE_HZ, 1, dtype="float32", quality="MQ"
            )
            for block in decoding.blocks():
                windows.add(resampler.resample_chunk(mono(block)))
            windows.add(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    signal = windows.signal()
    return [_wav(signal[start : start + _LENGTH]) for start in _starts(len(signal), count)]


def _starts(length: int, count: int) -> list[int]:
    """Where the excerpts begin: in the middle of as many equal parts."""
    room = length - _LENGTH
    if room <= 0:
        return [0]
    # More excerpts than fit would repeat each other.
    count = min(count, max(1, length // _LENGTH))
    return [int(room * (index + 0.5) / count) for index in range(count)]


def _wav(samples: Floats) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return file.getvalue()
