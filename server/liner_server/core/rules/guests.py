"""Guests where they do not belong: inside titles and inside other artists' names."""

import re
from collections.abc import Iterator

from liner_server.core.rules.book import Track
from liner_server.core.rules.rule import Finding

_WORD = r"(?:feat|ft|featuring)\b\.?\s"
IN_TITLE = re.compile(rf"[\s(\[]+{_WORD}\s*((?:(?!\s[-\u2013]\s)[^()\[\]])+)[)\]]?", re.IGNORECASE)
"""Group 1 is the guest; a version behind a dash is not part of the name."""

IN_NAME = re.compile(rf"\s[(\[]?{_WORD}", re.IGNORECASE)
"""What stands between the artist and the guest."""

_AND = re.compile(r"\s+(?:&|and)\s+", re.IGNORECASE)
_ANY = re.compile(r"\s*,\s*(?:(?:&|and)\s+)?|\s+(?:&|and)\s+|\s*;\s*", re.IGNORECASE)


def names(text: str) -> list[str]:
    """Return the guests that a text names.

    "A, B & C" are three. "A & B" are two only when both sides are full names, as two people's
    are: of single words it is as often the name of a duo.
    """
    text = text.strip(" )]")
    if "," not in text and ";" not in text:
        parts = _AND.split(text)
        if any(len(part.split()) < 2 for part in parts):
            return [text] if text else []
        return parts
    return [part.strip() for part in _ANY.split(text) if part.strip()]


def credits_of(text: str, track: Track) -> Iterator[Finding]:
    """Yield a finding that adds each guest who is not among the artists yet."""
    known = {artist.name.casefold() for artist in track.artists}
    place = len(track.artists)
    for name in names(text):
        if name.casefold() in known:
            continue
        known.add(name.casefold())
        yield Finding(
            field=f"artists[{place}]",
            message=f"{name} is a guest and has no credit",
            suggested=f"{name} (featured)",
        )
        place += 1
