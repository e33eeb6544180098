"""Rules on what is stated of the music: key, tempo, genre, moods, lyrics and warnings."""

import re

from liner.v1 import track_pb2

from liner_server.core.fields import number_text
from liner_server.core.keys import parse_key
from liner_server.core.rules import lyric_language
from liner_server.core.rules.book import (
    APPLE,
    AVS,
    INFO,
    PRACTICE,
    WARNING,
    Found,
    Heard,
    RuleBook,
    Track,
)
from liner_server.core.rules.rule import Finding

_BOOK = RuleBook()
_NO_GENRE = frozenset(("other", "unknown", "misc", "miscellaneous", "genre", "none", "n/a"))
GENRE_TEMPI = {
    "drum and bass": (160, 185),
    "drum & bass": (160, 185),
    "house": (115, 135),
    "techno": (120, 160),
    "trance": (125, 150),
    "dubstep": (135, 145),
}
_EXPLICIT = re.compile(
    r"\b(?:(?:mother)?fuck(?:s|ed|er|ers|a|as|in|ing)?|(?:bull)?shit(?:s|ty|ting)?|bitch(?:es)?|"
    r"cunts?|nigg(?:a|er)s?|cocksuckers?|whores?|fotzen?|putas?|putes?)\b",
    re.IGNORECASE,
)
_EXPLICIT_PARTS = (
    *("fuck", "shit", "bitch", "cunt", "nigg", "cocksucker", "whore", "fotze", "puta", "pute"),
)
_TIMES = re.compile(r"\bput[ae]s?\b", re.IGNORECASE)
_COUNTING = frozenset(("bs", "cnr", "hbs", "hr", "la", "mk", "sh", "sl", "sr"))
"""Languages in which "tri puta" is three times."""

"""One of these is in every text that the pattern above finds something in."""

ODD_LETTERS = "\u0130\u0131\u017f\u212a"
"""Letters that a pattern takes for i, s or k when case does not count, and str.lower() does not."""

_ONE_GENRE = re.compile(r",\s[^,;]*(?:&|\band\b)", re.IGNORECASE)
"""An "and" after the last comma makes one name of it: "Folk, World, & Country"."""

_MARKUP = re.compile(r"^\s*\[[^\]\n]{1,40}\]", re.MULTILINE)


@_BOOK.rule(
    "KEY_SPELLING",
    INFO,
    "key",
    source=PRACTICE,
    why="One key has many spellings; one of them lets tracks be found by key.",
)
def _key_spelling(track: Track, _: Heard) -> Found:
    text = track.key
    key = parse_key(text) if text else None
    if key is None or key == text:
        return
    # Db major is Db major: who names a note keeps it, though it sounds as C# does.
    letter, mode = text.strip()[:1].upper(), key.partition(" ")[2]
    own = (f"{letter}{sign} {mode}" for sign in ("", "#", "b"))
    spelled = next((spelling for spelling in own if parse_key(spelling) == key), key)
    if spelled != text:
        yield Finding(message=f"written out: {spelled}", current=text, suggested=spelled)


@_BOOK.rule(
    "KEY_AGAINST_MODE",
    WARNING,
    "key",
    source=PRACTICE,
    why="A mode stated twice and differently is wrong once.",
)
def _mode(track: Track, _: Heard) -> Found:
    if not track.tags or not track.key:
        return
    mode, key = track.tags.get("mode", "").lower(), parse_key(track.key)
    if mode in ("major", "minor") and key and not key.endswith(mode):
        yield Finding(message=f"the tag mode says {mode}", current=track.key)


def _is_heard(bpm: float, heard: Heard) -> bool:
    """Whether the audio bears a tempo out: then no habit of a genre speaks against it."""
    measured = heard.tempo.bpm if heard is not None else None
    return measured is not None and abs(bpm - measured) <= 0.04 * measured


@_BOOK.rule(
    "BPM_UNUSUAL",
    INFO,
    "bpm",
    source=PRACTICE,
    why="Outside 60 to 200 a tempo is more often an octave off than true.",
)
def _unusual(track: Track, heard: Heard) -> Found:
    bpm = track.bpm
    if _is_heard(bpm, heard):
        return
    if 20 <= bpm < 60 or 200 < bpm <= 400:
        better = bpm * 2 if bpm < 60 else bpm / 2
        # Footwork and speedcore are that fast, so a machine must not halve it.
        yield Finding(
            message=f"rare; {number_text(better, 2)} may be meant", current=number_text(bpm, 2)
        )


@_BOOK.rule(
    "BPM_AGAINST_GENRE",
    INFO,
    "bpm",
    source=PRACTICE,
    why="Half or double the tempo of its genre puts a track into the wrong set.",
)
def _genre_tempo(track: Track, heard: Heard) -> Found:
    tempi = GENRE_TEMPI.get(track.genre.lower()) if track.genre else None
    if (
        tempi is None
        or _is_heard(track.bpm, heard)
        or not track.bpm
        or tempi[0] <= track.bpm <= tempi[1]
    ):
        return
    for other in (track.bpm * 2, track.bpm / 2):
        if tempi[0] <= other <= tempi[1]:
            yield Finding(
                message=f"{track.genre} is felt at {tempi[0]} to {tempi[1]}",
                current=number_text(track.bpm, 2),
                suggested=number_text(other, 2),
            )


@_BOOK.rule(
    "ENERGY_RANGE",
    WARNING,
    "energy",
    source="liner.v1",
    why="Energy and danceability are shares from 0 to 1.",
)
def _shares(track: Track, _: Heard) -> Found:
    for path, value in (("energy", track.energy), ("danceability", track.danceability)):
        if not 0 <= value <= 1:
            yield Finding(
                message="from 0 to 1",
                current=number_text(value, 3),
                suggested=number_text(value / 100, 3) if 1 < value <= 100 else None,
                field=path,
            )


@_BOOK.rule(
    "GENRE_STAND_IN",
    WARNING,
    "genre",
    source=APPLE,
    why="A genre that says nothing is refused, and no listener finds it.",
)
def _no_genre(track: Track, _: Heard) -> Found:
    if track.genre and (
        track.genre.lower() in _NO_GENRE or re.fullmatch(r"\(?\d+\)?", track.genre)
    ):
        yield Finding(message="says nothing about the music", current=track.genre)


@_BOOK.rule(
    "GENRE_LIST",
    WARNING,
    "genre",
    source=AVS,
    why="The main genre is one; further ones have a field of their own.",
)
def _genre_list(track: Track, _: Heard) -> Found:
    if ";" in track.genre or (", " in track.genre and not _ONE_GENRE.search(track.genre)):
        first = re.split(r"[;,]", track.genre)[0].strip()
        yield Finding(message="several genres in one", current=track.genre, suggested=first or None)


@_BOOK.rule(
    "LIST_DUPLICATE",
    INFO,
    "subgenres",
    source=PRACTICE,
    why="An entry named twice counts twice.",
)
def _duplicates(track: Track, _: Heard) -> Found:
    for path, entries in (
        ("subgenres", track.subgenres),
        ("moods", track.moods),
        ("instruments", track.instruments),
    ):
        if len(entries) > 1:
            kept = {entry.casefold(): entry for entry in reversed(entries)}
            if len(kept) < len(entries):
                yield Finding(
                    message="an entry is named twice",
                    current="; ".join(entries),
                    suggested="; ".join(reversed(kept.values())),
                    field=path,
                )


def _explicit(lyrics: str, language: str) -> bool:
    """Whether lyrics hold a word that no clean recording has, as far as a list can tell."""
    # Looking for parts of words is ten times as fast as for words, and most lyrics have none.
    if lyrics.isascii() or not any(odd in lyrics for odd in ODD_LETTERS):
        small = lyrics.lower()
        for part in _EXPLICIT_PARTS:
            if part in small:
                break
        else:
            return False
    if language.replace("_", "-").partition("-")[0].lower() in _COUNTING:
        lyrics = _TIMES.sub("", lyrics)
    return _EXPLICIT.search(lyrics) is not None


def lyrics_pass(track: Track) -> bool:
    """Whether no rule that asks for the lyrics finds anything in them."""
    lyrics = track.lyrics
    if "[" in lyrics or _explicit(lyrics, track.language) or track.language == "zxx":
        return False
    return not track.language or lyric_language.contradicted(track.language, lyrics) is None


@_BOOK.rule(
    "WARNING_AGAINST_LYRICS",
    WARNING,
    "parental_warning",
    source=AVS,
    why="Explicit words under a clean flag are taken down.",
)
def _warning(track: Track, _: Heard) -> Found:
    if not track.lyrics:
        return
    flag = track.parental_warning
    if flag == track_pb2.PARENTAL_WARNING_EXPLICIT or not _explicit(track.lyrics, track.language):
        return
    name = track_pb2.ParentalWarning.Name(flag)[17:] if flag else ""
    edited = flag == track_pb2.PARENTAL_WARNING_EXPLICIT_CONTENT_EDITED
    yield Finding(
        message="the lyrics hold explicit words",
        current=name,
        suggested=None if edited else "EXPLICIT",
    )


@_BOOK.rule(
    "LYRICS_LANGUAGE",
    WARNING,
    "language",
    source="BCP 47",
    why="Lyrics in another language than the one stated: one of the two is another song's.",
)
def _lyrics_language(track: Track, _: Heard) -> Found:
    if not track.language or not track.lyrics:
        return
    found = lyric_language.contradicted(track.language, track.lyrics)
    if found is not None:
        yield Finding(
            message=f"the lyrics look like {found}",
            current=track.language,
            # Four letters are a script: many languages are written in it.
            suggested=found if len(found) < 4 else None,
        )


@_BOOK.rule(
    "LYRICS_MARKUP",
    WARNING,
    "lyrics",
    source=APPLE,
    why="Section headings and time stamps are shown as if they were sung.",
)
def _markup(track: Track, _: Heard) -> Found:
    if "[" in track.lyrics and _MARKUP.search(track.lyrics):
        yield Finding(message="holds headings or time stamps in brackets")


@_BOOK.rule(
    "INSTRUMENTAL_WITH_VOCALS",
    WARNING,
    "instruments",
    source="ISO 639-2",
    why="zxx says that nobody sings.",
)
def _vocals(track: Track, _: Heard) -> Found:
    if track.language == "zxx" and any("vocal" in name.lower() for name in track.instruments):
        yield Finding(message="vocals in a track stated as instrumental")


RULES = _BOOK.rules
