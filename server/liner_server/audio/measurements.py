"""What listening to one file yields: numbers and doubts, before anyone believes them.

Plain frozen dataclasses, picklable, no numpy: they cross from the listening process to the
server. A `score` is raw, in [0, 1], and not a probability; `core.calibration` makes it one.
`None` always means "not known", and `doubt` then says why in a few words an editor understands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Content(StrEnum):
    """What kind of sound a file holds; tempo and key are only answered for MUSIC."""

    MUSIC = "music"
    SPEECH = "speech"
    NOISE = "noise"
    SILENCE = "silence"


class Problem(StrEnum):
    """Something about the audio itself that an editor should know; also the issue's rule id."""

    AUDIO_TRUNCATED = "AUDIO_TRUNCATED"
    """The data ends or breaks before the file says it should; what could be decoded was used."""

    AUDIO_HEADER_LIES = "AUDIO_HEADER_LIES"
    """The header states a duration that the decoded samples do not bear out."""

    AUDIO_EXTENSION_MISMATCH = "AUDIO_EXTENSION_MISMATCH"
    """The name's extension says another format than the bytes."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """What the file is, from its bytes and its decoded samples, never from its header's totals."""

    container: str
    """wav, aiff, flac, mp3, ogg, m4a."""

    codec: str
    """The decoder's name for it: pcm_s16le, flac, mp3, vorbis, opus, aac, alac ..."""

    sample_rate_hz: int
    channels: int
    bit_depth: int | None
    """Bits a sample of a lossless or PCM codec; None for lossy codecs."""

    bit_rate_bps: int
    """Mean over the decoded duration: size of the file over its duration."""

    duration_seconds: float
    """From decoded samples."""

    size_bytes: int
    sha256: str
    """Lower-case hex of the whole file."""

    crc32c: int
    """Castagnoli CRC of the whole file, as object stores state it."""


@dataclass(frozen=True, kw_only=True)
class Tempo:
    """The beat grid's tempo in beats per minute."""

    bpm: float | None
    score: float
    candidates: tuple[tuple[float, float], ...] = ()
    """(bpm, score), best first, the answer first of them; scores sum to at most 1."""

    stability: float | None = None
    """1 is a metronome, 0 is free rhythm."""

    doubt: str = ""
    features: Mapping[str, float] = field(default_factory=dict)
    """What calibration may use: margins, agreement of estimators, seconds heard."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """The tonal centre and mode, canonical: "C# minor"."""

    key: str | None
    score: float
    candidates: tuple[tuple[str, float], ...] = ()
    """(key, score), best first, the answer first of them; scores sum to at most 1."""

    tuning_cents: float = 0.0
    """Offset from A4 = 440 Hz."""

    doubt: str = ""
    features: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Loudness:
    """EBU R128 figures over the whole file; None where the file is too short or silent."""

    integrated_lufs: float | None
    range_lu: float | None
    true_peak_dbtp: float | None


@dataclass(frozen=True, kw_only=True)
class Technical:
    """Faults of a master that a distributor would send back."""

    clipped_samples: int = 0
    """Samples in runs of three or more at full scale."""

    leading_silence_seconds: float = 0.0
    trailing_silence_seconds: float = 0.0
    dual_mono: bool = False
    """Two channels, the same signal."""

    phase_inverted: bool = False
    """Two channels, one the other's negative: mono playback would be silent."""

    silent_channel: bool = False
    """Two channels, one of them silent while the other is not."""

    dc_offset: float = 0.0
    """Mean of the samples, full scale 1.0, of the worst channel."""

    cutoff_hz: float | None = None
    """Frequency above which there is nothing; about 16 kHz in a lossless file betrays an MP3."""


@dataclass(frozen=True, kw_only=True)
class Tagging:
    """What a trained tagger hears: raw scores in [0, 1] by its own words, every word of both."""

    songs: Mapping[str, float]
    """Words people tag songs with: "rock", "sad", "80s", "female vocalists"."""

    sounds: Mapping[str, float]
    """Words people tag excerpts with: "piano", "no vocals", "quiet", "choir"."""

    energy: float
    """How energetic it sounds, 0 to 1, by a rule (`audio.tagger.energy`)."""


@dataclass(frozen=True, kw_only=True)
class Listening:
    """All that is known about one file after hearing it once."""

    format: Format
    tags: Mapping[str, str]
    """Embedded tags by Liner's field path ("title", "isrc", "bpm" ...), text as found."""

    content: Content
    content_score: float
    tempo: Tempo
    key: Key
    loudness: Loudness
    technical: Technical
    tagging: Tagging | None = None
    """None for what is not music."""

    problems: tuple[Problem, ...] = ()
    fingerprint: bytes = b""
    """Acoustic fingerprint; equal recordings give close ones whatever the codec."""
