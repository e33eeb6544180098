"""What a stored enrichment becomes by each call: decided here once, for every backend.

Pure functions: a record and what is wanted in, the record to store out, None for "leave it".
"""

import hashlib
import zlib
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from liner.v1 import enrichment_pb2, track_pb2

from liner_server.core.enums import State
from liner_server.errors import (
    AlreadyExistsError,
    DataLossError,
    InvalidRequestError,
    NotFoundError,
    ResourceExhaustedError,
)

MAX_ID_BYTES = 256
MAX_RECORD_BYTES = 2 << 20
"""A record travels in one gRPC message of at most 4 MiB."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_M = TypeVar("_M", bound=Message)

_QUEUED = enrichment_pb2.ENRICHMENT_STATE_QUEUED
_RUNNING = enrichment_pb2.ENRICHMENT_STATE_RUNNING
_DONE = enrichment_pb2.ENRICHMENT_STATE_DONE
_FAILED = enrichment_pb2.ENRICHMENT_STATE_FAILED


def micros(time: Timestamp | datetime) -> int:
    """Return a time in microseconds since 1970."""
    if isinstance(time, Timestamp):
        return time.seconds * 1_000_000 + time.nanos // 1000
    return (time - _EPOCH) // timedelta(microseconds=1)


def stamp(at: int) -> Timestamp:
    """Return microseconds since 1970 as the contract writes a time."""
    return Timestamp(seconds=at // 1_000_000, nanos=at % 1_000_000 * 1000)


def packed(message: Message) -> bytes:
    """Return a message as it is stored: most of it is words that repeat, and compresses well."""
    return zlib.compress(message.SerializeToString(), 1)


def unpacked(kind: type[_M], data: bytes) -> _M:
    """Return the message that was packed.

    Raises:
        DataLossError: the bytes are not what was stored.

    """
    try:
        return kind.FromString(zlib.decompress(data))
    except (zlib.error, DecodeError) as error:
        raise DataLossError("a stored result is damaged", reason="RESULT_CORRUPT") from error


def to_store(
    enrichment: enrichment_pb2.Enrichment, existing: enrichment_pb2.Enrichment | None, now: int
) -> enrichment_pb2.Enrichment | None:
    """Return the record that `put` stores, or None because the id is taken.

    Raises:
        InvalidRequestError: it has no id, or one that is too long.
        ResourceExhaustedError: it is larger than a record may be.

    """
    name = enrichment.enrichment_id
    if not name or len(name.encode()) > MAX_ID_BYTES:
        raise InvalidRequestError.of(
            "enrichment_id", f"1 to {MAX_ID_BYTES} bytes", "ENRICHMENT_ID_FORMAT"
        )
    if existing is not None and (existing.state == _DONE or enrichment.state != _DONE):
        return None
    record = enrichment_pb2.Enrichment()
    record.CopyFrom(enrichment)
    if existing is not None:
        record.create_time.CopyFrom(existing.create_time)
        record.request_id = existing.request_id or record.request_id
    for time in (record.create_time, record.update_time):
        time.CopyFrom(stamp(micros(time) if time.ByteSize() else now))
    if record.answer.track.audio.WhichOneof("content") == "inline":
        # Audio is kept in the object store or not at all.
        record.answer.track.audio.ClearField("inline")
    _check_size(record)
    return record


def moved(
    existing: enrichment_pb2.Enrichment | None,
    job_id: str,
    state: State,
    error: track_pb2.Error | None,
    now: int,
) -> enrichment_pb2.Enrichment | None:
    """Return the job's record in another state, or None because it is done."""
    if state not in (_QUEUED, _RUNNING, _FAILED):
        raise ValueError("a job becomes DONE by put() and by nothing else")
    record = enrichment_pb2.Enrichment(enrichment_id=job_id)
    if existing is not None:
        if existing.state == _DONE:
            return None
        record.CopyFrom(existing)
    record.state = state
    record.ClearField("error")
    if state == _FAILED and error is not None:
        record.error.CopyFrom(error)
    record.update_time.CopyFrom(stamp(now))
    if existing is None:
        record.create_time.CopyFrom(record.update_time)
    return record


def reviewed(
    existing: enrichment_pb2.Enrichment | None, enrichment_id: str, review: enrichment_pb2.Review
) -> enrichment_pb2.Enrichment:
    """Return the record with one more review.

    Raises:
        NotFoundError: there is no record that is DONE.
        ResourceExhaustedError: it has no room for more.

    """
    if existing is None or existing.state != _DONE:
        raise not_found(enrichment_id)
    record = enrichment_pb2.Enrichment()
    record.CopyFrom(existing)
    record.reviews.add().CopyFrom(review)
    _check_size(record)
    return record


def check_repeated(before: bytes, review: enrichment_pb2.Review, request_id: str) -> None:
    """Pass if a review that came again under its request id says what it said before.

    `before` is what `judgement` made of the first; who said it and when do not count.

    Raises:
        AlreadyExistsError: it says something else.

    """
    if before != judgement(review):
        raise AlreadyExistsError(
            f"request id {request_id} came with another review before",
            reason="REQUEST_ID_REUSED",
            resource=request_id,
        )


def judgement(review: enrichment_pb2.Review) -> bytes:
    """Return a digest of what is judged: equal for equal judgements."""
    said = enrichment_pb2.Review(reviews=review.reviews)
    told = said.SerializeToString(deterministic=True)
    return hashlib.blake2b(told, digest_size=16).digest()


def awaits_review(record: enrichment_pb2.Enrichment) -> bool:
    """Whether an editor should look at it: the answer says so, and nobody has."""
    return record.answer.processing.needs_review and not record.reviews


def not_found(enrichment_id: str) -> NotFoundError:
    """Return the error for an id that names no record."""
    return NotFoundError(
        f"no enrichment {enrichment_id}", reason="ENRICHMENT_NOT_FOUND", resource=enrichment_id
    )


def _check_size(record: enrichment_pb2.Enrichment) -> None:
    if record.ByteSize() > MAX_RECORD_BYTES:
        error = ResourceExhaustedError(
            f"an enrichment with its reviews has at most {MAX_RECORD_BYTES} bytes",
            reason="ENRICHMENT_TOO_LARGE",
            resource=record.enrichment_id,
        )
        # Unlike a full disk this does not pass.
        error.retryable = False
        raise error
