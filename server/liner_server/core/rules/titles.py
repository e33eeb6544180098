"""Titles: capitals, white space, hidden characters, guests and versions in the wrong place."""

import re
import unicodedata
from collections.abc import Iterator

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.rules.rule import Finding, Rule

ERROR = enrichment_pb2.SEVERITY_ERROR
WARNING = enrichment_pb2.SEVERITY_WARNING
INFO = enrichment_pb2.SEVERITY_INFO

_FIELDS = ("title", "version_title", "album")
_SMALL = frozenset(
    ("a", "an", "and", "as", "at", "but", "by", "for", "from", "in", "into", "nor", "of", "off")
) | {"on", "onto", "or", "out", "over", "the", "to", "up", "with"}
_GUEST = re.compile(r"[\s(\[]+(?:feat|ft|featuring)\b\.?\s+([^()\[\]]+)[)\]]?", re.IGNORECASE)
_NEEDLESS = re.compile(
    r"\s*[(\[](?:explicit|clean|official(?: (?:music )?(?:video|audio))?|original mix|"
    r"album version|lyric video|hd|hq)[)\]]",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^(?:track|titel|piste|pista)\s*\d+$", re.IGNORECASE)


def _texts(track: track_pb2.Track) -> Iterator[tuple[str, str]]:
    for field in _FIELDS:
        text = getattr(track, field)
        if text:
            yield field, text


def hidden_characters_removed(text: str) -> str:
    """Return a text in NFC without control and invisible characters and needless white space."""
    visible = "".join(
        c if unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cn") or c == "\u200d" else " "
        for c in unicodedata.normalize("NFC", text)
    )
    return " ".join(visible.split())


def _hidden(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in _texts(track):
        if text.isascii() and text.isprintable():
            continue
        clean = hidden_characters_removed(text)
        if clean != " ".join(text.split()):
            yield Finding(
                message="holds invisible characters, or is not in Unicode NFC",
                current=text,
                suggested=clean,
                field=field,
            )


def _spaces(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in _texts(track):
        clean = " ".join(text.split())
        if clean != text:
            yield Finding(
                message="white space at an end, or twice in a row",
                current=text,
                suggested=clean,
                field=field,
            )


def _mojibake(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in _texts(track):
        if text.isascii():
            continue
        import ftfy

        if ftfy.badness.is_bad(text):
            yield Finding(
                message="looks like text read in a wrong encoding",
                current=text,
                suggested=ftfy.fix_text(text),
                field=field,
            )


def title_case(text: str) -> str:
    """Return an English title in title case: small words small, but not at either end."""
    words = text.lower().split(" ")
    last = len(words) - 1
    return " ".join(
        word if word in _SMALL and 0 < index < last else word[:1].upper() + word[1:]
        for index, word in enumerate(words)
    )


def _cased_letters(text: str) -> str:
    """The letters that have a case at all: scripts without one are never judged."""
    return "".join(c for c in text if c.lower() != c.upper())


def _capitals(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in _texts(track):
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
    for field, text in _texts(track):
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


def _guests(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    found = _GUEST.search(track.title)
    if found:
        yield Finding(
            message=f"{found[1].strip()} belongs among the artists, as featured",
            current=track.title,
            suggested=(track.title[: found.start()] + track.title[found.end() :]).strip(),
        )


def _needless(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in _texts(track):
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
    for field, text in _texts(track):
        if any(text.count(a) != text.count(b) for a, b in ("()", "[]")):
            yield Finding(message="a bracket without its other half", current=text, field=field)


RULES = (
    Rule(
        rule_id="TITLE_HIDDEN_CHARACTERS",
        severity=ERROR,
        field="title",
        source="Unicode Standard Annex 15",
        why="Two titles that look the same and are not are never found again.",
        check=_hidden,
    ),
    Rule(
        rule_id="TITLE_WHITE_SPACE",
        severity=WARNING,
        field="title",
        source="Apple Music Style Guide",
        why="Needless spaces make a second title of the same name.",
        check=_spaces,
    ),
    Rule(
        rule_id="TITLE_MOJIBAKE",
        severity=WARNING,
        field="title",
        source="Unicode Standard",
        why="Listeners see it on every device.",
        check=_mojibake,
    ),
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
