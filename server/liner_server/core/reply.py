"""Puts one answer together: what the ledger decided, what the rules find, and how it was made."""

import uuid
from collections.abc import Sequence

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.context import RequestContext
from liner_server.core import validator
from liner_server.core.claims import ProviderAnswer
from liner_server.core.ledger import Policy
from liner_server.core.review import review_reasons
from liner_server.core.router import Plan, Routed
from liner_server.core.rules.batch_memory import audio_identity


def reply(
    track: track_pb2.Track,
    settled: tuple[track_pb2.Track, Sequence[track_pb2.FieldResult]],
    *,
    measured: ProviderAnswer,
    plan: Plan,
    routed: Routed,
    listening: Listening | None,
    policy: Policy,
    context: RequestContext,
) -> enrichment_pb2.EnrichMetadataResponse:
    """Return the answer about `track`; `settled` is what the ledger made of it, and the results."""
    enriched, results = settled
    verdict = validator.validate(
        track, profile=enrichment_pb2.DELIVERY_PROFILE_MINIMAL, listening=listening
    )
    # What was filled is no longer missing.
    found = {r.field for r in results if r.decision == track_pb2.DECISION_FILLED}
    issues = [i for i in verdict.issues if i.rule_id != "FIELD_MISSING" or i.field not in found]
    processing = _processing(measured, plan, routed, context)
    processing.confidence = _confidence(results)
    failures = routed.failures if not routed.answered else ()
    processing.review_reasons.extend(review_reasons(results, issues, listening, policy, failures))
    processing.needs_review = bool(processing.review_reasons)
    return enrichment_pb2.EnrichMetadataResponse(
        track=enriched,
        fields=results,
        processing=processing,
        issues=issues,
        audio_identity=audio_identity(listening) if listening is not None else None,
    )


def _processing(
    measured: ProviderAnswer, plan: Plan, routed: Routed, context: RequestContext
) -> track_pb2.ProcessingResult:
    """How the answer was made, but for its confidence and review."""
    if routed.answered:
        model = routed.answered[0]
        version, prompt = routed.versions[model]
    else:
        model, version, prompt = "embedded", measured.model_version, ""
    processing = track_pb2.ProcessingResult(
        model=model,
        model_version=version,
        prompt_version=prompt,
        retry_count=routed.retries,
        usage=routed.usage,
        fallback_used=routed.fallback_used,
        experiment=plan.experiment,
        variant=plan.variant,
        is_experimental=plan.is_experimental,
        enrichment_id=context.enrichment_id or uuid.uuid4().hex,
    )
    if routed.failures and not routed.answered:
        processing.error.CopyFrom(routed.failures[0][1].to_item_error())
    return processing


def _confidence(results: Sequence[track_pb2.FieldResult]) -> float:
    valued = [r for r in results if r.decision != track_pb2.DECISION_ABSTAINED]
    found = [r for r in valued if r.source != track_pb2.SOURCE_GIVEN]
    # What is counted rather than judged would hide a doubtful tempo behind a sure sample rate,
    # and a score that nothing was fitted to says nothing of how sure the answer is.
    judged = [r for r in found if r.confidence_basis != track_pb2.CONFIDENCE_BASIS_EXACT]
    sound = [r for r in judged if r.confidence_basis != track_pb2.CONFIDENCE_BASIS_UNCALIBRATED]
    chosen = sound or judged or found or valued
    return round(sum(r.confidence for r in chosen) / len(chosen), 4) if chosen else 0.0
