"""The short cut for tidy tracks: it is taken, and it never hides what a rule would have found."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liner.v1 import track_pb2
from liner_server.core.rules import music, tidy
from liner_server.evaluation import catalogue
from liner_server.evaluation.faults import FAULTS
from stdnum import ean, isni

_TRACKS = [catalogue.clean(seed) for seed in range(300)]

_PIECES = st.sampled_from(
    [
        *("Golden", "River", "The", "the", "Of", "and", "A", "I", "X", "x", "vs", "No", "Unknown"),
        *("feat", "Feat", "ft.", "(feat. Ann)", "featuring", "Remix", "(Live)", "- Live", "Track"),
        *("01", "1", "2024", "1850", "Disc", "CD", "(", ")", "[]", "-", "\u2013", "&", "&amp;"),
        *("_", ".mp3", "www.a.com", "\u00e9", "e\u0301", "\u200b", "\u00a0", "\t", "\ufffd"),
        *("Ã©", "\uff27", "\u0430", "東京", "GOLDEN", "golden", "Various", "Artists", "Artist"),
        *("Tribute", "to", "In", "Style", "in", "style", "of", "Originally", "Performed", "by"),
        *("Untitled", "Test", "Audio", "Label", "Prod", "Produced", "Remixed", "Producer", "None"),
        *("n/a", "TBA", "Tba", "Null", "\u2117", "(P)", "Copyright", ";", ",", "/", "+", "Jr."),
    ]
)
_TEXTS = st.one_of(
    st.lists(_PIECES, max_size=5).map(" ".join),
    st.lists(_PIECES, max_size=3).map("".join),
    st.text(max_size=12),
)
_DATES = st.one_of(
    st.dates().map(str), st.sampled_from(["2020", "202", "2020-13", "٢٠٢٠", "2030", "x"]), _TEXTS
)
_LYRICS = st.one_of(
    _TEXTS,
    st.sampled_from([catalogue.FOREIGN, *catalogue.LYRICS.values()]),
    st.sampled_from(["a puta madre", "computer", "what the FUC\u212a", "bull\u017fhit", "[x]\nla"]),
)
_NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, 0.5, 1.0, 20, 60, 87, 120, 200, 400]))
_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("title", "version_title", "album", "label", "publisher", "genre", "key"), _TEXTS
        ),
        **{path: st.builds("{} {}".format, _DATES, _TEXTS) for path in ("p_line", "c_line")},
        "release_date": _DATES,
        "lyrics": _LYRICS,
        "language": st.sampled_from(["", "en", "EN", "eng", "zxx", "de", "fr", "x", "en-Latn-US"]),
        "bpm": _NUMBERS,
        "energy": _NUMBERS,
        "danceability": _NUMBERS,
        "isrc": st.from_regex(r"[A-Z]{2}[A-Z0-9]{3}[0-9O]{7}\n?", fullmatch=True),
        "iswc": st.from_regex(r"T-?[0-9]{3}\.?[0-9]{3}\.[0-9]{3}-[0-9]\n?", fullmatch=True),
        "upc": st.from_regex(r"[0-9]{11,14}\n?|0*|978[0-9]{10}", fullmatch=True),
        "parental_warning": st.sampled_from(track_pb2.ParentalWarning.values()),
        "territories": st.lists(
            st.sampled_from(["DE", "-DE", "Worldwide", "ZZ", "de"]), max_size=3
        ),
        "moods": st.lists(_TEXTS, max_size=3),
        "subgenres": st.lists(st.sampled_from(["a", "A", "\u00df", "SS"]), max_size=3),
        "instruments": st.lists(st.sampled_from(["vocals", "Vocals", "piano"]), max_size=2),
        "tags": st.dictionaries(st.sampled_from(["mode", "grid", "GRid", "a"]), _TEXTS, max_size=2),
    },
)
_ARTISTS = st.lists(
    st.builds(
        track_pb2.Artist,
        name=_TEXTS,
        role=st.sampled_from(track_pb2.ArtistRole.values()),
        isni=st.one_of(st.none(), st.from_regex(r"[0-9]{15}[0-9X]", fullmatch=True)),
        ipi=st.one_of(st.none(), st.from_regex(r"[0-9]{11}", fullmatch=True)),
    ),
    max_size=3,
)
_PROPERTIES = st.builds(
    track_pb2.AudioProperties,
    container=st.sampled_from(["", "flac", "mp3", "ogg"]),
    codec=st.sampled_from(["", "flac", "mp3", "pcm_s16le", "ALAC"]),
    sample_rate_hz=st.sampled_from([None, 0, 8000, 44100, 96000, 384000]),
    bit_depth=st.sampled_from([None, 0, 8, 16]),
    bit_rate_bps=st.sampled_from([None, 320_000, 900_000]),
    sha256=st.sampled_from(["", "ab" * 32, "AB" * 32, "x"]),
)


def _findings(group: tidy.Group, track: track_pb2.Track) -> list[str]:
    return [rule.rule_id for rule in group[1] for _ in rule.check(track, None)]


def _hidden(track: track_pb2.Track) -> list[str]:
    """Return the rules that find something in a track which their group calls tidy."""
    return [
        rule_id for group in tidy.GROUPS if group[2](track) for rule_id in _findings(group, track)
    ]


_WORDS = (
    *("feat", "ft", "featuring", "and", "vs", "x", "unknown", "title", "album", "label", "artist"),
    *("untitled", "track", "null", "tba", "tbd", "no", "test", "audio", "in", "the", "style", "of"),
    *("originally", "performed", "by", "made", "famous", "as", "popular", "tribute", "to", "none"),
    *("various", "artists", "va", "prod", "produced", "remixed", "producer", "remix", "live", "a"),
    *("explicit", "single", "ep", "disc", "com", "copyright", "with", "for", "jr", "his", "&"),
    *("clean", "dirty", "uncensored", "official", "original", "mix", "version", "hd", "nan"),
    *("undefined", "ten", "disk", "cd", "part", "volume", "pt", "vol", "video", "audio", "lyrics"),
)


@pytest.mark.parametrize("path", ["title", "version_title", "album", "label", "artists"])
def test_no_telling_word_is_taken_for_a_plain_one(path: str) -> None:
    """Between plain words stand those that rules look for, in twos and threes."""
    group = tidy.GROUPS[2 if path == "artists" else 1]
    phrases = [*_WORDS, *(f"{one} {other}" for one in _WORDS for other in _WORDS)]
    hidden = set()
    for phrase in (*phrases, *map(str.title, phrases)):
        for text in (phrase, f"Golden {phrase}", f"Golden River {phrase} Silver Moon"):
            track = track_pb2.Track()
            if path == "artists":
                track.artists.add(name=text)
            else:
                setattr(track, path, text)
            if group[2](track) and _findings(group, track):
                hidden.add(text)

    assert hidden == set()


def test_a_tidy_track_takes_the_short_cut() -> None:
    """It is worth having only if nearly every clean track takes it."""
    for group in tidy.GROUPS:
        taken = sum(group[2](track) for track in _TRACKS)

        assert taken >= 0.95 * len(_TRACKS), group[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_injected_fault_is_called_tidy(fault: str) -> None:
    """A fault that the short cut lets through would be found in no track at all."""
    for track in _TRACKS[:40]:
        faulty = track_pb2.Track()
        faulty.CopyFrom(track)
        FAULTS[fault][1](faulty)

        assert _hidden(faulty) == []


@settings(max_examples=500, deadline=None)
@given(
    seed=st.integers(0, 299),
    changes=_CHANGES,
    artists=st.one_of(st.none(), _ARTISTS),
    properties=st.one_of(st.none(), _PROPERTIES),
)
def test_what_is_called_tidy_breaks_no_rule(
    seed: int,
    changes: dict[str, object],
    artists: list[track_pb2.Artist] | None,
    properties: track_pb2.AudioProperties | None,
) -> None:
    """However a clean track is changed, the short cut agrees with the rules that it spares."""
    track = track_pb2.Track()
    track.CopyFrom(_TRACKS[seed])
    for name in changes:
        track.ClearField(name)  # type: ignore[arg-type]
    track.MergeFrom(track_pb2.Track(**changes))  # type: ignore[arg-type]
    if artists is not None:
        del track.artists[:]
        track.artists.extend(artists)
    if properties is not None:
        track.properties.CopyFrom(properties)

    assert _hidden(track) == []


@settings(max_examples=200)
@given(st.from_regex(r"[0-9]{12,13}", fullmatch=True))
def test_the_quick_check_of_a_upc_is_the_library_s(text: str) -> None:
    """There is one truth about check digits, and it is python-stdnum's."""
    candidates = [text[:-1] + digit for digit in "0123456789"]

    assert [tidy.ean_holds(c) for c in candidates] == [
        ean.is_valid(c.zfill(13)) for c in candidates
    ]


@settings(max_examples=200)
@given(st.from_regex(r"[0-9]{15}", fullmatch=True))
def test_the_quick_check_of_an_isni_is_the_library_s(text: str) -> None:
    """There is one truth about check characters, and it is python-stdnum's."""
    candidates = [text + check for check in "0123456789X"]

    assert [tidy.isni_holds(c) for c in candidates] == [isni.is_valid(c) for c in candidates]


def test_the_odd_letters_are_all_that_a_pattern_takes_for_ascii_ones() -> None:
    """Explicit words are looked for in small letters first, which must miss none of them."""
    letters = re.compile("[a-z]", re.IGNORECASE)
    odd = [chr(code) for code in range(128, 0x110000) if letters.match(chr(code))]

    assert sorted(odd) == sorted(music.ODD_LETTERS)
