"""Turns what was given, tagged and measured into claims with probabilities.

The numbers here are published rules, not measurements, except where a fitted table exists
(`calibration`); the basis of every claim says which.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

from liner.v1 import track_pb2

from liner_server.audio.measurements import Content, Key, Listening, Tempo
from liner_server.core.calibration import Calibration
from liner_server.core.claims import Claim
from liner_server.core.fields import FIELDS, Kind, finite, number_text, read
from liner_server.core.keys import parse_key
from liner_server.core.ledger import given_claims
from liner_server.core.rules.codes import normalise_isrc, normalise_upc
from liner_server.core.tagging import FIELDS as TAGGED
from liner_server.core.tagging import tagging_claims

GIVEN_TRUST: Mapping[Kind, float] = {Kind.TEMPO: 0.7, Kind.KEY: 0.7}
"""Probability that what a label states is right, by kind of field; 0.9 where none is named.
Tempo and key are often read off a tool, an octave or a relative key away."""

TAG_TRUST: Mapping[Kind, float] = {Kind.TEMPO: 0.6, Kind.KEY: 0.6}
TAG_TEXT_TRUST = 0.85

MEASURED_OF_MUSIC = ("bpm", "key", *TAGGED)
"""Paths that listening answers for music and for nothing else."""


def given_and_tags(track: track_pb2.Track, listening: Listening | None) -> list[Claim]:
    """Return what the caller states and what the file's tags state, as claims."""
    claims = given_claims(track, GIVEN_TRUST)
    if listening is not None:
        claims += tag_claims(listening.tags)
    return claims


def tag_claims(tags: Mapping[str, str]) -> list[Claim]:
    """Return the usable tags as claims; a tag that cannot be its field's value is passed over."""
    claims = []
    for path, text in tags.items():
        field = FIELDS.get(path)
        if field is None or path.startswith("properties."):
            continue
        value = (_CODE_READERS.get(path) or _TAG_READERS.get(field.kind, _text))(text)
        if value:
            claims.append(
                Claim(
                    field=path,
                    value=value,
                    source=track_pb2.SOURCE_TAG,
                    confidence=TAG_TRUST.get(field.kind, TAG_TEXT_TRUST),
                    basis=track_pb2.CONFIDENCE_BASIS_RULE,
                )
            )
    return claims


def measured_claims(listening: Listening, calibration: Calibration) -> list[Claim]:
    """Return what was heard in the audio, as claims."""
    claims = [_exact(path, value) for path, value in _facts(listening).items() if value]
    if listening.content is not Content.MUSIC:
        doubt = f"the audio holds {listening.content.value}, not music"
        return claims + [_silent(path, doubt) for path in MEASURED_OF_MUSIC]
    tempo, key = listening.tempo, listening.key
    if tempo.bpm is None:
        claims.append(_silent("bpm", tempo.doubt or "no steady beat was found"))
    else:
        beats = [(number_text(bpm, 2), score) for bpm, score in tempo.candidates]
        claims.append(_estimated("bpm", number_text(tempo.bpm, 2), beats, tempo, calibration))
    if key.key is None:
        claims.append(_silent("key", key.doubt or "no tonal centre was found"))
    else:
        claims.append(_estimated("key", key.key, key.candidates, key, calibration))
    claims += tagging_claims(listening.tagging, tempo, calibration)
    return claims


def audio_properties(listening: Listening) -> track_pb2.AudioProperties:
    """Return what was measured of the file as the contract states it."""
    form, loudness = listening.format, listening.loudness
    properties = track_pb2.AudioProperties(
        container=form.container,
        codec=form.codec,
        sample_rate_hz=form.sample_rate_hz,
        bit_rate_bps=form.bit_rate_bps,
        channels=form.channels,
        bit_depth=form.bit_depth,
        size_bytes=form.size_bytes,
        sha256=form.sha256,
        integrated_loudness_lufs=loudness.integrated_lufs,
        true_peak_dbtp=loudness.true_peak_dbtp,
        loudness_range_lu=loudness.range_lu,
    )
    properties.duration.FromTimedelta(timedelta(seconds=form.duration_seconds))
    return properties


def _facts(listening: Listening) -> dict[str, str | None]:
    """The file's properties as canonical text."""
    track = track_pb2.Track(properties=audio_properties(listening))
    return {path: read(track, path) for path in FIELDS if path.startswith("properties.")}


def _exact(path: str, value: str) -> Claim:
    return Claim(
        field=path,
        value=value,
        source=track_pb2.SOURCE_MEASURED,
        confidence=1.0,
        basis=track_pb2.CONFIDENCE_BASIS_EXACT,
        reason="counted from the decoded audio",
    )


def _silent(path: str, doubt: str) -> Claim:
    """A listener that could not tell; it takes part in no vote, but its doubt is told."""
    return Claim(
        field=path,
        value="",
        source=track_pb2.SOURCE_MEASURED,
        confidence=0.0,
        basis=track_pb2.CONFIDENCE_BASIS_UNSPECIFIED,
        reason=doubt,
    )


def _estimated(
    path: str,
    value: str,
    candidates: Sequence[tuple[str, float]],
    estimate: Tempo | Key,
    calibration: Calibration,
) -> Claim:
    """An estimate with its fitted probability, and its rivals sharing what that leaves."""
    fitted = calibration.calibrated(path, "measured", estimate.score, estimate.features)
    rivals = [(text, score) for text, score in candidates if text != value]
    total = sum(score for _, score in rivals)
    room = 1 - fitted.probability
    scale = room / max(total, room) if total else 0.0
    return Claim(
        field=path,
        value=value,
        source=track_pb2.SOURCE_MEASURED,
        confidence=fitted.probability,
        basis=fitted.basis,
        others=tuple((text, score * scale) for text, score in rivals),
        reason=estimate.doubt or _how(estimate),
    )


def _how(estimate: Tempo | Key) -> str:
    """What an editor may want to know of a measurement that left no doubt."""
    if isinstance(estimate, Key):
        cents = round(estimate.tuning_cents)
        return f"tuned {cents:+d} cents from A = 440 Hz" if abs(cents) >= 5 else ""
    return f"beat {estimate.stability:.0%} steady" if estimate.stability is not None else ""


def _text(text: str) -> str:
    return " ".join(text.split())


def _tempo(text: str) -> str:
    value = finite(text)
    # 0 is how many programs write "not known".
    return number_text(value, 2) if value is not None and 20 <= value <= 400 else ""


def _key(text: str) -> str:
    return parse_key(text) or ""


def _list(text: str) -> str:
    return "; ".join(part.strip() for part in text.split(";") if part.strip())


def _never(text: str) -> str:
    """Tags for these are written in too many ways to be read safely."""
    return ""


def _isrc(text: str) -> str:
    return normalise_isrc(text) or ""


def _upc(text: str) -> str:
    return normalise_upc(text) or ""


def _date(text: str) -> str:
    # Taggers write a time behind the day.
    day = text.strip()[:10]
    whole = {4: f"{day}-01-01", 7: f"{day}-01"}.get(len(day), day)
    try:
        date.fromisoformat(whole)
    except ValueError:
        return ""
    return day


def _language(text: str) -> str:
    import langcodes

    tag = text.strip()
    return tag if len(tag) <= 35 and langcodes.tag_is_valid(tag) else ""


_CODE_READERS: Mapping[str, Callable[[str], str]] = {
    "isrc": _isrc,
    "iswc": _never,
    "upc": _upc,
    "release_date": _date,
    "language": _language,
}
"""Codes in a tag count only if they could be right: nobody has asked for what is in there."""

_TAG_READERS: Mapping[Kind, Callable[[str], str]] = {
    Kind.TEMPO: _tempo,
    Kind.KEY: _key,
    Kind.LIST: _list,
    Kind.ARTISTS: _list,
    Kind.NUMBER: _never,
    Kind.WARNING: _never,
}
