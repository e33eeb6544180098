"""Rules on the form of texts: what a title or a label must not carry along.

The titles' and artists' own modules judge capitals, guests and hidden characters, and
`conversions` what programs left behind; here are the habits of files and shops, and versions in the
wrong place.
"""

import re
from collections.abc import Iterator

from liner_server.core.rules import guests
from liner_server.core.rules.book import (
    APPLE,
    INFO,
    PRACTICE,
    WARNING,
    Found,
    Heard,
    RuleBook,
    Track,
    shown,
)
from liner_server.core.rules.characters import titles_of
from liner_server.core.rules.rule import Finding
from liner_server.core.rules.titles import needless_version

TITLES = RuleBook()

_LIVE = (
    r"(?<!\bto )(?<!\bwe )(?<!\bi )(?<!\byou )(?<!\bthey )(?<!\blong )(?<!\bonly )"
    r"live(?! (?:and|to|my|your|our|for|like|it|life|fast|forever|together|again|without)\b)"
)
"""The word as a version, not as what people do: "Forever (Live and Die)"."""

_VERSION_WORD = (
    rf"remix|(?<!\bin the )mix|edit|version|{_LIVE}|remaster(?:ed)?|acoustic|instrumental|demo|"
    r"unplugged|"
    r"extended|karaoke|reprise|bootleg|rework|dub|a cappella"
)
_VERSION = re.compile(
    rf"^(?P<title>.*\S)\s*(?:[(\[](?P<inner>(?:[^()\[\]]*\b)?(?:{_VERSION_WORD})\b[^()\[\]]*)[)\]]"
    rf"|\s[-\u2013]\s(?P<dashed>[^()\[\]]*\b(?:{_VERSION_WORD})\b[^()\[\]]*))$",
    re.IGNORECASE,
)
_FILE = re.compile(r"\.(?:mp3|wav|flac|m4a|aiff?|ogg|opus|wma)$", re.IGNORECASE)
_NUMBER = re.compile(r"^0\d{1,2}[ ._-]+(?=\D)|^\d{1,3}(?:\.|\s[-\u2013])\s+(?=[^\W\d])")
_STAND_IN = frozenset(
    ("n/a", "tba", "tbd", "null", "unknown", "unknown title", "unknown album", "untitled track")
) | {
    *("unknown label", "no label", "no title", "no album", "test track", "audio track"),
    # What spreadsheets and programs write for nothing.
    *("nan", "undefined", "#n/a", "#ref!", "#value!", "#name?"),
}
_COVER = re.compile(
    r"\b(?:in the style of|originally performed by|made famous by|as made popular by)\b"
    r"|[(\[\u2013-][^()\[\]]*\btribute to\b",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"\s+[-\u2013]\s+(?:single|ep)$", re.IGNORECASE)
_DISC = re.compile(r"\s*[(\[,-]?\s*\b(?:disc|disk|cd)\s*\d{1,2}\s*[)\]]?$", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://|\bwww\.|\.(?:com|net|org)\b", re.IGNORECASE)
_PART = re.compile(
    r"^(?P<title>.*[^\s,:(-])[,:]?\s+(?P<bracket>\()?(?P<word>part|pt\.?|volume|vol\.?)\s+"
    r"(?P<number>[0-9]{1,3}|[IVX]{1,5})(?(bracket)\))$",
    re.IGNORECASE,
)

_ORDINALS = frozenset(
    ("cs", "da", "de", "et", "fi", "hr", "hu", "is", "lv", "nb", "nn", "no", "pl", "sk", "sl", "tr")
)
"""Languages in which "1." is "the first"."""

_HARD_ADDRESS = re.compile(r"https?://|\bwww\.", re.IGNORECASE)
_EMPTY_BRACKETS = re.compile(r"\s*(?:\(\s*\)|\[\s*\])")


def _all_texts(track: Track) -> Iterator[tuple[str, str]]:
    yield from titles_of(track)
    for path, text in (("label", track.label), ("publisher", track.publisher)):
        if text:
            yield path, text


@TITLES.rule(
    "TITLE_HOLDS_VERSION",
    WARNING,
    "title",
    source=APPLE,
    why="The version has a field of its own; in the title it makes a second title of one work.",
)
def _version(track: Track, _: Heard) -> Found:
    title = track.title
    if not title.endswith((")", "]")) and " - " not in title and "\u2013" not in title:
        return
    found = _VERSION.match(title)
    if found is None:
        return
    version = (found["inner"] or found["dashed"]).strip()
    if needless_version(version):
        return
    yield Finding(
        message=f"'{shown(version)}' is the version and belongs in version_title",
        current=title,
        suggested=found["title"].rstrip(" -"),
    )
    if not track.version_title:
        yield Finding(
            message="the version stands in the title",
            current="",
            suggested=version,
            field="version_title",
        )


@TITLES.rule(
    "VERSION_BRACKETS",
    WARNING,
    "version_title",
    source=APPLE,
    why="Shops put the brackets; stated as well they are shown twice.",
)
def _version_brackets(track: Track, _: Heard) -> Found:
    text = track.version_title
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]":
        inner = text[1:-1].strip()
        whole = text[0] + text[-1] in ("()", "[]") and not set("()[]") & set(inner)
        yield Finding(
            message="without brackets", current=text, suggested=inner if whole and inner else None
        )


@TITLES.rule(
    "TITLE_FILE_NAME",
    WARNING,
    "title",
    source=APPLE,
    why="A file name in place of a title is shown to every listener.",
)
def _file_name(track: Track, _: Heard) -> Found:
    for path, text in titles_of(track):
        if _FILE.search(text):
            clean = _FILE.sub("", text).replace("_", " ").strip()
            yield Finding(
                message="ends like a file name", current=text, suggested=clean or None, field=path
            )


@TITLES.rule(
    "TITLE_TRACK_NUMBER",
    WARNING,
    "title",
    source=APPLE,
    why="The position on the release is not part of the title.",
)
def _track_number(track: Track, _: Heard) -> Found:
    title = track.title
    if not title[:1].isdigit() or title.startswith("007 "):
        return
    if (found := _NUMBER.match(title)) is not None:
        if found[0][:-1].rstrip().endswith(".") and title[0] != "0" and _counts(track):
            return
        yield Finding(
            message="begins with a track number",
            current=title,
            suggested=_NUMBER.sub("", title, count=1),
        )


def _counts(track: Track) -> bool:
    """Whether a number and a point are a word of the title's language: "1. Mai"."""
    return track.language[:2].lower() in _ORDINALS


@TITLES.rule(
    "TITLE_ARTIST_NAME",
    WARNING,
    "title",
    source=APPLE,
    why="The artist is shown beside the title already.",
)
def _artist_name(track: Track, _: Heard) -> Found:
    title = track.title
    if " - " not in title and "\u2013" not in title:
        return
    for artist in track.artists:
        for dash in (" - ", " \u2013 "):
            head = artist.name + dash
            if artist.name and title.casefold().startswith(head.casefold()):
                yield Finding(
                    message=f"begins with the artist {shown(artist.name)}",
                    current=title,
                    suggested=title[len(head) :].strip(),
                )
                return


@TITLES.rule(
    "TITLE_STAND_IN",
    WARNING,
    "title",
    source=APPLE,
    why="A stand-in for a text that nobody knew is refused or, worse, published.",
)
def _stand_in(track: Track, _: Heard) -> Found:
    for path, text in _all_texts(track):
        if text.strip().lower() in _STAND_IN:
            yield Finding(message="stands in for an unknown text", current=text, field=path)


@TITLES.rule(
    "TITLE_SOUND_ALIKE",
    WARNING,
    "title",
    source=APPLE,
    why="Naming the original performer to be found by it is refused.",
)
def _sound_alike(track: Track, _: Heard) -> Found:
    for path, text in titles_of(track):
        if " " in text and _COVER.search(text):
            yield Finding(message="names another performer to be found", current=text, field=path)


@TITLES.rule(
    "ALBUM_FORMAT_SUFFIX",
    WARNING,
    "album",
    source=APPLE,
    why="Shops add Single and EP themselves.",
)
def _suffix(track: Track, _: Heard) -> Found:
    clean = _SUFFIX.sub("", track.album)
    if clean != track.album:
        yield Finding(message="without the format", current=track.album, suggested=clean)


@TITLES.rule(
    "ALBUM_DISC_NUMBER",
    WARNING,
    "album",
    source=APPLE,
    why="The discs of one release are one release.",
)
def _disc(track: Track, _: Heard) -> Found:
    clean = _DISC.sub("", track.album)
    if clean and clean != track.album:
        yield Finding(message="without the disc", current=track.album, suggested=clean)


@TITLES.rule(
    "TEXT_ADDRESS",
    WARNING,
    "title",
    source=APPLE,
    why="Advertising in metadata is refused.",
)
def _address(track: Track, _: Heard) -> Found:
    for path, text in _all_texts(track):
        # A label may be called after its address.
        pattern = _ADDRESS if path in ("title", "version_title", "album") else _HARD_ADDRESS
        if ("." in text or "://" in text) and pattern.search(text):
            yield Finding(message="holds a web address", current=text, field=path)


@TITLES.rule(
    "TEXT_UNDERSCORES",
    INFO,
    "title",
    source=PRACTICE,
    why="Underscores for spaces come from file names.",
)
def _underscores(track: Track, _: Heard) -> Found:
    for path, text in titles_of(track):
        if "_" in text and " " not in text and not _FILE.search(text):
            yield Finding(
                message="underscores in place of spaces",
                current=text,
                suggested=text.replace("_", " ").strip(),
                field=path,
            )


@TITLES.rule(
    "TITLE_EMPTY_BRACKETS",
    WARNING,
    "title",
    source=APPLE,
    why="Empty brackets are what is left of a version that was lost.",
)
def _empty_brackets(track: Track, _: Heard) -> Found:
    for path, text in titles_of(track):
        if "(" not in text and "[" not in text:
            continue
        clean = _EMPTY_BRACKETS.sub("", text).strip()
        # An album is called "( )".
        if clean not in ("", text.strip()):
            yield Finding(
                message="brackets with nothing in them", current=text, suggested=clean, field=path
            )


@TITLES.rule(
    "TITLE_GUEST_SPELLING",
    INFO,
    "title",
    source=APPLE,
    why="Guests are written one way: feat. in small letters with a full stop.",
)
def _guest_spelling(track: Track, _: Heard) -> Found:
    found = guests.in_title(track.title)
    if found is not None and found["word"] != "feat.":
        before, after = track.title[: found.start("word")], track.title[found.end("word") :]
        yield Finding(
            message='a guest is written "(feat. Name)"',
            current=track.title,
            suggested=f"{before}feat.{after}",
        )


@TITLES.rule(
    "TITLE_PART",
    INFO,
    "title",
    source=APPLE,
    why="Part and volume are abbreviated, behind a comma: Pt. 2, Vol. 1.",
)
def _part(track: Track, _: Heard) -> Found:
    if track.language[:2].lower() not in ("", "en", "zx"):
        return
    for path, text in titles_of(track):
        if (found := _PART.match(text)) is None:
            continue
        short = "Pt." if found["word"][0] in "Pp" else "Vol."
        clean = f"{found['title']}, {short} {found['number'].upper()}"
        if clean != text:
            yield Finding(
                message="a part or volume is abbreviated",
                current=text,
                suggested=clean,
                field=path,
            )


RULES = TITLES.rules
