"""Rules on artists' names: one name a field, as it is spoken, with the role beside it."""

import re

from liner.v1 import track_pb2

from liner_server.core.rules.book import (
    APPLE,
    ERROR,
    INFO,
    WARNING,
    Found,
    Heard,
    RuleBook,
    Track,
    shown,
)
from liner_server.core.rules.rule import Finding

ARTISTS = RuleBook()

_TWO_SIDED = re.compile(r"\s+(?:vs\.?|x|/|\+)\s+|\s*;\s*", re.IGNORECASE)
_SEMICOLON = re.compile(r"\s*;\s*")
_PAIR = re.compile(r"\s+(?:&|and)\s+|,\s+", re.IGNORECASE)
_ROLE = re.compile(
    r"\s*[(\[](?:producer|remixer|composer|featured|feat\.?|dj mix)[)\]]$"
    r"|^(?:prod(?:uced)?\.? by|remixed by|producer:)\s+",
    re.IGNORECASE,
)
_DUOS = frozenset(["daryl hall & john oates", "lisa lisa & cult jam", "sergio mendes & brasil '66"])
_GENERATIONS = re.compile(r"^(?:jr|sr|ii|iii|iv|inc)\.?$", re.IGNORECASE)


@ARTISTS.rule(
    "ARTIST_COMPOUND",
    WARNING,
    "artists",
    source=APPLE,
    why="Joined names make a new artist's page, and both artists lose the plays.",
)
def _compound(track: Track, _: Heard) -> Found:
    place = len(track.artists)
    for index, artist in enumerate(track.artists):
        name = artist.name
        # An ISNI says that the name is one public identity, whatever it looks like.
        if (" " not in name and ";" not in name) or artist.isni or name.lower() in _DUOS:
            continue
        parts = _TWO_SIDED.split(name)
        if len(parts) == 1:
            parts = _PAIR.split(name) if _several(name) else parts
        if len(parts) > 1 and all(parts) and not _band(parts[1:]):
            # Nobody's name holds a semicolon; every other mark may be the artist's own.
            sure = all(_SEMICOLON.split(part) == [part] for part in parts) and len(
                _SEMICOLON.split(name)
            ) == len(parts)
            yield Finding(
                message="looks like several artists in one: " + "; ".join(parts),
                current=name,
                suggested=parts[0] if sure else None,
                field=f"artists[{index}].name",
            )
            for part in parts[1:] if sure else ():
                yield Finding(
                    message=f"{shown(part)} has no credit of its own",
                    suggested=part,
                    field=f"artists[{place}]",
                )
                place += 1


def _several(name: str) -> bool:
    """Whether every side of "&" or a comma is a full name: a duo's sides are mostly single."""
    return all(len(part.split()) >= 2 for part in _PAIR.split(name))


def _band(rest: list[str]) -> bool:
    return rest[0].lower().startswith(("the ", "his ", "her ", "his", "machine"))


@ARTISTS.rule(
    "ARTIST_INVERTED",
    INFO,
    "artists",
    source=APPLE,
    why="Names are shown as they are spoken, not as they are sorted.",
)
def _inverted(track: Track, _: Heard) -> Found:
    for index, artist in enumerate(track.artists):
        family, comma, given = artist.name.partition(", ")
        if not comma or "," in given or "&" in given or " and " in given:
            continue
        if (" " in family and given.lower() != "the") or _GENERATIONS.match(given):
            continue
        # "Tyler, The Creator" is a name; "Beatles, The" is a sort form.
        if given.lower().startswith("the ") or len(given.split()) > 2:
            continue
        yield Finding(
            message="looks like a sort form",
            current=artist.name,
            suggested=f"{given} {family}",
            field=f"artists[{index}].name",
        )


@ARTISTS.rule(
    "ARTIST_ROLE_IN_NAME",
    WARNING,
    "artists",
    source=APPLE,
    why="The role has a field of its own.",
)
def _role(track: Track, _: Heard) -> Found:
    for index, artist in enumerate(track.artists):
        clean = _ROLE.sub("", artist.name)
        if clean != artist.name:
            yield Finding(
                message="a role inside the name",
                current=artist.name,
                suggested=clean,
                field=f"artists[{index}].name",
            )


@ARTISTS.rule(
    "ARTIST_NO_MAIN",
    ERROR,
    "artists",
    source="DDEX ERN",
    why="A recording without a main artist is refused.",
)
def _no_main(track: Track, _: Heard) -> Found:
    if track.artists and all(a.role > track_pb2.ARTIST_ROLE_MAIN for a in track.artists):
        yield Finding(message="nobody is a main artist")


@ARTISTS.rule(
    "ARTIST_ALL_CAPS",
    WARNING,
    "artists",
    source=APPLE,
    why="Capitals are kept only where the artist writes the name so.",
)
def _capitals(track: Track, _: Heard) -> Found:
    for index, artist in enumerate(track.artists):
        name = artist.name
        # Single words in capitals (ABBA, MGMT, AC/DC) are the artist's own far too often.
        if " " in name and name.isupper() and any(len(word) > 3 for word in name.split()):
            yield Finding(
                message="all in capitals; keep it only if the artist writes it so",
                current=name,
                suggested=name.title() if name.replace(" ", "").isalpha() else None,
                field=f"artists[{index}].name",
            )


RULES = ARTISTS.rules
