"""Samples into a file of any format Liner reads, tags included, and out of one again."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from liner_server.evaluation.voices import Samples

_CODECS = {
    ".wav": ("wav", "pcm_s16le"),
    ".aiff": ("aiff", "pcm_s16be"),
    ".flac": ("flac", "flac"),
    ".mp3": ("mp3", "libmp3lame"),
    ".ogg": ("ogg", "vorbis"),
    ".opus": ("ogg", "libopus"),
    ".m4a": ("ipod", "aac"),
}

FORMATS = tuple(_CODECS)
"""File extensions that can be written."""

_BLOCK = 1 << 16


def write(
    path: Path,
    samples: Samples,
    sample_rate: int,
    *,
    tags: Mapping[str, str] | None = None,
    codec: str | None = None,
) -> None:
    """Write (frames, channels) float samples to `path`; its extension chooses the format.

    `tags` go in as the container names them ("title", "artist", "TBPM", "TSRC" ...). `codec`
    replaces the format's usual encoder, "alac" in an .m4a for example.
    """
    container_name, usual = _CODECS[path.suffix.lower()]
    channels = samples.shape[1]
    layout = "mono" if channels == 1 else "stereo"
    # AIFF holds tags as an ID3 chunk, which has to be asked for.
    options = {"write_id3v2": "1"} if container_name == "aiff" else {}
    with av.open(str(path), "w", format=container_name, options=options) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec or usual, rate=sample_rate)
        if not isinstance(stream, av.AudioStream):
            raise TypeError(f"{codec or usual} is not an audio codec")
        stream.layout = layout
        stream.bit_rate = 192_000
        if codec is None and usual == "vorbis":
            # FFmpeg's own Vorbis encoder calls itself experimental; the wheel has no other.
            stream.codec_context.options = {"strict": "experimental"}
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=stream.rate)
        position = 0
        for start in range(0, len(samples), _BLOCK):
            block = np.ascontiguousarray(samples[start : start + _BLOCK].T, np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate = sample_rate
            frame.pts = position
            frame.time_base = Fraction(1, sample_rate)
            position += block.shape[1]
            for ready in resampler.resample(frame):
                container.mux(stream.encode(ready))
        for ready in resampler.resample(None):
            container.mux(stream.encode(ready))
        container.mux(stream.encode(None))


def read(path: Path, sample_rate: int) -> Samples:
    """Return a recording as mono, for fitting; what strangers send goes through `listen`."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=sample_rate)
    with av.open(str(path), metadata_errors="ignore") as container:
        blocks = list(_blocks(container.decode(audio=0), resampler))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _blocks(frames: Iterator[av.AudioFrame], resampler: av.AudioResampler) -> Iterator[Samples]:
    for frame in frames:
        for ready in resampler.resample(frame):
            yield ready.to_ndarray()[0]
    for ready in resampler.resample(None):
        yield ready.to_ndarray()[0]
