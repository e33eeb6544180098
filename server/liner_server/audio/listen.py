"""One file in, everything that listening to it yields out.

Runs in a listening process (`pool.ListeningPool`), never in the server: it takes seconds of CPU
and hands hostile bytes to C code.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import google_crc32c
import numpy as np
import soxr
from numpy.typing import NDArray

from liner_server.audio.decode import Decoding
from liner_server.audio.errors import EmptyAudioError, TooLargeError
from liner_server.audio.fingerprinter import SECONDS, fingerprint
from liner_server.audio.gate import classify_content
from liner_server.audio.key import estimate_key
from liner_server.audio.limits import Limits
from liner_server.audio.loudness import LoudnessMeter
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
from liner_server.audio.mono import mono
from liner_server.audio.sniff import EXTENSIONS, Container, Sniffed, sniff
from liner_server.audio.spectra import is_silent
from liner_server.audio.tagger import Impression, impression_of, tag
from liner_server.audio.tags import read_tags
from liner_server.audio.technical import TechnicalMeter
from liner_server.audio.tempo import estimate_tempo
from liner_server.audio.windows import ANALYSIS_RATE_HZ, Windows

_CHUNK = 1 << 20
_FAILED = "the estimator failed"


def listen(path: Path, *, name: str, limits: Limits) -> Listening:
    """Return all that one pass over a file yields.

    `name` is what the caller calls the file: only its extension is looked at, to be compared
    with the bytes.

    Raises:
        AudioError: one of its kinds; `errors` says which.

    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            raise EmptyAudioError("the file has no bytes")
        if size > limits.max_bytes:
            raise TooLargeError(f"{size} bytes; Liner reads at most {limits.max_bytes}")
        sniffed = sniff(file)
        _refuse_too_long(file, sniffed, size=size, limits=limits)
        sha256, crc32c = _digests(file)
        tags = read_tags(file)
        with Decoding(file, sniffed, size=size, limits=limits) as decoding:
            heard = _hear(decoding)
            problems = decoding.problems()
            duration = decoding.duration_seconds
            form = Format(
                container=sniffed.container.value,
                codec=decoding.codec,
                sample_rate_hz=decoding.sample_rate_hz,
                channels=decoding.channels,
                bit_depth=decoding.bit_depth,
                bit_rate_bps=round(size * 8 / duration),
                duration_seconds=duration,
                size_bytes=size,
                sha256=sha256,
                crc32c=crc32c,
            )
    if not _extension_fits(name, sniffed.container):
        problems += (Problem.AUDIO_EXTENSION_MISMATCH,)
    impression = None if is_silent(heard.signal) else impression_of(heard.signal)
    content, content_score = classify_content(
        heard.signal, embedding=impression.embedding if impression else None
    )
    if impression is not None and content is Content.MUSIC:
        tempo, key = _tempo(heard.signal), _key(heard.signal)
        tagging = _tagging(heard.signal, impression, heard.loudness.integrated_lufs)
    else:
        tagging = None
        doubt = f"{content.value}, not music"
        tempo, key = Tempo(bpm=None, score=0.0, doubt=doubt), Key(key=None, score=0.0, doubt=doubt)
    return Listening(
        format=form,
        tags=tags,
        content=content,
        content_score=content_score,
        tempo=tempo,
        key=key,
        loudness=heard.loudness,
        technical=heard.technical,
        tagging=tagging,
        problems=problems,
        fingerprint=heard.fingerprint,
    )


def _refuse_too_long(file: BinaryIO, sniffed: Sniffed, *, size: int, limits: Limits) -> None:
    """Decode a file that says it is too long without listening to it: a fifth of the work.

    The decoder raises when the limit is reached. A header that lied costs this extra pass.
    """
    with Decoding(file, sniffed, size=size, limits=limits) as decoding:
        if decoding.expected_seconds > limits.max_duration.total_seconds():
            for _ in decoding.blocks():
                pass


def _tempo(signal: NDArray[np.float32]) -> Tempo:
    try:
        return estimate_tempo(signal)
    except (ArithmeticError, IndexError, ValueError) as error:
        # One estimator that stumbles over an odd signal must not cost all other answers.
        return Tempo(bpm=None, score=0.0, doubt=f"{_FAILED}: {type(error).__name__}")


def _key(signal: NDArray[np.float32]) -> Key:
    try:
        return estimate_key(signal)
    except (ArithmeticError, IndexError, ValueError) as error:
        return Key(key=None, score=0.0, doubt=f"{_FAILED}: {type(error).__name__}")


def _tagging(
    signal: NDArray[np.float32], impression: Impression, integrated_lufs: float | None
) -> Tagging | None:
    try:
        return tag(signal, impression, integrated_lufs=integrated_lufs)
    except (ArithmeticError, IndexError, ValueError):
        return None


@dataclass(frozen=True)
class _Heard:
    loudness: Loudness
    technical: Technical
    fingerprint: bytes
    signal: NDArray[np.float32]
    """What tempo, key and content are judged on: mono at 22,050 Hz."""


def _hear(decoding: Decoding) -> _Heard:
    """Run all that listens block by block, once over the file."""
    rate, channels = decoding.sample_rate_hz, decoding.channels
    meter = LoudnessMeter(sample_rate_hz=rate, channels=channels, layout=decoding.layout)
    faults = TechnicalMeter(sample_rate_hz=rate, channels=channels)
    resampler = soxr.ResampleStream(rate, ANALYSIS_RATE_HZ, 1, dtype="float32", quality="MQ")
    windows, start = Windows(), Windows(window_seconds=SECONDS, max_windows=1)

    for block in decoding.blocks():
        meter.add(block)
        faults.add(block)
        samples = resampler.resample_chunk(mono(block))
        windows.add(samples)
        start.add(samples)
    rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    windows.add(rest)
    start.add(rest)
    return _Heard(meter.result(), faults.result(), fingerprint(start.signal()), windows.signal())


def _digests(file: BinaryIO) -> tuple[str, int]:
    """SHA-256 in hex and CRC32C of the whole file."""
    file.seek(0)
    sha, crc = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        sha.update(chunk)
        crc = google_crc32c.extend(crc, chunk)
    return sha.hexdigest(), crc


def _extension_fits(name: str, container: Container) -> bool:
    """Whether the name's extension goes with the bytes; a name without one says nothing."""
    extension = PurePosixPath(name).suffix.removeprefix(".").lower()
    known = frozenset().union(*EXTENSIONS.values())
    return extension not in known or extension in EXTENSIONS[container]
