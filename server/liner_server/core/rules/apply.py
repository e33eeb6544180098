"""Applies what the rules suggest: every `Suggestion` can be carried out by a machine.

A path is a field of `Track` ("title", "properties.duration"), an entry of a list
("territories[1]"), a field of an artist ("artists[0].name") or a tag ("tags.grid"). The texts are
in the canonical form of `core.fields`; an artist is "Name" or "Name (featured)". An entry one past
the end is added, an empty suggestion takes away what stands there.
"""

import re
from collections.abc import Iterable

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.core.fields import FIELDS, artist_text, read, write

_ENTRY = re.compile(r"(artists|territories|subgenres|moods|instruments)\[([0-9]{1,3})\]")
_ARTIST_FIELD = re.compile(r"artists\[([0-9]{1,3})\]\.(name|isni|ipi)")
_CREDIT = re.compile(r"(.+) \(([a-z]+)\)", re.DOTALL)
_ROLES = {name[12:].lower(): value for name, value in track_pb2.ArtistRole.items() if value}


def apply_suggestions(
    track: track_pb2.Track, suggestions: Iterable[enrichment_pb2.Suggestion]
) -> track_pb2.Track:
    """Return a copy of the track with the suggestions carried out, in their order.

    One whose `current` no longer stands, because an earlier one changed the same field, is left
    out: validate the answer again to get what is still to be done. Entries are taken away last,
    so that the places of the others stay what they were.

    Raises:
        ValueError: a path is no field, or a text is not in the field's canonical form.

    """
    mended = track_pb2.Track()
    mended.CopyFrom(track)
    removed: set[tuple[str, int, str]] = set()
    for suggestion in suggestions:
        path, text = suggestion.field, suggestion.suggested
        if _stated(mended, path) != suggestion.current:
            continue
        entry = _ENTRY.fullmatch(path)
        if entry and not text:
            removed.add((entry[1], int(entry[2]), suggestion.current))
        elif entry:
            _put_entry(mended, entry[1], int(entry[2]), text)
        else:
            _put(mended, path, text)
    for name, place, current in sorted(removed, reverse=True):
        # Another suggestion may have changed the list as a whole meanwhile.
        if _stated(mended, f"{name}[{place}]") == current:
            del getattr(mended, name)[place]
    return mended


def _stated(track: track_pb2.Track, path: str) -> str:
    """Return what a path holds, in canonical form; empty when it holds nothing."""
    if path in FIELDS:
        return read(track, path) or ""
    if match := _ENTRY.fullmatch(path):
        entries, place = getattr(track, match[1]), int(match[2])
        if place >= len(entries):
            return ""
        return artist_text(entries[place]) if match[1] == "artists" else str(entries[place])
    if match := _ARTIST_FIELD.fullmatch(path):
        return str(getattr(_artist(track, int(match[1])), match[2]))
    if path.startswith("tags."):
        return track.tags.get(path[5:], "")
    raise ValueError(f"{path!r} is no path of Track")


def _put(track: track_pb2.Track, path: str, text: str) -> None:
    if match := _ARTIST_FIELD.fullmatch(path):
        artist = _artist(track, int(match[1]))
        if text:
            setattr(artist, match[2], text)
        else:
            artist.ClearField(match[2])  # type: ignore[arg-type]
    elif path.startswith("tags."):
        track.tags.pop(path[5:], None)
        if text:
            track.tags[path[5:]] = text
    elif text:
        write(track, path, text)
    else:
        owner, _, leaf = path.rpartition(".")
        (track.properties if owner else track).ClearField(leaf)  # type: ignore[arg-type]


def _artist(track: track_pb2.Track, place: int) -> track_pb2.Artist:
    if place >= len(track.artists):
        raise ValueError(f"there is no artist {place}")
    return track.artists[place]


def _put_entry(track: track_pb2.Track, name: str, place: int, text: str) -> None:
    entries = getattr(track, name)
    if name != "artists":
        if place < len(entries):
            entries[place] = text
        else:
            entries.append(text)
        return
    credited = _CREDIT.fullmatch(text)
    role = _ROLES.get(credited[2]) if credited else None
    artist = entries[place] if place < len(entries) else entries.add()
    artist.name = credited[1] if credited and role else text
    artist.role = role or track_pb2.ARTIST_ROLE_MAIN
