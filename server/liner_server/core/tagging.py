"""What the tagger's words and the beat say of genre, moods, instruments, energy and danceability.

The tagger was trained by others on what people tag songs with. Its scores rank well and are no
probabilities of being right: no labelled recordings were at hand to fit them on, so every claim
here is UNCALIBRATED, stays at or below 0.6 and is offered rather than filled.
"""

import math
from collections.abc import Iterable, Mapping

from liner.v1 import track_pb2

from liner_server.audio.measurements import Tagging, Tempo
from liner_server.core.calibration import Calibration
from liner_server.core.claims import Claim
from liner_server.core.fields import number_text

FIELDS = ("genre", "moods", "instruments", "energy", "danceability")
"""Paths this module makes claims about."""

SONG_GENRES: Mapping[str, tuple[str, ...]] = {
    "Rock": ("rock", "classic rock", "hard rock", "Progressive rock"),
    "Pop": ("pop",),
    "Alternative": ("alternative", "alternative rock"),
    "Indie": ("indie", "indie rock", "indie pop"),
    "Electronic": ("electronic", "electronica", "electro"),
    "Dance": ("dance",),
    "House": ("House",),
    "Jazz": ("jazz",),
    "Metal": ("metal", "heavy metal"),
    "Soul": ("soul",),
    "Folk": ("folk",),
    "Punk": ("punk",),
    "Blues": ("blues",),
    "Ambient": ("ambient",),
    "Experimental": ("experimental",),
    "Hip-Hop": ("Hip-Hop",),
    "Country": ("country",),
    "Easy Listening": ("easy listening",),
    "Funk": ("funk",),
    "R&B": ("rnb",),
}
"""Words people tag songs with, by the genre of Liner's vocabulary."""

SOUND_GENRES: Mapping[str, tuple[str, ...]] = {
    "Classical": ("classical", "classic"),
    "Opera": ("opera",),
    "New Age": ("new age",),
    "World": ("indian",),
    "Techno": ("techno",),
}
"""Words people tag excerpts with, for genres that nobody tagged songs with."""

_TECHNO_SHARE = 0.7
"""Excerpts of anything electronic were called techno."""

MOODS: Mapping[str, tuple[str, ...]] = {
    "Beautiful": ("beautiful",),
    "Chill": ("chill", "chillout"),
    "Mellow": ("Mellow",),
    "Party": ("party",),
    "Sexy": ("sexy",),
    "Catchy": ("catchy",),
    "Sad": ("sad",),
    "Happy": ("happy",),
}
"""Moods in the words people tag songs with."""

_SOUND_MOODS: Mapping[str, tuple[str, ...]] = {
    "Soft": ("soft",),
    "Calm": ("quiet",),
    "Quirky": ("weird",),
}

INSTRUMENTS: Mapping[str, tuple[str, ...]] = {
    "Guitar": ("guitar",),
    "Strings": ("strings",),
    "Drums": ("drums",),
    "Piano": ("piano",),
    "Violin": ("violin",),
    "Synthesizer": ("synth",),
    "Harpsichord": ("harpsichord",),
    "Flute": ("flute",),
    "Sitar": ("sitar",),
    "Choir": ("choir", "choral"),
    "Harp": ("harp",),
    "Cello": ("cello",),
}
"""Instruments in the words people tag excerpts with."""

_VOICE = ("vocal", "vocals", "singing", "voice", "female", "male", "woman", "man", "male vocal",
          "female vocal", "male voice", "female voice")  # fmt: skip
_NO_VOICE = ("no vocals", "no vocal", "no voice")
_SINGERS = ("female vocalists", "female vocalist", "male vocalists")

_LEAST = {"genre": 0.1, "moods": 0.12, "instruments": 0.2}
"""Scores under these are background: half the words reach them on any music."""

_MOST = {"moods": 3, "instruments": 6}
_RIVALS = 4
_RULE_OF_THUMB = 0.5
"""Nothing was fitted to say how often a rule of thumb is right: an even chance."""

_DANCE_BPM, _DANCE_OCTAVES = 118.0, 0.45
"""Where dancers are at ease, and how far from there half of it is lost."""


def tagging_claims(
    tagging: Tagging | None, tempo: Tempo, calibration: Calibration
) -> Iterable[Claim]:
    """Return what the tagger and the beat say; nothing of what they cannot tell."""
    if tagging is not None:
        yield from _choice("genre", genres(tagging), calibration)
        for path, found in (("moods", moods(tagging)), ("instruments", instruments(tagging))):
            yield from _several(path, found, calibration)
        yield Claim(
            field="energy",
            value=number_text(tagging.energy, 2),
            source=track_pb2.SOURCE_MEASURED,
            confidence=_RULE_OF_THUMB,
            basis=track_pb2.CONFIDENCE_BASIS_UNCALIBRATED,
            reason="loudness, change of spectrum and brightness, by a rule of thumb",
        )
    moving = danceability(tempo)
    if moving is not None:
        yield Claim(
            field="danceability",
            value=number_text(moving, 2),
            source=track_pb2.SOURCE_DERIVED,
            confidence=_RULE_OF_THUMB,
            basis=track_pb2.CONFIDENCE_BASIS_UNCALIBRATED,
            reason="how steady the beat is and how near to 118 a minute, by a rule of thumb",
        )


def genres(tagging: Tagging) -> list[tuple[str, float]]:
    """Return genres with raw scores, best first."""
    scores = {name: _top(tagging.songs, words) for name, words in SONG_GENRES.items()}
    scores |= {name: _top(tagging.sounds, words) for name, words in SOUND_GENRES.items()}
    scores["Techno"] *= _TECHNO_SHARE
    return _ranked(scores, _LEAST["genre"])


def moods(tagging: Tagging) -> list[tuple[str, float]]:
    """Return moods with raw scores, best first."""
    scores = {name: _top(tagging.songs, words) for name, words in MOODS.items()}
    scores |= {name: _top(tagging.sounds, words) for name, words in _SOUND_MOODS.items()}
    return _ranked(scores, _LEAST["moods"])


def instruments(tagging: Tagging) -> list[tuple[str, float]]:
    """Return instruments and "Vocals" with raw scores, best first."""
    scores = {name: _top(tagging.sounds, words) for name, words in INSTRUMENTS.items()}
    scores["Guitar"] = max(scores["Guitar"], tagging.songs.get("guitar", 0.0))
    scores["Vocals"] = voice(tagging)
    return _ranked(scores, _LEAST["instruments"])


def voice(tagging: Tagging) -> float:
    """Return a raw score for somebody singing; 0 where the words for nobody singing win."""
    heard = max(_top(tagging.sounds, _VOICE), _top(tagging.songs, _SINGERS))
    absent = max(_top(tagging.sounds, _NO_VOICE), tagging.songs.get("instrumental", 0.0))
    return heard if heard > absent else 0.0


def danceability(tempo: Tempo) -> float | None:
    """Return how well one could dance to it, 0 to 1; None where no beat was found.

    The steadiness of the beat times the share of dancers' ease that is left at this tempo: all at
    118 beats a minute, six tenths 0.45 octaves away.
    """
    if tempo.bpm is None or tempo.stability is None:
        return None
    away = math.log2(tempo.bpm / _DANCE_BPM) / _DANCE_OCTAVES
    return max(0.0, min(1.0, tempo.stability)) * math.exp(-0.5 * away * away)


def _choice(path: str, ranked: list[tuple[str, float]], calibration: Calibration) -> list[Claim]:
    if not ranked:
        return []
    (best, score), *rivals = ranked
    sure = calibration.calibrated(path, "measured", score)
    return [
        Claim(
            field=path,
            value=best,
            source=track_pb2.SOURCE_MEASURED,
            confidence=sure.probability,
            basis=sure.basis,
            others=_shared(rivals[:_RIVALS], 1 - sure.probability),
            reason="the tagger's best guess",
        )
    ]


def _several(path: str, ranked: list[tuple[str, float]], calibration: Calibration) -> list[Claim]:
    chosen = ranked[: _MOST[path]]
    if not chosen:
        return []
    # A list is right when all of it is; its weakest entry says how likely that is at best.
    sure = calibration.calibrated(path, "measured", chosen[-1][1])
    scores = ", ".join(f"{name} {score:.0%}" for name, score in chosen)
    return [
        Claim(
            field=path,
            value="; ".join(name for name, _ in chosen),
            source=track_pb2.SOURCE_MEASURED,
            confidence=sure.probability,
            basis=sure.basis,
            others=_shared(ranked[_MOST[path] :][:_RIVALS], 1 - sure.probability),
            reason=f"the tagger's scores: {scores}",
        )
    ]


def _shared(rivals: list[tuple[str, float]], room: float) -> tuple[tuple[str, float], ...]:
    """Rivals as alternatives: together they get no more than the answer leaves."""
    total = sum(score for _, score in rivals)
    scale = min(1.0, room / total) if total else 0.0
    return tuple((name, score * scale) for name, score in rivals)


def _top(scores: Mapping[str, float], words: Iterable[str]) -> float:
    return max(scores.get(word, 0.0) for word in words)


def _ranked(scores: Mapping[str, float], least: float) -> list[tuple[str, float]]:
    found = [(name, score) for name, score in scores.items() if score >= least]
    return sorted(found, key=lambda pair: -pair[1])
