"""Rules on the form of texts: what a title or a label must not carry along.

The titles' and artists' own modules judge capitals, guests and hidden characters; here are the
habits of files and shops, versions in the wrong place, and what conversions leave behind.
"""

import html
import re
import unicodedata
from collections.abc import Iterator

from liner_server.core.rules.book import (
    APPLE,
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
from liner_server.core.rules.characters import titles_of
from liner_server.core.rules.rule import Finding

TITLES = RuleBook()

_VERSION_WORD = (
    r"remix|mix|edit|version|live|remaster(?:ed)?|acoustic|instrumental|demo|unplugged|"
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
) | {"unknown label", "no label", "no title", "no album", "test track", "audio track"}
_COVER = re.compile(
    r"\b(?:in the style of|originally performed by|made famous by|as made popular by|tribute to)\b",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"\s+[-\u2013]\s+(?:single|ep)$", re.IGNORECASE)
_DISC = re.compile(r"\s*[(\[,-]?\s*\b(?:disc|disk|cd)\s*\d{1,2}\s*[)\]]?$", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://|\bwww\.|\.(?:com|net|org)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{2,5});", re.IGNORECASE)
_EMPTY_BRACKETS = re.compile(r"\s*(?:\(\s*\)|\[\s*\])")
_GUEST_FORM = re.compile(r"\b(?:ft\.?|featuring|feat(?!\.)|Feat\.|FEAT\.)(?=\s)")


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
    if version.casefold() in ("original mix", "album version"):
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
    if len(text) > 2 and text[0] + text[-1] in ("()", "[]"):
        yield Finding(message="without brackets", current=text, suggested=text[1:-1].strip())


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
                message="ends like a file name", current=text, suggested=clean, field=path
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
    if title[:1].isdigit() and _NUMBER.match(title):
        yield Finding(
            message="begins with a track number",
            current=title,
            suggested=_NUMBER.sub("", title, count=1),
        )


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
        if "." in text and _ADDRESS.search(text):
            yield Finding(message="holds a web address", current=text, field=path)


@TITLES.rule(
    "TEXT_HTML_ENTITY",
    WARNING,
    "title",
    source=PRACTICE,
    why="Escapes of a web page are shown as they are.",
)
def _entity(track: Track, _: Heard) -> Found:
    for path, text in _all_texts(track):
        if "&" in text and _ENTITY.search(text) and html.unescape(text) != text:
            yield Finding(
                message="holds escapes of a web page",
                current=text,
                suggested=html.unescape(text),
                field=path,
            )


@TITLES.rule(
    "TEXT_REPLACEMENT_CHARACTER",
    ERROR,
    "title",
    source="Unicode Standard",
    why="A letter was lost for good; nobody can guess it back.",
)
def _replacement(track: Track, _: Heard) -> Found:
    for path, text in _all_texts(track):
        if "\ufffd" in text:
            yield Finding(message="a letter was lost in a conversion", current=text, field=path)


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
    "TEXT_LOOK_ALIKE_LETTERS",
    WARNING,
    "title",
    source="Unicode Technical Standard 39",
    why="A Cyrillic letter inside a Latin word makes it a word that no search finds.",
)
def _look_alikes(track: Track, _: Heard) -> Found:
    for path, text in _all_texts(track):
        if not text.isascii() and any(_mixed(word) for word in text.split()):
            yield Finding(message="one word mixes two alphabets", current=text, field=path)


def _mixed(word: str) -> bool:
    if word.isascii():
        return False
    scripts = {unicodedata.name(c, "").split(" ")[0] for c in word if c.isalpha()}
    return "LATIN" in scripts and bool(scripts & {"CYRILLIC", "GREEK"})


@TITLES.rule(
    "TITLE_EMPTY_BRACKETS",
    WARNING,
    "title",
    source=APPLE,
    why="Empty brackets are what is left of a version that was lost.",
)
def _empty_brackets(track: Track, _: Heard) -> Found:
    for path, text in titles_of(track):
        if ("(" in text or "[" in text) and _EMPTY_BRACKETS.search(text):
            yield Finding(
                message="brackets with nothing in them",
                current=text,
                suggested=_EMPTY_BRACKETS.sub("", text).strip(),
                field=path,
            )


@TITLES.rule(
    "TITLE_GUEST_SPELLING",
    INFO,
    "title",
    source=APPLE,
    why="Guests are written one way: feat. in small letters with a full stop.",
)
def _guest_spelling(track: Track, _: Heard) -> Found:
    if _GUEST_FORM.search(track.title):
        yield Finding(
            message='a guest is written "(feat. Name)"',
            current=track.title,
            suggested=_GUEST_FORM.sub("feat.", track.title),
        )


RULES = TITLES.rules
