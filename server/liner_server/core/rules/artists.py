"""Artists: one name a field, each once, no stand-ins for a name."""

from collections.abc import Iterator

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.fields import artist_text
from liner_server.core.rules import guests
from liner_server.core.rules.book import shown
from liner_server.core.rules.rule import Finding, Rule

ERROR = enrichment_pb2.SEVERITY_ERROR
WARNING = enrichment_pb2.SEVERITY_WARNING

_UNKNOWN = {
    "unknown artist",
    "n/a",
    "-",
    "null",
    "nan",
    "undefined",
    "no artist",
    "artist name",
} | {*("[unknown]", "[no artist]", "<unknown>")}
_UNKNOWN_UNLESS_IDENTIFIED = {"unknown", "none", "artist", "tba"}
"""There are artists of these names, and an ISNI says that one of them is meant."""

_VARIOUS = {"various", "various artists", "v.a.", "va"}


def _names(track: track_pb2.Track) -> Iterator[tuple[int, str]]:
    return ((index, artist.name) for index, artist in enumerate(track.artists))


def _empty(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for index, name in _names(track):
        if not name.strip():
            yield Finding(message="an artist without a name", field=f"artists[{index}].name")


def _guest(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for index, name in _names(track):
        if found := guests.in_name(name):
            main, guest = name[: found.start()].strip(), name[found.end() :].strip()
            yield Finding(
                message=f"two artists in one: {main}, and {guest.strip(' )]')} as featured",
                current=name,
                suggested=main or None,
                field=f"artists[{index}].name",
            )
            yield from guests.credits_of(guest, track)


def _unknown(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for index, name in _names(track):
        bare = name.strip().lower()
        identified = bool(track.artists[index].isni)
        if bare in _UNKNOWN or (bare in _UNKNOWN_UNLESS_IDENTIFIED and not identified):
            yield Finding(
                message=f"{name} is nobody's name", current=name, field=f"artists[{index}].name"
            )


def _various(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    for index, name in _names(track):
        if name.strip().lower() in _VARIOUS:
            yield Finding(
                message="Various Artists is for releases; a recording names its own",
                current=name,
                field=f"artists[{index}].name",
            )


def _twice(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    seen: set[tuple[str, int]] = set()
    for index, artist in enumerate(track.artists):
        credit = (artist.name.casefold().strip(), artist.role or track_pb2.ARTIST_ROLE_MAIN)
        if credit in seen:
            yield Finding(
                message=f"{shown(artist.name)} is named before in the same role",
                current=artist_text(artist),
                suggested="",
                field=f"artists[{index}]",
            )
        if credit[0]:
            seen.add(credit)


def _both(track: track_pb2.Track, _: Listening | None) -> Iterator[Finding]:
    main = {a.name.casefold() for a in track.artists if a.role <= track_pb2.ARTIST_ROLE_MAIN}
    for index, artist in enumerate(track.artists):
        featured = artist.role == track_pb2.ARTIST_ROLE_FEATURED
        if featured and artist.name and artist.name.casefold() in main:
            yield Finding(
                message=f"{shown(artist.name)} is a main artist and a guest",
                current=artist_text(artist),
                suggested="",
                field=f"artists[{index}]",
            )


RULES = (
    Rule(
        rule_id="ARTIST_NAME_EMPTY",
        severity=ERROR,
        field="artists",
        source="DDEX AVS",
        why="A credit without a name pays nobody.",
        check=_empty,
    ),
    Rule(
        rule_id="ARTIST_GUEST_INSIDE",
        severity=WARNING,
        field="artists",
        source="Apple Music Style Guide",
        why="One name a field: joined names make a new artist's page.",
        check=_guest,
    ),
    Rule(
        rule_id="ARTIST_UNKNOWN",
        severity=ERROR,
        field="artists",
        source="Apple Music Style Guide",
        why="A stand-in for a name is refused.",
        check=_unknown,
    ),
    Rule(
        rule_id="ARTIST_VARIOUS",
        severity=WARNING,
        field="artists",
        source="Apple Music Style Guide",
        why="Only a compilation as a whole has various artists.",
        check=_various,
    ),
    Rule(
        rule_id="ARTIST_TWICE",
        severity=WARNING,
        field="artists",
        source="DDEX AVS",
        why="A double credit is paid twice or not at all.",
        check=_twice,
    ),
    Rule(
        rule_id="ARTIST_MAIN_AND_FEATURED",
        severity=WARNING,
        field="artists",
        source="Apple Music Style Guide",
        why="Nobody is a guest on their own recording.",
        check=_both,
    ),
)
