"""Comparing acoustic fingerprints: are two files the same recording?

In plain integers, without numpy, because the server and the validator compare them. A fingerprint
is a version byte and then one 32-bit word for each eighth of a second; `fingerprinter` makes them.
"""

VERSION = 1
"""First byte of every fingerprint; those of different versions are never alike."""

HOP_SECONDS = 2730 / 22_050
"""Time between two words, 0.124 s."""

WORD_BYTES = 4

SAME_RECORDING = 0.4
"""A similarity from which two files are one recording.

Measured: the same piece through mp3, aac, vorbis or opus at 48 to 128 kbit/s, 8 dB softer and
without its first 0.1 to 1.7 s, 0.53 to 0.79 (176 pairs); two different recordings at most 0.23
(3,655 pairs, the worst being two pieces on one drum track).
"""

_MAX_SHIFT = 40
"""Words by which two files may be shifted against each other: 5 s."""

_MIN_OVERLAP = 40
"""Fewer common words, 5 s, prove nothing."""


def similarity(one: bytes, other: bytes) -> float:
    """Return how alike two recordings sound, from 0 for unrelated to 1 for the same bits.

    Starts up to 5 s apart are tried. 0 as well when either is empty or too short to tell. Not a
    probability; `SAME_RECORDING` is where to draw the line.
    """
    if one[:1] != bytes([VERSION]) or other[:1] != bytes([VERSION]):
        return 0.0
    one, other = one[1:], other[1:]
    shorter = min(len(one), len(other)) // WORD_BYTES
    needed = max(_MIN_OVERLAP, shorter // 2)
    best = 0.0
    for shift in range(-_MAX_SHIFT, _MAX_SHIFT + 1):
        start, other_start = max(0, shift), max(0, -shift)
        words = min(len(one) // WORD_BYTES - start, len(other) // WORD_BYTES - other_start)
        if words < needed:
            continue
        differing = (_bits(one, start, words) ^ _bits(other, other_start, words)).bit_count()
        best = max(best, 1 - 2 * differing / (words * WORD_BYTES * 8))
    return best


def _bits(words: bytes, start: int, count: int) -> int:
    return int.from_bytes(words[start * WORD_BYTES : (start + count) * WORD_BYTES], "big")
