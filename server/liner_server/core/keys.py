"""Musical keys: every spelling that people and programs use, and the one Liner writes.

Canonical is a note of `NOTES`, a space, and "major" or "minor": "C# minor", "Eb major". Both
modes use the same twelve notes, C C# D Eb E F F# G Ab A Bb B: the commonest spelling of each
pitch, the one that key estimation answers with. So "Db major" is written "C# major" and
"G# minor" is written "Ab minor"; enharmonic spellings are the same key and compare equal.
"""

import re
import unicodedata
from functools import lru_cache

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
"""Canonical note names by pitch class; an index is semitones above C."""

KEYS = tuple(f"{note} {mode}" for mode in ("major", "minor") for note in NOTES)
"""All 24 canonical keys, the majors first."""

_CANONICAL = frozenset(KEYS)
_LONGEST = 40
"""Longer texts are not keys; the bound keeps hostile ones cheap."""

_STEPS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SHIFTS = {"": 0, "#": 1, "b": -1, "##": 2, "x": 2, "bb": -2, "sharp": 1, "flat": -1}
_MODES = {
    **dict.fromkeys(("", "maj", "major", "dur", "majeur", "mayor", "ionian"), "major"),
    **dict.fromkeys(("m", "min", "minor", "moll", "mineur", "menor", "aeolian", "-"), "minor"),
}
_NOTE = re.compile(
    r"(?P<step>[a-gA-G])[ \-]?(?P<shift>##|#|bb|b(?![a-z])|b(?=m|dur|moll|maj)|x(?![a-z])"
    r"|[Ss]harp|[Ff]lat|)[ \-_]*(?P<mode>[A-Za-z]*|-)\.?"
)
_CAMELOT = re.compile(r"0?([1-9]|1[0-2])\s?([ABab])")
_OPEN_KEY = re.compile(r"0?([1-9]|1[0-2])\s?([DMdm])")
_SIGNS = str.maketrans(
    {"\u266f": "#", "\u266d": "b", "\U0001d12a": "x", "\u2212": "-", "\u2013": "-"}
)
_DOUBLE_FLAT = "\U0001d12b"


@lru_cache(maxsize=4096)
def parse_key(text: str) -> str | None:
    """Return the canonical name of the key that `text` states, or None if it states none.

    Understands "A minor", "Am", "a min", "A-moll", "F♯m", "Gb", "D-flat major", Camelot ("8A"),
    Open Key ("1m") and enharmonics. A lone capital or small letter is a major key.
    """
    if text in _CANONICAL:
        return text
    if len(text) > _LONGEST:
        return None
    plain = unicodedata.normalize("NFKC", text).translate(_SIGNS).replace(_DOUBLE_FLAT, "bb")
    plain = plain.strip()
    if match := _CAMELOT.fullmatch(plain):
        # 8B is C major, and a step clockwise is a fifth up; 8A is its relative, A minor.
        fifths, minor = int(match[1]) - 8, match[2] in "Aa"
        return _name(fifths * 7 + (9 if minor else 0), minor=minor)
    if match := _OPEN_KEY.fullmatch(plain):
        fifths, minor = int(match[1]) - 1, match[2] in "Mm"
        return _name(fifths * 7 + (9 if minor else 0), minor=minor)
    match = _NOTE.fullmatch(plain)
    if match is None:
        return None
    # "M" is major and "m" is minor: the only place where case tells.
    mode = "major" if match["mode"] == "M" else _MODES.get(match["mode"].lower())
    if mode is None:
        return None
    pitch = _STEPS[match["step"].lower()] + _SHIFTS[match["shift"].lower()]
    return _name(pitch, minor=mode == "minor")


def relation(one: str, other: str) -> str:
    """Return how two canonical keys relate, or "" if they do not.

    "same", "relative" (the same notes), "parallel" (the same tonic) or "fifth": the ways in
    which listeners and programs usually err.
    """
    if one == other:
        return "same"
    (a, a_minor), (b, b_minor) = _parts(one), _parts(other)
    if a_minor == b_minor:
        return "fifth" if (a - b) % 12 in (5, 7) else ""
    if a == b:
        return "parallel"
    return "relative" if (a - b) % 12 == (9 if a_minor else 3) else ""


def _parts(key: str) -> tuple[int, bool]:
    note, _, mode = key.partition(" ")
    return NOTES.index(note), mode == "minor"


def _name(pitch: int, *, minor: bool) -> str:
    return f"{NOTES[pitch % 12]} {'minor' if minor else 'major'}"
