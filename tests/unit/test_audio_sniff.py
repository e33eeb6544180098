"""Bytes, not names, decide what a file is; what is not audio is refused by name."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner_server.audio.errors import (
    AudioError,
    BrokenAudioError,
    EmptyAudioError,
    UnsupportedAudioError,
)
from liner_server.audio.sniff import Container, mpeg_frame_bytes, sniff
from support import audio_files


def sniffed(data: bytes) -> Container:
    """The container of these bytes."""
    return sniff(io.BytesIO(data)).container


@pytest.mark.parametrize(
    ("kind", "container"),
    [
        ("wav", Container.WAV),
        ("aiff", Container.AIFF),
        ("flac", Container.FLAC),
        ("mp3", Container.MP3),
        ("vorbis", Container.OGG),
        ("opus", Container.OGG),
        ("aac", Container.M4A),
        ("alac", Container.M4A),
    ],
)
def test_each_format_is_known_by_its_first_bytes(kind: str, container: Container) -> None:
    """What real encoders write is recognised without any name."""
    rate = 48_000 if kind == "opus" else 44_100
    data = audio_files.encode(audio_files.noise(0.5, seed=1, rate=rate), kind, rate=rate)

    assert sniffed(data) is container


@pytest.mark.parametrize("magic", [b"RIFF", b"RF64", b"BW64"])
def test_large_wave_files_are_wave_files(magic: bytes) -> None:
    """RF64 and BW64 are WAV with 64-bit lengths, as broadcasters send it."""
    assert sniffed(magic + b"\xff\xff\xff\xffWAVEds64") is Container.WAV


def test_an_id3_tag_may_stand_in_front_of_mp3_and_flac() -> None:
    """Taggers put ID3 in front of FLAC too; the decoder must start behind it."""
    flac = audio_files.encode(audio_files.noise(0.2, seed=1), "flac")
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)

    found = sniff(io.BytesIO(tag + tag + flac))

    assert (found.container, found.offset) == (Container.FLAC, 2 * len(tag))


def test_junk_before_the_first_mp3_frame_is_skipped() -> None:
    """Cut streams and old encoders leave bytes before the first frame."""
    mp3 = audio_files.encode(audio_files.noise(0.5, seed=1), "mp3")

    assert sniffed(bytes(700) + b"\xff\xfbxx" + mp3) is Container.MP3


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"#EXTM3U\nhttp://127.0.0.1/a.mp3\n", "M3U"),
        (b"\xef\xbb\xbf#EXTM3U\n/etc/passwd\n", "M3U"),
        (b"[playlist]\nFile1=/etc/passwd\n", "PLS"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "ffconcat"),
        (b"<?xml version='1.0'?><playlist/>", "XML"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"http://127.0.0.1/stream", "network address"),
        (b"concat:/etc/passwd|/etc/hosts", "network address"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "SDP"),
        (b"Dear label, the file is attached.", "text"),
        (b"\x1a\x45\xdf\xa3webm", "WebM"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "AVI"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc\x21\x00", "AAC"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"PK\x03\x04", "ZIP"),
        (b"\x00\x01\x02\x03\x04\x05", "unknown"),
    ],
)
def test_what_is_not_audio_is_refused_by_name(data: bytes, named: str) -> None:
    """An editor who sent a playlist must read "playlist", whatever the file is called."""
    with pytest.raises(UnsupportedAudioError, match=named):
        sniffed(data)


def test_an_empty_file_is_empty_and_not_unsupported() -> None:
    """An upload that failed is another fault than a wrong format."""
    with pytest.raises(EmptyAudioError):
        sniffed(b"")


def test_a_tag_that_reaches_past_the_end_is_a_broken_file() -> None:
    """The claim to be tagged audio is there, the audio is not."""
    with pytest.raises(BrokenAudioError):
        sniffed(b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(50))


@given(st.binary(max_size=400))
def test_any_bytes_get_an_answer_or_a_typed_refusal(data: bytes) -> None:
    """Sniffing never raises anything but its own errors."""
    try:
        container = sniffed(data)
    except AudioError:
        return
    assert container in Container


@given(st.binary(min_size=4, max_size=4))
def test_a_frame_length_is_zero_or_longer_than_its_header(header: bytes) -> None:
    """A frame of no length would make the search for the next one stand still."""
    assert mpeg_frame_bytes(header) == 0 or mpeg_frame_bytes(header) > 4
