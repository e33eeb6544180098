"""The machine-readable form of an outcome. Its keys are a promise; docs/cli.md lists them."""

from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from liner.v1 import enrichment_pb2, track_pb2

from liner_client.errors import LinerError, from_item
from liner_client.inputs import Entry

_NUMBERS = frozenset({"bpm", "energy", "danceability"})
_BASES = track_pb2.ConfidenceBasis


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one input: an answer or an error."""

    entry: Entry
    answer: enrichment_pb2.EnrichMetadataResponse | None = None
    judged: enrichment_pb2.ValidateMetadataResponse | None = None
    """In place of an answer where tracks are judged and not enriched."""

    error: track_pb2.Error | None = None


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """Return one line of `liner enrich --output jsonl`."""
    record = _named(outcome.entry)
    if outcome.answer is None:
        return record | {"error": error_record(outcome.error or track_pb2.Error())}
    answer = outcome.answer
    fields = {found.field: field_record(found) for found in answer.fields}
    track = json_format.MessageToDict(answer.track, preserving_proto_field_name=True)
    # Where the audio lies and what was measured of it have their own place.
    for elsewhere in ("audio", "properties"):
        track.pop(elsewhere, None)
    return record | {
        "fields": {k: v for k, v in fields.items() if not k.startswith("properties.")},
        "properties": properties_record(answer.track.properties),
        "track": track,
        "needs_review": answer.processing.needs_review,
        "review_reasons": list(answer.processing.review_reasons),
        "issues": [issue_record(issue) for issue in answer.issues],
        "processing": {
            "model": answer.processing.model,
            "model_version": answer.processing.model_version,
            "confidence": round(answer.processing.confidence, 4),
            "seconds": round(answer.processing.processing_time.ToTimedelta().total_seconds(), 3),
            "fallback_used": answer.processing.fallback_used,
            "from_cache": answer.processing.from_cache,
            "enrichment_id": answer.processing.enrichment_id,
        },
    }


def _named(entry: Entry) -> dict[str, Any]:
    return {"path": entry.row.get("path"), "item_id": entry.item_id}


def field_record(found: track_pb2.FieldResult) -> dict[str, Any]:
    """Return what is concluded about one field; an abstained one has the value null."""
    abstained = found.decision == track_pb2.DECISION_ABSTAINED
    return {
        "value": None if abstained else _typed(found.field, found.value),
        "confidence": round(found.confidence, 4),
        "confidence_basis": word(_BASES.Name(found.confidence_basis), "CONFIDENCE_BASIS_"),
        "source": word(track_pb2.Source.Name(found.source), "SOURCE_"),
        "decision": word(track_pb2.Decision.Name(found.decision), "DECISION_"),
        "given": _typed(found.field, found.given_value) if found.HasField("given_value") else None,
        "model": found.model or None,
        "agreed_by": [word(track_pb2.Source.Name(s), "SOURCE_") for s in found.agreed_by],
        "alternatives": [
            {
                "value": _typed(found.field, other.value),
                "confidence": round(other.confidence, 4),
                "source": word(track_pb2.Source.Name(other.source), "SOURCE_"),
            }
            for other in found.alternatives
        ],
        "reason": found.reason,
    }


def properties_record(facts: track_pb2.AudioProperties) -> dict[str, Any]:
    """Return what was measured of a file, as numbers; JSON of the contract has 64 bits as text."""
    record: dict[str, Any] = {}
    for field, value in facts.ListFields():
        if field.name == "duration":
            record["duration_seconds"] = round(facts.duration.ToTimedelta().total_seconds(), 3)
        else:
            record[field.name] = round(value, 2) if isinstance(value, float) else value
    return record


def issue_record(issue: enrichment_pb2.ValidationIssue) -> dict[str, Any]:
    """Return one broken rule."""
    return {
        "rule_id": issue.rule_id,
        "field": issue.field,
        "severity": word(enrichment_pb2.Severity.Name(issue.severity), "SEVERITY_"),
        "message": issue.message,
        "source": issue.source,
    }


def error_record(error: track_pb2.Error) -> dict[str, Any]:
    """Return why an input failed."""
    typed: LinerError = from_item(error)
    return {
        "code": typed.code_name,
        "reason": typed.reason,
        "message": typed.message,
        "retryable": typed.retry_delay is not None,
        "violations": [
            {"field": v.field, "reason": v.reason, "description": v.description}
            for v in typed.violations
        ],
    }


def batch_record(summary: enrichment_pb2.BatchSummary) -> dict[str, Any]:
    """Return what the inputs say against each other, and how many were compared."""
    return {
        "batch_issues": [
            {"item_id": found.item_id} | issue_record(found.issue) for found in summary.batch_issues
        ],
        "batch_issues_omitted": summary.batch_issues_omitted,
        "compared": summary.compared,
    }


def validation_record(outcome: Outcome) -> dict[str, Any]:
    """Return one line of `liner validate --output jsonl`."""
    record = _named(outcome.entry)
    answer = outcome.judged
    if answer is None:
        return record | {"error": error_record(outcome.error or track_pb2.Error())}
    scores = json_format.MessageToDict(answer.scores, preserving_proto_field_name=True)
    return record | {
        "confidence": round(answer.confidence, 4),
        "scores": scores,
        "issues": [issue_record(issue) for issue in answer.issues],
        "suggestions": [
            {
                "field": change.field,
                "current": change.current,
                "suggested": change.suggested,
                "rule_id": change.rule_id,
            }
            for change in answer.suggestions
        ],
    }


def word(name: str, prefix: str) -> str:
    """Return an enum's name as people say it: "FILLED" for "DECISION_FILLED"."""
    return name.removeprefix(prefix)


def _typed(field: str, value: str) -> float | str:
    if field in _NUMBERS:
        try:
            return float(value)
        except ValueError:
            return value
    return value
