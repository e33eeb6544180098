"""How much of a file Liner is willing to listen to."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Caps that hold whatever a file claims about itself; each has its own error."""

    max_duration: timedelta = timedelta(hours=1)
    """Decoded, not stated. Longer raises AUDIO_TOO_LONG as soon as decoding gets there."""

    max_bytes: int = 2 << 30
    """Size of the file. An hour of 24 bit, 96 kHz stereo is 2.07e9 bytes."""

    max_channels: int = 8
    min_sample_rate_hz: int = 8_000
    max_sample_rate_hz: int = 384_000
