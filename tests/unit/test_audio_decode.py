"""Decoding counts samples, survives damage, and says what is wrong with a file."""

import random
import struct
from datetime import timedelta

import numpy as np
import pytest
import soxr
from liner_server.audio.errors import (
    BrokenAudioError,
    EmptyAudioError,
    OutOfLimitsError,
    TooLongError,
    UnsupportedAudioError,
)
from liner_server.audio.limits import Limits
from liner_server.audio.measurements import Problem
from support.audio_files import FORMATS, encode, noise, piece, sine, stereo, wav
from support.hearing import decoded, heard

SECONDS = 4.0
FIRST_INDEX = {"aac": {"moov_size": "4000"}, "alac": {"moov_size": "4000"}}
"""M4A with its index at the front, as for streaming: only then can a cut one be read at all."""


def made(kind: str, *, seconds: float = SECONDS) -> bytes:
    """A piece of music as a file of that kind."""
    signal = piece(seconds, seed=1)
    if kind == "opus":
        return encode(soxr.resample(signal.T, 44_100, 48_000).T, kind, rate=48_000)
    return encode(signal, kind, options=FIRST_INDEX.get(kind))


FILES = {kind: made(kind) for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_decodes_to_its_own_length(kind: str) -> None:
    """Duration is what the samples say, within a codec's padding."""
    signal, problems = heard(FILES[kind])

    rate = 48_000 if kind == "opus" else 44_100
    assert signal.shape[0] == 2
    assert signal.shape[1] / rate == pytest.approx(SECONDS, abs=0.03)
    assert problems == ()


@pytest.mark.parametrize("kind", ["wav", "wav24", "wavfloat", "aiff", "flac", "alac"])
def test_lossless_formats_decode_to_the_very_samples(kind: str) -> None:
    """Loudness and peaks would be off if the scale of any sample format were."""
    signal = noise(0.5, seed=2)

    assert np.abs(decoded(encode(signal, kind)) - signal).max() <= 2**-15


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("tenth", range(3, 10))
def test_a_cut_file_keeps_what_is_there_and_says_so(kind: str, tenth: int) -> None:
    """An upload that broke off is still worth listening to."""
    data = FILES[kind]
    whole = decoded(data).shape[1]

    signal, problems = heard(data[: len(data) * tenth // 10])

    assert Problem.AUDIO_TRUNCATED in problems
    assert 0 < signal.shape[1] < whole


@pytest.mark.parametrize("kind", ["flac", "vorbis", "opus", "alac"])
def test_damage_in_the_middle_is_noticed(kind: str) -> None:
    """Formats with checksums must not play damage as if it were sound."""
    data = bytearray(FILES[kind])
    draw = random.Random(7)
    for _ in range(8):
        data[draw.randrange(len(data) // 2, len(data) * 9 // 10)] ^= 0x55

    _, problems = heard(bytes(data))

    assert problems == (Problem.AUDIO_TRUNCATED,)


def test_a_forged_flac_total_is_a_lie_and_not_a_cut() -> None:
    """Eighteen days were claimed for four seconds of sound; every frame of it is there."""
    data = bytearray(FILES["flac"])
    # The total is the low 36 bits of the eight bytes at 10 in STREAMINFO, which begins at 8.
    data[21] |= 0x0F

    signal, problems = heard(bytes(data))

    assert problems == (Problem.AUDIO_HEADER_LIES,)
    assert signal.shape[1] == pytest.approx(SECONDS * 44_100)


def test_a_header_that_states_less_than_the_file_holds_is_a_lie() -> None:
    """A reader that stops at the stated total would not hear the rest."""
    data = FILES["mp3"]
    at = data.index(b"Info") + 8
    frames = struct.unpack_from(">I", data, at)[0]

    _, problems = heard(data[:at] + struct.pack(">I", frames // 4) + data[at + 4 :])

    assert problems == (Problem.AUDIO_HEADER_LIES,)


def test_the_length_a_pipe_leaves_open_is_no_lie() -> None:
    """Programs that write to a pipe cannot know the length and state the largest."""
    data = bytearray(wav(noise(2, seed=1)))
    data[40:44] = b"\xff\xff\xff\xff"

    signal, problems = heard(bytes(data))

    assert problems == ()
    assert signal.shape[1] == 2 * 44_100


def test_a_tag_in_front_of_flac_is_no_obstacle() -> None:
    """The decoder is given the file from where the FLAC begins."""
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)

    assert heard(tag + FILES["flac"])[1] == ()


def test_a_longer_file_than_the_limit_is_refused() -> None:
    """The text names the limit, in seconds of audio."""
    with pytest.raises(TooLongError, match="longer than 3 s"):
        decoded(FILES["mp3"], limits=Limits(max_duration=timedelta(seconds=3)))


def test_more_channels_than_the_limit_are_refused() -> None:
    """96 channels are a stage box, not a track."""
    data = wav(np.zeros((96, 1_000), np.float32))

    with pytest.raises(OutOfLimitsError, match="96 channels; Liner reads 1 to 8"):
        decoded(data)


@pytest.mark.parametrize("rate", [4_000, 768_000])
def test_sample_rates_outside_the_limits_are_refused(rate: int) -> None:
    """Neither telephone codecs nor ultrasound."""
    with pytest.raises(OutOfLimitsError, match=f"sample rate {rate} Hz"):
        decoded(wav(np.zeros((1, 1_000), np.float32), rate=rate))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
def test_up_to_eight_channels_are_read(channels: int) -> None:
    """Whatever the file says or does not say about where they go."""
    signal = np.repeat(sine(440, 0.2, level_db=-12, rate=44_100), channels, axis=0)

    assert decoded(wav(signal)).shape[0] == channels


def test_a_file_of_no_samples_is_empty() -> None:
    """A header alone is not broken; there is just nothing to hear."""
    with pytest.raises(EmptyAudioError):
        decoded(wav(np.zeros((2, 0), np.float32)))


def test_one_sample_is_audio() -> None:
    """It is useless, but it is a number of samples like any other."""
    assert decoded(wav(np.zeros((2, 1), np.float32))).shape == (2, 1)


@pytest.mark.parametrize(
    "magic", [b"fLaC", b"OggS", b"RIFF\x24\x00\x00\x00WAVE", b"\0\0\0\x20ftypM4A "]
)
def test_a_magic_number_with_nothing_behind_it_is_broken(magic: bytes) -> None:
    """The format is known, so "unsupported" would send an editor the wrong way."""
    with pytest.raises((BrokenAudioError, EmptyAudioError)):
        decoded(magic + random.Random(1).randbytes(3_000))


def test_a_codec_that_is_not_on_the_list_is_refused_by_name() -> None:
    """FFmpeg has hundreds of decoders, and hostile files reach for the odd ones."""
    data = bytearray(wav(noise(0.5, seed=1)))
    data[20:22] = struct.pack("<H", 0x11)

    with pytest.raises((UnsupportedAudioError, BrokenAudioError)):
        decoded(bytes(data))


def test_floats_that_are_no_numbers_become_silence() -> None:
    """One infinity would make every later figure of the file infinite."""
    signal = 0.1 * stereo(sine(440, 0.2, rate=44_100))
    data = bytearray(encode(signal, "wavfloat"))
    start = data.index(b"data") + 8
    for index, odd in enumerate((float("inf"), float("-inf"), float("nan"), 1e30)):
        struct.pack_into("<f", data, start + 400 * index, odd)

    found = decoded(bytes(data))

    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 64
