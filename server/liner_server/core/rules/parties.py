"""Rules on identifiers of people: ISNI and IPI name numbers among the artists."""

import re
from collections.abc import Iterator

from liner.v1 import track_pb2

from liner_server.core.rules import codes
from liner_server.core.rules.book import (
    ERROR,
    INFO,
    WARNING,
    Found,
    Heard,
    RuleBook,
    Track,
    change,
    noted,
    shown,
)
from liner_server.core.rules.rule import Finding

_BOOK = RuleBook()


def _codes_of(track: Track, name: str) -> Iterator[tuple[str, str]]:
    for index, artist in enumerate(track.artists):
        value = artist.isni if name == "isni" else artist.ipi
        if value:
            yield f"artists[{index}].{name}", value


def _bare(text: str) -> str:
    return codes.compact(text).rpartition("/")[2]


def _isni_shaped(text: str) -> bool:
    return re.fullmatch(r"[0-9]{15}[0-9X]", _bare(text)) is not None


@_BOOK.rule(
    "ISNI_FORMAT",
    ERROR,
    "artists[].isni",
    source="ISO 27729",
    why="A party identifier that is not 16 characters is refused and links to nobody.",
)
def _isni_format(track: Track, _: Heard) -> Found:
    for path, value in _codes_of(track, "isni"):
        if not _isni_shaped(value):
            yield noted(
                path, f"'{shown(value)}' is not an ISNI: 15 digits and a check digit.", value
            )


@_BOOK.rule(
    "ISNI_CHECK_DIGIT",
    ERROR,
    "artists[].isni",
    source="ISO 27729",
    why="A wrong check digit means that the identifier names somebody else or nobody.",
)
def _isni_check(track: Track, _: Heard) -> Found:
    for path, value in _codes_of(track, "isni"):
        if _isni_shaped(value) and codes.normalise_isni(value) is None:
            yield noted(path, f"The check digit of ISNI '{shown(value)}' does not fit.", value)


@_BOOK.rule(
    "ISNI_SPELLING",
    INFO,
    "artists[].isni",
    source="ISO 27729",
    why="Identifiers are compared as 16 characters without spaces or address.",
)
def _isni_spelling(track: Track, _: Heard) -> Found:
    for path, value in _codes_of(track, "isni"):
        code = codes.normalise_isni(value)
        if code and code != value:
            yield change(path, value, code, f"Written canonically this ISNI is {code}.")


@_BOOK.rule(
    "IPI_FORMAT",
    ERROR,
    "artists[].ipi",
    source="CISAC IPI",
    why="Collecting societies refuse a name number that is not 11 digits.",
)
def _ipi_format(track: Track, _: Heard) -> Found:
    for path, value in _codes_of(track, "ipi"):
        code = codes.compact(value)
        if not (code.isascii() and code.isdigit() and 6 <= len(code) <= 11):
            yield noted(path, f"'{shown(value)}' is not an IPI name number: 11 digits.", value)


@_BOOK.rule(
    "IPI_CHECK_DIGIT",
    ERROR,
    "artists[].ipi",
    source="CISAC IPI",
    why="Wrong check digits send royalties to somebody else.",
)
def _ipi_check(track: Track, _: Heard) -> Found:
    for path, value in _codes_of(track, "ipi"):
        code = codes.compact(value)
        shaped = code.isascii() and code.isdigit() and 6 <= len(code) <= 11
        if shaped and codes.normalise_ipi(value) is None:
            yield noted(
                path, f"The last two digits of IPI '{shown(value)}' do not fit the rest.", value
            )


@_BOOK.rule(
    "IPI_SPELLING",
    INFO,
    "artists[].ipi",
    source="CISAC IPI",
    why="Name numbers are compared as 11 digits, leading zeros included.",
)
def _ipi_spelling(track: Track, _: Heard) -> Found:
    for path, value in _codes_of(track, "ipi"):
        code = codes.normalise_ipi(value)
        if code and code != value:
            yield change(path, value, code, f"Written canonically this name number is {code}.")


@_BOOK.rule(
    "ISNI_SHARED",
    WARNING,
    "artists[].isni",
    source="ISO 27729",
    why="One ISNI names one public identity; two names with one ISNI mix two people up.",
)
def _isni_shared(track: Track, _: Heard) -> Found:
    yield from _shared(track, "isni", "ISNI")


@_BOOK.rule(
    "IPI_SHARED",
    WARNING,
    "artists[].ipi",
    source="CISAC IPI",
    why="A name number belongs to one name; a copied one pays the wrong person.",
)
def _ipi_shared(track: Track, _: Heard) -> Found:
    yield from _shared(track, "ipi", "IPI name number")


def _shared(track: Track, name: str, label: str) -> Iterator[Finding]:
    seen: dict[str, track_pb2.Artist] = {}
    artists = track.artists
    normalise = codes.normalise_isni if name == "isni" else codes.normalise_ipi
    for index, artist in enumerate(artists):
        code = normalise(artist.isni if name == "isni" else artist.ipi)
        if code is None:
            continue
        first = seen.setdefault(code, artist)
        if first.name.casefold() != artist.name.casefold():
            yield Finding(
                field=f"artists[{index}].{name}",
                message=f"'{shown(artist.name)}' has the same {label} as '{shown(first.name)}'.",
            )


RULES = _BOOK.rules
