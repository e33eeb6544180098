"""What is stated of the sound: possible at all, and the same as what is heard."""

import math
from collections.abc import Iterator
from dataclasses import replace

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Content, Listening
from liner_server.core.agreement import tempo_relation
from liner_server.core.fields import number_text
from liner_server.core.keys import parse_key, relation
from liner_server.core.rules.rule import Finding, Rule

ERROR = enrichment_pb2.SEVERITY_ERROR
WARNING = enrichment_pb2.SEVERITY_WARNING

_SURE_TEMPO, _SURE_KEY = 0.5, 0.7
"""Raw scores from which what is heard is held against what is stated: from there on it is right
three times in four, more often than statements of tempo and key are (docs/policy.md)."""

_SURE_TO_WRITE = 0.9
"""Raw score from which a machine may write it: nine of ten such are right."""


def _bpm_range(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if track.HasField("bpm") and not 20 <= track.bpm <= 400:
        yield Finding(
            message="a tempo is between 20 and 400 beats a minute",
            current=number_text(track.bpm, 2),
        )


def _bpm_heard(track: track_pb2.Track, heard: Listening | None) -> Iterator[Finding]:
    if not track.HasField("bpm") or heard is None or heard.tempo.bpm is None:
        return
    measured = heard.tempo.bpm
    if abs(track.bpm / measured - 1) <= 0.04 or heard.tempo.score < _SURE_TEMPO:
        return
    factor = tempo_relation(track.bpm, measured)
    yield Finding(
        message=f"{number_text(measured, 1)} is heard"
        + (f": what is stated is {factor} of it" if factor else ""),
        current=number_text(track.bpm, 2),
        suggested=number_text(measured, 1) if heard.tempo.score >= _SURE_TO_WRITE else None,
    )


def _key_format(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    if track.key and parse_key(track.key) is None:
        yield Finding(message='a key reads like "A minor", "Am" or "8A"', current=track.key)


def _key_heard(track: track_pb2.Track, heard: Listening | None) -> Iterator[Finding]:
    stated = parse_key(track.key) if track.key else None
    if stated is None or heard is None or heard.key.key is None or heard.key.score < _SURE_KEY:
        return
    how = relation(stated, heard.key.key)
    if how not in ("same", "relative"):
        yield Finding(
            message=f"{heard.key.key} is heard" + (f", a {how} away" if how == "fifth" else ""),
            current=track.key,
            suggested=heard.key.key if heard.key.score >= _SURE_TO_WRITE else None,
        )


def _duration(track: track_pb2.Track, heard: Listening | None) -> Iterator[Finding]:
    apart = _apart(track, heard)
    if apart is not None and heard is not None and apart > 5:
        # Writing the file's length would hide that it is another recording.
        yield replace(_duration_finding(track, heard), suggested=None)


def _duration_a_little(track: track_pb2.Track, heard: Listening | None) -> Iterator[Finding]:
    apart = _apart(track, heard)
    if apart is not None and heard is not None:
        slack = max(1.0, 0.01 * heard.format.duration_seconds)
        if slack < apart <= 5:
            yield _duration_finding(track, heard)


def _apart(track: track_pb2.Track, heard: Listening | None) -> float | None:
    """Seconds between the duration stated and the one heard."""
    if heard is None or not track.properties.HasField("duration"):
        return None
    stated = track.properties.duration.ToTimedelta().total_seconds()
    return abs(stated - heard.format.duration_seconds)


def _duration_finding(track: track_pb2.Track, heard: Listening) -> Finding:
    stated = track.properties.duration.ToTimedelta().total_seconds()
    return Finding(
        message=f"the audio lasts {heard.format.duration_seconds:.1f} s",
        current=number_text(stated, 3),
        suggested=number_text(heard.format.duration_seconds, 3),
    )


def _silent(_: track_pb2.Track, heard: Listening | None) -> Iterator[Finding]:
    if heard is not None and heard.content is Content.SILENCE:
        yield Finding(message="the audio is silent")


def _peak(_: track_pb2.Track, heard: Listening | None) -> Iterator[Finding]:
    peak = heard.loudness.true_peak_dbtp if heard is not None else None
    if peak is not None and math.isfinite(peak) and peak > -1:
        yield Finding(message=f"true peak {peak:.1f} dBTP; above -1 lossy encoders clip")


def _inverted(_: track_pb2.Track, heard: Listening | None) -> Iterator[Finding]:
    if heard is not None and heard.technical.phase_inverted:
        yield Finding(message="one channel is the other turned upside down; in mono it is silent")


RULES = (
    Rule(
        rule_id="BPM_RANGE",
        severity=ERROR,
        field="bpm",
        source="Liner",
        why="No tempo outside 20 to 400 is a tempo.",
        check=_bpm_range,
    ),
    Rule(
        rule_id="BPM_AGAINST_AUDIO",
        severity=WARNING,
        field="bpm",
        source="Liner",
        why="A tempo an octave off puts the track into the wrong playlist.",
        check=_bpm_heard,
    ),
    Rule(
        rule_id="KEY_FORMAT",
        severity=ERROR,
        field="key",
        source="Liner",
        why="A key that cannot be read cannot be mixed by.",
        check=_key_format,
    ),
    Rule(
        rule_id="KEY_AGAINST_AUDIO",
        severity=WARNING,
        field="key",
        source="Liner",
        why="Neither the same nor the relative key: one of the two is wrong.",
        check=_key_heard,
    ),
    Rule(
        rule_id="DURATION_AGAINST_AUDIO",
        severity=ERROR,
        field="properties.duration",
        source="DDEX AVS",
        why="More than 5 s apart, the metadata is of another recording.",
        check=_duration,
    ),
    Rule(
        rule_id="DURATION_A_LITTLE_OFF",
        severity=WARNING,
        field="properties.duration",
        source="DDEX AVS",
        why="Shops compare the stated duration with the file.",
        check=_duration_a_little,
    ),
    Rule(
        rule_id="AUDIO_SILENT",
        severity=ERROR,
        field="audio",
        source="Apple Music Style Guide",
        why="A silent master is a failed export.",
        check=_silent,
    ),
    Rule(
        rule_id="AUDIO_TRUE_PEAK",
        severity=enrichment_pb2.SEVERITY_INFO,
        field="audio",
        source="AES TD1008",
        why="Masters that peak above -1 dBTP distort once they are encoded.",
        check=_peak,
    ),
    Rule(
        rule_id="AUDIO_PHASE_INVERTED",
        severity=ERROR,
        field="audio",
        source="Liner",
        why="A mono loudspeaker plays nothing at all.",
        check=_inverted,
    ),
)
