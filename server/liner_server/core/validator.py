"""Runs the rules over a track and scores what they find. Pure; needs no model."""

from collections.abc import Iterable, Mapping

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.core.enums import Profile
from liner_server.core.fields import FIELDS, read
from liner_server.core.rules import (
    artist_names,
    artists,
    audio_match,
    characters,
    identifiers,
    master,
    music,
    parties,
    places_and_dates,
    texts,
    tidy,
    titles,
)
from liner_server.core.rules.across_batch import across_batch
from liner_server.core.rules.rule import Rule

_Profile = enrichment_pb2.DeliveryProfile

__all__ = ["FAMILIES", "REQUIRED", "SHARES", "across_batch", "validate"]

FAMILIES: Mapping[str, tuple[Rule, ...]] = {
    "identifiers": (*identifiers.RULES, *parties.RULES),
    "titles": (*titles.RULES, *texts.RULES, *characters.TITLES.rules),
    "artists": (*artists.RULES, *artist_names.RULES, *characters.ARTISTS.rules),
    "places_and_dates": places_and_dates.RULES,
    "music": (*music.RULES, *master.RULES),
    "audio_match": (*audio_match.RULES, *master.HEARD_RULES),
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
_STATED: Mapping[str, tuple[str, ...]] = {
    "identifiers": ("isrc", "iswc", "upc"),
    "titles": ("title", "version_title", "album"),
    "artists": ("artists",),
}
_ORDER = {path: position for position, path in enumerate(FIELDS)}


def validate(
    track: track_pb2.Track, *, profile: Profile, listening: Listening | None = None
) -> enrichment_pb2.ValidateMetadataResponse:
    """Return what breaks a rule, how to mend it, and the scores.

    A family's score is the product of what its findings leave: an ERROR takes half, a WARNING
    0.15, an INFO nothing. The overall confidence is the product of the families' scores;
    completeness is told beside it and not part of it: a field that is not stated is not wrong.
    """
    response = enrichment_pb2.ValidateMetadataResponse(confidence=1.0)
    for family, rules in FAMILIES.items():
        worth = _worth_asking(family, rules, track, listening)
        score = _judge((r for r in worth if _holds(r, profile)), track, listening, response)
        response.confidence *= score
        if _applies(family, track, listening):
            setattr(response.scores, family, round(score, 4))
    response.confidence = round(response.confidence, 4)
    _complete(response, track, profile)
    issues = sorted(response.issues, key=_urgency)
    del response.issues[:]
    response.issues.extend(issues)
    return response


def _worth_asking(
    family: str, rules: tuple[Rule, ...], track: track_pb2.Track, listening: Listening | None
) -> tuple[Rule, ...]:
    """Leave out rules that certainly find nothing; a test holds this to be certain."""
    if family == "identifiers" and tidy.canonical(track):
        return ()
    if family == "audio_match" and listening is None:
        return audio_match.RULES
    return rules


def _holds(rule: Rule, profile: Profile) -> bool:
    return rule.profiles is None or profile in rule.profiles


def _judge(
    rules: Iterable[Rule],
    track: track_pb2.Track,
    listening: Listening | None,
    response: enrichment_pb2.ValidateMetadataResponse,
) -> float:
    score = 1.0
    for rule in rules:
        broken = False
        for finding in rule.check(track, listening):
            field = finding.field or rule.field
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


def _applies(family: str, track: track_pb2.Track, listening: Listening | None) -> bool:
    """Whether a family's score is told: it had something to judge."""
    if family == "audio_match":
        return listening is not None
    if family == "identifiers" and any(a.isni or a.ipi for a in track.artists):
        return True
    return any(read(track, path) is not None for path in _STATED.get(family, ()))


def _complete(
    response: enrichment_pb2.ValidateMetadataResponse, track: track_pb2.Track, profile: Profile
) -> None:
    required = REQUIRED[profile]
    missing = [path for path in required if read(track, path) is None]
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


def _urgency(issue: enrichment_pb2.ValidationIssue) -> tuple[int, int]:
    path = issue.field.split("[")[0]
    return issue.severity, _ORDER.get(path, len(_ORDER))
