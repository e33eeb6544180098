"""Languages, territories, dates, P and C lines, and the parental warning."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.rules.book import (
    AVS,
    INFO,
    Found,
    Heard,
    RuleBook,
    Track,
    shown,
)
from liner_server.core.rules.rule import Check, Finding, Rule

ERROR = enrichment_pb2.SEVERITY_ERROR
WARNING = enrichment_pb2.SEVERITY_WARNING

_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")
_LINE = re.compile(r"^\s*(?:\u2117|\u00a9|\([pc]\))?\s*(\d{4})\s+\S")
_SYMBOL = re.compile(r"^\s*(?:\u2117|\u00a9|\([pc]\)|copyright\b)\s*", re.IGNORECASE)
_YEAR = re.compile(r"\d{4}")
FIRST_YEAR = 1860
"""Nobody recorded sound before."""

WORLDWIDE = "Worldwide"
_BOOK = RuleBook()


@cache
def _countries() -> frozenset[str]:
    import pycountry

    return frozenset(country.alpha_2 for country in pycountry.countries)


@cache
def _is_language(tag: str) -> bool:
    import langcodes

    return bool(langcodes.tag_is_valid(tag))


def _territories(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for index, text in enumerate(track.territories):
        code = text.removeprefix("-")
        if code != WORLDWIDE and code not in _countries():
            upper = code.strip().upper()
            fixed = WORLDWIDE if upper in ("WORLDWIDE", "WORLD", "WW") else upper
            known = fixed == WORLDWIDE or fixed in _countries()
            yield Finding(
                message="a territory is an ISO 3166-1 alpha-2 code or Worldwide",
                current=text,
                suggested=fixed if known else None,
                field=f"territories[{index}]",
            )


def _territories_twice(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    stated = list(track.territories)
    kept = list(dict.fromkeys(stated))
    if len(kept) < len(stated):
        yield Finding(
            message="a territory is named twice",
            current="; ".join(stated),
            suggested="; ".join(kept),
        )
    elif WORLDWIDE in kept and any(code != WORLDWIDE and code[:1] != "-" for code in kept):
        yield Finding(
            message="Worldwide holds the others already",
            current="; ".join(stated),
            suggested="; ".join(c for c in kept if c == WORLDWIDE or c.startswith("-")),
        )


def _language(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if track.language and not _is_language(track.language):
        yield Finding(message='a language is a BCP 47 tag: "en", "pt-BR"', current=track.language)


def _instrumental(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if track.language == "zxx" and track.lyrics.strip():
        yield Finding(message="zxx says instrumental, but there are lyrics", current="zxx")


def _date(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    text = track.release_date
    if not text:
        return
    found = _DATE.fullmatch(text)
    if not found:
        yield Finding(message='a date reads "2024", "2024-05" or "2024-05-17"', current=text)
        return
    year, month, day = (int(part) if part else 1 for part in found.groups())
    try:
        datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        yield Finding(message="there is no such day", current=text)
        return
    if not FIRST_YEAR <= year <= datetime.now(UTC).year + 1:
        yield Finding(message=f"the year must be between {FIRST_YEAR} and next year", current=text)


def _line(field: str) -> Check:
    def check(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
        text = getattr(track, field)
        if text and not _LINE.match(text):
            yield Finding(message="a year and an owner: 2024 Example Records", current=text)

    return check


_RULES = (
    Rule(
        rule_id="TERRITORY_UNKNOWN",
        severity=ERROR,
        field="territories",
        source="DDEX AVS",
        why="A deal in a territory that does not exist sells nothing.",
        check=_territories,
    ),
    Rule(
        rule_id="TERRITORY_TWICE",
        severity=WARNING,
        field="territories",
        source="DDEX AVS",
        why="Double or overlapping territories are two deals for one place.",
        check=_territories_twice,
    ),
    Rule(
        rule_id="LANGUAGE_UNKNOWN",
        severity=ERROR,
        field="language",
        source="BCP 47",
        why="Shops filter and recommend by language.",
        check=_language,
    ),
    Rule(
        rule_id="LANGUAGE_AGAINST_LYRICS",
        severity=WARNING,
        field="language",
        source="ISO 639-2",
        why="An instrumental has no lyrics.",
        check=_instrumental,
    ),
    Rule(
        rule_id="DATE_INVALID",
        severity=ERROR,
        field="release_date",
        source="ISO 8601",
        why="A release without a possible date is never released.",
        check=_date,
    ),
    Rule(
        rule_id="P_LINE_FORMAT",
        severity=WARNING,
        field="p_line",
        source="DDEX AVS",
        why="The line names the year and the owner of the recording.",
        check=_line("p_line"),
    ),
    Rule(
        rule_id="C_LINE_FORMAT",
        severity=WARNING,
        field="c_line",
        source="DDEX AVS",
        why="The line names the year and the owner of the artwork and notes.",
        check=_line("c_line"),
    ),
)


@_BOOK.rule(
    "LANGUAGE_SPELLING",
    INFO,
    "language",
    source="BCP 47",
    why="en, EN and eng are one language in three filters.",
)
def _language_spelling(track: Track, _: Heard) -> Found:
    text = track.language
    if not text or (len(text) == 2 and text.islower()):
        return
    import langcodes

    if len(text) <= 35 and langcodes.tag_is_valid(text):
        tag = langcodes.standardize_tag(text)
        if tag != text:
            yield Finding(message=f"written canonically: {tag}", current=text, suggested=tag)


@_BOOK.rule(
    "TERRITORY_EXCLUSION",
    ERROR,
    "territories",
    source=AVS,
    why="An exclusion takes away from Worldwide; from nothing it grants nothing.",
)
def _exclusion(track: Track, _: Heard) -> Found:
    codes = track.territories
    if not codes or not any(code.startswith("-") for code in codes):
        return
    if "Worldwide" not in codes:
        yield Finding(message="excludes without Worldwide", current="; ".join(codes))
    elif both := [c for c in codes if c.startswith("-") and c[1:] in codes]:
        yield Finding(message=f"names and excludes {both[0][1:]}", current="; ".join(codes))


@_BOOK.rule(
    "LINE_SYMBOL",
    INFO,
    "p_line",
    source=AVS,
    why="Shops put the symbol; stated as well it is shown twice.",
)
def _symbol(track: Track, _: Heard) -> Found:
    for path, text in (("p_line", track.p_line), ("c_line", track.c_line)):
        if text and (clean := _SYMBOL.sub("", text)) != text:
            yield Finding(message="without the symbol", current=text, suggested=clean, field=path)


@_BOOK.rule(
    "LINE_YEAR",
    ERROR,
    "p_line",
    source=AVS,
    why="No right began before sound was recorded or begins in years to come.",
)
def _line_year(track: Track, _: Heard) -> Found:
    for path, text in (("p_line", track.p_line), ("c_line", track.c_line)):
        found = _YEAR.match(_SYMBOL.sub("", text)) if text else None
        if found and not 1860 <= int(found[0]) <= datetime.now(UTC).year + 1:
            yield Finding(message=f"impossible year {found[0]}", current=text, field=path)


@_BOOK.rule(
    "RELEASE_BEFORE_RECORDING",
    WARNING,
    "release_date",
    source=AVS,
    why="Nothing is released before the year in which its rights began.",
)
def _release(track: Track, _: Heard) -> Found:
    found = _YEAR.match(_SYMBOL.sub("", track.p_line)) if track.p_line else None
    released = track.release_date[:4]
    if found and released.isdecimal() and int(released) < int(found[0]):
        yield Finding(
            message=f"before the (P) year {found[0]} of '{shown(track.p_line)}'",
            current=track.release_date,
        )


RULES = (*_RULES, *_BOOK.rules)
