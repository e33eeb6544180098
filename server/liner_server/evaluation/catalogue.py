"""A made-up catalogue of tracks that no delivery would refuse, and what listening to one yields."""

import random

from liner.v1 import track_pb2
from stdnum import ean
from stdnum.iso7064 import mod_11_2

from liner_server.audio.measurements import (
    Content,
    Format,
    Key,
    Listening,
    Loudness,
    Technical,
    Tempo,
)
from liner_server.core.keys import KEYS
from liner_server.core.rules import codes

Track = track_pb2.Track

_WORDS = (
    *("Midnight", "River", "Golden", "Hour", "Paper", "Crown", "Silver", "Rain", "Burning"),
    *("Letters", "Quiet", "Garden", "Northern", "Light", "Hollow", "Moon", "Velvet", "Road"),
    *("Summer", "Ghost", "Electric", "Harbor", "Broken", "Mirror", "Distant", "Fire"),
)
_TITLES = (
    *("東京の夜", "Привет, Мир", "مرحبا يا قمر", "夜に駆ける", "사랑의 노래", "São Paulo"),
    *("Don't You (Forget About Me)", "(I Can't Get No) Satisfaction", "99 Problems", "7 Rings"),
    *("1-800-273-8255", "Live and Let Die", "Für Elise", "L'été indien", "Ænema", "Łódź"),
    *("S.O.S.", "Ölüm", "Ágætis Byrjun"),
)
_NAMES = (
    *("AC/DC", "blink-182", "Tyler, The Creator", "Earth, Wind & Fire", "Simon & Garfunkel"),
    *("Florence + The Machine", "Nick Cave & The Bad Seeds", "Beyoncé", "Sigur Rós", "ABBA"),
    *("Crosby, Stills, Nash & Young", "k.d. lang", "!!!", "Motörhead", "BTS", "宇多田ヒカル"),
    *("Sammy Davis, Jr.", "Björk"),
)
_LABELS = ("Example Records", "North & South Music", "Блюз Рекордс", "Rhythm King")
_PREFIXES = ("USRC1", "GBAYE", "DEA62", "FRZ03", "QZES7", "BRBMG", "JPU90", "QMFME")


LYRICS = {
    "en": "A quiet line about rivers\nand another about the light that you keep for me",
    "de": "Eine leise Zeile über Flüsse\nund noch eine über das Licht, das du mir lässt",
    "ja": "川についての静かな一行と\n君が残した光についてのもう一行",
    "pt-BR": "Uma linha calma sobre os rios\ne mais uma sobre a luz que você me deixou",
    "zh-Hans": "一行安静的歌词写给河流\n还有一行写给你留下的光芒",
}
"""By language: what the catalogue's tracks state."""

FOREIGN = (
    "Je marche dans la ville et je pense à toi, la pluie tombe sur mon visage\n"
    "et tu n'es pas là, mais je sais que tu vas revenir pour moi un jour"
)
"""Lyrics in a language that no track of the catalogue states."""


def clean(seed: int) -> Track:
    """Return a track that no delivery would refuse; the same seed gives the same one."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    year = rng.randint(1965, 2025)
    title = rng.choice(_TITLES) if rng.random() < 0.3 else " ".join(rng.sample(_WORDS, 3))
    name = rng.choice(_NAMES) if rng.random() < 0.4 else " ".join(rng.sample(_WORDS, 2))
    label = rng.choice(_LABELS)
    work = f"{rng.randrange(10**9):09}"
    article = f"{rng.randrange(1, 9)}{rng.randrange(10**10, 10**11)}"
    # A name is one person on every track, or the catalogue would contradict itself.
    who = random.Random(name)  # noqa: S311 - no secret
    person, party = f"{who.randrange(10**9):09}", f"0000000{who.randrange(10**8):08}"
    language = rng.choice(tuple(LYRICS))
    track = Track(
        track_id=f"t{seed}",
        title=title,
        album=" ".join(rng.sample(_WORDS, 2)),
        label=label,
        release_date=rng.choice([f"{year}", f"{year}-05", f"{year}-05-17"]),
        isrc=f"{rng.choice(_PREFIXES)}{year % 100:02}{rng.randrange(1, 99999):05}",
        iswc=codes.format_iswc(f"T{work}{codes.iswc_check_digit(work)}"),
        upc=article + ean.calc_check_digit(article),
        territories=rng.choice([["Worldwide"], ["DE", "AT", "CH"], ["Worldwide", "-US"]]),
        language=language,
        genre=rng.choice(["Rock", "Jazz", "Hip-Hop/Rap", "Folk"]),
        subgenres=["Indie", "Alternative"],
        moods=["calm", "warm"],
        bpm=rng.randint(65, 190),
        key=rng.choice(KEYS),
        energy=0.5,
        danceability=0.5,
        instruments=["piano", "drums"],
        p_line=f"{year} {label}",
        c_line=f"{year} {label}",
        lyrics=LYRICS[language],
        parental_warning=track_pb2.PARENTAL_WARNING_NOT_EXPLICIT,
    )
    track.artists.add(
        name=name,
        role=track_pb2.ARTIST_ROLE_MAIN,
        isni=party + mod_11_2.calc_check_digit(party),
        ipi=f"{person}{codes.ipi_check_digits(person):02}",
    )
    track.artists.add(name="Mira Solberg", role=track_pb2.ARTIST_ROLE_FEATURED)
    properties = track.properties
    properties.container, properties.codec = "flac", "flac"
    properties.sample_rate_hz, properties.channels, properties.bit_depth = 44100, 2, 16
    properties.duration.seconds = 200
    properties.sha256 = "ab" * 32
    properties.integrated_loudness_lufs, properties.true_peak_dbtp = -14.0, -1.5
    return track


def heard(track: Track) -> Listening:
    """Return what listening to the clean track's audio yields."""
    return Listening(
        format=Format(
            container="flac",
            codec="flac",
            sample_rate_hz=44100,
            channels=2,
            bit_depth=16,
            bit_rate_bps=900_000,
            duration_seconds=200.0,
            size_bytes=22_500_000,
            sha256="ab" * 32,
            crc32c=1,
        ),
        tags={},
        content=Content.MUSIC,
        content_score=0.9,
        tempo=Tempo(bpm=track.bpm, score=0.9),
        key=Key(key=track.key, score=0.9),
        loudness=Loudness(integrated_lufs=-14.0, range_lu=6.0, true_peak_dbtp=-1.5),
        technical=Technical(),
    )
