"""Rules on identifiers: ISRC, ISWC, UPC and EAN, ISNI, IPI, and a GRid among the tags."""

import re
from collections.abc import Iterator

from liner.v1 import track_pb2

from liner_server.core.rules import codes
from liner_server.core.rules.book import (
    ERROR,
    INFO,
    PRACTICE,
    WARNING,
    Found,
    Heard,
    RuleBook,
    Track,
    shown,
)
from liner_server.core.rules.rule import Finding

_FILLERS = re.compile(r"(\d)\1{6}|1234567|0123456")
_BOOKS = ("977", "978", "979")
_BOOK = RuleBook()


def _change(path: str, current: str, suggested: str, message: str) -> Finding:
    return Finding(field=path, message=message, current=current, suggested=suggested)


def _finding(path: str, message: str, current: str) -> Finding:
    return Finding(field=path, message=message, current=current)


@_BOOK.rule(
    "ISRC_OTHER_CODE",
    ERROR,
    "isrc",
    source="ISO 3901",
    why="A UPC or ISWC in the ISRC field attributes sales and plays to nothing.",
)
def _isrc_other_code(track: Track, _: Heard) -> Found:
    value = track.isrc
    if not value:
        return
    for name, path, stated, code in (
        ("UPC", "upc", track.upc, codes.normalise_upc(value)),
        ("ISWC", "iswc", track.iswc, codes.normalise_iswc(value)),
    ):
        if code is None:
            continue
        yield _change("isrc", value, "", f"'{shown(value)}' is no ISRC: it is of kind {name}.")
        if not stated:
            yield _change(path, "", code, f"The {name} {code} is stated in the ISRC field.")


@_BOOK.rule(
    "ISRC_FORMAT",
    ERROR,
    "isrc",
    source="ISO 3901",
    why="Receivers refuse a code that is not two letters, three letters or digits, seven digits.",
)
def _isrc_format(track: Track, _: Heard) -> Found:
    value = track.isrc
    if not value:
        return
    if codes.ISRC_SHAPE.fullmatch(codes.compact(value)):
        return
    if codes.normalise_upc(value) or codes.normalise_iswc(value):
        return
    message = (
        f"'{shown(value)}' is not an ISRC: it has two letters, three letters or digits, "
        "then seven digits."
    )
    if mended := codes.mend_isrc(value):
        yield _change("isrc", value, mended, f"{message} Letters and digits may be mixed up.")
    else:
        yield _finding("isrc", message, value)


@_BOOK.rule(
    "ISRC_PREFIX",
    ERROR,
    "isrc",
    source="ISO 3901",
    why="No agency issues codes under an unknown prefix, so the code is invented or mistyped.",
)
def _isrc_prefix(track: Track, _: Heard) -> Found:
    value = track.isrc
    if not value:
        return
    code = codes.compact(value)
    if codes.ISRC_SHAPE.fullmatch(code) and code[:2] not in codes.isrc_prefixes():
        yield _finding(
            "isrc", f"No ISRC begins with '{code[:2]}': no agency has that prefix.", value
        )


@_BOOK.rule(
    "ISRC_SPELLING",
    INFO,
    "isrc",
    source="ISO 3901",
    why="Codes are compared as 12 capitals; a separator or small letter makes two of one.",
)
def _isrc_spelling(track: Track, _: Heard) -> Found:
    value = track.isrc
    if not value:
        return
    code = codes.normalise_isrc(value)
    if code and code != value:
        yield _change("isrc", value, code, f"Written canonically this ISRC is {code}.")


@_BOOK.rule(
    "ISRC_PLACEHOLDER",
    WARNING,
    "isrc",
    source=PRACTICE,
    why="A code of repeated or counted digits was typed to get past a form.",
)
def _isrc_placeholder(track: Track, _: Heard) -> Found:
    value = track.isrc
    if not value:
        return
    code = codes.normalise_isrc(value)
    if code and _FILLERS.fullmatch(code, 5):
        yield _finding("isrc", f"{code} looks like a placeholder, not like an issued code.", value)


@_BOOK.rule(
    "ISWC_FORMAT",
    ERROR,
    "iswc",
    source="ISO 15707",
    why="A work code that is not T and ten digits identifies no work.",
)
def _iswc_format(track: Track, _: Heard) -> Found:
    value = track.iswc
    if not value:
        return
    if codes.iswc_parts(value) is None:
        # The T is often lost on the way through a spreadsheet.
        restored = codes.normalise_iswc("T" + codes.compact(value))
        message = f"'{shown(value)}' is not an ISWC: T, nine digits and a check digit."
        if restored:
            yield _change("iswc", value, restored, message)
        else:
            yield _finding("iswc", message, value)


@_BOOK.rule(
    "ISWC_CHECK_DIGIT",
    ERROR,
    "iswc",
    source="ISO 15707",
    why="A wrong check digit means that a digit was mistyped or swapped.",
)
def _iswc_check(track: Track, _: Heard) -> Found:
    value = track.iswc
    if not value:
        return
    parts = codes.iswc_parts(value)
    if parts and codes.iswc_check_digit(parts[0]) != parts[1]:
        yield Finding(
            field="iswc",
            current=value,
            message=f"The check digit of '{shown(value)}' is {parts[1]}, for these digits it would "
            f"be {codes.iswc_check_digit(parts[0])}: one of them is wrong.",
        )


@_BOOK.rule(
    "ISWC_SPELLING",
    INFO,
    "iswc",
    source="ISO 15707",
    why="Works are matched by text; one spelling keeps one work one.",
)
def _iswc_spelling(track: Track, _: Heard) -> Found:
    value = track.iswc
    if not value:
        return
    code = codes.normalise_iswc(value)
    if code and code != value:
        yield _change("iswc", value, code, f"Written canonically this ISWC is {code}.")


def _upc_digits(value: str) -> str | None:
    code = codes.compact(value)
    if len(code) == 14 and code.startswith("0"):
        code = code[1:]
    return code if code.isascii() and code.isdigit() and len(code) in (12, 13) else None


@_BOOK.rule(
    "UPC_FORMAT",
    ERROR,
    "upc",
    source="GS1 General Specifications",
    why="A release code that is not 12 or 13 digits cannot be delivered.",
)
def _upc_format(track: Track, _: Heard) -> Found:
    value = track.upc
    if not value:
        return
    if _upc_digits(value) is not None:
        return
    message = f"'{shown(value)}' is not a UPC or EAN: 12 or 13 digits."
    code = codes.compact(value)
    # Spreadsheets drop leading zeros; the check digit tells whether that is what happened.
    restored = codes.normalise_upc(code.zfill(12)) if 9 <= len(code) < 12 else None
    if restored:
        yield _change("upc", value, restored, f"{message} Leading zeros seem to be lost.")
    else:
        yield _finding("upc", message, value)


@_BOOK.rule(
    "UPC_CHECK_DIGIT",
    ERROR,
    "upc",
    source="GS1 General Specifications",
    why="A wrong check digit means that a digit was mistyped or swapped.",
)
def _upc_check(track: Track, _: Heard) -> Found:
    value = track.upc
    if not value:
        return
    if _upc_digits(value) and codes.normalise_upc(value) is None:
        yield _finding(
            "upc", f"The check digit of '{shown(value)}' does not fit its digits.", value
        )


@_BOOK.rule(
    "UPC_SPELLING",
    INFO,
    "upc",
    source="GS1 General Specifications",
    why="Release codes are compared as bare digits.",
)
def _upc_spelling(track: Track, _: Heard) -> Found:
    value = track.upc
    if not value:
        return
    code = codes.normalise_upc(value)
    if code and code != value:
        yield _change("upc", value, code, f"Written canonically this code is {code}.")


@_BOOK.rule(
    "UPC_NOT_A_RELEASE",
    WARNING,
    "upc",
    source="GS1 General Specifications",
    why="Numbers under 977 to 979 name books and periodicals, and equal digits name nothing.",
)
def _upc_other(track: Track, _: Heard) -> Found:
    value = track.upc
    if not value:
        return
    code = codes.normalise_upc(value)
    if code and len(set(code)) == 1:
        yield _finding("upc", f"{code} looks like a placeholder.", value)
    elif code and len(code) == 13 and code.startswith(_BOOKS):
        yield _finding(
            "upc", f"{code} is the number of a book or periodical, not of a release.", value
        )


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
            yield _finding(
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
            yield _finding(path, f"The check digit of ISNI '{shown(value)}' does not fit.", value)


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
            yield _change(path, value, code, f"Written canonically this ISNI is {code}.")


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
            yield _finding(path, f"'{shown(value)}' is not an IPI name number: 11 digits.", value)


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
            yield _finding(
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
            yield _change(path, value, code, f"Written canonically this name number is {code}.")


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


@_BOOK.rule(
    "GRID_FORMAT",
    WARNING,
    "tags.grid",
    source="IFPI GRid",
    why="A GRid is A1 and 16 more characters; anything else identifies no release.",
)
def _grid_format(track: Track, _: Heard) -> Found:
    for path, value in _grids(track):
        if re.fullmatch(r"A1[A-Z0-9]{16}", codes.compact(value)) is None:
            yield _finding(path, f"'{shown(value)}' is not a GRid: A1 and 16 characters.", value)


@_BOOK.rule(
    "GRID_CHECK_CHARACTER",
    WARNING,
    "tags.grid",
    source="IFPI GRid",
    why="A wrong check character means that a character was mistyped.",
)
def _grid_check(track: Track, _: Heard) -> Found:
    for path, value in _grids(track):
        shaped = re.fullmatch(r"A1[A-Z0-9]{16}", codes.compact(value))
        if shaped and codes.normalise_grid(value) is None:
            yield _finding(
                path, f"The check character of GRid '{shown(value)}' does not fit.", value
            )


@_BOOK.rule(
    "GRID_SPELLING",
    INFO,
    "tags.grid",
    source="IFPI GRid",
    why="Release identifiers are compared as 18 characters.",
)
def _grid_spelling(track: Track, _: Heard) -> Found:
    for path, value in _grids(track):
        code = codes.normalise_grid(value)
        if code and code != value:
            yield _change(path, value, code, f"Written canonically this GRid is {code}.")


def _grids(track: Track) -> Iterator[tuple[str, str]]:
    for name in track.tags:
        if name.lower() == "grid":
            yield f"tags.{name}", track.tags[name]


def canonical(track: Track) -> bool:
    """Whether every identifier is canonical and distinct, so that no rule here can be broken.

    Most tracks of a tidy catalogue are; asking this first spares them two dozen rules.
    """
    isrc, iswc, upc = track.isrc, track.iswc, track.upc
    if isrc and (codes.normalise_isrc(isrc) != isrc or _FILLERS.fullmatch(isrc, 5)):
        return False
    if iswc and codes.normalise_iswc(iswc) != iswc:
        return False
    if upc and (codes.normalise_upc(upc) != upc or upc.startswith(_BOOKS) or len(set(upc)) == 1):
        return False
    if any(name.lower() == "grid" for name in track.tags):
        return False
    seen: set[str] = set()
    for artist in track.artists:
        for code, normalise in (
            (artist.isni, codes.normalise_isni),
            (artist.ipi, codes.normalise_ipi),
        ):
            if code:
                if code in seen or normalise(code) != code:
                    return False
                seen.add(code)
    return True


RULES = _BOOK.rules
