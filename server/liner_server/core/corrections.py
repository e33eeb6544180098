"""Reads the value that an editor says is right: as its field is written, or not at all."""

from collections.abc import Callable, Mapping
from datetime import date

from liner.v1 import track_pb2

from liner_server.core.fields import FIELDS, Kind, finite, number_text
from liner_server.core.keys import parse_key
from liner_server.core.rules.codes import normalise_isrc, normalise_iswc, normalise_upc

_MAX_BYTES = 1024
_MAX_LYRICS_BYTES = 65_536
_LARGEST = 2**53
_SHARES = ("energy", "danceability")
_BELOW_ZERO = ("properties.integrated_loudness_lufs", "properties.true_peak_dbtp")
_WARNINGS = frozenset(name[17:] for name, value in track_pb2.ParentalWarning.items() if value)


def canonical(path: str, text: str) -> str | None:
    """Return a value in its field's canonical text form, or None if it cannot be its value.

    `path` is one of `FIELDS`. Any spelling that is understood will do: "8A" is "A minor".
    """
    field = FIELDS[path]
    if len(text.encode()) > (_MAX_LYRICS_BYTES if path == "lyrics" else _MAX_BYTES):
        return None
    if path == "lyrics":
        return text.strip() or None
    reader = _CODES.get(path) or _KINDS.get(field.kind)
    if reader is not None:
        return reader(text)
    value = finite(text)
    if value is None or abs(value) > _LARGEST or (value < 0 and path not in _BELOW_ZERO):
        return None
    if path in _SHARES and value > 1:
        return None
    if not field.digits and value != int(value):
        return None
    return number_text(value, field.digits)


def _text(text: str) -> str | None:
    return " ".join(text.split()) or None


def _list(text: str) -> str | None:
    return "; ".join(part.strip() for part in text.split(";") if part.strip()) or None


def _tempo(text: str) -> str | None:
    value = finite(text)
    return number_text(value, 2) if value is not None and 20 <= value <= 400 else None


def _warning(text: str) -> str | None:
    return text if text in _WARNINGS else None


def _date(text: str) -> str | None:
    day = text.strip()
    whole = {4: f"{day}-01-01", 7: f"{day}-01"}.get(len(day), day)
    try:
        date.fromisoformat(whole)
    except ValueError:
        return None
    return day if len(day) in (4, 7, 10) else None


def _language(text: str) -> str | None:
    import langcodes

    tag = text.strip()
    return tag if tag and len(tag) <= 35 and langcodes.tag_is_valid(tag) else None


_CODES: Mapping[str, Callable[[str], str | None]] = {
    "isrc": normalise_isrc,
    "iswc": normalise_iswc,
    "upc": normalise_upc,
    "release_date": _date,
    "language": _language,
}

_KINDS: Mapping[Kind, Callable[[str], str | None]] = {
    Kind.TEXT: _text,
    Kind.CODE: _text,
    Kind.KEY: parse_key,
    Kind.LIST: _list,
    Kind.ARTISTS: _list,
    Kind.TEMPO: _tempo,
    Kind.WARNING: _warning,
}
