"""Turns errors into gRPC statuses with the details of google.rpc."""

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from liner_server.errors import InvalidRequestError, LinerError, NotFoundError

DOMAIN = "liner"
_MAX_MESSAGE = 1024
"""Bytes of a status message on the wire, where whatever is not ASCII takes three a byte. All of a
status travels in the trailing metadata, the message twice: past 8 KiB a client may refuse it, past
16 KiB every client does, and reads RESOURCE_EXHAUSTED in place of what was wrong."""

_MAX_VIOLATIONS = 20
_MAX_VIOLATIONS_BYTES = 4096


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
            if bad.ByteSize() > _MAX_VIOLATIONS_BYTES:
                del bad.field_violations[-1]
                break
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
    clean = "".join(c if c.isprintable() else " " for c in text[:_MAX_MESSAGE])
    if len(clean) == len(text) and _on_the_wire(clean) <= _MAX_MESSAGE:
        return clean
    size = len("...")
    for end, character in enumerate(clean):
        size += _on_the_wire(character)
        if size > _MAX_MESSAGE:
            return clean[:end] + "..."
    return clean + "..."


def _on_the_wire(text: str) -> int:
    """Return how many bytes percent-encoding makes of it."""
    return sum(1 if 0x20 <= byte < 0x7F and byte != ord("%") else 3 for byte in text.encode())
