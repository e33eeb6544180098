"""Identifiers of recordings, works, releases and people: normal forms and check digits.

Every `normalise_*` returns the canonical form of what is certainly that identifier, and None for
anything else; separators, case and the usual prefixes do not matter. Check digits of EAN, GRid
and ISNI and the list of ISRC prefixes are python-stdnum's, loaded on first use; ISWC and IPI,
which it lacks, are computed here. Only ASCII digits and letters count: other scripts' digits
look right and are refused by every receiver.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from operator import mul
from typing import cast

_KEPT = 16_384
"""Answers kept: several rules ask about one code, and a release's tracks share theirs."""

ISRC_SHAPE = re.compile(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}")
_ISWC_SHAPE = re.compile(r"T([0-9]{9})([0-9])")
_SEPARATORS = re.compile(r"[\s.\-_\u2010-\u2014\u2212]+")
_CODE_NAME = re.compile(r"(?:ISRC|ISWC|UPC|EAN|GTIN|ISNI|IPI|CAE|GRID)[:#/]?")
_ISNI_ADDRESS = re.compile(r"HTTPS?://(?:WWW)?ISNIORG/(?:ISNI/|PAGE/)?")
_DIGIT_LIKE = str.maketrans("OQDILSZB", "00011528")
_VALUES = bytes(max(0, byte - 48) for byte in range(256))
_ISWC_WEIGHTS = tuple(range(1, 10))
_IPI_WEIGHTS = tuple(range(10, 1, -1))
_LETTER_LIKE = str.maketrans("01", "OI")


@lru_cache(maxsize=_KEPT)
def compact(text: str) -> str:
    """Return a code without separators and without its name in front, in capitals."""
    bare = _SEPARATORS.sub("", text).upper() if text.isascii() else _SEPARATORS.sub("", text)
    return _CODE_NAME.sub("", bare, count=1) if _CODE_NAME.match(bare) else bare


@cache
def isrc_prefixes() -> frozenset[str]:
    """Return the two-letter prefixes in which ISRCs are issued: countries and special ones."""
    from stdnum import isrc

    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    pairs = (a + b for a in letters for b in letters)
    return frozenset(pair for pair in pairs if isrc.is_valid(f"{pair}AAA0000000"))


@lru_cache(maxsize=_KEPT)
def normalise_isrc(text: str) -> str | None:
    """Return an ISRC as 12 capitals and digits, or None if it is not one (ISO 3901)."""
    code = text if ISRC_SHAPE.fullmatch(text) else compact(text)
    if ISRC_SHAPE.fullmatch(code) and code[:2] in isrc_prefixes():
        return code
    return None


def mend_isrc(text: str) -> str | None:
    """Return the ISRC that `text` becomes when look-alikes are swapped: O and 0, I and 1 ..."""
    code = compact(text)
    if len(code) != 12 or not code.isascii():
        return None
    mended = code[:2].translate(_LETTER_LIKE) + code[2:5] + code[5:].translate(_DIGIT_LIKE)
    return normalise_isrc(mended) if mended != code else None


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Return the sum of ASCII digits, each times its weight; there are as many of both."""
    # Bytes are numbers already: ten times as fast as an int of each letter.
    total: int = sum(map(mul, digits.encode().translate(_VALUES), weights))
    return total


def iswc_check_digit(digits: str) -> int:
    """Return the check digit of the nine digits of an ISWC (ISO 15707)."""
    return -(1 + weighted(digits, _ISWC_WEIGHTS)) % 10


def format_iswc(code: str) -> str:
    """Return a compact ISWC as it is printed: T-034.524.680-1."""
    return f"T-{code[1:4]}.{code[4:7]}.{code[7:10]}-{code[10]}"


@lru_cache(maxsize=_KEPT)
def iswc_parts(text: str) -> tuple[str, int] | None:
    """Return the nine digits and the check digit of what is shaped like an ISWC, or None."""
    match = _ISWC_SHAPE.fullmatch(compact(text))
    return (match[1], int(match[2])) if match else None


@lru_cache(maxsize=_KEPT)
def normalise_iswc(text: str) -> str | None:
    """Return an ISWC as "T-034.524.680-1", or None if it is not one or its check digit fails."""
    parts = iswc_parts(text)
    if parts is None or iswc_check_digit(parts[0]) != parts[1]:
        return None
    return format_iswc(f"T{parts[0]}{parts[1]}")


def ipi_check_digits(digits: str) -> int:
    """Return the two check digits of the first nine digits of an IPI name number."""
    remainder = weighted(digits, _IPI_WEIGHTS) % 101
    return 0 if remainder == 0 else (101 - remainder) % 100


@lru_cache(maxsize=_KEPT)
def normalise_ipi(text: str) -> str | None:
    """Return an IPI name number as 11 digits, leading zeros restored, or None if it fails."""
    code = compact(text)
    if not (code.isascii() and code.isdigit() and 6 <= len(code) <= 11):
        return None
    code = code.zfill(11)
    return code if ipi_check_digits(code[:9]) == int(code[9:]) else None


@lru_cache(maxsize=8192)
def _passes(name: str, code: str) -> bool:
    """Whether python-stdnum's module of that name accepts a code."""
    from importlib import import_module

    check = cast("Callable[[str], bool]", import_module(f"stdnum.{name}").is_valid)
    return check(code)


@lru_cache(maxsize=_KEPT)
def normalise_upc(text: str) -> str | None:
    """Return a UPC or EAN as its 12 or 13 digits, or None if it is not one or fails its check."""
    code = compact(text)
    if not (code.isascii() and code.isdigit()):
        return None
    if len(code) == 14 and code.startswith("0"):
        # A GTIN-14 that opens with 0 is the same article as the 13 digits after it.
        code = code[1:]
    if len(code) not in (12, 13):
        return None
    return code if _passes("ean", code.zfill(13)) else None


@lru_cache(maxsize=_KEPT)
def normalise_isni(text: str) -> str | None:
    """Return an ISNI as 16 characters, or None if it is not one or fails its check (ISO 27729)."""
    code = _ISNI_ADDRESS.sub("", compact(text), count=1)
    code = _CODE_NAME.sub("", code, count=1)
    if re.fullmatch(r"[0-9]{15}[0-9X]", code) is None:
        return None
    return code if _passes("isni", code) else None


def normalise_grid(text: str) -> str | None:
    """Return a GRid as 18 capitals and digits, or None if it is not one or fails its check."""
    code = compact(text)
    if re.fullmatch(r"A1[A-Z0-9]{16}", code) is None:
        return None
    return code if _passes("grid", code) else None
