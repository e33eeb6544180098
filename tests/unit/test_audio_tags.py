"""Embedded tags come out as text under field paths, whatever wrote them and however hostile."""

import io
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.audio.tags import read_tags
from support.audio_files import encode, noise

TAGS = {
    "title": "Größe",
    "artist": "Björk",
    "album": "Homogenic",
    "date": "1997-09-22",
    "genre": "Electronic",
    "composer": "Guðmundsdóttir",
    "copyright": "1997 One Little Indian",
}
MORE_TAGS = {
    "isrc": "GBAYE9700123",
    "bpm": "97",
    "initialkey": "Am",
    "language": "eng",
    "lyrics": "first line\nsecond line",
    "label": "One Little Indian",
    "publisher": "Famous Music",
    "barcode": "5016958033827",
}
EXPECTED = {
    "title": "Größe",
    "artists": "Björk",
    "album": "Homogenic",
    "release_date": "1997-09-22",
    "genre": "Electronic",
    "c_line": "1997 One Little Indian",
}
EXPECTED_MORE = {
    "isrc": "GBAYE9700123",
    "bpm": "97",
    "key": "Am",
    "language": "eng",
    "lyrics": "first line\nsecond line",
    "label": "One Little Indian",
    "publisher": "Famous Music",
    "upc": "5016958033827",
    "composer": "Guðmundsdóttir",
}


def tagged(kind: str, tags: dict[str, str]) -> dict[str, str]:
    """The tags read from a file of that kind, written by FFmpeg."""
    options = {"write_id3v2": "1"} if kind == "aiff" else {}
    return read_tags(io.BytesIO(encode(noise(0.3, seed=1), kind, metadata=tags, options=options)))


def id3(*frames: tuple[bytes, bytes]) -> bytes:
    """An ID3v2.3 tag in front of nothing but padding that looks like MP3."""
    body = b"".join(name + struct.pack(">IH", len(data), 0) + data for name, data in frames)
    size = bytes((len(body) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + body + b"\xff\xfb\x90\x00" + bytes(413)


@pytest.mark.parametrize("kind", ["mp3", "flac", "vorbis", "aac", "wav", "aiff"])
def test_the_common_tags_are_read_from_every_container(kind: str) -> None:
    """ID3, Vorbis comments, MP4 atoms and RIFF INFO say the same things in other words."""
    found = tagged(kind, TAGS)

    assert {path: found.get(path) for path in EXPECTED} == EXPECTED


@pytest.mark.parametrize("kind", ["flac", "vorbis"])
def test_identifiers_and_credits_are_read_from_vorbis_comments(kind: str) -> None:
    """Labels deliver ISRC, UPC and key this way."""
    found = tagged(kind, TAGS | MORE_TAGS)

    assert {path: found.get(path) for path in EXPECTED_MORE} == EXPECTED_MORE


def test_identifiers_and_credits_are_read_from_id3() -> None:
    """The same in ID3's own frames."""
    names = {"isrc": "TSRC", "bpm": "TBPM", "initialkey": "TKEY", "language": "TLAN"}
    tags = {names.get(name, name): value for name, value in MORE_TAGS.items()}

    found = tagged("mp3", TAGS | tags)

    assert {path: found.get(path) for path in EXPECTED_MORE} == EXPECTED_MORE


def test_a_lone_publisher_in_id3_is_the_label() -> None:
    """TPUB is where stores and MusicBrainz write the label; it is seldom a music publisher."""
    found = read_tags(io.BytesIO(id3((b"TPUB", b"\x03Warp Records"))))

    assert found == {"label": "Warp Records"}


def test_values_are_text_as_found() -> None:
    """A wrong ISRC must reach the validator as it is, to be shown and explained."""
    found = read_tags(io.BytesIO(id3((b"TSRC", b"\x03ISRC us-rc1-76-O7839"))))

    assert found == {"isrc": "ISRC us-rc1-76-O7839"}


def test_several_artists_are_all_kept() -> None:
    """ID3v2.4 and Vorbis comments may name each artist on its own."""
    found = read_tags(io.BytesIO(id3((b"TPE1", b"\x03Nina\x00Otis"))))

    assert found["artists"] in {"Nina; Otis", "Nina/Otis"}


def test_control_characters_and_length_are_kept_out() -> None:
    """A title goes to logs, terminals and prompts: no escape codes, no megabytes."""
    title = "\x1b[31mred\x00\x07\u202e" + "x" * 100_000

    found = read_tags(io.BytesIO(id3((b"TIT2", b"\x03" + title.encode()))))

    assert found["title"].startswith("[31mred")
    assert len(found["title"]) <= 500
    assert not any(ord(character) < 32 for character in found["title"])


def test_a_frame_that_claims_gigabytes_is_no_tag() -> None:
    """The claimed size must not be allocated or waited for."""
    huge = b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + b"TIT2" + b"\x7f\x7f\x7f\x7f\x00\x00" + b"\x03abc"

    assert read_tags(io.BytesIO(huge)).get("title", "abc").startswith("abc")


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["mp3", "flac", "aac", "wav"]))
def test_damaged_tags_never_raise(seed: int, kind: str) -> None:
    """Tags are claims; a file whose tags are damaged still has its sound."""
    draw = random.Random(seed)
    data = bytearray(_DAMAGED_BASE[kind])
    for _ in range(draw.randint(1, 30)):
        data[draw.randrange(len(data))] = draw.randrange(256)

    found = read_tags(io.BytesIO(bytes(data[: draw.randint(1, len(data))])))

    assert all(isinstance(value, str) and value for value in found.values())


_DAMAGED_BASE = {
    kind: encode(noise(0.05, seed=1), kind, metadata=TAGS | MORE_TAGS)
    for kind in ("mp3", "flac", "aac", "wav")
}
