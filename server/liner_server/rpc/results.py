"""Stored enrichments on the wire: looked up, listed, reviewed."""

from collections.abc import Iterator
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_server.context import Principal
from liner_server.core.corrections import canonical
from liner_server.core.fields import FIELDS
from liner_server.errors import NotFoundError
from liner_server.ports import ResultStore
from liner_server.ports_queue import JobQueue
from liner_server.rpc import requests

MAX_ID_BYTES = 256
MAX_NOTE_BYTES = 1024
_MAX_REVIEWS = 100
_LATEST_SECONDS = 253_402_300_799
_EARLIEST_SECONDS = -62_135_596_800

_CORRECT = enrichment_pb2.VERDICT_CORRECT
_ACCEPT = enrichment_pb2.VERDICT_ACCEPT

Violations = Iterator[track_pb2.FieldViolation]


class Outcomes(Protocol):
    """Who counts what editors said, for experiments."""

    def reviewed(
        self, enrichment: enrichment_pb2.Enrichment, review: enrichment_pb2.Review, request_id: str
    ) -> None:
        """Take note of a review that is stored; returns at once."""


class ResultsDesk:
    """Answers the RPCs about stored enrichments, and about jobs that will be."""

    def __init__(
        self, results: ResultStore, queue: JobQueue, outcomes: Outcomes | None = None
    ) -> None:
        self._outcomes = outcomes
        self._results = results
        self._queue = queue

    async def get(
        self, request: enrichment_pb2.GetEnrichmentRequest
    ) -> enrichment_pb2.GetEnrichmentResponse:
        """Return a stored enrichment, or where a submitted job stands.

        Raises:
            InvalidRequestError, NotFoundError, and what the store raises.

        """
        requests.check(_id_violations(request.enrichment_id))
        name = request.enrichment_id
        enrichment = await self._stored(name)
        if enrichment is None or enrichment.state != enrichment_pb2.ENRICHMENT_STATE_DONE:
            # Of work that goes on the queue knows best: it waits again, was replayed, has died.
            try:
                message = await self._queue.get(name)
            except NotFoundError:
                # It may have been finished since it was looked for.
                enrichment = await self._results.get(name)
            else:
                enrichment = _job_state(message, enrichment)
        return enrichment_pb2.GetEnrichmentResponse(enrichment=enrichment)

    async def _stored(self, name: str) -> enrichment_pb2.Enrichment | None:
        try:
            return await self._results.get(name)
        except NotFoundError:
            return None

    async def list(
        self, request: enrichment_pb2.ListEnrichmentsRequest
    ) -> enrichment_pb2.ListEnrichmentsResponse:
        """Return a page of stored enrichments.

        Raises:
            InvalidRequestError, and what the store raises.

        """
        requests.check(list_violations(request))
        return await self._results.list(request)

    async def review(
        self, request: enrichment_pb2.ReviewEnrichmentRequest, reviewer: Principal
    ) -> enrichment_pb2.ReviewEnrichmentResponse:
        """Store an editor's judgement; corrected values in their canonical form.

        Raises:
            InvalidRequestError, NotFoundError, and what the store raises.

        """
        requests.check(review_violations(request))
        stored = await self._results.get(request.enrichment_id)
        if stored.state != enrichment_pb2.ENRICHMENT_STATE_DONE:
            raise NotFoundError(
                f"enrichment {request.enrichment_id} has no answer yet",
                reason="ENRICHMENT_NOT_DONE",
                resource=request.enrichment_id,
            )
        requests.check(_unanswerable(request, stored.answer))
        review = enrichment_pb2.Review(reviewer=reviewer.name, reviews=request.reviews)
        review.review_time.GetCurrentTime()
        for said in review.reviews:
            if said.verdict == _CORRECT:
                said.corrected_value = canonical(said.field, said.corrected_value) or ""
        enrichment = await self._results.add_review(
            request.enrichment_id, review, request_id=request.request_id
        )
        # A crash between the two is mended by the caller, who got no answer and asks again.
        if self._outcomes is not None:
            self._outcomes.reviewed(enrichment, review, request.request_id)
        return enrichment_pb2.ReviewEnrichmentResponse(enrichment=enrichment)


_STATES = {
    queue_admin_pb2.MESSAGE_STATE_READY: enrichment_pb2.ENRICHMENT_STATE_QUEUED,
    queue_admin_pb2.MESSAGE_STATE_DELAYED: enrichment_pb2.ENRICHMENT_STATE_QUEUED,
    queue_admin_pb2.MESSAGE_STATE_LEASED: enrichment_pb2.ENRICHMENT_STATE_RUNNING,
    queue_admin_pb2.MESSAGE_STATE_DEAD: enrichment_pb2.ENRICHMENT_STATE_FAILED,
}


def _job_state(
    message: queue_admin_pb2.QueueMessage, known: enrichment_pb2.Enrichment | None
) -> enrichment_pb2.Enrichment:
    """Return a job that is not done, as the queue has it."""
    enrichment = enrichment_pb2.Enrichment(
        enrichment_id=message.message_id,
        state=_STATES[message.state],
        create_time=message.publish_time,
        update_time=message.publish_time,
        request_id=message.job.request_id,
    )
    if known is not None:
        enrichment.update_time.CopyFrom(known.update_time)
    if message.state == queue_admin_pb2.MESSAGE_STATE_DEAD:
        enrichment.update_time.CopyFrom(message.dead_letter_time)
        if message.attempts:
            enrichment.error.CopyFrom(message.attempts[-1].error)
    return enrichment


def list_violations(request: enrichment_pb2.ListEnrichmentsRequest) -> Violations:
    """Yield what is wrong with a request to list, its page token excepted."""
    if request.page_size < 0:
        yield requests.violation("page_size", "must not be negative", "NUMBER_RANGE")
    if len(request.model) > 64:
        yield requests.violation("model", "at most 64 bytes", "TEXT_TOO_LONG")
    if request.order not in enrichment_pb2.EnrichmentOrder.values():
        yield requests.violation("order", "no such order", "ENUM_UNKNOWN")
    for name in ("create_time_from", "create_time_before"):
        if not _is_time(getattr(request, name)):
            yield requests.violation(name, "is not a time from year 1 to 9999", "TIME_RANGE")


def review_violations(request: enrichment_pb2.ReviewEnrichmentRequest) -> Violations:
    """Yield what is wrong with a request to review, whatever the enrichment holds."""
    yield from _id_violations(request.enrichment_id)
    yield from requests.request_id_violations(request.request_id)
    if not request.reviews:
        yield requests.violation("reviews", "at least one", "REQUIRED")
    if len(request.reviews) > _MAX_REVIEWS:
        yield requests.violation("reviews", f"at most {_MAX_REVIEWS}", "LIST_TOO_LONG")
        return
    seen: set[str] = set()
    for index, said in enumerate(request.reviews):
        path = f"reviews[{index}]"
        if said.field in seen:
            yield requests.violation(f"{path}.field", "was judged before", "FIELD_DUPLICATE")
        seen.add(said.field)
        yield from _judgement_violations(said, path)


def _judgement_violations(said: enrichment_pb2.FieldReview, path: str) -> Violations:
    known = said.field in FIELDS
    if not known:
        yield requests.violation(
            f"{path}.field", f"{said.field[:64]!r} is no field of Track", "FIELD_UNKNOWN"
        )
    if not said.verdict:
        yield requests.violation(f"{path}.verdict", "required", "REQUIRED")
    elif said.verdict not in enrichment_pb2.Verdict.values():
        yield requests.violation(f"{path}.verdict", "no such verdict", "ENUM_UNKNOWN")
    here = f"{path}.corrected_value"
    if said.verdict != _CORRECT and said.corrected_value:
        yield requests.violation(here, "is only for the verdict CORRECT", "VERDICT_CONTRADICTED")
    if said.verdict == _CORRECT and not said.corrected_value.strip():
        yield requests.violation(here, "required with the verdict CORRECT", "REQUIRED")
    elif said.verdict == _CORRECT and known and canonical(said.field, said.corrected_value) is None:
        yield requests.violation(here, f"cannot be a value of {said.field}", "VALUE_FORMAT")
    if len(said.note.encode()) > MAX_NOTE_BYTES:
        yield requests.violation(f"{path}.note", f"at most {MAX_NOTE_BYTES} bytes", "TEXT_TOO_LONG")


def _unanswerable(
    request: enrichment_pb2.ReviewEnrichmentRequest, answer: enrichment_pb2.EnrichMetadataResponse
) -> Violations:
    """Yield judgements on what the enrichment does not say."""
    values = {result.field: result.value for result in answer.fields}
    for index, said in enumerate(request.reviews):
        if said.field not in values:
            yield requests.violation(
                f"reviews[{index}].field", "is not in this enrichment", "FIELD_NOT_ANSWERED"
            )
        elif said.verdict == _ACCEPT and not values[said.field]:
            yield requests.violation(
                f"reviews[{index}].verdict", "there is no value to accept", "NOTHING_TO_ACCEPT"
            )


def _id_violations(enrichment_id: str) -> Violations:
    if not enrichment_id:
        yield requests.violation("enrichment_id", "required", "REQUIRED")
    elif len(enrichment_id.encode()) > MAX_ID_BYTES:
        yield requests.violation("enrichment_id", f"at most {MAX_ID_BYTES} bytes", "TEXT_TOO_LONG")


def _is_time(time: Timestamp) -> bool:
    return _EARLIEST_SECONDS <= time.seconds <= _LATEST_SECONDS and 0 <= time.nanos < 10**9
