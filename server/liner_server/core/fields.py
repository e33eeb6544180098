"""The fields of a track that Liner answers for, and their canonical text form.

The text form is what claims are compared in and what `FieldResult.value` shows; the enriched
track holds the same value typed. Paths are those of `Track`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from liner.v1 import track_pb2


class Kind(Enum):
    """How a field is written as text and when two texts mean the same."""

    TEXT = auto()
    CODE = auto()
    NUMBER = auto()
    TEMPO = auto()
    KEY = auto()
    SECONDS = auto()
    LIST = auto()
    ARTISTS = auto()
    WARNING = auto()


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field Liner answers for."""

    path: str
    kind: Kind
    digits: int = 3
    """Decimals kept of a number."""

    slack: float = 0.0
    """Two numbers this far apart or nearer are the same value."""

    identity: bool = False
    """Says which recording this is; replaced only under the policy ALWAYS."""

    decided_by_model: bool = True
    """Whether a model's word alone may fill it."""

    whole: bool = False
    """Two lists agree only if they hold the same entries: a territory more is another deal."""


def _properties() -> Iterator[Field]:
    for name in ("container", "codec", "sha256"):
        yield Field(path=f"properties.{name}", kind=Kind.CODE, decided_by_model=False)
    for name in ("sample_rate_hz", "bit_rate_bps", "channels", "bit_depth", "size_bytes"):
        yield Field(path=f"properties.{name}", kind=Kind.NUMBER, digits=0, decided_by_model=False)
    yield Field(path="properties.duration", kind=Kind.SECONDS, decided_by_model=False)
    for name in ("integrated_loudness_lufs", "true_peak_dbtp", "loudness_range_lu"):
        yield Field(
            path=f"properties.{name}",
            kind=Kind.NUMBER,
            digits=1,
            slack=0.5,
            decided_by_model=False,
        )


FIELDS: dict[str, Field] = {
    field.path: field
    for field in (
        Field(path="title", kind=Kind.TEXT, identity=True),
        Field(path="version_title", kind=Kind.TEXT),
        Field(path="artists", kind=Kind.ARTISTS, identity=True),
        Field(path="album", kind=Kind.TEXT),
        Field(path="label", kind=Kind.TEXT),
        Field(path="release_date", kind=Kind.CODE),
        Field(path="isrc", kind=Kind.CODE, identity=True, decided_by_model=False),
        Field(path="iswc", kind=Kind.CODE, decided_by_model=False),
        Field(path="upc", kind=Kind.CODE, decided_by_model=False),
        Field(path="territories", kind=Kind.LIST, whole=True),
        Field(path="language", kind=Kind.CODE),
        Field(path="genre", kind=Kind.TEXT),
        Field(path="subgenres", kind=Kind.LIST),
        Field(path="moods", kind=Kind.LIST),
        Field(path="bpm", kind=Kind.TEMPO, digits=2, decided_by_model=False),
        Field(path="key", kind=Kind.KEY, decided_by_model=False),
        Field(path="energy", kind=Kind.NUMBER, slack=0.1),
        Field(path="danceability", kind=Kind.NUMBER, slack=0.1),
        Field(path="instruments", kind=Kind.LIST),
        Field(path="publisher", kind=Kind.TEXT),
        Field(path="p_line", kind=Kind.TEXT),
        Field(path="c_line", kind=Kind.TEXT),
        Field(path="lyrics", kind=Kind.TEXT),
        Field(path="parental_warning", kind=Kind.WARNING),
        *_properties(),
    )
}
"""Every field Liner answers for by path, in the order of `Track`."""

_ROLES = {
    track_pb2.ARTIST_ROLE_UNSPECIFIED: "main",
    **{value: name[12:].lower() for name, value in track_pb2.ArtistRole.items() if value},
}
_ROLE_VALUES = {name: value for value, name in _ROLES.items() if value}


def number_text(value: float, digits: int) -> str:
    """Return a number without trailing zeros: 120, 119.5."""
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def read(track: track_pb2.Track, path: str) -> str | None:
    """Return a field's canonical text, or None when the track does not state it."""
    field = FIELDS[path]
    owner, _, leaf = path.rpartition(".")
    message = track.properties if owner else track
    if owner and not track.HasField("properties"):
        return None
    match field.kind:
        case Kind.LIST:
            return "; ".join(getattr(message, leaf)) or None
        case Kind.ARTISTS:
            return "; ".join(artist_text(a) for a in track.artists) or None
        case Kind.WARNING:
            value = track.parental_warning
            return track_pb2.ParentalWarning.Name(value)[17:] if value else None
    if not message.HasField(leaf):  # type: ignore[arg-type]
        return None
    value = getattr(message, leaf)
    if field.kind is Kind.SECONDS:
        return number_text(value.ToTimedelta().total_seconds(), field.digits)
    if isinstance(value, str):
        return value or None
    return number_text(value, field.digits)


def write(track: track_pb2.Track, path: str, text: str) -> None:
    """Set a field from its canonical text; `text` must have come from a claim that was checked."""
    field = FIELDS[path]
    owner, _, leaf = path.rpartition(".")
    message = track.properties if owner else track
    match field.kind:
        case Kind.LIST:
            entries = getattr(message, leaf)
            del entries[:]
            entries.extend(text.split("; "))
        case Kind.ARTISTS:
            # What is known of an artist beyond the name must outlive a changed list.
            known = {artist.name: artist for artist in track.artists}
            artists = [_artist(part, known) for part in text.split("; ")]
            del track.artists[:]
            track.artists.extend(artists)
        case Kind.WARNING:
            track.parental_warning = track_pb2.ParentalWarning.Value(f"PARENTAL_WARNING_{text}")
        case Kind.SECONDS:
            message.duration.FromTimedelta(timedelta(seconds=float(text)))  # type: ignore[union-attr]
        case Kind.NUMBER | Kind.TEMPO:
            setattr(message, leaf, float(text) if field.digits else int(text))
        case _:
            setattr(message, leaf, text)


def artist_text(artist: track_pb2.Artist) -> str:
    """Return "Name", or "Name (featured)" for a role other than main."""
    role = _ROLES.get(artist.role, "main")
    return artist.name if role == "main" else f"{artist.name} ({role})"


def _artist(text: str, known: dict[str, track_pb2.Artist]) -> track_pb2.Artist:
    name, bracket, role = text.rpartition(" (")
    value = _ROLE_VALUES.get(role.rstrip(")")) if bracket and role.endswith(")") else None
    if value is None:
        name, value = text, track_pb2.ARTIST_ROLE_MAIN
    artist = track_pb2.Artist()
    if name in known:
        artist.CopyFrom(known[name])
    artist.name, artist.role = name, value
    return artist


def finite(text: str) -> float | None:
    """Return the number a text states, or None if it states none that can be used."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
