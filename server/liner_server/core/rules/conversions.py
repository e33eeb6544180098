"""Rules on what conversions leave in a text: escapes, lost letters, letters of another alphabet."""

import html
import re
import unicodedata
from collections.abc import Iterator

from liner_server.core.rules.book import ERROR, PRACTICE, WARNING, Found, Heard, RuleBook, Track
from liner_server.core.rules.characters import Texts, names_of, prints_of, titles_of
from liner_server.core.rules.rule import Finding

TITLES = RuleBook()
ARTISTS = RuleBook()

ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{2,6}|#x[0-9a-f]{2,5});", re.IGNORECASE)
"""An escape of a web page."""

_TAG = re.compile(r"</?(?:a|b|br|em|font|i|p|span|strong|u)(?:\s[^<>]*)?/?>", re.IGNORECASE)
_CODE_POINT = re.compile(r"\\u([0-9a-f]{4})", re.IGNORECASE)
_LOOK_ALIKES = dict(
    zip(
        "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0430\u0435"
        "\u043e\u0440\u0441\u0443\u0445\u0456\u0406\u0458\u0408\u0455\u0405"
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf",
        "ABEKMHOPCTYXaeopcyxiIjJsSABEZHIKMNOPTYXo",
        strict=True,
    )
)
"""Cyrillic and Greek letters that look like a Latin one; others are seen to be what they are."""

_TO_LATIN = str.maketrans(_LOOK_ALIKES)
_WORD = re.compile(r"[^\W\d_]+")


def _prints(track: Track) -> Iterator[tuple[str, str]]:
    yield from titles_of(track)
    yield from prints_of(track)


def _without_lines(track: Track) -> Iterator[tuple[str, str]]:
    return ((path, text) for path, text in _prints(track) if not path.endswith("_line"))


def _escapes(texts: Texts, track: Track) -> Found:
    r"""Yield what web pages and programs left: "&amp;", "<b>", "\u00e9"."""
    for path, text in texts(track):
        plain = text
        if "&" in text and ENTITY.search(text):
            # "&amp;amp;" was escaped twice.
            plain = html.unescape(html.unescape(text))
        if "<" in plain:
            plain = _TAG.sub("", plain)
        if "\\u" in plain:
            plain = _CODE_POINT.sub(_code_point, plain)
        if plain != text:
            yield Finding(
                message="holds escapes of a web page or a program",
                current=text,
                suggested=plain.strip() or None,
                field=path,
            )


def _code_point(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    # Half a pair is no character, and a control character no gain.
    return char if char.isprintable() else match[0]


def _losses(texts: Texts, track: Track) -> Found:
    for path, text in texts(track):
        if "\ufffd" in text:
            yield Finding(message="a letter was lost in a conversion", current=text, field=path)


def _look_alikes(texts: Texts, track: Track) -> Found:
    for path, text in texts(track):
        if text.isascii():
            continue
        clean = _WORD.sub(_in_one_alphabet, text)
        if clean != text:
            yield Finding(
                message="one word mixes two alphabets", current=text, suggested=clean, field=path
            )


def _in_one_alphabet(match: re.Match[str]) -> str:
    """Return a Latin word whose other letters all look like Latin ones in Latin, or the word."""
    word = match[0]
    latin = word.translate(_TO_LATIN)
    if latin == word or not any(_is_latin(letter) for letter in word):
        return word
    # One letter that is seen to be another alphabet's, as in KoЯn, and nobody is deceived.
    return latin if all(_is_latin(letter) for letter in latin if letter.isalpha()) else word


def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith("LATIN")


def _register(
    book: RuleBook, prefix: str, path: str, texts: Texts, words: Texts, what: str
) -> None:
    @book.rule(
        f"{prefix}_HTML_ENTITY",
        WARNING,
        path,
        source=PRACTICE,
        why="Escapes of a web page or a program are shown as they are.",
    )
    def _escapes_here(track: Track, _: Heard) -> Found:
        return _escapes(texts, track)

    @book.rule(
        f"{prefix}_REPLACEMENT_CHARACTER",
        ERROR,
        path,
        source="Unicode Standard",
        why="A letter was lost for good; nobody can guess it back.",
    )
    def _losses_here(track: Track, _: Heard) -> Found:
        return _losses(texts, track)

    @book.rule(
        f"{prefix}_LOOK_ALIKE_LETTERS",
        WARNING,
        path,
        source="Unicode Technical Standard 39",
        why=f"A Cyrillic letter inside a Latin {what} makes it a {what} that no search finds.",
    )
    def _look_alikes_here(track: Track, _: Heard) -> Found:
        return _look_alikes(words, track)


_register(TITLES, "TEXT", "title", _prints, _without_lines, "word")
_register(ARTISTS, "ARTIST", "artists", names_of, names_of, "name")
