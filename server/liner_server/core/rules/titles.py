"""Titles: capitals, guests, needless words, brackets."""

import re
from collections.abc import Iterator

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.fields import read
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
_BEHIND_A_DASH = re.compile(r"(?<=[-/\u2013])[^\W\d_][\w']*")
_CAPITALS = re.compile(r"(?:[a-z]\.){2,}[a-z]?|(?=[ivx]{2})x{0,3}(?:ix|iv|v?i{0,3})")
"""Initials ("u.s.a.") and the Roman numerals that titles have."""

_ABBREVIATIONS = frozenset(
    ("dj", "mc", "tv", "usa", "uk", "nyc", "ufo", "dna", "vip", "r&b", "ep", "lp", "cd", "dvd")
) | {"fm", "bpm", "sos", "ok", "mtv", "bbc", "fbi", "cia"}
_LETTER_BEFORE = frozenset(("the", "side", "plan", "vitamin", "class", "part", "section"))
_LETTER_BEHIND = frozenset(("major", "minor", "flat", "sharp"))

_NEEDLESS_WORDS = (
    r"(?:explicit|clean|dirty|uncensored)(?: (?:version|edit|lyrics))?"
    r"|official(?: (?:music |lyrics? )?(?:video|audio|version|visuali[sz]er))?|original mix"
    r"|album version|(?:music |lyrics? )?video|lyrics|audio|visuali[sz]er|free (?:download|dl)"
    r"|hd|hq|4k"
)
_NEEDLESS = re.compile(
    rf"\s*[(\[](?:{_NEEDLESS_WORDS})[)\]]|\s+[-\u2013|]\s+(?:{_NEEDLESS_WORDS})$", re.IGNORECASE
)
needless_version = re.compile(_NEEDLESS_WORDS, re.IGNORECASE).fullmatch
"""Whether a version says nothing but what the file is for."""

_SMILEYS = re.compile(r"[:;=]'?-?[()\[\]]+|[()\[\]]+-?[:;=]")
_NUMBERED = re.compile(r"^(?:track|titel|piste|pista)\s*\d+$", re.IGNORECASE)


def title_case(text: str) -> str:
    """Return an English title in title case: small words small, but not where a part begins.

    Roman numerals, initials and the commonest abbreviations become capitals.
    """
    words = text.lower().split(" ")
    return " ".join(
        word if word in _SMALL and _inside(words, index) else _cased(word)
        for index, word in enumerate(words)
    )


def _cased(word: str) -> str:
    core = word.strip("()[]{}.,:;!?\"'")
    if core in _ABBREVIATIONS or _CAPITALS.fullmatch(core):
        return word.upper()
    return _BEHIND_A_DASH.sub(_part_cased, _FIRST_LETTER.sub(_upper, word, 1))


def _part_cased(match: re.Match[str]) -> str:
    return match[0] if match[0] in _SMALL else match[0][0].upper() + match[0][1:]


def _upper(match: re.Match[str]) -> str:
    return match[0].upper()


def _inside(words: list[str], index: int) -> bool:
    """Whether a word stands inside a part of a title: not at its end, nor after a mark or "("."""
    if not 0 < index < len(words) - 1:
        return False
    before, after = words[index - 1], words[index + 1]
    if not (before[-1:].isalnum() and after[:1].isalnum()):
        return False
    # "The A Team", "Vitamin A" and "in A Minor" name a letter, no article.
    return words[index].lower() != "a" or not (
        before.lower() in _LETTER_BEFORE
        or after.lower().rstrip(",.:;)]") in _LETTER_BEHIND
        or after.lower().startswith(("flat", "sharp"))
    )


def _suggested_case(track: track_pb2.Track, text: str) -> str | None:
    """Return a title in title case where that is how its language writes titles.

    Nobody but an editor knows which words of another language are nouns or names.
    """
    english = track.language[:2].lower() == "en" and track.language[2:3] in ("", "-", "_")
    unknown = track.language in ("", "zxx", "und") and text.isascii()
    cased = title_case(text) if english or unknown else text
    return cased if cased != text else None


def _cased_letters(text: str) -> str:
    """The letters that have a case at all: scripts without one are never judged."""
    return "".join(c for c in text if c.lower() != c.upper())


def _capitals(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in titles_of(track):
        if not text.isupper():
            continue
        if len(_cased_letters(text)) > 3 and _cased_words(text) > 1:
            yield Finding(
                message="all in capitals; use title case unless the artist means it so",
                current=text,
                suggested=_suggested_case(track, text),
                field=field,
            )


def _one_word(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in titles_of(track):
        # A short one is as often a name or an abbreviation as a fault.
        if text.isupper() and len(_cased_letters(text)) >= 6 and _cased_words(text) == 1:
            yield Finding(
                message="in capitals; fine if the artist means it so", current=text, field=field
            )


def _cased_words(text: str) -> int:
    return sum(bool(_cased_letters(word)) for word in text.split())


def _lower(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in titles_of(track):
        if not text.islower():
            continue
        letters = _cased_letters(text)
        if field != "version_title" and len(letters) > 3 and letters.islower():
            yield Finding(
                message="all in small letters; use title case unless the artist means it so",
                current=text,
                suggested=_suggested_case(track, text),
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
    found = guests.in_title(track.title)
    if found:
        kept = track.title[: found.start()] + " " + track.title[found.end() :]
        yield Finding(
            message=f"{shown(found['guest'].strip())} belongs among the artists, as featured",
            current=track.title,
            # Where nobody is credited yet, the title is all that names the guest.
            suggested=(" ".join(kept.split()) or None) if track.artists else None,
        )
        yield from guests.credits_of(found["guest"], track)


def _producers(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    found = guests.producer_in_title(track.title)
    if found is not None:
        kept = " ".join((track.title[: found.start()] + " " + track.title[found.end() :]).split())
        yield Finding(
            message=f"{shown(found['guest'].strip())} belongs among the artists, as producer",
            current=track.title,
            suggested=(kept or None) if track.artists else None,
        )
        yield from guests.credits_of(found["guest"], track, role="producer")


def _needless(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    flag: str | None = None
    stated = read(track, "parental_warning") or ""
    for field, text in titles_of(track):
        clean = _NEEDLESS.sub("", text).strip()
        if field == "version_title" and needless_version(text.strip()):
            clean = ""
        if clean == text.strip():
            continue
        message, kept = "what the file is for does not belong in a title", False
        said = _flag_said(text)
        if said and stated not in ("", said):
            message, kept = f"{message}, and the parental warning says otherwise", True
        elif said and not stated and flag is None:
            flag = said
        # Nothing is left of a version that was none, and that is right.
        empty = "" if field == "version_title" else None
        yield Finding(
            message=message,
            current=text,
            suggested=None if kept else clean or empty,
            field=field,
        )
    if flag is not None:
        # Taken out of the title it would be said nowhere.
        yield Finding(
            message="the title says so", current="", suggested=flag, field="parental_warning"
        )


def _flag_said(text: str) -> str:
    """Return the parental warning that a title's needless words say; empty for none."""
    words = " ".join(match[0] for match in _NEEDLESS.finditer(text)).lower() or text.lower()
    if "explicit" in words or "dirty" in words or "uncensored" in words:
        return "EXPLICIT"
    return "EXPLICIT_CONTENT_EDITED" if "clean" in words else ""


def _numbered(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if _NUMBERED.match(track.title.strip()):
        yield Finding(message="a number in place of a title", current=track.title)


def _brackets(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for field, text in titles_of(track):
        if _halved(text) and _halved(_SMILEYS.sub("", text)):
            yield Finding(message="a bracket without its other half", current=text, field=field)


def _halved(text: str) -> bool:
    return any(text.count(a) != text.count(b) for a, b in ("()", "[]"))


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
        rule_id="TITLE_WORD_IN_CAPS",
        severity=INFO,
        field="title",
        source="Apple Music Style Guide",
        why="A single word in capitals is as often the artist's choice as a fault.",
        check=_one_word,
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
        rule_id="TITLE_PRODUCER",
        severity=WARNING,
        field="title",
        source="Apple Music Style Guide",
        why="A producer inside the title has no credit, and shops take the words out.",
        check=_producers,
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
