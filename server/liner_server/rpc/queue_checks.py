"""Checks of what is submitted to the queue and of what operators ask of it."""

from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_server.rpc import requests
from liner_server.rpc.requests import violation

MAX_IDS = 1000
MAX_ID_BYTES = 256
MAX_REASON_BYTES = 256
MAX_FILTER_TEXT_BYTES = 1024
LEAST_INTERVAL = 0.5
LEAST_RATE = 0.001
"""Slower ones put letters off beyond any time that can be told."""

_LATEST_SECONDS = 253_402_300_799

Violations = Iterator[track_pb2.FieldViolation]


def submit_violations(request: enrichment_pb2.SubmitEnrichmentRequest) -> Violations:
    """Yield what is wrong with a request to submit."""
    yield from _work_violations(request, "")
    yield from requests.request_id_violations(request.request_id)
    at: Timestamp = request.not_before
    if not 0 <= at.seconds < _LATEST_SECONDS or not 0 <= at.nanos < 1_000_000_000:
        yield violation("not_before", "is not a time from 1970 to 9999", "TIME_RANGE")


def job_violations(job: queue_admin_pb2.EnrichmentJob) -> Violations:
    """Yield what is wrong with a job that is on the queue, however it came there."""
    yield from _work_violations(job, "")


def _work_violations(
    work: enrichment_pb2.SubmitEnrichmentRequest | queue_admin_pb2.EnrichmentJob, path: str
) -> Violations:
    yield from requests.track_violations(work, f"{path}track")
    if work.track.audio.WhichOneof("content") == "inline":
        yield violation(
            f"{path}track.audio.inline",
            "a queued job names its audio by object_name: upload it first",
            "AUDIO_INLINE_QUEUED",
        )
    yield from requests.options_violations(work.options, f"{path}options")
    if work.priority not in enrichment_pb2.Priority.values():
        yield violation(f"{path}priority", "no such priority", "ENUM_UNKNOWN")


def list_violations(
    request: queue_admin_pb2.ListMessagesRequest | queue_admin_pb2.ListDeadLettersRequest,
) -> Violations:
    """Yield what is wrong with a request to list, its page token excepted."""
    if request.page_size < 0:
        yield violation("page_size", "must not be negative", "NUMBER_RANGE")
    yield from filter_violations(request.filter)


def filter_violations(chosen: queue_admin_pb2.MessageFilter) -> Violations:
    """Yield what is wrong with a filter."""
    known = (
        ("priorities", chosen.priorities, enrichment_pb2.Priority.values()),
        ("causes", chosen.causes, queue_admin_pb2.DeadLetterCause.values()),
        ("state", [chosen.state], queue_admin_pb2.MessageState.values()),
    )
    for name, values, allowed in known:
        if len(values) > requests.MAX_LIST:
            yield violation(
                f"filter.{name}", f"at most {requests.MAX_LIST} entries", "LIST_TOO_LONG"
            )
        elif not set(values) <= set(allowed):
            yield violation(f"filter.{name}", "no such value", "ENUM_UNKNOWN")
    for name, age in (("older_than", chosen.older_than), ("newer_than", chosen.newer_than)):
        if not requests.is_duration(age):
            yield violation(f"filter.{name}", "must not be negative", "DURATION_RANGE")
    for name, text in (
        ("track_id", chosen.track_id),
        ("error_contains", chosen.error_contains),
    ):
        if len(text.encode()) > MAX_FILTER_TEXT_BYTES:
            yield violation(
                f"filter.{name}", f"at most {MAX_FILTER_TEXT_BYTES} bytes", "TEXT_TOO_LONG"
            )


def id_violations(message_id: str) -> Violations:
    """Yield what is wrong with a message's id."""
    if not message_id:
        yield violation("message_id", "required", "REQUIRED")
    elif len(message_id.encode()) > MAX_ID_BYTES:
        yield violation("message_id", f"at most {MAX_ID_BYTES} bytes", "TEXT_TOO_LONG")


def interval_violations(interval: Duration) -> Violations:
    """Yield what is wrong with the interval of a watch; an unset one is 0."""
    seconds = interval.seconds + interval.nanos / 1e9
    if not requests.is_duration(interval) or 0 < seconds < LEAST_INTERVAL:
        yield violation("interval", f"at least {LEAST_INTERVAL} s", "DURATION_RANGE")


def pause_violations(request: queue_admin_pb2.PauseQueueRequest) -> Violations:
    """Yield what is wrong with a request to pause."""
    if len(request.reason.encode()) > MAX_REASON_BYTES:
        yield violation("reason", f"at most {MAX_REASON_BYTES} bytes", "TEXT_TOO_LONG")
    yield from requests.request_id_violations(request.request_id)


def choice_violations(
    request: queue_admin_pb2.ReplayDeadLettersRequest | queue_admin_pb2.PurgeDeadLettersRequest,
) -> Violations:
    """Yield what is wrong with a request that chooses dead letters.

    Ids, a filter that says something, or `all`: an empty request must never mean everything.
    """
    yield from requests.request_id_violations(request.request_id)
    yield from filter_violations(request.filter)
    if request.filter.state not in (
        queue_admin_pb2.MESSAGE_STATE_UNSPECIFIED,
        queue_admin_pb2.MESSAGE_STATE_DEAD,
    ):
        yield violation("filter.state", "only dead letters are chosen here", "STATE_NOT_DEAD")
    if len(request.message_ids) > MAX_IDS:
        yield violation("message_ids", f"at most {MAX_IDS} entries", "LIST_TOO_LONG")
    for message_id in list(request.message_ids)[:MAX_IDS]:
        for found in id_violations(message_id):
            yield violation("message_ids", found.description, found.reason)
            break
    says = request.filter.ByteSize() > 0
    if not (request.message_ids or says or request.all):
        yield violation("filter", "name ids, a filter, or set all", "CHOICE_REQUIRED")
    if request.all and (request.message_ids or says):
        yield violation("all", "does not go with ids or a filter", "CHOICE_AMBIGUOUS")


def replay_violations(request: queue_admin_pb2.ReplayDeadLettersRequest) -> Violations:
    """Yield what is wrong with a request to replay."""
    yield from choice_violations(request)
    if request.max_per_second != 0 and not LEAST_RATE <= request.max_per_second <= 1_000_000:
        # NaN is not in the range either.
        yield violation(
            "max_per_second", f"0, or a number from {LEAST_RATE} to 1,000,000", "NUMBER_RANGE"
        )
    if request.HasField("edited_job"):
        if len(request.message_ids) != 1:
            yield violation("edited_job", "goes with exactly one message id", "EDIT_NEEDS_ONE_ID")
        yield from _work_violations(request.edited_job, "edited_job.")
