"""The generator's instruments: one note or one stroke as samples, numpy only."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_TABLE = 2048


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A pitched instrument: two waveforms, a bright one that dies away into a dull one."""

    slope: float
    """Harmonic h has strength h ** -slope; 1 is a saw tooth, 3 almost a sine."""

    odd: bool = False
    """Only odd harmonics, as in a clarinet or a square wave."""

    attack: float = 0.005
    """Seconds to full strength."""

    decay: float = 0.5
    """Seconds in which a held note falls to a third; 0 holds as an organ does."""

    release: float = 0.05
    vibrato: float = 0.0
    """Depth in semitones, at about 5.5 Hz."""

    breath: float = 0.0
    """Noise mixed in."""


VOICES = {
    "piano": Voice(slope=1.9, attack=0.003, decay=0.7, release=0.12),
    "electric piano": Voice(slope=2.6, attack=0.004, decay=0.9, release=0.1),
    "guitar": Voice(slope=1.5, attack=0.002, decay=0.45, release=0.08),
    "organ": Voice(slope=1.2, attack=0.02, decay=0.0, release=0.04),
    "strings": Voice(slope=1.25, attack=0.12, decay=0.0, release=0.2, vibrato=0.12),
    "choir": Voice(slope=2.0, attack=0.09, decay=0.0, release=0.15, vibrato=0.2, breath=0.03),
    "brass": Voice(slope=0.9, attack=0.04, decay=0.0, release=0.06, vibrato=0.05),
    "flute": Voice(slope=2.8, attack=0.05, decay=0.0, release=0.06, vibrato=0.15, breath=0.05),
    "clarinet": Voice(slope=1.6, odd=True, attack=0.03, decay=0.0, release=0.05),
    "voice": Voice(slope=1.4, attack=0.06, decay=0.0, release=0.08, vibrato=0.4, breath=0.04),
    "saw": Voice(slope=1.0, attack=0.004, decay=0.4, release=0.04),
    "square": Voice(slope=1.0, odd=True, attack=0.004, decay=0.35, release=0.03),
    "distorted": Voice(slope=0.75, attack=0.004, decay=0.0, release=0.04),
    "pad": Voice(slope=1.6, attack=0.25, decay=0.0, release=0.4),
    "bass": Voice(slope=1.8, attack=0.006, decay=0.5, release=0.04),
    "sub": Voice(slope=3.5, attack=0.01, decay=0.0, release=0.05),
    "pluck": Voice(slope=1.3, attack=0.002, decay=0.15, release=0.05),
    "bell": Voice(slope=2.2, attack=0.002, decay=0.8, release=0.6),
}


def note(
    voice: Voice, pitch: float, seconds: float, rate: int, rng: np.random.Generator
) -> Samples:
    """Return one note; `pitch` is a MIDI number and may have a fraction."""
    count = max(1, int((seconds + voice.release) * rate))
    time = np.arange(count, dtype=np.float32) / rate
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    cycles = frequency * time
    if voice.vibrato:
        # Integral of the frequency's wobble; 0.058 is a semitone as a share of the frequency.
        depth = frequency * 0.058 * voice.vibrato / (2 * np.pi * 5.5)
        cycles = cycles - depth * np.cos(2 * np.pi * 5.5 * time)
    index = ((cycles + rng.random()) * _TABLE).astype(np.int64) & (_TABLE - 1)
    # Rounding down to powers of two keeps the number of waveforms small.
    harmonics = 1 << int(np.log2(max(1.0, min(32.0, 0.45 * rate / frequency))))
    bright = _waveform(voice.slope, voice.odd, harmonics)[index]
    if voice.decay:
        dull = _waveform(voice.slope + 1, voice.odd, harmonics)[index]
        fall = np.exp(-time / voice.decay)
        wave = (bright * fall + dull * (1 - fall)) * fall
    else:
        wave = bright
    if voice.breath:
        wave = wave + voice.breath * rng.standard_normal(count).astype(np.float32)
    envelope = np.minimum(1, time / voice.attack)
    envelope *= np.clip((seconds + voice.release - time) / voice.release, 0, 1)
    return np.asarray(wave * envelope, np.float32)


@cache
def _waveform(slope: float, odd: bool, harmonics: int) -> Samples:
    phase = 2 * np.pi * np.arange(_TABLE) / _TABLE
    numbers = range(1, harmonics + 1, 2 if odd else 1)
    wave = np.sum([np.sin(h * phase + h * h) * h**-slope for h in numbers], axis=0)
    return np.asarray(wave / np.sqrt(np.mean(wave**2)) * 0.3, np.float32)


@dataclass(frozen=True, kw_only=True)
class Kit:
    """How a piece's drums differ from the next piece's."""

    pitch: float = 1.0
    fall: float = 1.0
    """How long strokes ring."""

    noise: float = 1.0
    loose: float = 0.0
    """Spread of pitch from stroke to stroke: real skins and shakers are never struck alike."""


def draw_kit(rng: np.random.Generator) -> Kit:
    """Return a random kit, from a tight machine to a box of junk."""
    return Kit(
        pitch=float(np.exp(rng.normal(0, 0.25))),
        fall=float(np.exp(rng.normal(0, 0.45))),
        noise=float(np.exp(rng.normal(0.2, 0.6))),
        loose=float(rng.choice([0.0, 0.02, 0.15])),
    )


def drum(name: str, rate: int, rng: np.random.Generator, kit: Kit) -> Samples:
    """Return one stroke of kick, snare, clap, hat, open hat, tom, shaker or rim."""
    seconds, body_hz, body_fall, noise_fall, noise, colour = _DRUMS[name]
    seconds *= max(1.0, kit.fall)
    time = np.arange(int(seconds * rate), dtype=np.float32) / rate
    hiss = rng.standard_normal(len(time)).astype(np.float32)
    if colour > 0:
        # The first difference is the cheapest high-pass there is.
        hiss = np.diff(hiss, prepend=np.float32(0)) * np.float32(0.7)
    wave = noise * kit.noise * hiss * np.exp(-time / (noise_fall * kit.fall))
    if body_hz:
        # The skin is tightest at the stroke: pitch falls as it comes to rest.
        hertz = body_hz * kit.pitch * float(np.exp(rng.normal(0, 1) * kit.loose))
        cycles = hertz * (time + 0.04 * (1 - np.exp(-time / 0.02)))
        wave = wave + np.sin(2 * np.pi * cycles) * np.exp(-time / (body_fall * kit.fall))
    return np.asarray(wave * rng.uniform(0.85, 1.0), np.float32)


# Seconds, pitch of the body, its fall, the noise's fall, its strength, 1 for high-passed.
_DRUMS = {
    "kick": (0.35, 52.0, 0.10, 0.004, 0.30, 0),
    "snare": (0.25, 185.0, 0.05, 0.08, 0.45, 0),
    "clap": (0.22, 0.0, 0.05, 0.06, 0.60, 1),
    "hat": (0.08, 0.0, 0.05, 0.02, 0.30, 1),
    "open hat": (0.35, 0.0, 0.05, 0.12, 0.30, 1),
    "tom": (0.35, 110.0, 0.12, 0.01, 0.15, 0),
    "shaker": (0.10, 0.0, 0.05, 0.04, 0.18, 1),
    "rim": (0.06, 420.0, 0.015, 0.01, 0.25, 1),
}
