"""What analytics keeps of an answer and of a review: the rows of `liner/v1/analytics.proto`.

An answer's row is begun while its caller waits (`begun`) and completed later from the answer's own
bytes (`completed`): reading a dozen fields one by one in Python takes five times as long as
copying the bytes of all of them.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import count
from typing import Any
from uuid import uuid4

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from liner.v1 import analytics_pb2, enrichment_pb2, track_pb2

from liner_server.core.router import Plan

_ABSTAINED = track_pb2.DECISION_ABSTAINED
_GIVEN = track_pb2.SOURCE_GIVEN
_MODEL = track_pb2.SOURCE_MODEL
_MOST_BYTES = 16 << 10
"""An answer with long lyrics is larger; one with inline audio is far larger."""

_process = uuid4().hex
_numbers = count()


def track_hash(unit: str) -> str:
    """Return what stands for a track where its id is not to be shown.

    Keyless, so that hosts agree: it hides ids from readers, not from those who can guess them.
    """
    data = unit.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=12, person=b"liner-track").hexdigest()


def begun(plan: Plan, *, request_id: str, operation: str, outcome: str, seconds: float) -> bytes:
    """Return the bytes of a row with what is not in the answer itself.

    Its track is what the experiment drew by, as it is: who reads it hides it.
    """
    row = analytics_pb2.ExperimentRow()
    row.row_id = f"{_process}{next(_numbers):08x}"
    row.time = time.time_ns() // 1000
    row.request_id = request_id
    row.track = plan.unit
    row.processing_seconds = seconds
    # Stands where no answer names another.
    model = plan.lanes[0].name if plan.lanes else "embedded"
    # Messages written one after the other are read as one that has the fields of both.
    return row.SerializeToString() + _standing(
        plan.experiment, plan.variant, plan.allocation, model, operation, outcome
    )


@lru_cache(maxsize=1024)
def _standing(
    experiment: str, variant: str, allocation: str, model: str, operation: str, outcome: str
) -> bytes:
    """Return the bytes of what many rows have in common."""
    return analytics_pb2.ExperimentRow(
        experiment=experiment,
        variant=variant,
        allocation=allocation,
        model=model,
        operation=operation,
        error_code="" if outcome == "ok" else outcome,
    ).SerializeToString()


def packed(answer: enrichment_pb2.EnrichMetadataResponse) -> bytes:
    """Return an answer's bytes, or where they are many, those that `completed` reads."""
    # Nearly all are small, and copying all is several times as fast as choosing.
    data = answer.SerializeToString()
    if len(data) <= _MOST_BYTES:
        return data
    chosen = enrichment_pb2.EnrichMetadataResponse(
        processing=answer.processing, fields=answer.fields
    )
    return chosen.SerializeToString()


def completed(
    row: analytics_pb2.ExperimentRow, answer: enrichment_pb2.EnrichMetadataResponse | None
) -> analytics_pb2.ExperimentRow:
    """Fill a row with what its answer says, and return it."""
    if answer is None:
        return row
    processing = answer.processing
    if processing.HasField("error") and not row.error_code:
        row.error_code = processing.error.reason or "MODEL"
    row.success = not row.error_code
    row.enrichment_id = processing.enrichment_id
    row.model = processing.model
    row.model_version = processing.model_version
    row.prompt_version = processing.prompt_version
    row.confidence = processing.confidence
    row.prompt_tokens = processing.usage.prompt_tokens
    row.completion_tokens = processing.usage.completion_tokens
    row.cost_usd = processing.usage.cost_usd
    row.retry_count = processing.retry_count
    row.fallback_used = processing.fallback_used
    row.from_cache = processing.from_cache
    row.needs_review = processing.needs_review
    add = row.fields.add
    for result in answer.fields:
        if result.decision == _ABSTAINED:
            continue
        if result.source != _GIVEN:
            add(field=result.field, confidence=result.confidence)
        agreed = model_agreed(result)
        if agreed is not None:
            row.checked_fields += 1
            row.agreed_fields += agreed
    return row


def model_agreed(result: track_pb2.FieldResult) -> bool | None:
    """Whether a model and other evidence said the same of a field; None: only one of them spoke."""
    witnesses = result.agreed_by
    said_by_model = result.source == _MODEL
    if witnesses and any((source == _MODEL) != said_by_model for source in witnesses):
        return True
    others = result.alternatives
    if others and any((other.source == _MODEL) != said_by_model for other in others):
        return False
    return None


def outcome_rows(
    enrichment: enrichment_pb2.Enrichment,
    review: enrichment_pb2.Review,
    *,
    request_id: str,
    track: Callable[[str], str],
) -> Iterator[analytics_pb2.OutcomeRow]:
    """Yield a row for each field that a review judges.

    The same review under the same request id makes rows of the same id, so that a caller who asks
    again after a crash counts once.
    """
    answer = enrichment.answer
    processing = answer.processing
    results = {result.field: result for result in answer.fields}
    name = request_id or uuid4().hex
    for said in review.reviews:
        result = results.get(said.field)
        if result is None:
            continue
        key = f"{enrichment.enrichment_id}\0{name}\0{said.field}".encode()
        row = analytics_pb2.OutcomeRow(
            row_id=hashlib.blake2b(key, digest_size=16).hexdigest(),
            time=review.review_time.ToMicroseconds(),
            enrichment_id=enrichment.enrichment_id,
            # Without a track_id what else names the content was not stored: it counts by itself.
            track=track(answer.track.track_id or enrichment.enrichment_id),
            experiment=processing.experiment,
            variant=processing.variant,
            model=processing.model,
            model_version=processing.model_version,
            prompt_version=processing.prompt_version,
            field=said.field,
            verdict=enrichment_pb2.Verdict.Name(said.verdict).removeprefix("VERDICT_"),
            accepted=said.verdict == enrichment_pb2.VERDICT_ACCEPT,
            confidence=result.confidence,
            source=track_pb2.Source.Name(result.source).removeprefix("SOURCE_"),
            reviewer=review.reviewer,
        )
        for score in result.model_scores:
            right = _right(score.value, result.value, said)
            if right is not None and math.isfinite(score.score):
                row.scores.add(
                    model=score.model,
                    prompt_version=score.prompt_version,
                    score=score.score,
                    right=right,
                    stated=score.stated,
                )
        yield row


def _right(value: str, answered: str, said: enrichment_pb2.FieldReview) -> bool | None:
    """Whether an editor's verdict makes a model's value right; None: it does not tell."""
    if said.verdict == enrichment_pb2.VERDICT_ACCEPT:
        return value == answered
    if said.verdict == enrichment_pb2.VERDICT_CORRECT:
        return value == said.corrected_value
    # Rejected: what was answered is wrong, another value may have been right.
    return False if value == answered else None


def plain(message: Message) -> dict[str, Any]:
    """Return a row's columns by name, nested rows as lists of the same."""
    return {
        field.name: [plain(entry) for entry in getattr(message, field.name)]
        if field.is_repeated
        else getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
    }


def fill(message: Message, columns: Mapping[str, Any]) -> None:
    """Set a row's columns by name; what is absent or null stays at zero."""
    for field in message.DESCRIPTOR.fields:
        value = columns.get(field.name)
        if value is None:
            continue
        if field.is_repeated:
            for entry in value:
                fill(getattr(message, field.name).add(), entry)
        elif field.type == FieldDescriptor.TYPE_BOOL:
            setattr(message, field.name, bool(value))
        else:
            setattr(message, field.name, value)
