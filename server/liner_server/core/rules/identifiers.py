"""Rules on identifiers of recordings, works and releases: ISRC, ISWC, UPC, EAN, GRid."""

import re
from collections.abc import Iterator

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
    change,
    noted,
    shown,
)
from liner_server.core.rules.rule import Finding

FILLERS = re.compile(r"(\d)\1{6}|1234567|0123456")
"""Designations of an ISRC that were typed to get past a form."""

BOOKS = ("977", "978", "979")
"""Prefixes of articles that are books and periodicals."""

_BOOK = RuleBook()


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
        yield change("isrc", value, "", f"'{shown(value)}' is no ISRC: it is of kind {name}.")
        if not stated:
            yield change(path, "", code, f"The {name} {code} is stated in the ISRC field.")


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
        yield change("isrc", value, mended, f"{message} Letters and digits may be mixed up.")
    else:
        yield noted("isrc", message, value)


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
        yield noted("isrc", f"No ISRC begins with '{code[:2]}': no agency has that prefix.", value)


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
        yield change("isrc", value, code, f"Written canonically this ISRC is {code}.")


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
    if code and FILLERS.fullmatch(code, 5):
        yield noted("isrc", f"{code} looks like a placeholder, not like an issued code.", value)


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
            yield change("iswc", value, restored, message)
        else:
            yield noted("iswc", message, value)


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
        yield change("iswc", value, code, f"Written canonically this ISWC is {code}.")


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
        yield change("upc", value, restored, f"{message} Leading zeros seem to be lost.")
    else:
        yield noted("upc", message, value)


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
        yield noted("upc", f"The check digit of '{shown(value)}' does not fit its digits.", value)


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
        yield change("upc", value, code, f"Written canonically this code is {code}.")


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
        yield noted("upc", f"{code} looks like a placeholder.", value)
    elif code and len(code) == 13 and code.startswith(BOOKS):
        yield noted(
            "upc", f"{code} is the number of a book or periodical, not of a release.", value
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
            yield noted(path, f"'{shown(value)}' is not a GRid: A1 and 16 characters.", value)


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
            yield noted(path, f"The check character of GRid '{shown(value)}' does not fit.", value)


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
            yield change(path, value, code, f"Written canonically this GRid is {code}.")


def _grids(track: Track) -> Iterator[tuple[str, str]]:
    for name in track.tags:
        if name.lower() == "grid":
            yield f"tags.{name}", track.tags[name]


RULES = _BOOK.rules
