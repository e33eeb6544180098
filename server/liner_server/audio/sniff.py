"""Which container a file is, from its first bytes only.

A name's extension proves nothing, and FFmpeg's own probing would open a playlist or an
`ffconcat` script that points at other files. So Liner decides here, forces the decoder to
that one format, and refuses everything else by name.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from liner_server.audio.errors import (
    BrokenAudioError,
    EmptyAudioError,
    UnsupportedAudioError,
)


class Container(StrEnum):
    """The containers Liner reads."""

    WAV = "wav"
    AIFF = "aiff"
    FLAC = "flac"
    MP3 = "mp3"
    OGG = "ogg"
    M4A = "m4a"


EXTENSIONS: dict[Container, frozenset[str]] = {
    Container.WAV: frozenset({"wav", "wave", "bwf", "rf64"}),
    Container.AIFF: frozenset({"aif", "aiff", "aifc", "afc"}),
    Container.FLAC: frozenset({"flac"}),
    Container.MP3: frozenset({"mp3", "mp2", "mpga"}),
    Container.OGG: frozenset({"ogg", "oga", "opus", "ogv"}),
    Container.M4A: frozenset({"m4a", "m4b", "mp4", "m4v", "mov", "alac", "aac"}),
}
"""The extensions that go with each container."""

_HEAD = 64 * 1024
"""Bytes looked at after an ID3 tag: encoders and editors leave junk before the first frame."""

_REFUSED_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"MThd", "MIDI"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"MP+", "Musepack"),
    (0, b"MPCK", "Musepack"),
    (0, b"DSD ", "DSD"),
    (0, b"FRM8", "DSD"),
    (0, b"TTA1", "True Audio"),
    (0, b"caff", "Core Audio Format"),
    (0, b"riff\x2e\x91\xcf\x11", "Wave64"),
    (0, b".snd", "Sun audio"),
    (0, b"#!AMR", "AMR"),
    (0, b".RMF", "RealMedia"),
    (0, b"\x00\x00\x01\xba", "MPEG video"),
    (0, b"\x00\x00\x01\xb3", "MPEG video"),
    (8, b"AVI ", "AVI video"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\x7fELF", "a program"),
)
_REFUSED_TEXT: tuple[tuple[bytes, str], ...] = (
    (b"#extm3u", "an M3U playlist"),
    (b"#extinf", "an M3U playlist"),
    (b"[playlist]", "a PLS playlist"),
    (b"[reference]", "an ASX playlist"),
    (b"<asx", "an ASX playlist"),
    (b"<smil", "a SMIL playlist"),
    (b"ffconcat", "an ffconcat script"),
    (b"v=0", "an SDP session"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"<?xml", "XML"),
    (b"{", "JSON or text"),
)
_PROTOCOLS = (b"http:", b"https:", b"rtsp:", b"rtmp:", b"mms:", b"ftp:", b"file:", b"concat:")


@dataclass(frozen=True)
class Sniffed:
    """What a file is and where it begins."""

    container: Container

    offset: int
    """Bytes of ID3 tags in front of the container; the decoder never sees them."""


def sniff(file: BinaryIO) -> Sniffed:
    """Return the container of an open file, leaving its position at the start.

    Raises:
        EmptyAudioError: the file has no bytes.
        BrokenAudioError: there is a tag and nothing behind it.
        UnsupportedAudioError: anything else; the text says what it looks like.

    """
    file.seek(0)
    head = file.read(_HEAD)
    offset = 0
    # Some taggers write a second ID3 tag in front of the first; more than a few is an attack.
    for _ in range(4):
        size = _id3_size(head)
        if not size:
            break
        offset += size
        file.seek(offset)
        head = file.read(_HEAD)
    file.seek(0)
    if not head:
        if offset:
            raise BrokenAudioError("the file ends inside its ID3 tag, before any audio")
        raise EmptyAudioError("the file has no bytes")
    container = _container(head)
    if container is None:
        raise UnsupportedAudioError(
            f"not audio that Liner reads: it looks like {_looks_like(head)}"
        )
    return Sniffed(container, offset)


def _id3_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag `head` begins with, 0 when there is none."""
    if len(head) < 10 or head[:3] != b"ID3" or head[3] == 0xFF:
        return 0
    if any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    footer = 10 if head[5] & 0x10 else 0
    return 10 + size + footer


def _container(head: bytes) -> Container | None:
    if head[:4] in {b"RIFF", b"RF64", b"BW64"} and head[8:12] == b"WAVE":
        return Container.WAV
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        return Container.AIFF
    if head[:4] == b"fLaC":
        return Container.FLAC
    if head[:4] == b"OggS":
        return Container.OGG
    if head[4:8] == b"ftyp":
        return Container.M4A
    if any(head[at : at + len(magic)] == magic for at, magic, _ in _REFUSED_MAGIC):
        return None
    return Container.MP3 if _has_mpeg_frames(head) else None


def _has_mpeg_frames(head: bytes) -> bool:
    """Whether two MPEG audio frames of one kind follow each other.

    One sync word alone turns up in any binary file; two at the distance the first one
    states, with the same version, layer and rate, practically do not.
    """
    at = head.find(b"\xff")
    while 0 <= at <= len(head) - 4:
        length = mpeg_frame_bytes(head[at : at + 4])
        if length:
            follower = head[at + length : at + length + 4]
            if len(follower) < 4:
                # A file of a single frame, or cut inside it: only believed at the very start.
                return at == 0
            if mpeg_frame_bytes(follower) and _same_kind(head[at : at + 4], follower):
                return True
        at = head.find(b"\xff", at + 1)
    return False


def _same_kind(one: bytes, other: bytes) -> bool:
    return (one[1] & 0xFE) == (other[1] & 0xFE) and (one[2] & 0x0C) == (other[2] & 0x0C)


_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBPS = {
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(MPEG 1 or not, layer bits) -> kbit/s by index 1 to 14; layer bits 3, 2, 1 mean I, II, III."""


def mpeg_frame_bytes(header: bytes) -> int:
    """Return the length in bytes that a 4-byte MPEG audio frame header states, 0 if it is none.

    Free-format frames state no length and count as none.
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate_index, kbps_index = header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or layer == 0 or rate_index == 3 or kbps_index in {0, 15}:
        return 0
    rate = _RATES[version][rate_index]
    bits = _KBPS[version == 3, layer][kbps_index - 1] * 1000
    padding = header[2] >> 1 & 1
    if layer == 3:
        return (12 * bits // rate + padding) * 4
    slots = 72 if layer == 1 and version != 3 else 144
    return slots * bits // rate + padding


def _looks_like(head: bytes) -> str:
    for at, magic, name in _REFUSED_MAGIC:
        if head[at : at + len(magic)] == magic:
            return name
    text = head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, name in _REFUSED_TEXT:
        if text.startswith(start):
            return name
    if text.startswith(_PROTOCOLS):
        return "a network address"
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:
        return "raw AAC (put it in an M4A)"
    if _is_text(head[:4096]):
        return "text"
    return "unknown binary data"


def _is_text(head: bytes) -> bool:
    return not any(byte < 9 or 13 < byte < 32 for byte in head)
