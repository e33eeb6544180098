"""Guests where they do not belong: inside titles and inside other artists' names."""

import re
from collections.abc import Iterator

from liner_server.core.rules.book import Track
from liner_server.core.rules.rule import Finding

_FEET = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|"
    "sixty|seventy|eighty|ninety|hundred|thousand|few|many"
)
_NUMBER = re.compile(rf"(?:(?<![0-9])[0-9]{{1,3}}|\b(?:{_FEET}))\W*$", re.IGNORECASE)
_WORD = r"(?P<word>(?:feat(?!\s+(?:of\b|and\b|&))|ft|featuring)\b\.?)\s"
_IN_TITLE = re.compile(
    rf"[\s(\[]+{_WORD}\s*(?P<guest>(?:(?!\s[-\u2013]\s)[^()\[\]])+)[)\]]?", re.IGNORECASE
)
"""A version behind a dash is not part of the name."""

_PRODUCER = re.compile(
    r"[\s(\[]+(?:prod(?:uced)?\.?\s+by|prod\.)\s*:?\s*(?P<guest>[^()\[\]]+)[)\]]?", re.IGNORECASE
)
_IN_NAME = re.compile(rf"\s[(\[]?{_WORD}", re.IGNORECASE)
"""What stands between the artist and the guest."""

_AND = re.compile(r"\s+(?:&|and)\s+", re.IGNORECASE)
_ANY = re.compile(r"\s*,\s*(?:(?:&|and)\s+)?|\s+(?:&|and)\s+|\s*;\s*", re.IGNORECASE)


def in_title(title: str) -> re.Match[str] | None:
    """Return where a title names a guest, `word` and `guest`, or None."""
    return _first(_IN_TITLE, title)


def producer_in_title(title: str) -> re.Match[str] | None:
    """Return where a title names its producer, `guest`, or None."""
    return _PRODUCER.search(title)


def in_name(name: str) -> re.Match[str] | None:
    """Return what stands between an artist and a guest in one name, or None."""
    return _first(_IN_NAME, name)


def _first(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    # Feet are no guests: "50 Ft Queenie", "10 Ft. Ganja Plant".
    return next(
        (
            found
            for found in pattern.finditer(text)
            if found["word"][:2].lower() != "ft"
            or "(" in found[0]
            or "[" in found[0]
            or not _NUMBER.search(text, 0, found.start())
        ),
        None,
    )


def names(text: str) -> list[str]:
    """Return the guests that a text names.

    "A, B & C" are three. "A & B" are two only when both sides are full names, as two people's
    are: of single words it is as often the name of a duo.
    """
    text = text.strip().strip(" )]")
    if "," not in text and ";" not in text:
        parts = _AND.split(text)
        if any(len(part.split()) < 2 for part in parts):
            return [text] if text else []
        return parts
    return [part.strip() for part in _ANY.split(text) if part.strip()]


def credits_of(text: str, track: Track, *, role: str = "featured") -> Iterator[Finding]:
    """Yield a finding that adds each guest who is not among the artists yet, if there are any."""
    if not track.artists:
        # A guest of nobody would be a recording without a main artist.
        return
    known = {artist.name.casefold() for artist in track.artists}
    place = len(track.artists)
    for name in names(text):
        if name.casefold() in known:
            continue
        known.add(name.casefold())
        yield Finding(
            field=f"artists[{place}]",
            message=f"{name} has no credit",
            suggested=f"{name} ({role})",
        )
        place += 1
