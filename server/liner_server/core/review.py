"""What an editor should look at, and why: the honest part of every answer."""

from collections.abc import Sequence

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Content, Listening
from liner_server.core.ledger import Policy, sureness
from liner_server.core.rules.book import shown
from liner_server.errors import LinerError


def _offered_unasked(result: track_pb2.FieldResult, policy: Policy) -> bool:
    """Whether a proposal is an extra: a score nothing was fitted to, for a field nobody named.

    Such a proposal never becomes surer; if it called for review, every track would.
    """
    uncalibrated = result.confidence_basis == track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
    return uncalibrated and result.field not in policy.fields


def _sure(result: track_pb2.FieldResult) -> str:
    return sureness(result.confidence, result.confidence_basis)


def review_reasons(
    results: Sequence[track_pb2.FieldResult],
    issues: Sequence[enrichment_pb2.ValidationIssue],
    listening: Listening | None,
    policy: Policy,
    failures: Sequence[tuple[str, LinerError]] = (),
) -> list[str]:
    """Return what an editor should look at, the most urgent first.

    `failures` are those of models when none of them answered.
    """
    reasons = [
        f"{issue.rule_id}: {issue.message}"
        for issue in issues
        if issue.severity == enrichment_pb2.SEVERITY_ERROR
    ]
    reasons += [
        f"{result.field}: {shown(result.value)} is more likely "
        f"({_sure(result)}) than {shown(result.given_value)}, which was given"
        for result in results
        if result.decision == track_pb2.DECISION_PROPOSED and result.HasField("given_value")
    ]
    for result in results:
        if result.decision == track_pb2.DECISION_PROPOSED and not result.HasField("given_value"):
            if _offered_unasked(result, policy):
                continue
            reasons.append(f"{result.field}: {shown(result.value)} is only {_sure(result)}")
        elif (
            result.decision == track_pb2.DECISION_KEPT
            and result.confidence < min(policy.min_confidence, 0.5)
            and result.alternatives
        ):
            reasons.append(f"{result.field}: {shown(result.given_value)} is doubtful")
    if failures:
        told = ", ".join(f"{model}: {error.reason}" for model, error in failures)
        reasons.append(f"no model could answer ({told}); this is what was measured")
    if listening is not None and listening.content is Content.SILENCE:
        reasons.insert(0, "the audio is silent")
    return reasons
