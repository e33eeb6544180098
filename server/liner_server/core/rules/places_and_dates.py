"""Languages, territories, dates, P and C lines, and the parental warning."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache

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
from liner_server.core.rules.characters import titles_of
from liner_server.core.rules.rule import Check, Finding, Rule

ERROR = enrichment_pb2.SEVERITY_ERROR
WARNING = enrichment_pb2.SEVERITY_WARNING

_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")
_SIGN = r"(?:[\u2117\u24c5\u24df\u00a9\u24b8\u24d2]|\([pc]\)|copyright\b)"
_SYMBOL = re.compile(rf"^\s*{_SIGN}(?:\s*[&+/,]?\s*{_SIGN})*\s*", re.IGNORECASE)
_LINE = re.compile(r"\s*[0-9]{4}(?:\s*(?:[,/&\u2013-]|and\b)\s*[0-9]{4}\b)*,?\s+\S")
"""A reissue names several years: "1973, 2011 Example Records"."""

_YEAR_BEHIND = re.compile(rf"(\S.*?)[\s,]+(?:{_SIGN}\s*)?\(?([0-9]{{4}})\)?\s*", re.IGNORECASE)
_YEAR = re.compile(r"\d{4}")
FIRST_YEAR = 1860
"""Nobody recorded sound before."""

WORLDWIDE = "Worldwide"
_WORLDS = frozenset(("WORLDWIDE", "WORLD", "WW", "GLOBAL", "ALL", "2136"))
"""How catalogues write the whole world; 2136 is CISAC's number of it."""

_OTHER_NAMES = {
    "UK": "GB",
    "GREAT BRITAIN": "GB",
    "ENGLAND": "GB",
    "SCOTLAND": "GB",
    "EL": "GR",
    "HOLLAND": "NL",
    "KOSOVO": "XK",
    "RUSSIA": "RU",
    "TURKEY": "TR",
}
_DAY = re.compile(r"([0-9]{4})([-/.]?)([0-9]{1,2})\2([0-9]{1,2})(?:[T ].*)?")
_DAY_FIRST = re.compile(r"([0-9]{1,2})([./-])([0-9]{1,2})\2([0-9]{4})")
_BOOK = RuleBook()


@cache
def _countries() -> frozenset[str]:
    import pycountry

    # Kosovo has no code of ISO's own; shops and DDEX messages name it by XK.
    return frozenset((*(country.alpha_2 for country in pycountry.countries), "XK"))


@lru_cache(maxsize=4096)
def _place(text: str) -> str | None:
    """Return the territory that a name or another code means, or None."""
    import pycountry

    name = text.strip().upper()
    if name in _WORLDS:
        return WORLDWIDE
    if name in _countries():
        return name
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    try:
        return str(pycountry.countries.lookup(name).alpha_2)
    except LookupError:
        return None


@lru_cache(maxsize=1024)
def _language_named(text: str) -> str | None:
    """Return the tag of a language that is written out: "English" is en."""
    import pycountry

    name = text.strip()
    if name.casefold() == "instrumental":
        return "zxx"
    try:
        language = pycountry.languages.lookup(name)
    except LookupError:
        return None
    return str(getattr(language, "alpha_2", language.alpha_3))


def _iso(text: str) -> str | None:
    """Return a date that is written in another way as ISO 8601 does, or None when unsure."""
    if day := _DAY.fullmatch(text.strip()):
        year, month, date = day[1], day[3], day[4]
        if not day[2] and len(month + date) < 4:
            return None
    elif day := _DAY_FIRST.fullmatch(text.strip()):
        date, month, year = day[1], day[3], day[4]
        # Only points always mean that the day comes first; with others it must be plain.
        if day[2] != "." and int(date) <= 12 < int(month):
            date, month = month, date
        elif day[2] != "." and int(date) <= 12:
            return None
    else:
        return None
    if int(month) == 0:
        iso = year
    elif int(date) == 0:
        iso = f"{year}-{int(month):02}"
    else:
        iso = f"{year}-{int(month):02}-{int(date):02}"
    return iso if _date_fault(iso) is None else None


@cache
def _is_language(tag: str) -> bool:
    import langcodes

    return bool(langcodes.tag_is_valid(tag))


def _territories(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    stated = set(track.territories)
    for index, text in enumerate(track.territories):
        # An exclusion stays one, however it is spelled: without its sign it would grant a right.
        sign = "-" if text.lstrip().startswith("-") else ""
        code = text.removeprefix("-")
        if code in _countries() or (code == WORLDWIDE and not sign):
            continue
        fixed = _place(text.strip().removeprefix("-"))
        meant = sign + fixed if fixed and not (sign and fixed == WORLDWIDE) else None
        yield Finding(
            message=f"'{shown(text)}' is neither an ISO 3166-1 alpha-2 code nor Worldwide",
            current=text,
            suggested="" if meant in stated else meant,
            field=f"territories[{index}]",
        )
        stated.add(meant or text)


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
            suggested=None
            if _excluded(kept)
            else "; ".join(c for c in kept if c == WORLDWIDE or c.startswith("-")),
        )


def _language(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if track.language and not _is_language(track.language):
        yield Finding(
            message='a language is a BCP 47 tag: "en", "pt-BR"',
            current=track.language,
            suggested=_language_named(track.language),
        )


def _instrumental(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if track.language == "zxx" and track.lyrics.strip():
        yield Finding(message="zxx says instrumental, but there are lyrics", current="zxx")


def _date(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    text = track.release_date
    fault = _date_fault(text) if text else None
    if fault is not None:
        yield Finding(message=fault, current=text, suggested=_iso(text))


def _date_fault(text: str) -> str | None:
    """Return what is wrong with a date, or None."""
    found = _DATE.fullmatch(text)
    if not found:
        return 'a date reads "2024", "2024-05" or "2024-05-17"'
    year, month, day = (int(part) if part else 1 for part in found.groups())
    try:
        datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return "there is no such day"
    if not FIRST_YEAR <= year <= datetime.now(UTC).year + 1:
        return f"the year must be between {FIRST_YEAR} and next year"
    return None


def _line(field: str) -> Check:
    def check(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
        text = getattr(track, field)
        bare = _SYMBOL.sub("", text)
        if text and not _LINE.match(bare):
            behind = _YEAR_BEHIND.fullmatch(bare)
            yield Finding(
                message="a year and an owner: 2024 Example Records",
                current=text,
                suggested=f"{behind[2]} {behind[1]}"
                if behind and not _date_fault(behind[2])
                else None,
            )

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
    if not any(code == WORLDWIDE or _place(code) == WORLDWIDE for code in codes):
        kept = [code for code in codes if not code.startswith("-")]
        yield Finding(
            message="excludes without Worldwide",
            current="; ".join(codes),
            # Nothing is lost with an exclusion from nothing; alone, or against one of the others,
            # it wants to be understood.
            suggested=None if _excluded(codes) else "; ".join(kept) or None,
        )
    elif both := _excluded(codes):
        yield Finding(message=f"names and excludes {both[0]}", current="; ".join(codes))


def _excluded(codes: Sequence[str]) -> list[str]:
    """Return the entries that are both named and excluded."""
    return [code[1:] for code in codes if code.startswith("-") and code[1:] in codes]


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
        if found and not FIRST_YEAR <= int(found[0]) <= datetime.now(UTC).year + 1:
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
    if any("remaster" in text.lower() for _, text in titles_of(track)):
        # The line is the new master's, the date may well be the recording's.
        return
    if found and released.isdecimal() and int(released) < int(found[0]):
        yield Finding(
            message=f"before the (P) year {found[0]} of '{shown(track.p_line)}'",
            current=track.release_date,
        )


RULES = (*_RULES, *_BOOK.rules)
