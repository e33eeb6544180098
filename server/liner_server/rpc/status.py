"""Turns errors into gRPC statuses with the details of google.rpc."""

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from liner_server.errors import InvalidRequestError, LinerError, NotFoundError

DOMAIN = "liner"
_MAX_MESSAGE = 1024
"""Status messages travel in the trailing metadata, which is at most 8 KiB in all."""

_MAX_VIOLATIONS = 20


def to_status(error: LinerError, *, request_id: str) -> status_pb2.Status:
    """Return the rich status of an error: ErrorInfo always, and what else its kind calls for."""
    status = status_pb2.Status(code=error.code, message=_short(error.message))
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id}
    )
    details: list[Message] = [info]
    if isinstance(error, InvalidRequestError):
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:_MAX_VIOLATIONS]:
            bad.field_violations.add(
                field=violation.field[:128],
                description=violation.description[:256],
                reason=violation.reason,
            )
        details.append(bad)
    if isinstance(error, NotFoundError) and error.resource:
        details.append(error_details_pb2.ResourceInfo(resource_name=error.resource[:256]))
    if error.retryable and error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        details.append(retry)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def internal(*, request_id: str) -> status_pb2.Status:
    """Return the status of a fault of ours: the caller learns the id to ask about, no more."""
    status = status_pb2.Status(
        code=code_pb2.INTERNAL, message=f"internal error; request id {request_id}"
    )
    info = error_details_pb2.ErrorInfo(
        reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id}
    )
    status.details.add().Pack(info)
    return status


def for_wire(status: status_pb2.Status) -> grpc.Status:
    """Return the status as grpc's abort takes it."""
    return rpc_status.to_status(status)


def _short(text: str) -> str:
    # The status line is plain text on many screens: control characters stay out of it.
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= _MAX_MESSAGE else clean[: _MAX_MESSAGE - 3] + "..."
