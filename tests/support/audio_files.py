"""Audio files made on the spot: signals with known properties, in every format Liner reads."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
from av.audio.stream import AudioStream
from numpy.typing import NDArray

Signal = NDArray[np.float32]
"""Samples shaped (channels, samples), full scale 1.0."""

FORMATS = {
    "wav": ("wav", "pcm_s16le"),
    "wav24": ("wav", "pcm_s24le"),
    "wavfloat": ("wav", "pcm_f32le"),
    "aiff": ("aiff", "pcm_s16be"),
    "flac": ("flac", "flac"),
    "mp3": ("mp3", "libmp3lame"),
    "vorbis": ("ogg", "vorbis"),
    "opus": ("ogg", "libopus"),
    "aac": ("ipod", "aac"),
    "alac": ("ipod", "alac"),
}
"""Name -> FFmpeg's muxer and encoder."""

EXTENSIONS = {
    "wav": "wav",
    "wav24": "wav",
    "wavfloat": "wav",
    "aiff": "aiff",
    "flac": "flac",
    "mp3": "mp3",
    "vorbis": "ogg",
    "opus": "opus",
    "aac": "m4a",
    "alac": "m4a",
}
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def encode(
    signal: Signal,
    kind: str,
    *,
    rate: int = 44_100,
    bit_rate: int | None = None,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """Return `signal` as a file of a kind of `FORMATS`."""
    muxer, encoder = FORMATS[kind]
    layout = _LAYOUTS[signal.shape[0]]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer, container_options=options or {}) as container:
        container.metadata.update(metadata or {})
        # The encoder FFmpeg brings for Vorbis calls itself experimental.
        stream = container.add_stream(encoder, rate=rate, options={"strict": "experimental"})
        assert isinstance(stream, AudioStream)
        stream.layout = layout
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        stream.codec_context.open()
        resampler = av.AudioResampler(
            stream.format.name, layout, rate, frame_size=stream.codec_context.frame_size or 4096
        )
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(signal, np.float32), format="fltp", layout=layout
        )
        frame.sample_rate = rate
        frame.pts = 0
        frame.time_base = Fraction(1, rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def wav(signal: Signal, *, rate: int = 44_100) -> bytes:
    """Return a plain 16-bit WAV of any number of channels, written by hand."""
    data = (np.clip(signal, -1, 32767 / 32768) * 32768).round().astype("<i2").T.tobytes()
    channels = signal.shape[0]
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2 & 0xFFFF, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sine(
    hertz: float, seconds: float, *, level_db: float = 0.0, rate: int = 48_000, phase: float = 0.0
) -> Signal:
    """Return a mono sine, its peak at `level_db` dBFS."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 10 ** (level_db / 20) * np.sin(2 * np.pi * hertz * time + phase)
    return wave[np.newaxis].astype(np.float32)


def stereo(mono: Signal) -> Signal:
    """Return the same signal in two channels."""
    return np.repeat(mono, 2, axis=0)


def noise(seconds: float, *, seed: int, level: float = 0.1, rate: int = 44_100) -> Signal:
    """Return stereo white noise."""
    generator = np.random.default_rng(seed)
    return (level * generator.standard_normal((2, round(seconds * rate)))).astype(np.float32)


def piece(seconds: float, *, seed: int, rate: int = 44_100, bpm: float = 120.0) -> Signal:
    """Return something like music in stereo: chords, a melody and hits of noise on a grid.

    Each seed is another piece. It is there to be recognised and carried through codecs, not to
    judge how well tempo and key are heard.
    """
    generator = np.random.default_rng(seed)
    total = round(seconds * rate)
    out = np.zeros((2, total), np.float32)
    beat = round(60 / bpm * rate)
    root = int(generator.integers(45, 57))
    scale = (
        np.array([0, 2, 3, 5, 7, 8, 10])
        if generator.random() < 0.5
        else np.array([0, 2, 4, 5, 7, 9, 11])
    )
    chord = scale[:3]
    for index, start in enumerate(range(0, total, beat)):
        length = min(beat, total - start)
        time = np.arange(length) / rate
        fade = np.exp(-3 * time)
        if index % 4 == 0:
            degree = int(generator.integers(0, 7))
            chord = scale[(degree + np.array([0, 2, 4])) % 7] + root
        notes = [*chord, int(generator.choice(scale)) + root + 12]
        tone = np.zeros(length)
        for note in notes:
            hertz = 440 * 2 ** ((note - 69) / 12)
            for harmonic in range(1, 7):
                tone += np.sin(2 * np.pi * hertz * harmonic * time) / harmonic**1.5
        hit = generator.standard_normal(length) * np.exp(-30 * time)
        pan = generator.uniform(0.3, 0.7)
        sound = 0.05 * tone * fade + 0.1 * hit
        out[0, start : start + length] += (pan * sound).astype(np.float32)
        out[1, start : start + length] += ((1 - pan) * sound).astype(np.float32)
    return out
