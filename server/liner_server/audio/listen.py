"""One file in, everything that listening to it yields out.

Runs in a listening process (`pool.ListeningPool`), never in the server: it takes seconds of CPU
and hands hostile bytes to C code.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import google_crc32c
import numpy as np
import soxr
from numpy.typing import NDArray

from liner_server.audio.decode import Decoding
from liner_server.audio.errors import EmptyAudioError, TooLargeError
from liner_server.audio.limits import Limits
from liner_server.audio.loudness import LoudnessMeter
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
from liner_server.audio.sniff import EXTENSIONS, Container, sniff
from liner_server.audio.tags import read_tags
from liner_server.audio.windows import ANALYSIS_RATE_HZ, Windows

_CHUNK = 1 << 20


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
        sha256, crc32c = _digests(file)
        tags = read_tags(file)
        with Decoding(file, sniffed, size=size, limits=limits) as decoding:
            loudness, technical, signal = _hear(decoding)
            problems = decoding.problems()
            duration = decoding.duration_seconds
            form = Format(
                container=sniffed.container,
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
    try:
        from liner_server.audio.gate import classify_content
        from liner_server.audio.key import estimate_key
        from liner_server.audio.tempo import estimate_tempo
    except ModuleNotFoundError:
        content, content_score = Content.NOISE, 0.0
    else:
        content, content_score = classify_content(signal)
    if content is Content.MUSIC:
        tempo, key = estimate_tempo(signal), estimate_key(signal)
    else:
        doubt = f"{content.value}, not music"
        tempo, key = Tempo(bpm=None, score=0.0, doubt=doubt), Key(key=None, score=0.0, doubt=doubt)
    return Listening(
        format=form,
        tags=tags,
        content=content,
        content_score=content_score,
        tempo=tempo,
        key=key,
        loudness=loudness,
        technical=technical,
        problems=problems,
    )


def _hear(decoding: Decoding) -> tuple[Loudness, Technical, NDArray[np.float32]]:
    """Run all that listens block by block, once over the file."""
    rate = decoding.sample_rate_hz
    meter = LoudnessMeter(sample_rate_hz=rate, channels=decoding.channels)
    resampler = soxr.ResampleStream(rate, ANALYSIS_RATE_HZ, 1, dtype="float32", quality="MQ")
    windows = Windows()
    for block in decoding.blocks():
        meter.add(block)
        windows.add(resampler.resample_chunk(block.mean(axis=0)))
    windows.add(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return meter.result(), Technical(), windows.signal()


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
