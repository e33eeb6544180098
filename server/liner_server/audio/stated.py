"""What a file's headers say about its length, so that it can be held against what decodes.

Nothing here is believed: forged totals claim weeks. A statement only serves to tell an editor
that the data end early (`AUDIO_TRUNCATED`) or that the header is wrong (`AUDIO_HEADER_LIES`).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

from liner_server.audio.sniff import Container, Sniffed, mpeg_frame_bytes

_MAX_CHUNKS = 10_000
"""A file of nothing but empty chunks would otherwise be walked for minutes."""

_OGG_TAIL = 128 * 1024
"""More than one page of at most 65,307 bytes, so the last page is always inside."""

_UNKNOWN_SIZES = frozenset({0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 36})
"""What programs that write to a pipe leave in the size of a chunk."""


@dataclass(frozen=True)
class Stated:
    """What the container claims about its own length."""

    seconds: float | None = None
    """Duration as the header has it; None when the container states none."""

    cut: bool = False
    """Whether the container itself says that data should follow where the file ends."""


def read_stated(file: BinaryIO, sniffed: Sniffed, *, size: int) -> Stated:
    """Return what the headers of `file`, `size` bytes long, claim; never raises for bad bytes.

    The totals of FLAC, M4A and Ogg are left to the decoder, which has parsed them already.
    """
    readers = {
        Container.WAV: _wav,
        Container.AIFF: _aiff,
        Container.MP3: _mp3,
        Container.OGG: _ogg,
        Container.M4A: _m4a,
    }
    reader = readers.get(sniffed.container)
    if reader is None:
        return Stated()
    try:
        return reader(file, sniffed.offset, size)
    except (struct.error, IndexError, ZeroDivisionError, OverflowError):
        return Stated()


def _chunks(
    file: BinaryIO, start: int, size: int, *, order: str
) -> Iterator[tuple[bytes, int, int]]:
    """Yield (id, position of the body, stated length) of RIFF or IFF chunks."""
    at = start
    for _ in range(_MAX_CHUNKS):
        if at + 8 > size:
            return
        file.seek(at)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        yield name, at + 8, length
        at += 8 + length + (length & 1)


def _wav(file: BinaryIO, offset: int, size: int) -> Stated:
    byte_rate, long_size = 0, None
    for name, at, stated in _chunks(file, offset + 12, size, order="<"):
        if name == b"ds64":
            file.seek(at)
            _, long_size = struct.unpack("<QQ", file.read(16))
        elif name == b"fmt ":
            file.seek(at)
            byte_rate = struct.unpack("<8xI", file.read(12))[0]
        elif name == b"data":
            length = long_size if stated == 0xFFFFFFFF and long_size else stated
            if length in _UNKNOWN_SIZES or not byte_rate:
                return Stated()
            return Stated(length / byte_rate, cut=at + length > size)
    return Stated()


def _aiff(file: BinaryIO, offset: int, size: int) -> Stated:
    seconds, cut = None, False
    for name, at, stated in _chunks(file, offset + 12, size, order=">"):
        if name == b"COMM":
            file.seek(at)
            frames, exponent, mantissa = struct.unpack(">2xI2xHQ", file.read(18))
            # 80-bit extended precision: a sample rate is far inside the range of a float.
            rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
            seconds = frames / rate
        elif name == b"SSND":
            cut = stated not in _UNKNOWN_SIZES and at + stated > size
    return Stated(seconds, cut=cut)


def _mp3(file: BinaryIO, offset: int, size: int) -> Stated:
    file.seek(offset)
    head = file.read(4096)
    start = next((at for at in range(len(head) - 4) if mpeg_frame_bytes(head[at : at + 4])), None)
    if start is None:
        return Stated()
    head = head[start:]
    # The encoder's information frame: "Xing" for variable, "Info" for constant bit rate.
    mark = max(head.find(b"Xing", 0, 64), head.find(b"Info", 0, 64))
    if mark < 0:
        return Stated()
    flags = struct.unpack_from(">I", head, mark + 4)[0]
    if not flags & 1:
        return Stated()
    frames = struct.unpack_from(">I", head, mark + 8)[0]
    cut = False
    if flags & 2:
        stated = struct.unpack_from(">I", head, mark + 12)[0]
        cut = offset + start + stated > size
    version, rate_index = head[1] >> 3 & 3, head[2] >> 2 & 3
    rate = (44_100, 48_000, 32_000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    return Stated(frames * (1152 if version == 3 else 576) / rate, cut=cut)


def _ogg(file: BinaryIO, offset: int, size: int) -> Stated:
    """Ogg states no total, but its last page is marked, says how long it is, and is checksummed."""
    start = max(offset, size - _OGG_TAIL)
    file.seek(start)
    tail = file.read(_OGG_TAIL)
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return Stated(cut=True)
    segments = tail[at + 26]
    table = tail[at + 27 : at + 27 + segments]
    page = tail[at : at + 27 + segments + sum(table)]
    whole = len(table) == segments and len(page) == 27 + segments + sum(table)
    last = bool(tail[at + 5] & 4)
    return Stated(cut=not (whole and last and _ogg_checksum(page) == page[22:26]))


def _ogg_checksum(page: bytes) -> bytes:
    """The CRC of a page, as its bytes 22 to 25 hold it; they count as zero themselves."""
    table = _crc_table()
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return struct.pack("<I", crc)


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        crc = index << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
        table.append(crc)
    return tuple(table)


def _m4a(file: BinaryIO, offset: int, size: int) -> Stated:
    at = offset
    for _ in range(_MAX_CHUNKS):
        if at + 8 > size:
            break
        file.seek(at)
        (length,) = struct.unpack(">I4x", file.read(8))
        if length == 1:
            length = struct.unpack(">Q", file.read(8))[0]
        if at + length > size:
            return Stated(cut=True)
        if length < 8:
            # 0 means "to the end of the file"; anything else is damage the decoder will meet.
            break
        at += length
    return Stated()
