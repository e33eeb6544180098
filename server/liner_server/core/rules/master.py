"""Rules on the audio file: what is stated of it, and faults a distributor sends back."""

from liner.v1 import enrichment_pb2

from liner_server.audio.measurements import Problem
from liner_server.core.enums import Severity
from liner_server.core.fields import number_text
from liner_server.core.rules import codes
from liner_server.core.rules.book import (
    APPLE,
    ERROR,
    INFO,
    PRACTICE,
    WARNING,
    Found,
    Heard,
    RuleBook,
    Track,
    shown,
)
from liner_server.core.rules.rule import Finding

STATED = RuleBook()
HEARD = RuleBook()

_LOSSLESS = ("pcm", "flac", "alac")
_LOSSY = ("mp2", "mp3", "aac", "vorbis", "opus", "wma", "ac3", "eac3")
_CONTAINERS = {
    "mp3": ("mp3", "wav"),
    "flac": ("flac", "ogg"),
    "vorbis": ("ogg",),
    "opus": ("ogg",),
    "aac": ("m4a",),
    "alac": ("m4a",),
}
_QUIETEST, _LOUDEST = -36.0, -5.0
"""LUFS. Whispered chamber music is above the one, the loudest records made are below the other."""

_PROBLEMS = {
    Problem.AUDIO_TRUNCATED: "the data end or break before the file says they should",
    Problem.AUDIO_HEADER_LIES: "the header states a duration that the samples do not bear out",
    Problem.AUDIO_EXTENSION_MISMATCH: "the name's extension says another format than the bytes",
}


@STATED.rule(
    "PROPERTIES_SAMPLE_RATE",
    WARNING,
    "properties.sample_rate_hz",
    source=APPLE,
    why="Masters are delivered at 44.1 to 192 kHz.",
)
def _sample_rate(track: Track, _: Heard) -> Found:
    if track.HasField("properties") and track.properties.HasField("sample_rate_hz"):
        rate = track.properties.sample_rate_hz
        if not 44_100 <= rate <= 192_000:
            yield Finding(message="outside 44.1 to 192 kHz", current=str(rate))


@STATED.rule(
    "PROPERTIES_CODEC",
    WARNING,
    "properties.codec",
    source=PRACTICE,
    why="A codec that its container cannot hold is a mislabelled file.",
)
def _codec(track: Track, _: Heard) -> Found:
    if not track.HasField("properties"):
        return
    properties = track.properties
    fits = _CONTAINERS.get(properties.codec)
    if fits and properties.container and properties.container not in fits:
        yield Finding(
            message=f"{properties.codec} is not found in {properties.container}",
            current=properties.codec,
        )


@STATED.rule(
    "PROPERTIES_DURATION",
    ERROR,
    "properties.duration",
    source="DDEX ERN",
    why="A recording of no length cannot be delivered.",
)
def _duration(track: Track, _: Heard) -> Found:
    if track.HasField("properties") and track.properties.HasField("duration"):
        duration = track.properties.duration
        if duration.seconds < 0 or (duration.seconds == 0 and duration.nanos <= 0):
            yield Finding(message="not a length", current=str(duration.seconds))


@STATED.rule(
    "PROPERTIES_BIT_RATE",
    WARNING,
    "properties.bit_rate_bps",
    source="ISO 11172-3",
    why="No MP3 has more than 320 kbit/s.",
)
def _bit_rate(track: Track, _: Heard) -> Found:
    if track.HasField("properties"):
        properties = track.properties
        # Lossless files have no such cap: 24 bits at 96 kHz is 4,608 kbit/s.
        if properties.codec == "mp3" and properties.bit_rate_bps > 321_000:
            yield Finding(message="more than an MP3 has", current=str(properties.bit_rate_bps))


@STATED.rule(
    "PROPERTIES_SHA256",
    WARNING,
    "properties.sha256",
    source="FIPS 180-4",
    why="A digest that is not 64 hex digits proves nothing.",
)
def _digest(track: Track, _: Heard) -> Found:
    digest = track.properties.sha256 if track.HasField("properties") else ""
    if digest and not (len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        yield Finding(message="64 small hex digits", current=digest[:80])


_MASTERS = (enrichment_pb2.DELIVERY_PROFILE_APPLE,)
"""Profiles that take only masters: lossless, 16 bits and 44.1 kHz at least."""


def _codec_of(track: Track, heard: Heard) -> str:
    """The codec of the audio, by its bytes where it was heard, else as stated."""
    return heard.format.codec if heard is not None else track.properties.codec.lower()


@STATED.rule(
    "DELIVERY_LOSSY",
    ERROR,
    "properties.codec",
    source=APPLE,
    why="Only lossless masters are taken: what is encoded twice is damaged twice.",
    profiles=_MASTERS,
)
def _lossy(track: Track, heard: Heard) -> Found:
    codec = _codec_of(track, heard)
    if codec.startswith(_LOSSY):
        yield Finding(message=f"{shown(codec)} is not lossless", current=track.properties.codec)


@STATED.rule(
    "DELIVERY_BIT_DEPTH",
    ERROR,
    "properties.bit_depth",
    source=APPLE,
    why="Masters have 16 bits a sample at least.",
    profiles=_MASTERS,
)
def _bit_depth(track: Track, heard: Heard) -> Found:
    depth = heard.format.bit_depth if heard is not None else track.properties.bit_depth
    if depth and depth < 16:
        yield Finding(message=f"{depth} bits; 16 at least", current=number_text(depth, 0))


@STATED.rule(
    "DELIVERY_SAMPLE_RATE",
    ERROR,
    "properties.sample_rate_hz",
    source=APPLE,
    why="Masters have 44.1 kHz at least.",
    profiles=_MASTERS,
)
def _delivered_rate(track: Track, heard: Heard) -> Found:
    rate = heard.format.sample_rate_hz if heard is not None else track.properties.sample_rate_hz
    if 0 < rate < 44_100:
        yield Finding(message=f"{rate} Hz; 44,100 at least", current=number_text(rate, 0))


def _problem(problem: Problem) -> None:
    severity: Severity = ERROR if problem is Problem.AUDIO_TRUNCATED else WARNING

    @HEARD.rule(
        problem.value,
        severity,
        "audio",
        source=PRACTICE,
        why=f"A broken or mislabelled file is sent back: {_PROBLEMS[problem]}.",
    )
    def _check(_: Track, heard: Heard) -> Found:
        if heard is not None and problem in heard.problems:
            yield Finding(message=_PROBLEMS[problem])


for _each in Problem:
    _problem(_each)


@HEARD.rule(
    "AUDIO_DIGEST",
    ERROR,
    "properties.sha256",
    source="FIPS 180-4",
    why="Another digest is another file.",
)
def _other_file(track: Track, heard: Heard) -> Found:
    if heard is not None and track.HasField("properties"):
        stated = track.properties.sha256
        if stated and stated != heard.format.sha256:
            # Writing the digest of what was sent would make the wrong file the right one.
            yield Finding(
                message=f"the audio is another file: {heard.format.sha256}", current=stated
            )


@HEARD.rule(
    "AUDIO_FORMAT",
    WARNING,
    "properties",
    source=PRACTICE,
    why="What is stated of the file is compared with it on delivery.",
)
def _format(track: Track, heard: Heard) -> Found:
    if heard is None or not track.HasField("properties"):
        return
    for name in ("container", "codec", "sample_rate_hz", "channels", "bit_depth", "size_bytes"):
        if track.properties.HasField(name):
            stated, measured = getattr(track.properties, name), getattr(heard.format, name)
            if measured is not None and stated != measured:
                yield Finding(
                    message=f"the file says {measured}",
                    current=str(stated),
                    suggested=str(measured),
                    field=f"properties.{name}",
                )


@HEARD.rule(
    "AUDIO_CLIPPED",
    WARNING,
    "audio",
    source="AES TD1008",
    why="Long runs at full scale are heard as distortion.",
)
def _clipped(_: Track, heard: Heard) -> Found:
    if heard is not None and heard.technical.clipped_samples >= 100:
        yield Finding(message=f"{heard.technical.clipped_samples} samples at full scale")


@HEARD.rule(
    "AUDIO_SILENT_END",
    WARNING,
    "audio",
    source=APPLE,
    why="More than 5 s of silence at an end is sent back.",
)
def _silent_end(_: Track, heard: Heard) -> Found:
    if heard is None:
        return
    for name, seconds in (
        ("start", heard.technical.leading_silence_seconds),
        ("end", heard.technical.trailing_silence_seconds),
    ):
        if seconds > 5:
            yield Finding(message=f"{number_text(seconds, 1)} s of silence at the {name}")


@HEARD.rule(
    "AUDIO_DC_OFFSET",
    WARNING,
    "audio",
    source=PRACTICE,
    why="An offset costs headroom and clicks at the edges.",
)
def _offset(_: Track, heard: Heard) -> Found:
    if heard is not None and abs(heard.technical.dc_offset) > 0.01:
        yield Finding(message=f"offset of {heard.technical.dc_offset:.3f} of full scale")


@HEARD.rule(
    "AUDIO_SILENT_CHANNEL",
    ERROR,
    "audio",
    source=APPLE,
    why="One side of the headphones stays dead: the export lost a channel.",
)
def _silent_channel(_: Track, heard: Heard) -> Found:
    if heard is not None and heard.technical.silent_channel:
        yield Finding(message="one of the two channels is silent")


@HEARD.rule(
    "AUDIO_LOUDNESS",
    WARNING,
    "audio",
    source="AES TD1008",
    why="Shops turn every track to about -16 to -14 LUFS; what is far from it was mismade.",
)
def _extreme(_: Track, heard: Heard) -> Found:
    loudness = heard.loudness.integrated_lufs if heard is not None else None
    if loudness is not None and not _QUIETEST <= loudness <= _LOUDEST:
        kind = "loud" if loudness > _LOUDEST else "quiet"
        yield Finding(message=f"{number_text(loudness, 1)} LUFS is extremely {kind}")


@HEARD.rule(
    "AUDIO_STATED_LOUDNESS",
    WARNING,
    "properties.integrated_loudness_lufs",
    source="EBU Tech 3341",
    why="A level that the file does not have was measured on another one.",
)
def _stated_loudness(track: Track, heard: Heard) -> Found:
    if heard is None or not track.HasField("properties"):
        return
    stated = track.properties
    for name, has, value, measured, apart in (
        (
            "integrated_loudness_lufs",
            stated.HasField("integrated_loudness_lufs"),
            stated.integrated_loudness_lufs,
            heard.loudness.integrated_lufs,
            0.5,
        ),
        (
            "true_peak_dbtp",
            stated.HasField("true_peak_dbtp"),
            stated.true_peak_dbtp,
            heard.loudness.true_peak_dbtp,
            1.0,
        ),
    ):
        # Meters differ by a tenth; peaks by a little more, as filters do.
        if has and measured is not None and abs(value - measured) > apart:
            yield Finding(
                message=f"{number_text(measured, 1)} is measured",
                current=number_text(value, 1),
                suggested=number_text(measured, 1),
                field=f"properties.{name}",
            )


@HEARD.rule(
    "AUDIO_DUAL_MONO",
    INFO,
    "audio",
    source=PRACTICE,
    why="Two equal channels are mono in a stereo file.",
)
def _dual(_: Track, heard: Heard) -> Found:
    if heard is not None and heard.technical.dual_mono:
        yield Finding(message="both channels are the same")


@HEARD.rule(
    "AUDIO_TRANSCODE",
    WARNING,
    "audio",
    source=APPLE,
    why="A lossless file made from an MP3 is refused as a master.",
)
def _transcode(_: Track, heard: Heard) -> Found:
    if heard is None or not heard.format.codec.startswith(_LOSSLESS):
        return
    cutoff = heard.technical.cutoff_hz
    if cutoff is not None and cutoff <= 17_000 and heard.format.sample_rate_hz >= 44_100:
        yield Finding(message=f"nothing above {cutoff / 1000:.1f} kHz: made from a lossy file?")


@HEARD.rule(
    "AUDIO_PREVIEW",
    WARNING,
    "audio",
    source=PRACTICE,
    why="Exactly 30 s is what shops cut as a preview.",
)
def _preview(_: Track, heard: Heard) -> Found:
    if heard is not None and abs(heard.format.duration_seconds - 30) <= 0.1:
        yield Finding(message="30 s long, as a preview is")


@HEARD.rule(
    "AUDIO_ISRC_TAG",
    WARNING,
    "isrc",
    source="ISO 3901",
    why="The file names another recording than the delivery does.",
)
def _tagged(track: Track, heard: Heard) -> Found:
    tagged = codes.normalise_isrc(heard.tags.get("isrc", "")) if heard is not None else None
    stated = codes.normalise_isrc(track.isrc) if tagged else None
    if tagged and stated and tagged != stated:
        yield Finding(message=f"the file's own tag says {tagged}", current=track.isrc)


RULES = (*STATED.rules,)
HEARD_RULES = HEARD.rules
