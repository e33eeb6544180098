"""Runs the rules over a track and scores what they find. Pure; needs no model."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import product
from operator import attrgetter

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.enums import Profile
from liner_server.core.fields import FIELDS
from liner_server.core.rules.rule import Rule
from liner_server.core.rules.tidy import GROUPS

_Profile = enrichment_pb2.DeliveryProfile

__all__ = ["FAMILIES", "REQUIRED", "SHARES", "validate"]

FAMILIES: Mapping[str, tuple[Rule, ...]] = {
    family: tuple(rule for name, rules, _ in GROUPS if name == family for rule in rules)
    for family in dict.fromkeys(name for name, _, _ in GROUPS)
}
"""Every rule, by the family whose score it lowers."""

SHARES: Mapping[int, float] = {
    enrichment_pb2.SEVERITY_ERROR: 0.5,
    enrichment_pb2.SEVERITY_WARNING: 0.15,
    enrichment_pb2.SEVERITY_INFO: 0.0,
}
"""What one broken rule takes of its family's score."""

_MINIMAL = ("title", "artists")
_DDEX = (*_MINIMAL, "isrc", "label", "territories", "p_line", "properties.duration")
REQUIRED: Mapping[Profile, tuple[str, ...]] = {
    enrichment_pb2.DELIVERY_PROFILE_UNSPECIFIED: _MINIMAL,
    enrichment_pb2.DELIVERY_PROFILE_MINIMAL: _MINIMAL,
    enrichment_pb2.DELIVERY_PROFILE_DDEX: _DDEX,
    enrichment_pb2.DELIVERY_PROFILE_APPLE: (
        *_DDEX,
        "genre",
        "c_line",
        "release_date",
        "language",
        "upc",
        "parental_warning",
    ),
}
"""Fields that a delivery profile needs."""

MANDATORY = frozenset(("isrc", "title", "artists", "label", "territories"))
"""Without one of these no DDEX message can be written, so under ddex and apple it is an ERROR."""

_LENIENT = (
    enrichment_pb2.DELIVERY_PROFILE_UNSPECIFIED,
    enrichment_pb2.DELIVERY_PROFILE_MINIMAL,
)
_HIDDEN_STATES: Mapping[str, Callable[[track_pb2.Track], bool]] = {
    "artists": lambda track: (
        bool(track.artists)
        and (bool(track.artists[0].name) or any(artist.name for artist in track.artists))
    ),
    "properties.duration": lambda track: track.properties.HasField("duration"),
}
"""How to ask for what is not simply there or not."""

_HIDDEN_OF = {
    profile: [_HIDDEN_STATES[path] for path in paths if path in _HIDDEN_STATES]
    for profile, paths in REQUIRED.items()
}
_ASKED = {profile: attrgetter(*paths) for profile, paths in REQUIRED.items()}


_CREDIT = re.compile(r"artists\[[0-9]+\]")

_SCORED = ("identifiers", "titles", "artists")
_NAMED = {
    flags: tuple(name for name, flag in zip(_SCORED, flags, strict=True) if flag)
    for flags in product((False, True), repeat=len(_SCORED))
}
_UNHARMED = dict.fromkeys(FAMILIES, 1.0)
_ORDER = {path: position for position, path in enumerate(FIELDS)}


def validate(
    track: track_pb2.Track, *, profile: Profile, listening: Listening | None = None
) -> enrichment_pb2.ValidateMetadataResponse:
    """Return what breaks a rule, how to mend it, and the scores.

    A family's score is the product of what its findings leave: an ERROR takes half, a WARNING
    0.15, an INFO nothing. The overall confidence is the product of the families' scores;
    completeness is told beside it and not part of it: a field that is not stated is not wrong.
    """
    untidy = GROUPS
    if listening is None:
        untidy = tuple([group for group in GROUPS if not group[2](track)])
        if not untidy and not _missing(track, profile):
            return enrichment_pb2.ValidateMetadataResponse.FromString(_spotless(_judged(track)))
    response = enrichment_pb2.ValidateMetadataResponse()
    added: dict[str, int] = {}
    scores = _UNHARMED.copy()
    for family, rules, _ in untidy:
        scores[family] *= _judge(
            (rule for rule in rules if _holds(rule, profile)), track, listening, response, added
        )
    response.confidence = round(math.prod(scores.values()), 4)
    for family in _judged(track):
        setattr(response.scores, family, round(scores[family], 4))
    if listening is not None:
        response.scores.audio_match = round(scores["audio_match"], 4)
    _complete(response, track, profile)
    if response.issues:
        issues = sorted(response.issues, key=_urgency)
        del response.issues[:]
        response.issues.extend(issues)
    return response


def _holds(rule: Rule, profile: Profile) -> bool:
    return rule.profiles is None or profile in rule.profiles


def _judge(
    rules: Iterable[Rule],
    track: track_pb2.Track,
    listening: Listening | None,
    response: enrichment_pb2.ValidateMetadataResponse,
    added: dict[str, int],
) -> float:
    """Add what the rules find to the response, and return what is left of the family's score.

    `added` holds the credits that are suggested so far and their places.
    """
    score = 1.0
    for rule in rules:
        broken = False
        for finding in rule.check(track, listening):
            field = finding.field or rule.field
            if finding.suggested and not finding.current and _CREDIT.fullmatch(field):
                # Two rules must not put two guests in one place: the second would be lost.
                place = added.setdefault(finding.suggested, len(track.artists) + len(added))
                field = f"artists[{place}]"
            # A rule takes its share once, in however many places it is broken.
            if not broken:
                score *= 1 - SHARES[rule.severity]
            broken = True
            response.issues.add(
                rule_id=rule.rule_id,
                field=field,
                severity=rule.severity,
                message=finding.message,
                source=rule.source,
            )
            if finding.suggested is not None:
                response.suggestions.add(
                    field=field,
                    current=finding.current,
                    suggested=finding.suggested,
                    rule_id=rule.rule_id,
                )
    return score


def _judged(track: track_pb2.Track) -> tuple[str, ...]:
    """Return the families with a score of their own that had something to judge."""
    artists = track.artists
    identified = track.isrc or track.iswc or track.upc
    if not identified:
        identified = next((a.isni or a.ipi for a in artists if a.isni or a.ipi), "")
    titled = track.title or track.version_title or track.album
    return _NAMED[bool(identified), bool(titled), bool(artists)]


@cache
def _spotless(judged: tuple[str, ...]) -> bytes:
    """Return the serialized answer to a track that lacks nothing and has nothing against it."""
    scores = enrichment_pb2.ValidationScores(completeness=1.0, **dict.fromkeys(judged, 1.0))
    answer = enrichment_pb2.ValidateMetadataResponse(confidence=1.0, scores=scores)
    return answer.SerializeToString()


def _complete(
    response: enrichment_pb2.ValidateMetadataResponse, track: track_pb2.Track, profile: Profile
) -> None:
    required = REQUIRED[profile]
    missing = _missing(track, profile)
    response.scores.completeness = round(1 - len(missing) / len(required), 4)
    for path in missing:
        response.issues.add(
            rule_id="FIELD_MISSING",
            field=path,
            severity=enrichment_pb2.SEVERITY_ERROR
            if path in MANDATORY and profile not in _LENIENT
            else enrichment_pb2.SEVERITY_WARNING,
            message=f"the profile {_Profile.Name(profile)[17:].lower()} needs it",
            source="DDEX ERN" if path in _DDEX else "Apple Music Style Guide",
        )


def _missing(track: track_pb2.Track, profile: Profile) -> list[str]:
    # A profile needs more than one field, so this is a tuple of them.
    values = _ASKED[profile](track)
    if all(values) and all(states(track) for states in _HIDDEN_OF[profile]):
        return []
    return [
        path
        for path, value in zip(REQUIRED[profile], values, strict=True)
        if not (value and (path not in _HIDDEN_STATES or _HIDDEN_STATES[path](track)))
    ]


def _urgency(issue: enrichment_pb2.ValidationIssue) -> tuple[int, int]:
    path = issue.field.split("[")[0]
    return issue.severity, _ORDER.get(path, len(_ORDER))
