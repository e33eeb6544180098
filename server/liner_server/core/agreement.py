"""When two values of a field are the same, and when one is what the other is often mistaken for.

|kind|the same|akin: the usual mistake|
|---|---|---|
|tempo|within 4 %, the octave counts|same octave class: half, double, a quarter, four times|
|key|equal, however spelled|the relative key, which has the same notes|
|seconds|within 1 s or 1 %|-|
|number|within the field's slack|-|
|text, artists, code|without case, accents and punctuation|-|
|list|half of all names of both are in both; territories: all|-|

Two tempi an octave apart are not the same value: writing 70 where 140 is meant puts a track into
another set. But who states 140 where 70 is heard confirms the pulse, so the ledger lets a source
give more of its doubt to what is akin to its answer than to anything else.
"""

import re
import unicodedata

from liner_server.core.fields import Field, Kind, finite
from liner_server.core.keys import parse_key, relation

_TEMPO_SLACK = 0.04
_OCTAVES = (0.25, 0.5, 2.0, 4.0)


def agrees(field: Field, one: str, other: str) -> bool:
    """Whether two canonical texts mean the same for this field."""
    if one == other:
        return True
    match field.kind:
        case Kind.TEMPO | Kind.SECONDS | Kind.NUMBER:
            a, b = finite(one), finite(other)
            return a is not None and b is not None and abs(a - b) <= _slack(field, b)
        case Kind.KEY:
            return parse_key(one) is not None and parse_key(one) == parse_key(other)
        case Kind.WARNING:
            return False
        case Kind.LIST if field.whole:
            return frozenset(one.split("; ")) == frozenset(other.split("; "))
        case Kind.LIST:
            names, others = _names(one), _names(other)
            return 2 * len(names & others) >= len(names | others) > 0
        case _:
            return plain(one) == plain(other)


def akin(field: Field, one: str, other: str) -> bool:
    """Whether one value is what the other is often mistaken for; equal ones are not."""
    if field.kind is Kind.TEMPO:
        a, b = finite(one) or 0.0, finite(other) or 0.0
        return b > 0 and any(abs(a / (b * octave) - 1) <= _TEMPO_SLACK for octave in _OCTAVES)
    if field.kind is Kind.KEY:
        first, second = parse_key(one), parse_key(other)
        return first is not None and second is not None and relation(first, second) == "relative"
    return False


def told_relation(field: Field, value: str, given: str) -> str:
    """Return how a value relates to another in words, "double", "the relative key", or ""."""
    if field.kind is Kind.TEMPO:
        one, other = finite(value), finite(given)
        return tempo_relation(one, other) if one and other else ""
    if field.kind is Kind.KEY:
        first, second = parse_key(value), parse_key(given)
        found = relation(first, second) if first and second else ""
        return {"relative": "the relative key", "parallel": "the parallel key"}.get(found, "")
    return ""


def tempo_relation(one: float, other: float) -> str:
    """Return how one tempo relates to another: "double", "half", "3/2", "2/3" or ""."""
    for factor, name in ((2, "double"), (0.5, "half"), (1.5, "3/2"), (2 / 3, "2/3")):
        if other > 0 and abs(one / other / factor - 1) <= _TEMPO_SLACK:
            return name
    return ""


def plain(text: str) -> str:
    """Fold away what does not change the meaning of a text: case, accents, punctuation.

    Marks go where they are accents (Latin, Greek, most of Cyrillic) or may be left out (Arabic,
    Hebrew). In kana, Thai and the scripts of India they make another word, and stay. A sharp and
    a plus at the end of a word stay too: C# is not C. A text of nothing but signs is itself.
    """
    if text.isascii():
        folded = text.lower()
        if "&" in folded:
            folded = folded.replace("&", " and ")
        if "#" not in folded and "+" not in folded:
            return "".join(filter(str.isalnum, folded)) or "".join(folded.split())
    else:
        folded = unicodedata.normalize("NFKD", text).casefold().replace("&", " and ")
    kept = []
    base = ""
    for index, char in enumerate(folded):
        category = unicodedata.category(char)[0]
        if category in "LN":
            kept.append(char)
            base = char
        elif category == "M":
            if not _ACCENTED.match(base) or char == _SHORT:
                kept.append(char)
        elif char in _ENDS and base and not folded[index + 1 : index + 2].isalnum():
            kept.append(_ENDS[char])
        else:
            base = ""
    return "".join(kept) or "".join(folded.split())


_ACCENTED = re.compile("[a-z\u00df-\u024f\u0370-\u0481\u048a-\u074f\u1e00-\u1fff]")
"""Letters whose marks are accents or vowels that may be left out."""

_SHORT = "\u0306"
"""The breve: it tells \u0439 from \u0438."""

_ENDS = {"#": "#", "\u266f": "#", "\u266d": "b", "+": "+"}


def _slack(field: Field, value: float) -> float:
    if field.kind is Kind.TEMPO:
        return _TEMPO_SLACK * abs(value)
    if field.kind is Kind.SECONDS:
        return max(1.0, 0.01 * abs(value))
    return field.slack


def _names(text: str) -> frozenset[str]:
    return frozenset(plain(name) for name in text.split("; "))
