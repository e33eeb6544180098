"""Every fault that the validator must find in a track, by name: the rule, and the damage done."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from liner.v1 import track_pb2

from liner_server.audio.measurements import Content, Listening, Problem
from liner_server.core.keys import KEYS
from liner_server.evaluation.catalogue import FOREIGN, LYRICS, Track, heard


def _put(**values: object) -> Callable[[Track], None]:
    def inject(track: Track) -> None:
        for name, value in values.items():
            entries = getattr(track, name)
            if isinstance(value, list):
                del entries[:]
                entries.extend(value)
            else:
                setattr(track, name, value)

    return inject


def _wrap(path: str, before: str, after: str) -> Callable[[Track], None]:
    def inject(track: Track) -> None:
        setattr(track, path, f"{before}{getattr(track, path)}{after}")

    return inject


def _name(before: str = "", after: str = "") -> Callable[[Track], None]:
    def inject(track: Track) -> None:
        track.artists[0].name = f"{before}Anna Weiss{after}"
        track.artists[0].ClearField("isni")

    return inject


def _artist(**values: object) -> Callable[[Track], None]:
    def inject(track: Track) -> None:
        for name, value in values.items():
            setattr(track.artists[0], name, value)

    return inject


def _properties(**values: object) -> Callable[[Track], None]:
    def inject(track: Track) -> None:
        for name, value in values.items():
            setattr(track.properties, name, value)

    return inject


def _bump(path: str) -> Callable[[Track], None]:
    """Make the last digit wrong."""

    def inject(track: Track) -> None:
        owner = track.artists[0] if path in ("isni", "ipi") else track
        text = getattr(owner, path)
        last = "0" if text[-1] == "X" else str((int(text[-1]) + 1) % 10)
        setattr(owner, path, text[:-1] + last)

    return inject


def _letters(track: Track) -> None:
    track.isrc = track.isrc[:5] + "76O0" + track.isrc[9:]


def _shared(name: str) -> Callable[[Track], None]:
    def inject(track: Track) -> None:
        setattr(track.artists[1], name, getattr(track.artists[0], name))

    return inject


def _twice(role: int) -> Callable[[Track], None]:
    def inject(track: Track) -> None:
        track.artists.add(name=track.artists[0].name, role=role)

    return inject


def _grid(text: str) -> Callable[[Track], None]:
    def inject(track: Track) -> None:
        track.tags["grid"] = text

    return inject


def _no_main(track: Track) -> None:
    track.artists[0].role = track_pb2.ARTIST_ROLE_PRODUCER


def _in_capitals(track: Track) -> None:
    track.title, track.artists[0].name = "GOLDEN RIVER", "ANNA WEISS"


def _typed_guest(track: Track) -> None:
    track.artists[1].name = "feat. Mira Solberg"
    track.artists[1].ClearField("role")


def _mode(track: Track) -> None:
    track.key, track.tags["mode"] = "C major", "minor"


FAULTS: dict[str, tuple[str, Callable[[Track], None]]] = {
    "isrc hyphens": ("ISRC_SPELLING", _put(isrc="us-rc1-76-07839")),
    "isrc named": ("ISRC_SPELLING", _wrap("isrc", "ISRC ", "")),
    "isrc letter O": ("ISRC_FORMAT", _letters),
    "isrc short": ("ISRC_FORMAT", _put(isrc="USRC1760783")),
    "isrc long": ("ISRC_FORMAT", _wrap("isrc", "", "7")),
    "isrc text": ("ISRC_FORMAT", _put(isrc="pending")),
    "isrc arabic digits": ("ISRC_FORMAT", _put(isrc="USRC1" + "\u0667\u0666\u0660" + "7839")),
    "isrc prefix": ("ISRC_PREFIX", _put(isrc="XXRC17607839")),
    "isrc filler": ("ISRC_PLACEHOLDER", _put(isrc="USRC10000000")),
    "isrc is a upc": ("ISRC_OTHER_CODE", _put(isrc="4006381333931")),
    "isrc is an iswc": ("ISRC_OTHER_CODE", _put(isrc="T-034.524.680-1")),
    "iswc digit": ("ISWC_CHECK_DIGIT", _bump("iswc")),
    "iswc text": ("ISWC_FORMAT", _put(iswc="T-12")),
    "iswc bare": ("ISWC_SPELLING", _put(iswc="T0345246801")),
    "upc digit": ("UPC_CHECK_DIGIT", _bump("upc")),
    "upc short": ("UPC_FORMAT", _put(upc="12345")),
    "upc spaces": ("UPC_SPELLING", _put(upc="4 006381 333931")),
    "upc of a book": ("UPC_NOT_A_RELEASE", _put(upc="9783161484100")),
    "isni digit": ("ISNI_CHECK_DIGIT", _bump("isni")),
    "isni text": ("ISNI_FORMAT", _artist(isni="none")),
    "isni address": ("ISNI_SPELLING", _artist(isni="https://isni.org/isni/0000000121032683")),
    "isni shared": ("ISNI_SHARED", _shared("isni")),
    "ipi digit": ("IPI_CHECK_DIGIT", _bump("ipi")),
    "ipi text": ("IPI_FORMAT", _artist(ipi="abc")),
    "ipi short": ("IPI_SPELLING", _artist(ipi="000000199")),
    "ipi shared": ("IPI_SHARED", _shared("ipi")),
    "grid text": ("GRID_FORMAT", _grid("B1")),
    "grid check": ("GRID_CHECK_CHARACTER", _grid("A1-2425G-ABC1234002-Q")),
    "grid hyphens": ("GRID_SPELLING", _grid("A1-2425G-ABC1234002-M")),
    "title caps": ("TITLE_ALL_CAPS", _put(title="GOLDEN RIVER")),
    "title word caps": ("TITLE_WORD_IN_CAPS", _put(title="GOLDEN")),
    "title small": ("TITLE_ALL_SMALL", _put(title="golden river")),
    "title spaces": ("TITLE_WHITE_SPACE", _wrap("title", " ", "")),
    "title zero width": ("TITLE_HIDDEN_CHARACTERS", _wrap("title", "", "\u200bx")),
    "title control": ("TITLE_HIDDEN_CHARACTERS", _wrap("title", "", "\x07x")),
    "title not nfc": ("TITLE_HIDDEN_CHARACTERS", _wrap("title", "", " Cafe\u0301")),
    "title mojibake": ("TITLE_MOJIBAKE", _put(title="BeyoncÃ© Nights")),
    "title guest": ("TITLE_GUEST", _wrap("title", "", " (feat. Anna Weiss)")),
    "title guest ft": ("TITLE_GUEST_SPELLING", _wrap("title", "", " (ft. Anna Weiss)")),
    "title explicit": ("TITLE_NEEDLESS_WORDS", _wrap("title", "", " (Explicit)")),
    "title explicit version": ("TITLE_NEEDLESS_WORDS", _wrap("title", "", " (Explicit Version)")),
    "title original mix": ("TITLE_NEEDLESS_WORDS", _wrap("title", "", " - Original Mix")),
    "title lyrics": ("TITLE_NEEDLESS_WORDS", _wrap("title", "", " [FREE DOWNLOAD]")),
    "title producer": ("TITLE_PRODUCER", _wrap("title", "", " (Prod. by Max Diaz)")),
    "title part": ("TITLE_PART", _put(title="Golden River Part 2", language="en", lyrics="")),
    "title markup": ("TEXT_HTML_ENTITY", _wrap("title", "<b>", "</b>")),
    "title code point": ("TEXT_HTML_ENTITY", _put(title="Caf\\u00e9 Golden")),
    "title of a spreadsheet": ("TITLE_STAND_IN", _put(title="#N/A")),
    "version explicit": ("TITLE_NEEDLESS_WORDS", _put(version_title="Explicit")),
    "title official": ("TITLE_NEEDLESS_WORDS", _wrap("title", "", " [Official Video]")),
    "title number": ("TITLE_NUMBER_ONLY", _put(title="Track 01")),
    "title bracket": ("TITLE_BRACKETS", _wrap("title", "", " (Part")),
    "title version": ("TITLE_HOLDS_VERSION", _put(title="Golden River (Radio Edit)")),
    "title dashed version": ("TITLE_HOLDS_VERSION", _put(title="Golden River - Remastered 2011")),
    "version brackets": ("VERSION_BRACKETS", _put(version_title="(Radio Edit)")),
    "title file": ("TITLE_FILE_NAME", _wrap("title", "", ".mp3")),
    "title position": ("TITLE_TRACK_NUMBER", _put(title="01 - Golden River")),
    "title artist": (
        "TITLE_ARTIST_NAME",
        lambda track: _put(title=f"{track.artists[0].name} - River")(track),
    ),
    "title stand-in": ("TITLE_STAND_IN", _put(title="Unknown Title")),
    "title sound-alike": ("TITLE_SOUND_ALIKE", _wrap("title", "", " (In the Style of Queen)")),
    "album single": ("ALBUM_FORMAT_SUFFIX", _wrap("album", "", " - Single")),
    "album disc": ("ALBUM_DISC_NUMBER", _wrap("album", "", " (Disc 2)")),
    "title address": ("TEXT_ADDRESS", _wrap("title", "", " www.example.com")),
    "title entity": ("TEXT_HTML_ENTITY", _wrap("title", "", " &amp; More")),
    "title hex entity": ("TEXT_HTML_ENTITY", _put(title="Don&#x27;t Go")),
    "p line entity": ("TEXT_HTML_ENTITY", _wrap("p_line", "", " &amp; More")),
    "title lost letter": ("TEXT_REPLACEMENT_CHARACTER", _wrap("title", "", "\ufffd")),
    "title underscores": ("TEXT_UNDERSCORES", _put(title="Golden_River_Song")),
    "title look-alikes": ("TEXT_LOOK_ALIKE_LETTERS", _put(title="G\u043elden River")),
    "title wide": ("TITLE_WIDE_LETTERS", _put(title="\uff27\uff4f\uff4c\uff44\uff45\uff4e River")),
    "title small word": (
        "TITLE_SMALL_WORDS",
        _put(title="River Of The Moon", language="en", lyrics=LYRICS["en"]),
    ),
    "label zero width": ("TEXT_HIDDEN_CHARACTERS", _wrap("label", "", "\u200b")),
    "publisher control": ("TEXT_HIDDEN_CHARACTERS", _put(publisher="Golden\x07 Songs")),
    "p line spaces": ("TEXT_WHITE_SPACE", _wrap("p_line", "", " ")),
    "c line mojibake": ("TEXT_MOJIBAKE", _put(c_line="2024 SociÃ©tÃ© du Disque")),
    "label wide": ("TEXT_WIDE_LETTERS", _put(label="\uff25xample Records")),
    "artist spaces": ("ARTIST_WHITE_SPACE", _name(after="  ")),
    "artist mojibake": ("ARTIST_MOJIBAKE", _artist(name="BeyoncÃ©")),
    "artist wide": ("ARTIST_WIDE_LETTERS", _name(after=" \uff2ar")),
    "title empty brackets": ("TITLE_EMPTY_BRACKETS", _wrap("title", "", " ()")),
    "artist empty": ("ARTIST_NAME_EMPTY", _artist(name=" ")),
    "artist guest": ("ARTIST_GUEST_INSIDE", _name(after=" feat. Omar Diaz")),
    "artist unknown": ("ARTIST_UNKNOWN", _artist(name="Unknown Artist")),
    "artist various": ("ARTIST_VARIOUS", _artist(name="Various Artists")),
    "artist twice": ("ARTIST_TWICE", _twice(1)),
    "artist main and guest": ("ARTIST_MAIN_AND_FEATURED", _twice(2)),
    "artist zero width": ("ARTIST_HIDDEN_CHARACTERS", _name(after="\u200b")),
    "artist pair": ("ARTIST_COMPOUND", _name(after=" & Omar Diaz")),
    "artist versus": ("ARTIST_COMPOUND", _name(after=" vs. Omar")),
    "artist semicolon": ("ARTIST_COMPOUND", _name(after="; Omar Diaz")),
    "artist inverted": ("ARTIST_INVERTED", _artist(name="Weiss, Anna")),
    "artist role": ("ARTIST_ROLE_IN_NAME", _name(after=" (Producer)")),
    "artist no main": ("ARTIST_NO_MAIN", _no_main),
    "artist caps": ("ARTIST_ALL_CAPS", _in_capitals),
    "artist caps alone": ("ARTIST_IN_CAPS", _artist(name="ANNA WEISS")),
    "artist entity": ("ARTIST_HTML_ENTITY", _artist(name="Anna &amp; Omar")),
    "artist lost letter": ("ARTIST_REPLACEMENT_CHARACTER", _artist(name="Bj\ufffdrk")),
    "artist look-alikes": ("ARTIST_LOOK_ALIKE_LETTERS", _artist(name="Ann\u0430 Weiss")),
    "artist typed guest": ("ARTIST_ROLE_IN_NAME", _typed_guest),
    "territory zz": ("TERRITORY_UNKNOWN", _put(territories=["ZZ"])),
    "territory name": ("TERRITORY_UNKNOWN", _put(territories=["Germany"])),
    "territory uk": ("TERRITORY_UNKNOWN", _put(territories=["UK"])),
    "territory small exclusion": ("TERRITORY_UNKNOWN", _put(territories=["Worldwide", "-us"])),
    "territory twice": ("TERRITORY_TWICE", _put(territories=["DE", "DE"])),
    "territory in the world": ("TERRITORY_TWICE", _put(territories=["Worldwide", "DE"])),
    "territory exclusion": ("TERRITORY_EXCLUSION", _put(territories=["-DE"])),
    "language name": ("LANGUAGE_UNKNOWN", _put(language="English", lyrics=LYRICS["en"])),
    "language capitals": ("LANGUAGE_SPELLING", _put(language="EN")),
    "language instrumental": ("LANGUAGE_AGAINST_LYRICS", _put(language="zxx")),
    "date with a time": ("DATE_INVALID", _put(release_date="2025-11-17T00:00:00Z")),
    "date order": ("DATE_INVALID", _put(release_date="17.05.2024")),
    "date impossible": ("DATE_INVALID", _put(release_date="2024-02-30")),
    "date early": ("DATE_INVALID", _put(release_date="1700")),
    "date late": ("DATE_INVALID", _put(release_date="2999-01-01")),
    "p line owner": ("P_LINE_FORMAT", _put(p_line="2024")),
    "p line year behind": (
        "P_LINE_FORMAT",
        lambda t: _put(p_line=f"{t.label} {t.p_line[:4]}")(t),
    ),
    "c line year": ("C_LINE_FORMAT", _put(c_line="Example Records")),
    "line symbol": ("LINE_SYMBOL", _wrap("p_line", "\u2117 ", "")),
    "line year": ("LINE_YEAR", _put(p_line="1066 Example Records")),
    "release too early": ("RELEASE_BEFORE_RECORDING", _put(release_date="1950")),
    "bpm zero": ("BPM_RANGE", _put(bpm=0.0)),
    "bpm not a number": ("BPM_RANGE", _put(bpm=float("nan"))),
    "bpm slow": ("BPM_UNUSUAL", _put(bpm=40.0)),
    "bpm of half": ("BPM_AGAINST_GENRE", _put(bpm=87.0, genre="Drum and Bass")),
    "key text": ("KEY_FORMAT", _put(key="H-flat")),
    "key camelot": ("KEY_SPELLING", _put(key="8A")),
    "key mode": ("KEY_AGAINST_MODE", _mode),
    "energy percent": ("ENERGY_RANGE", _put(energy=80.0)),
    "genre other": ("GENRE_STAND_IN", _put(genre="Other")),
    "genre list": ("GENRE_LIST", _put(genre="Rock; Pop")),
    "mood twice": ("LIST_DUPLICATE", _put(moods=["calm", "Calm"])),
    "explicit words": ("WARNING_AGAINST_LYRICS", _put(lyrics="what the fuck is this")),
    "lyrics headings": ("LYRICS_MARKUP", _put(lyrics="[Chorus]\nLa la")),
    "lyrics of another language": ("LYRICS_LANGUAGE", _put(lyrics=FOREIGN)),
    "lyrics of another script": (
        "LYRICS_LANGUAGE",
        _put(lyrics="Я иду по городу и думаю о тебе"),  # noqa: RUF001
    ),
    "master lossy": ("DELIVERY_LOSSY", _properties(container="mp3", codec="mp3")),
    "master of 8 bits": ("DELIVERY_BIT_DEPTH", _properties(bit_depth=8)),
    "master of 32 kHz": ("DELIVERY_SAMPLE_RATE", _properties(sample_rate_hz=32_000)),
    "instrumental voices": (
        "INSTRUMENTAL_WITH_VOCALS",
        _put(language="zxx", instruments=["vocals"]),
    ),
    "sample rate": ("PROPERTIES_SAMPLE_RATE", _properties(sample_rate_hz=8000)),
    "codec": ("PROPERTIES_CODEC", _properties(codec="mp3")),
    "bit rate": ("PROPERTIES_BIT_RATE", _properties(codec="mp3", bit_rate_bps=900_000)),
    "digest": ("PROPERTIES_SHA256", _properties(sha256="xyz")),
    "no length": ("PROPERTIES_DURATION", lambda t: t.properties.duration.Clear()),
}
"""Fault by name: the rule that must find it, and what does the damage."""


def heard_faults(track: Track) -> Iterator[tuple[str, str, Listening]]:
    """Yield (fault, rule id, listening) where the audio contradicts the clean track or is bad."""
    well = heard(track)

    def technical(**values: object) -> Listening:
        return replace(well, technical=replace(well.technical, **values))  # type: ignore[arg-type]

    for problem in Problem:
        yield problem.value, problem.value, replace(well, problems=(problem,))
    octave, other = replace(well.tempo, bpm=track.bpm * 2), replace(well.tempo, bpm=track.bpm * 1.2)
    yield "octave", "BPM_AGAINST_AUDIO", replace(well, tempo=octave)
    yield "tempo", "BPM_AGAINST_AUDIO", replace(well, tempo=other)
    far = KEYS[(KEYS.index(track.key) + 1) % 12 + (12 if track.key.endswith("minor") else 0)]
    yield "key", "KEY_AGAINST_AUDIO", replace(well, key=replace(well.key, key=far))
    for seconds, rule in ((180.0, "DURATION_AGAINST_AUDIO"), (203.0, "DURATION_A_LITTLE_OFF")):
        yield rule, rule, replace(well, format=replace(well.format, duration_seconds=seconds))
    yield (
        "preview",
        "AUDIO_PREVIEW",
        replace(well, format=replace(well.format, duration_seconds=30.0)),
    )
    yield "other file", "AUDIO_DIGEST", replace(well, format=replace(well.format, sha256="cd" * 32))
    yield (
        "other rate",
        "AUDIO_FORMAT",
        replace(well, format=replace(well.format, sample_rate_hz=48000)),
    )
    yield "silent", "AUDIO_SILENT", replace(well, content=Content.SILENCE)
    yield (
        "peak",
        "AUDIO_TRUE_PEAK",
        replace(well, loudness=replace(well.loudness, true_peak_dbtp=0.3)),
    )
    yield "clipped", "AUDIO_CLIPPED", technical(clipped_samples=5000)
    yield "tail", "AUDIO_SILENT_END", technical(trailing_silence_seconds=9.0)
    yield "offset", "AUDIO_DC_OFFSET", technical(dc_offset=0.05)
    yield "dual mono", "AUDIO_DUAL_MONO", technical(dual_mono=True)
    yield "inverted", "AUDIO_PHASE_INVERTED", technical(phase_inverted=True)
    yield "transcode", "AUDIO_TRANSCODE", technical(cutoff_hz=16000.0)
    yield "one channel", "AUDIO_SILENT_CHANNEL", technical(silent_channel=True)
    for lufs in (-1.0, -50.0):
        loudness = replace(well.loudness, integrated_lufs=lufs)
        yield "loudness", "AUDIO_LOUDNESS", replace(well, loudness=loudness)
    level = replace(well.loudness, integrated_lufs=-16.0)
    yield "loudness stated", "AUDIO_STATED_LOUDNESS", replace(well, loudness=level)
    level = replace(well.loudness, true_peak_dbtp=-4.0)
    yield "peak stated", "AUDIO_STATED_LOUDNESS", replace(well, loudness=level)
    lossy = replace(well.format, codec="mp3", container="mp3", bit_depth=None)
    yield "lossy", "DELIVERY_LOSSY", replace(well, format=lossy)
    yield "tagged", "AUDIO_ISRC_TAG", replace(well, tags={"isrc": "GBAYE0000001"})
