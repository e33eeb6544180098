"""Rules on the characters of texts: invisible ones, white space, wrong encodings, wide letters.

The same four things are asked of titles, of names, and of what else is printed on a release;
they have ids of their own there, because an invisible character in a title is worse.
"""

import unicodedata
from collections.abc import Callable, Iterator

from liner_server.core.enums import Severity
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
)

TITLES = RuleBook()
ARTISTS = RuleBook()

Texts = Callable[[Track], Iterator[tuple[str, str]]]

_JOINERS = "\u200c\u200d"
_WIDE = {
    wide: wide - 0xFEE0
    for first, last in ((0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A))
    for wide in range(first, last + 1)
}
"""Wide digits and letters; wide punctuation belongs in Japanese and Chinese texts."""


def titles_of(track: Track) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the stated title, version and album."""
    if track.title:
        yield "title", track.title
    if track.version_title:
        yield "version_title", track.version_title
    if track.album:
        yield "album", track.album


def prints_of(track: Track) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of what else is printed on a release: label, publisher, P and C line."""
    if track.label:
        yield "label", track.label
    if track.publisher:
        yield "publisher", track.publisher
    if track.p_line:
        yield "p_line", track.p_line
    if track.c_line:
        yield "c_line", track.c_line


def names_of(track: Track) -> Iterator[tuple[str, str]]:
    """Yield (path, name) of every artist."""
    return ((f"artists[{i}].name", artist.name) for i, artist in enumerate(track.artists))


def hidden_characters_removed(text: str) -> str:
    """Return a text in NFC without control and invisible characters and needless white space.

    Joiners stay between letters that are not ASCII: Persian, the scripts of India and emoji are
    written with them.
    """
    normal = unicodedata.normalize("NFC", text)
    kept = []
    for index, char in enumerate(normal):
        match unicodedata.category(char):
            case "Cc":
                kept.append(" ")
            case "Cf" | "Co" | "Cn":
                if char in _JOINERS and index and not normal[index - 1].isascii():
                    kept.append(char)
            case _:
                kept.append(char)
    return " ".join("".join(kept).split())


def _hidden(texts: Texts, track: Track) -> Found:
    for path, text in texts(track):
        if text.isascii() and text.isprintable():
            continue
        clean = hidden_characters_removed(text)
        if clean != " ".join(text.split()):
            message = "holds invisible characters, or is not in Unicode NFC"
            yield change(path, text, clean, message) if clean else noted(path, message, text)


def _spaces(texts: Texts, track: Track) -> Found:
    for path, text in texts(track):
        clean = " ".join(text.split())
        if clean != text and clean:
            yield change(path, text, clean, "white space at an end, or twice in a row")


def _mojibake(texts: Texts, track: Track) -> Found:
    for path, text in texts(track):
        if text.isascii():
            continue
        import ftfy

        if ftfy.badness.is_bad(text):
            clean = ftfy.fix_encoding(text)
            message = "looks like text read in a wrong encoding"
            if clean != text and clean.strip() and not ftfy.badness.is_bad(clean):
                yield change(path, text, clean, message)
            else:
                yield noted(path, message, text)


def _wide(texts: Texts, track: Track) -> Found:
    for path, text in texts(track):
        if not text.isascii() and (clean := text.translate(_WIDE)) != text:
            yield change(path, text, clean, "letters or digits of double width")


def _register(
    book: RuleBook, prefix: str, path: str, texts: Texts, *, hidden: Severity, spaces: Severity
) -> None:
    """Ask the four things of some of a track's texts."""

    @book.rule(
        f"{prefix}_HIDDEN_CHARACTERS",
        hidden,
        path,
        source="Unicode Standard Annex 15",
        why="Two texts that look the same and are not are never found again.",
    )
    def _hidden_here(track: Track, _: Heard) -> Found:
        return _hidden(texts, track)

    @book.rule(
        f"{prefix}_WHITE_SPACE",
        spaces,
        path,
        source="Apple Music Style Guide",
        why="Needless spaces make a second text of the same one.",
    )
    def _spaces_here(track: Track, _: Heard) -> Found:
        return _spaces(texts, track)

    @book.rule(
        f"{prefix}_MOJIBAKE",
        WARNING,
        path,
        source="Unicode Standard",
        why="Listeners see it on every device.",
    )
    def _mojibake_here(track: Track, _: Heard) -> Found:
        return _mojibake(texts, track)

    @book.rule(
        f"{prefix}_WIDE_LETTERS",
        WARNING,
        path,
        source=PRACTICE,
        why="Letters of double width look like the usual ones and are other ones to a search.",
    )
    def _wide_here(track: Track, _: Heard) -> Found:
        return _wide(texts, track)


_register(TITLES, "TITLE", "title", titles_of, hidden=ERROR, spaces=WARNING)
_register(TITLES, "TEXT", "label", prints_of, hidden=WARNING, spaces=INFO)
_register(ARTISTS, "ARTIST", "artists", names_of, hidden=WARNING, spaces=WARNING)
