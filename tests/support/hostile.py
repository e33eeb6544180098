"""Files made to harm whoever opens them: the same ones from the same seed."""

import random
import struct
from collections.abc import Callable, Iterator

import numpy as np
import soxr

from support.audio_files import EXTENSIONS, FORMATS, encode, piece, wav

Case = tuple[str, bytes]
"""A file name that tells what was done, and the bytes."""

_TAGS = {"title": "Title", "artist": "Artist", "isrc": "USRC17607839"}
_FIRST_INDEX = {"aac": {"moov_size": "4000"}, "alac": {"moov_size": "4000"}}
_MAGICS = (
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00",
    b"RF64\xff\xff\xff\xffWAVEds64\x1c\x00\x00\x00",
    b"FORM\x7f\xff\xff\xffAIFFCOMM\x00\x00\x00\x12",
    b"FORM\x7f\xff\xff\xffAIFC",
    b"fLaC\x00\x00\x00\x22",
    b"fLaC\x84\xff\xff\xff",
    b"OggS\x00\x02" + bytes(20) + b"\x01\x1e\x01vorbis",
    b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead",
    b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00",
    b"\x00\x00\x00\x18ftypisom",
    b"\xff\xfb\x90\x64",
    b"\xff\xfb\x90\x64" + bytes(413) + b"\xff\xfb\x90\x64",
    b"ID3\x04\x00\x00\x00\x00\x7f\x7f",
    b"ID3\x03\x00\x40\x00\x00\x00\x20",
)
_TEXTS = (
    b"#EXTM3U\nhttp://127.0.0.1:1/a.mp3\n",
    b"[playlist]\nFile1=/etc/passwd\n",
    b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    b"concat:/etc/passwd|/etc/hosts",
    b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n",
    b"<html><body>404</body></html>",
    b"\x00" * 5_000,
    b"\xff" * 5_000,
    b"A",
    b"",
)


def base_files(*, seconds: float = 1.5) -> dict[str, bytes]:
    """Return one short, tagged, healthy file of every format."""
    signal = piece(seconds, seed=1)
    files = {}
    for kind in FORMATS:
        rate = 48_000 if kind == "opus" else 44_100
        samples = soxr.resample(signal.T, 44_100, rate).T
        options = _FIRST_INDEX.get(kind)
        files[kind] = encode(samples, kind, rate=rate, metadata=_TAGS, options=options)
    return files


def bomb(hours: float) -> bytes:
    """Return hours of silence in a few kilobytes an hour: one FLAC frame, over and over.

    Frames carry their number, but a decoder that resynchronises does not mind repeats.
    """
    silence = encode(np.zeros((2, 44_100 * 60), np.float32), "flac")
    start = silence.index(b"\xff\xf8")
    return silence[:start] + silence[start:] * round(hours * 60)


def fixed_cases(files: dict[str, bytes]) -> Iterator[Case]:
    """Yield the cases that need no chance: cuts, texts, odd headers, bombs of structure."""
    for kind, data in files.items():
        for tenth in range(1, 10):
            yield f"cut-{tenth}.{EXTENSIONS[kind]}", data[: len(data) * tenth // 10]
    for index, text in enumerate(_TEXTS):
        yield f"text-{index}.mp3", text
    healthy = wav(np.zeros((2, 1), np.float32))
    yield "one-sample.wav", healthy
    for channels in (0, 9, 96, 65_535):
        yield f"channels-{channels}.wav", _patched(healthy, 22, struct.pack("<H", channels))
    for rate in (0, 1, 7_999, 384_001, 0xFFFFFFFF):
        yield f"rate-{rate}.wav", _patched(healthy, 24, struct.pack("<I", rate))
    for bits in (0, 1, 7, 33, 65_535):
        yield f"bits-{bits}.wav", _patched(healthy, 34, struct.pack("<H", bits))
    for code in (0, 2, 3, 0x11, 0x55, 0xFF, 0x161, 0x2000, 0xFFFE, 0xFFFF):
        yield f"codec-{code}.wav", _patched(files["wav"], 20, struct.pack("<H", code))
    yield "96-channels.wav", wav(np.zeros((96, 4_410), np.float32))
    yield (
        "nested.m4a",
        _ftyp()
        + b"".join(struct.pack(">I4s", 8 * (20_000 - depth), b"moov") for depth in range(20_000)),
    )
    yield "many-boxes.m4a", _ftyp() + struct.pack(">I4s", 8, b"free") * 50_000
    yield "many-chunks.wav", b"RIFF\xff\xff\xff\xffWAVE" + (b"JUNK" + bytes(4)) * 50_000
    yield "huge-tag.mp3", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(10_000)
    yield "tags-in-tags.mp3", b"ID3\x04\x00\x00\x00\x00\x00\x00" * 5_000 + files["mp3"]
    yield (
        "huge-table.m4a",
        files["aac"].replace(b"stsz" + bytes(8), b"stsz" + bytes(8) + b"\x7f\xff\xff\xff"),
    )


def drawn_cases(files: dict[str, bytes], *, seed: int) -> Iterator[Case]:
    """Yield cases for ever, drawn from the seed."""
    draw = random.Random(seed)
    kinds = list(files)
    harms: tuple[Callable[[random.Random, bytes], bytes], ...] = (
        _flipped,
        _flipped,
        _damaged_header,
        _lying_header,
        _cut_out,
        _repeated,
        _truncated,
    )
    index = 0
    while True:
        index += 1
        kind = draw.choice(kinds)
        name = f"{index}.{EXTENSIONS[kind]}"
        choice = draw.random()
        if choice < 0.1:
            noise = draw.randbytes(draw.randint(0, 20_000))
            yield f"magic-{name}", draw.choice(_MAGICS) + noise
        elif choice < 0.2:
            other = files[draw.choice(kinds)]
            half = files[kind][: draw.randint(1, len(files[kind]))]
            yield f"splice-{name}", half + other[draw.randint(0, len(other)) :]
        else:
            harm = draw.choice(harms)
            yield f"{harm.__name__.strip('_')}-{name}", harm(draw, files[kind])


def _ftyp() -> bytes:
    return struct.pack(">I4s4sI", 16, b"ftyp", b"M4A ", 0)


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _flipped(draw: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(draw.choice((1, 3, 10, 100, 1_000))):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _damaged_header(draw: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(draw.randint(1, 20)):
        damaged[draw.randrange(min(len(damaged), 400))] = draw.randrange(256)
    return bytes(damaged)


def _lying_header(draw: random.Random, data: bytes) -> bytes:
    value = draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, draw.getrandbits(32)))
    at = draw.randrange(4, min(len(data), 300))
    return _patched(data, at, struct.pack(draw.choice("<>") + "I", value))


def _cut_out(draw: random.Random, data: bytes) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randint(1, 5_000) :]


def _repeated(draw: random.Random, data: bytes) -> bytes:
    start = draw.randrange(len(data))
    span = data[start : start + draw.randint(1, 2_000)]
    return data[:start] + span * draw.randint(2, 50) + data[start:]


def _truncated(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]
