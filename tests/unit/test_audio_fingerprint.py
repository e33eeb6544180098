"""The same recording is recognised through codec, gain and start; another one is not."""

import numpy as np
import pytest
import soxr
from liner_server.audio.fingerprint import SAME_RECORDING, similarity
from liner_server.audio.fingerprinter import fingerprint
from liner_server.audio.windows import ANALYSIS_RATE_HZ
from support.audio_files import Signal, encode, piece
from support.hearing import decoded


def taken(signal: Signal, *, rate: int = 44_100) -> bytes:
    """The fingerprint of a signal at any rate."""
    return fingerprint(soxr.resample(signal.mean(axis=0), rate, ANALYSIS_RATE_HZ))


@pytest.mark.parametrize(
    ("kind", "bit_rate"),
    [("mp3", 64_000), ("mp3", 320_000), ("vorbis", None), ("aac", 96_000)],
)
def test_the_same_recording_is_found_through_codec_gain_and_start(
    kind: str, bit_rate: int | None
) -> None:
    """What a second delivery of one master usually differs in, all at once."""
    master = piece(12, seed=1)
    delivered = decoded(encode(0.4 * master[:, 45_000:], kind, bit_rate=bit_rate))

    assert similarity(taken(master), taken(delivered)) > SAME_RECORDING


def test_it_does_not_matter_which_of_the_two_starts_later() -> None:
    """Similarity is symmetric."""
    one, other = taken(piece(15, seed=1)), taken(piece(15, seed=1)[:, 60_000:])

    assert similarity(one, other) == similarity(other, one) > SAME_RECORDING


def test_different_pieces_at_one_tempo_are_not_the_same() -> None:
    """A batch is often one album: same tempo, same sounds."""
    prints = [taken(piece(12, seed=seed)) for seed in range(5)]

    alike = [similarity(a, b) for i, a in enumerate(prints) for b in prints[i + 1 :]]

    assert max(alike) < SAME_RECORDING - 0.15


def test_silence_and_snippets_have_no_fingerprint() -> None:
    """Otherwise all silent files would be one recording."""
    assert fingerprint(np.zeros(30 * ANALYSIS_RATE_HZ, np.float32)) == b""
    assert taken(piece(1, seed=1)) == b""
    assert similarity(b"", b"") == 0


def test_too_little_in_common_proves_nothing() -> None:
    """Four seconds may be one loop that two tracks share."""
    snippet = taken(piece(5, seed=1))

    assert similarity(snippet, snippet) == 0


def test_a_fingerprint_is_small() -> None:
    """It travels with every answer: four bytes for an eighth of a second, two minutes at most."""
    minute = taken(piece(10, seed=1))
    long = fingerprint(np.tile(piece(10, seed=1, rate=ANALYSIS_RATE_HZ)[0], 30))

    assert len(minute) < 10 * 33
    assert len(long) < 120 * 33
