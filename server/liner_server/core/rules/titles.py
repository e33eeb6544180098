"""Titles: capitals, guests, needless words, brackets."""

import re
from collections.abc import Iterator

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.rules import guests
from liner_server.core.rules.book import shown
from liner_server.core.rules.characters import titles_of
from liner_server.core.rules.rule import Finding, Rule

ERROR = enrichment_pb2.SEVERITY_ERROR
WARNING = enrichment_pb2.SEVERITY_WARNING
INFO = enrichment_pb2.SEVERITY_INFO

_SMALL = frozenset(
    ("a", "an", "and", "as", "at", "but", "by", "for", "from", "in", "into", "nor", "of", "off")
) | {"on", "onto", "or", "out", "over", "the", "to", "up", "with"}
SURELY_SMALL = frozenset(
    ("A", "An", "And", "As", "At", "But", "By", "For", "From", "Into", "Nor", "Of", "Onto", "Or")
) | {"The", "To", "With"}
"""The others (in, on, off, out, over, up) are capitals where they belong to a verb."""

_FIRST_LETTER = re.compile(r"[^\W\d_]")
_NEEDLESS = re.compile(
    r"\s*[(\[](?:explicit|clean|official(?: (?:music )?(?:video|audio))?|original mix|"
    r"album version|lyric video|hd|hq)[)\]]",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^(?:track|titel|piste|pista)\s*\d+$", re.IGNORECASE)


def title_case(text: str) -> str:
    """Return an English title in title case: small words small, but not where a part begins."""
    words = text.lower().split(" ")
    return " ".join(
        word if word in _SMALL and _inside(words, index) else _FIRST_LETTER.sub(_upper, word, 1)
        for index, word in enumerate(words)
    )


def _upper(match: re.Match[str]) -> str:
    return match[0].upper()


def _inside(words: list[str], index: int) -> bool:
    """Whether a word stands inside a part of a title: not at its end, nor after a mark or "("."""
    if not 0 < index < len(words) - 1:
        return False
    before, after = words[index - 1], words[index + 1]
    return before[-1:].isalnum() and after[:1].isalnum()


def _cased_letters(text: str) -> str:
    """The letters that have a case at all: scripts without one are never judged."""
    return "".join(c for c in text if c.lower() != c.upper())


def _capitals(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in titles_of(track):
        if not text.isupper():
            continue
        letters = _cased_letters(text)
        # One short word in capitals is as often a name or an abbreviation as a fault.
        if letters.isupper() and (len(letters) >= 6 or " " in text.strip()) and len(letters) > 3:
            yield Finding(
                message="all in capitals; use title case unless the artist means it so",
                current=text,
                suggested=title_case(text),
                field=field,
            )


def _lower(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in titles_of(track):
        if not text.islower():
            continue
        letters = _cased_letters(text)
        if field != "version_title" and len(letters) > 3 and letters.islower():
            yield Finding(
                message="all in small letters; use title case unless the artist means it so",
                current=text,
                suggested=title_case(text),
                field=field,
            )


def _small_words(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if track.language[:2].lower() != "en" or track.language[2:3] not in ("", "-", "_"):
        return
    for field, text in titles_of(track):
        words = text.split(" ")
        if SURELY_SMALL.isdisjoint(words) or not text.isascii():
            continue
        clean = " ".join(
            word.lower() if word in SURELY_SMALL and _inside(words, index) else word
            for index, word in enumerate(words)
        )
        if clean != text:
            yield Finding(
                message="articles, short prepositions and conjunctions are small inside a title",
                current=text,
                suggested=clean,
                field=field,
            )


def _guests(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    found = guests.IN_TITLE.search(track.title)
    if found:
        kept = track.title[: found.start()] + " " + track.title[found.end() :]
        yield Finding(
            message=f"{shown(found[1].strip())} belongs among the artists, as featured",
            current=track.title,
            suggested=" ".join(kept.split()) or None,
        )
        yield from guests.credits_of(found[1], track)


def _needless(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in titles_of(track):
        clean = _NEEDLESS.sub("", text)
        if clean != text:
            yield Finding(
                message="what the file is for does not belong in a title",
                current=text,
                suggested=clean.strip() or None,
                field=field,
            )


def _numbered(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if _NUMBERED.match(track.title.strip()):
        yield Finding(message="a number in place of a title", current=track.title)


def _brackets(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in titles_of(track):
        if any(text.count(a) != text.count(b) for a, b in ("()", "[]")):
            yield Finding(message="a bracket without its other half", current=text, field=field)


RULES = (
    Rule(
        rule_id="TITLE_ALL_CAPS",
        severity=WARNING,
        field="title",
        source="Apple Music Style Guide",
        why="Shops send titles in capitals back unless the artist insists.",
        check=_capitals,
    ),
    Rule(
        rule_id="TITLE_ALL_SMALL",
        severity=INFO,
        field="title",
        source="Apple Music Style Guide",
        why="Titles all in small letters are sent back unless the artist insists.",
        check=_lower,
    ),
    Rule(
        rule_id="TITLE_SMALL_WORDS",
        severity=INFO,
        field="title",
        source="Apple Music Style Guide",
        why="English titles are in title case; another casing is corrected or sent back.",
        check=_small_words,
    ),
    Rule(
        rule_id="TITLE_GUEST",
        severity=WARNING,
        field="title",
        source="Apple Music Style Guide",
        why="A guest inside the title is not credited and not paid.",
        check=_guests,
    ),
    Rule(
        rule_id="TITLE_NEEDLESS_WORDS",
        severity=WARNING,
        field="title",
        source="Apple Music Style Guide",
        why="Explicit, Clean, Official and Original Mix have fields of their own or none.",
        check=_needless,
    ),
    Rule(
        rule_id="TITLE_NUMBER_ONLY",
        severity=WARNING,
        field="title",
        source="Apple Music Style Guide",
        why="Track 01 is what a ripper writes when nobody told it the title.",
        check=_numbered,
    ),
    Rule(
        rule_id="TITLE_BRACKETS",
        severity=WARNING,
        field="title",
        source="Apple Music Style Guide",
        why="A half bracket is a title that was cut off.",
        check=_brackets,
    ),
)
