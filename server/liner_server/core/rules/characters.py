"""Rules on the characters of texts: invisible ones, white space, wrong encodings, wide letters.

The same four things are asked of titles, of names, and of what else is printed on a release;
they have ids of their own there, because an invisible character in a title is worse.
"""

import re
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
_MARKS_OF_DIRECTION = "\u200e\u200f\u061c"
_SEEN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
"""Signs of Arabic and Syriac that Unicode counts among the invisible ones and readers see."""

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_BLACK_FLAG, _FLAG_LETTERS = "\U0001f3f4", range(0xE0020, 0xE0080)
"""England's, Scotland's and Wales' flags are this one and letters that nobody sees."""

_SPACES = re.compile(r"\s+")
_WIDE_LETTERS = re.compile("[\u3000-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]")
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
    """Return a text composed, without control and invisible characters and needless white space.

    Joiners stay between letters that are not ASCII: Persian, the scripts of India and emoji are
    written with them. Marks of direction stay inside a text that runs from right to left, and
    characters that this Unicode table does not know yet, as next year's emoji, stay.
    """
    composed = unicodedata.normalize("NFC", text)
    # Longer or as long: another order of vowel signs or letters that Unicode takes apart, which
    # is how Arabic, Hebrew and Hindi are typed. Only what was left uncomposed looks like another.
    normal = composed if len(composed) < len(text) else text
    bare = normal.strip()
    kept = []
    for index, char in enumerate(bare):
        match unicodedata.category(char):
            case "Cc":
                kept.append(" ")
            case "Cf" | "Co" | "Cn":
                if _belongs(char, bare, index):
                    kept.append(char)
            case _:
                kept.append(char)
    return white_space_tidied("".join(kept))


def _belongs(char: str, text: str, index: int) -> bool:
    """Whether a character that is not seen itself is part of how a text is written."""
    code = ord(char)
    if char in _JOINERS:
        return index > 0 and not text[index - 1].isascii()
    if char in _MARKS_OF_DIRECTION:
        return 0 < index < len(text) - 1 and _RIGHT_TO_LEFT.search(text) is not None
    if code in _FLAG_LETTERS:
        return _BLACK_FLAG in text
    if unicodedata.category(char) == "Cn":
        return not (code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF)
    return char in _SEEN


def white_space_tidied(text: str) -> str:
    """Return a text without white space at its ends, and with single plain spaces inside.

    A wide space beside a Japanese, Chinese or Korean letter stays, and the hard space that French
    puts before "?", "!", ":" and ";" and inside its quotation marks.
    """
    bare = text.strip()
    if bare.isascii():
        return " ".join(bare.split())

    def space(match: re.Match[str]) -> str:
        before, after = bare[match.start() - 1], bare[match.end()]
        found = match[0]
        if found == "\u3000" and (_WIDE_LETTERS.match(before) or _WIDE_LETTERS.match(after)):
            return found
        if found in ("\u00a0", "\u202f") and (after in "?!:;\u00bb" or before == "\u00ab"):
            return found
        return " "

    return _SPACES.sub(space, bare)


def _hidden(texts: Texts, track: Track) -> Found:
    for path, text in texts(track):
        if text.isascii() and text.isprintable():
            continue
        clean = hidden_characters_removed(text)
        if clean != white_space_tidied(text):
            message = "holds invisible characters, or is not in Unicode NFC"
            yield change(path, text, clean, message) if clean else noted(path, message, text)


def _spaces(texts: Texts, track: Track) -> Found:
    for path, text in texts(track):
        if " ".join(text.split()) == text:
            continue
        clean = white_space_tidied(text)
        if clean != text and clean:
            yield change(path, text, clean, "white space at an end, twice in a row, or a hard one")


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
