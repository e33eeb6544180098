"""Decoding one file in one pass: blocks of float samples, and afterwards what the file was.

The decoder (FFmpeg, through PyAV) gets an open file, never a name; one format and a short list
of codecs; no protocol it could open anything else with; and one thread. The whole file is
never in memory. Time is counted in decoded samples.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, Self

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.error import FFmpegError
from numpy.typing import NDArray

from liner_server.audio.errors import (
    BrokenAudioError,
    EmptyAudioError,
    OutOfLimitsError,
    TooLongError,
    UnsupportedAudioError,
    spell,
)
from liner_server.audio.limits import Limits
from liner_server.audio.measurements import Problem
from liner_server.audio.sniff import Container, Sniffed
from liner_server.audio.stated import read_stated

_DEMUXERS = {
    Container.WAV: "wav",
    Container.AIFF: "aiff",
    Container.FLAC: "flac",
    Container.MP3: "mp3",
    Container.OGG: "ogg",
    Container.M4A: "mov",
}
_PCM = tuple(
    f"pcm_{kind}"
    for kind in (
        *("u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be"),
        *("f32le", "f32be", "f64le", "f64be", "alaw", "mulaw"),
    )
)
_CODECS = {
    Container.WAV: _PCM,
    Container.AIFF: _PCM,
    Container.FLAC: ("flac",),
    Container.MP3: ("mp3float", "mp3", "mp2float", "mp2"),
    Container.OGG: ("vorbis", "opus", "flac"),
    Container.M4A: ("aac", "alac", "flac", "opus", *_PCM),
}
"""The decoders each container may use: FFmpeg has hundreds, and each is a way in."""

_DECODER_OPTIONS = {
    # FLAC carries a checksum in each frame; without this the decoder plays damage as noise.
    "flac": {"err_detect": "crccheck+explode"},
}

_CODEC_NAMES = {"mp3float": "mp3", "mp2float": "mp2", "mp1float": "mp1"}

_LOUDEST = 64.0
"""36 dB over full scale: floats beyond it are damage, and their squares would overflow sums."""

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

_BLOCK_SECONDS = 1
_MAX_DAMAGED_PACKETS = 500
"""A file with more is given up on: it is noise behind a good header."""

_TOLERANCE_SECONDS = 0.25
_TOLERANCE_SHARE = 0.01
"""How far a stated duration may be off before it is a lie: encoders count their padding."""

_RATE_RATIO = 8
"""A frame whose rate is further off is damage: brought to the file's rate it would fill memory."""

_SCALES = {
    "u8": 2.0**-7,
    "s16": 2.0**-15,
    "s32": 2.0**-31,
    "s64": 2.0**-63,
}


class Decoding:
    """One file being decoded: iterate `blocks()` to the end, then read what it was.

    Raises:
        UnsupportedAudioError: no audio in it, or a codec that is not on the list.
        BrokenAudioError: FFmpeg cannot make sense of it.
        OutOfLimitsError: channels or sample rate outside `limits`.

    """

    def __init__(self, file: BinaryIO, sniffed: Sniffed, *, size: int, limits: Limits) -> None:
        self._limits = limits
        self._container_kind = sniffed.container
        self._stated = read_stated(file, sniffed, size=size)
        self._damaged = 0
        self._samples = 0
        try:
            self._container = av.open(
                _View(file, sniffed.offset),
                "r",
                format=_DEMUXERS[sniffed.container],
                options={
                    "protocol_whitelist": "none",
                    "codec_whitelist": ",".join(_CODECS[sniffed.container]),
                },
                metadata_errors="replace",
                buffer_size=1 << 18,
                io_open=_refuse_to_open,
            )
        except (FFmpegError, ValueError, OverflowError) as error:
            raise BrokenAudioError(f"not readable as {sniffed.container}: {_why(error)}") from error
        try:
            self._stream = self._pick_stream()
        except BaseException:
            self._container.close()
            raise
        context = self._stream.codec_context
        self.codec = _CODEC_NAMES.get(context.name, context.name)
        self.sample_rate_hz = context.sample_rate
        self.channels = context.channels
        self.layout = _known_layout(context.layout.name, self.channels)
        self.bit_depth = self._bit_depth()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._container.close()

    @property
    def duration_seconds(self) -> float:
        """Seconds decoded so far, from samples."""
        return self._samples / self.sample_rate_hz

    @property
    def expected_seconds(self) -> float:
        """Seconds the header states or the demuxer reckons; only good for a first guess."""
        duration, base = self._stream.duration, self._stream.time_base
        reckoned = float(duration * base) if duration and base else 0.0
        return max(reckoned, self._stated.seconds or 0.0)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield about a second at a time at the file's own rate, shaped (channels, samples).

        Full scale is 1.0; lossy codecs may exceed it. Damaged packets are skipped.

        Raises:
            TooLongError: more was decoded than the limit allows.
            EmptyAudioError: the file decodes to no samples.
            BrokenAudioError: it decodes to no samples and is damaged.

        """
        wanted = self.sample_rate_hz * _BLOCK_SECONDS
        pending: list[NDArray[np.float32]] = []
        held = 0
        for samples in self._arrays():
            pending.append(samples)
            held += samples.shape[1]
            if held >= wanted:
                yield _join(pending)
                pending, held = [], 0
        if held:
            yield _join(pending)
        if not self._samples:
            if self._damaged or self._stated.cut or self._stated_seconds():
                raise BrokenAudioError("not one sample of it can be decoded")
            raise EmptyAudioError("it decodes to no samples")

    def problems(self) -> tuple[Problem, ...]:
        """Return how the decoded samples disagree with the file; call after the last block.

        AUDIO_TRUNCATED when there is a sign of a break: damaged packets, pages missing from an
        Ogg stream, or a container that ends before its own last chunk does. Fewer samples than
        stated without such a sign means that the data are whole and the header is wrong:
        AUDIO_HEADER_LIES, as when more decodes than stated.
        """
        stated, heard = self._stated_seconds(), self.duration_seconds
        tolerance = max(_TOLERANCE_SECONDS, _TOLERANCE_SHARE * heard)
        missing = stated is not None and heard < stated - tolerance
        # Ogg has no header with a total: what its last page counts is what was once there.
        paged = self._container_kind is Container.OGG
        found = []
        broken = self._stated.cut or self._damaged > 0 or (missing and paged)
        if broken:
            found.append(Problem.AUDIO_TRUNCATED)
        if (missing and not broken) or (stated is not None and heard > stated + tolerance):
            found.append(Problem.AUDIO_HEADER_LIES)
        return tuple(found)

    def _stated_seconds(self) -> float | None:
        if self._container_kind in {Container.FLAC, Container.M4A, Container.OGG}:
            duration, base = self._stream.duration, self._stream.time_base
            return float(duration * base) if duration and base else None
        return self._stated.seconds

    def _pick_stream(self) -> AudioStream:
        streams = self._container.streams.audio
        if not streams:
            raise UnsupportedAudioError(f"this {self._container_kind} file holds no audio")
        stream = streams[0]
        try:
            context = stream.codec_context
        except (FFmpegError, ValueError, AttributeError, RuntimeError) as error:
            raise UnsupportedAudioError("its audio codec is not one Liner reads") from error
        if context is None or context.name not in _CODECS[self._container_kind]:
            name = "unknown" if context is None else _CODEC_NAMES.get(context.name, context.name)
            raise UnsupportedAudioError(
                f"the codec {name} in {self._container_kind} is not one Liner reads"
            )
        limits = self._limits
        if not 1 <= context.channels <= limits.max_channels:
            raise OutOfLimitsError(
                f"{context.channels} channels; Liner reads 1 to {limits.max_channels}"
            )
        if not limits.min_sample_rate_hz <= context.sample_rate <= limits.max_sample_rate_hz:
            raise OutOfLimitsError(
                f"sample rate {context.sample_rate} Hz; Liner reads "
                f"{limits.min_sample_rate_hz} to {limits.max_sample_rate_hz} Hz"
            )
        context.thread_count = 1
        context.options = _DECODER_OPTIONS.get(context.name, {})
        return stream

    def _bit_depth(self) -> int | None:
        """Bits a sample: from the name of a PCM codec, from the header of a lossless one."""
        if self.codec.startswith("pcm_"):
            digits = "".join(c for c in self.codec.removeprefix("pcm_") if c.isdigit())
            return int(digits) if digits else 8
        header = self._stream.codec_context.extradata or b""
        if self.codec == "flac" and len(header) >= 14:
            return ((header[12] & 1) << 4 | header[13] >> 4) + 1
        if self.codec == "alac" and len(header) >= 18:
            return header[17]
        return None

    def _arrays(self) -> Iterator[NDArray[np.float32]]:
        """Decoded frames, all brought to the rate and channels of the file."""
        most = self._limits.max_duration.total_seconds() * self.sample_rate_hz
        converter = _Converter(self.sample_rate_hz, self.layout, self.channels)
        for frame in self._frames():
            try:
                converted = list(converter.convert(frame))
            except (FFmpegError, ValueError):
                self._damaged += 1
                continue
            for samples in converted:
                self._samples += samples.shape[1]
                if self._samples > most:
                    raise TooLongError(
                        f"longer than {spell(self._limits.max_duration)}, the most Liner listens to"
                    )
                yield samples

    def _frames(self) -> Iterator[AudioFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (FFmpegError, ValueError):
                self._damaged += 1
                return
            try:
                yield from packet.decode()
            except (FFmpegError, ValueError):
                self._damaged += 1
                if self._damaged > _MAX_DAMAGED_PACKETS:
                    return


def _known_layout(name: str, channels: int) -> str:
    """The stream's own layout, or the usual one for streams that do not say where channels go."""
    try:
        usual = len(av.AudioLayout(name).channels) == channels and not name.endswith("channels")
    except (ValueError, FFmpegError):
        usual = False
    return name if usual else _LAYOUTS.get(channels, f"{channels}c")


class _Converter:
    """Frames of any sample format to float arrays, whatever changes in mid-stream."""

    def __init__(self, rate: int, layout: str, channels: int) -> None:
        self._rate = rate
        self._layout = layout
        self._channels = channels
        self._resampler: av.AudioResampler | None = None
        self._resampled: tuple[str, str, int] | None = None

    def convert(self, frame: AudioFrame) -> Iterator[NDArray[np.float32]]:
        if not frame.samples:
            return
        if frame.sample_rate == self._rate and len(frame.layout.channels) == self._channels:
            yield _to_float(frame)
            return
        # A stream that changes its rate or channels is damaged or stitched together: the
        # timeline is kept by bringing the odd frames to what the file began with.
        if not self._rate / _RATE_RATIO <= frame.sample_rate <= self._rate * _RATE_RATIO:
            raise ValueError("a frame of another rate altogether")
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or kind != self._resampled:
            self._resampler = av.AudioResampler("fltp", self._layout, self._rate)
            self._resampled = kind
        frame.pts = None
        for converted in self._resampler.resample(frame):
            yield _to_float(converted)


def _to_float(frame: AudioFrame) -> NDArray[np.float32]:
    raw = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, len(frame.layout.channels)).T
    samples = raw.astype(np.float32, copy=False)
    kind = frame.format.name.removesuffix("p")
    if kind == "u8":
        samples -= 128.0
    scale = _SCALES.get(kind)
    if scale is not None:
        samples *= np.float32(scale)
    return samples


def _join(arrays: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    block = np.concatenate(arrays, axis=1)
    if not np.isfinite(block).all():
        # A float file may hold anything; infinities would spoil every later figure.
        block = np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(block, -_LOUDEST, _LOUDEST, out=block)


class _View:
    """A file without the tag in front of it, as the decoder sees it: it can only be read."""

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self._offset = offset
        file.seek(offset)

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell() - self._offset

    def seek(self, position: int, whence: int = 0) -> int:
        if whence == 0:
            position += self._offset
        return self._file.seek(position, whence) - self._offset


def _refuse_to_open(*_: Any) -> NoReturn:
    raise PermissionError("a media file may not open other files")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
