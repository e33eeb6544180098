"""Which groups of rules certainly find nothing in a track, told without asking them.

Most tracks of a tidy catalogue break no rule at all, and asking each of a hundred costs twenty
times what this does. Every function here may say no to a clean track, whose rules are then asked
in full, and never says yes to one of which a rule would find something: tests hold that on every
injected fault and on made-up tracks. A text that is not plainly plain is put to the rules alone
and the verdict is kept, for labels, artists and territories come again and again.
"""

import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache

from liner.v1 import track_pb2

from liner_server.core.keys import KEYS
from liner_server.core.rules import (
    artist_names,
    artists,
    audio_match,
    characters,
    codes,
    conversions,
    identifiers,
    master,
    music,
    parties,
    places_and_dates,
    texts,
    titles,
)
from liner_server.core.rules.book import Track
from liner_server.core.rules.rule import Rule

IDENTIFIER_RULES = (*identifiers.RULES, *parties.RULES)
TITLE_RULES = (
    *titles.RULES,
    *texts.RULES,
    *conversions.TITLES.rules,
    *characters.TITLES.rules,
)
ARTIST_RULES = (
    *artists.RULES,
    *artist_names.RULES,
    *conversions.ARTISTS.rules,
    *characters.ARTISTS.rules,
)

_KEPT = 32_768
"""Verdicts kept of each kind; a text is at most a kilobyte, and most are a few bytes."""

_ISWC = re.compile(r"T-([0-9]{3})\.([0-9]{3})\.([0-9]{3})-([0-9])")
_TWELVE = re.compile(r"[0-9]{12,13}")
_SIXTEEN = re.compile(r"[0-9]{15}[0-9X]")
_ELEVEN = re.compile(r"[0-9]{11}")
_EAN_WEIGHTS = {12: (3, 1) * 6, 13: (1, 3) * 6 + (1,)}
_ISNI_WEIGHTS = tuple(pow(2, 15 - place, 11) for place in range(15))

_SMALL = "and|of|the|to|a|in|on|at|for|from|with|my|me|you|is|it"
_PLAIN = re.compile(rf"[A-Z][a-z']*[a-z](?: (?:[A-Z][a-z']*|{_SMALL}|&))*")
"""Words that begin with a capital, small words inside, single spaces: nothing to find but words."""

_PLAIN_NAME = re.compile(rf"[A-Z][a-z']*[a-z](?: (?:[A-Z][a-z']*[a-z]|{_SMALL}))*")
"""The same without what joins two names."""

_TELLING_WORDS = frozenset(
    ("feat", "ft", "featuring", "unknown", "untitled", "null", "tba", "tbd", "no", "test", "audio")
) | {
    *("style", "originally", "performed", "famous", "popular", "tribute", "track", "prod"),
    *("produced", "nan", "undefined", "part", "pt", "volume", "vol"),
}
_TELLING_NAMES = (
    frozenset(
        ("feat", "ft", "featuring", "and", "vs", "unknown", "artist", "none", "tba", "various")
    )
    | frozenset(("artists", "va", "prod", "produced", "remixed", "producer"))
    | {*("null", "nan", "undefined")}
)
_KEYS = frozenset(("", *KEYS))
_LINE = re.compile(r"[0-9]{4} \S")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def canonical(track: Track) -> bool:
    """Whether every identifier is canonical and distinct, so that no rule on them is broken."""
    isrc, iswc, upc = track.isrc, track.iswc, track.upc
    if isrc and not (
        codes.ISRC_SHAPE.fullmatch(isrc)
        and isrc[:2] in codes.isrc_prefixes()
        and not identifiers.FILLERS.fullmatch(isrc, 5)
    ):
        return False
    if iswc and not _iswc_holds(iswc):
        return False
    if upc and not (ean_holds(upc) and not upc.startswith(identifiers.BOOKS) and len(set(upc)) > 1):
        return False
    if track.tags and any(name.lower() == "grid" for name in track.tags):
        return False
    seen: set[str] = set()
    for artist in track.artists:
        isni, ipi = artist.isni, artist.ipi
        if isni:
            if isni in seen or not isni_holds(isni):
                return False
            seen.add(isni)
        if ipi:
            if ipi in seen or not ipi_holds(ipi):
                return False
            seen.add(ipi)
    return True


def _iswc_holds(text: str) -> bool:
    match = _ISWC.fullmatch(text)
    return match is not None and codes.iswc_check_digit(match[1] + match[2] + match[3]) == int(
        match[4]
    )


@lru_cache(maxsize=_KEPT)
def ean_holds(text: str) -> bool:
    """Whether a text is a UPC or EAN of bare digits with the right check digit."""
    if _TWELVE.fullmatch(text) is None:
        return False
    return codes.weighted(text, _EAN_WEIGHTS[len(text)]) % 10 == 0


@lru_cache(maxsize=_KEPT)
def isni_holds(text: str) -> bool:
    """Whether a text is an ISNI of 16 bare characters with the right one at its end."""
    if _SIXTEEN.fullmatch(text) is None:
        return False
    check = (12 - codes.weighted(text[:15], _ISNI_WEIGHTS)) % 11
    return text[15] == ("X" if check == 10 else str(check))


@lru_cache(maxsize=_KEPT)
def ipi_holds(text: str) -> bool:
    """Whether a text is an IPI name number of 11 bare digits with the right last two."""
    return _ELEVEN.fullmatch(text) is not None and codes.ipi_check_digits(text[:9]) == int(text[9:])


def _silent(rules: Iterable[Rule], track: Track) -> bool:
    return not any(True for rule in rules for _ in rule.check(track, None))


def plain_titles(track: Track) -> bool:
    """Whether nothing is wrong with the title, version and album, and with what is printed."""
    # Only the rule on small words asks for the language; the artist's name needs a dash.
    english = track.language[:2].lower() == "en"
    for path, text in (
        ("title", track.title),
        ("version_title", track.version_title),
        ("album", track.album),
        ("label", track.label),
        ("publisher", track.publisher),
    ):
        if text and not _quiet(path, text, english=english):
            return False
    p_line, c_line = track.p_line, track.c_line
    return (not p_line or _quiet_line("p_line", p_line)) and (
        not c_line or _quiet_line("c_line", c_line)
    )


@lru_cache(maxsize=_KEPT)
def _quiet_line(path: str, text: str) -> bool:
    """Whether no rule on texts finds anything in a P or C line."""
    plain = text.isascii() and text.isprintable() and text == text.strip()
    return (plain and "  " not in text and "&" not in text) or _quiet(path, text, english=False)


@lru_cache(maxsize=_KEPT)
def _quiet(path: str, text: str, *, english: bool) -> bool:
    """Whether no rule on titles finds anything in a track that states only this text."""
    if path == "title" and (" - " in text or "\u2013" in text):
        return False
    plain = path != "version_title" and _PLAIN.fullmatch(text) is not None
    if plain and _TELLING_WORDS.isdisjoint(text.lower().split(" ")):
        words = text.split(" ")
        if not english or titles.SURELY_SMALL.isdisjoint(words):
            return True
    track = Track(language="en" if english else "")
    setattr(track, path, text)
    return _silent(TITLE_RULES, track)


def plain_artists(track: Track) -> bool:
    """Whether every artist has a plain name, each another one, and somebody is a main artist."""
    credited = track.artists
    if not credited:
        return True
    main, names = False, set()
    for artist in credited:
        name = artist.name
        if not _quiet_name(name, bool(artist.isni)):
            return False
        main = main or artist.role <= track_pb2.ARTIST_ROLE_MAIN
        names.add(name.casefold().strip())
    return main and len(names) == len(credited)


@lru_cache(maxsize=_KEPT)
def _quiet_name(name: str, identified: bool) -> bool:
    """Whether no rule on artists finds anything in a track with only this artist."""
    if _PLAIN_NAME.fullmatch(name) and _TELLING_NAMES.isdisjoint(name.lower().split(" ")):
        return True
    # Some rules ask for more of a further artist than of the first.
    track = Track()
    for credited in ("Anna", name):
        track.artists.add(name=credited, isni="0" if identified else None)
    return _silent(ARTIST_RULES, track)


def plain_places_and_dates(track: Track) -> bool:
    """Whether territories, language, date and lines are such that none can be wrong."""
    language, date = track.language, track.release_date
    if language == "zxx" or (language and not _known_language(language)):
        return False
    if date and not _known_date(date):
        return False
    if track.territories and not _known_territories(tuple(track.territories)):
        return False
    p_line, c_line = track.p_line, track.c_line
    if p_line and not (_line_holds(p_line) and (not date or date[:4] >= p_line[:4])):
        return False
    return not c_line or _line_holds(c_line)


@lru_cache(maxsize=_KEPT)
def _line_holds(text: str) -> bool:
    """Whether a P or C line begins with a year that has begun, a space, and a name."""
    # A year that has begun will have begun next year too, so the verdict may be kept.
    return (
        _LINE.match(text) is not None
        and places_and_dates.FIRST_YEAR <= int(text[:4]) <= time.gmtime().tm_year
    )


@lru_cache(maxsize=1024)
def _known_language(tag: str) -> bool:
    return _silent(places_and_dates.RULES, Track(language=tag))


@lru_cache(maxsize=_KEPT)
def _known_date(text: str) -> bool:
    # A date that is possible now will be so next year too, so the verdict may be kept.
    return _silent(places_and_dates.RULES, Track(release_date=text))


@lru_cache(maxsize=4096)
def _known_territories(entries: tuple[str, ...]) -> bool:
    return _silent(places_and_dates.RULES, Track(territories=entries))


def plain_music(track: Track) -> bool:
    """Whether key, tempo, genre, lists and lyrics are past all doubt."""
    bpm, language, lyrics = track.bpm, track.language, track.lyrics
    if track.key not in _KEYS or (bpm and not 60 <= bpm <= 200):
        return False
    if not (0 <= track.energy <= 1 and 0 <= track.danceability <= 1):
        return False
    if track.tags and "mode" in track.tags:
        return False
    if language == "zxx":
        return False
    genre = track.genre
    if genre and not _known_genre(genre):
        return False
    tempi = music.GENRE_TEMPI.get(genre.lower()) if genre and bpm else None
    if tempi is not None and not tempi[0] <= bpm <= tempi[1]:
        return False
    for entries in (track.subgenres, track.moods, track.instruments):
        if len(entries) > 1 and not _differ(tuple(entries)):
            return False
    return not lyrics or music.lyrics_pass(track)


@lru_cache(maxsize=4096)
def _differ(entries: tuple[str, ...]) -> bool:
    return len({entry.casefold() for entry in entries}) == len(entries)


@lru_cache(maxsize=4096)
def _known_genre(genre: str) -> bool:
    return _silent(music.RULES, Track(genre=genre))


def plain_master(track: Track) -> bool:
    """Whether what is stated of the file is possible, and fit for every delivery."""
    if not track.HasField("properties"):
        return True
    stated = track.properties
    if stated.HasField("sample_rate_hz") and not 44_100 <= stated.sample_rate_hz <= 192_000:
        return False
    if 0 < stated.bit_depth < 16:
        return False
    if stated.sha256 and _DIGEST.fullmatch(stated.sha256) is None:
        return False
    if stated.HasField("duration") and stated.duration.seconds <= 0:
        return False
    return _known_codec(stated.codec, stated.container)


@lru_cache(maxsize=1024)
def _known_codec(codec: str, container: str) -> bool:
    track = Track()
    track.properties.codec, track.properties.container = codec, container
    return _silent(master.RULES, track)


def nothing_heard(_: Track) -> bool:
    """Without audio nothing can be said against it."""
    return True


def plain_sound(track: Track) -> bool:
    """Whether key and tempo are possible: the rest of these rules needs the audio."""
    return track.key in _KEYS and (not track.HasField("bpm") or 20 <= track.bpm <= 400)


Group = tuple[str, tuple[Rule, ...], Callable[[Track], bool]]
GROUPS: tuple[Group, ...] = (
    ("identifiers", IDENTIFIER_RULES, canonical),
    ("titles", TITLE_RULES, plain_titles),
    ("artists", ARTIST_RULES, plain_artists),
    ("places_and_dates", places_and_dates.RULES, plain_places_and_dates),
    ("music", music.RULES, plain_music),
    ("music", master.RULES, plain_master),
    ("audio_match", audio_match.RULES, plain_sound),
    ("audio_match", master.HEARD_RULES, nothing_heard),
)
"""(family, its rules, whether they certainly find nothing when nothing was heard)."""
