"""What a call to Liner may raise.

    LinerError                     any failed call; the base to catch
    |- InvalidRequestError         the request breaks rules; `violations` says which
    |  `- InvalidAudioError        the audio itself can never be listened to (reason AUDIO_...)
    |- NotFoundError               no such object, job or enrichment
    |- AlreadyExistsError          the same request id came with other content
    |- ConflictError               a stale generation; read again, then decide
    |- OutOfRangeError             a byte range outside the object
    |- DataLossError               bytes do not match their checksum
    |- FailedPreconditionError     the system is in a state that refuses the call
    |- UnauthenticatedError        no token, or one that is not known
    |- PermissionDeniedError       the token lacks the role
    |- UnimplementedError          the server does not answer this call
    |- ResourceExhaustedError      a limit of size or load; see `retry_delay`
    |- DeadlineError               the deadline passed; the work may have been done
    `- UnavailableError            nobody answered, or a dependency failed; retrying may help

`reason` is stable and is what programs compare; the message is for people and may change.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import cast

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status
from liner.v1 import track_pb2


class LinerError(Exception):
    """Base of every error a call to Liner raises."""

    def __init__(
        self,
        message: str,
        *,
        code: int = code_pb2.UNKNOWN,
        reason: str = "",
        violations: Sequence[track_pb2.FieldViolation] = (),
        retry_delay: timedelta | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        """Value of google.rpc.Code."""
        self.reason = reason or code_pb2.Code.Name(code_pb2.Code.ValueType(code))
        """Stable, in capitals: "AUDIO_UNSUPPORTED"; the code's name when nothing finer is known."""
        self.violations = tuple(violations)
        """The fields at fault, when the request was."""
        self.retry_delay = retry_delay
        """Earliest wait before the same call may succeed; None when nothing was said."""
        self.request_id = request_id
        """What the server's logs call this request; empty for an item of a batch."""

    @property
    def code_name(self) -> str:
        """The code as gRPC spells it: "INVALID_ARGUMENT"."""
        return code_pb2.Code.Name(code_pb2.Code.ValueType(self.code))


class InvalidRequestError(LinerError):
    """The request breaks rules that the caller can fix."""


class InvalidAudioError(InvalidRequestError):
    """The audio itself can never be listened to."""


class NotFoundError(LinerError):
    """There is no such object, job or enrichment."""


class AlreadyExistsError(LinerError):
    """The same request id came with other content."""


class ConflictError(LinerError):
    """A generation that the caller relied on is no longer the current one."""


class OutOfRangeError(LinerError):
    """A byte range outside the object."""


class DataLossError(LinerError):
    """Bytes do not match their checksum, on either side."""


class FailedPreconditionError(LinerError):
    """The system is in a state that refuses the call."""


class UnauthenticatedError(LinerError):
    """No token was sent, or one that the server does not know."""


class PermissionDeniedError(LinerError):
    """The token is known and lacks the role."""


class UnimplementedError(LinerError):
    """The server does not answer this call."""


class ResourceExhaustedError(LinerError):
    """A limit of size or load was met; a load limit passes."""


class DeadlineError(LinerError):
    """The deadline passed before an answer; the work may have been done all the same."""


class UnavailableError(LinerError):
    """Nobody answered, or something the server needs failed; retrying may help."""


_BY_CODE: dict[int, type[LinerError]] = {
    code_pb2.INVALID_ARGUMENT: InvalidRequestError,
    code_pb2.NOT_FOUND: NotFoundError,
    code_pb2.ALREADY_EXISTS: AlreadyExistsError,
    code_pb2.ABORTED: ConflictError,
    code_pb2.OUT_OF_RANGE: OutOfRangeError,
    code_pb2.DATA_LOSS: DataLossError,
    code_pb2.FAILED_PRECONDITION: FailedPreconditionError,
    code_pb2.UNAUTHENTICATED: UnauthenticatedError,
    code_pb2.PERMISSION_DENIED: PermissionDeniedError,
    code_pb2.UNIMPLEMENTED: UnimplementedError,
    code_pb2.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    code_pb2.DEADLINE_EXCEEDED: DeadlineError,
    code_pb2.UNAVAILABLE: UnavailableError,
}


_LOST_STATUS = "Internal error from Core"
"""What grpc.aio says when a stream ends while it is written to: the true status is lost.

It comes with INTERNAL, made up on this side. Asking again is right: it goes through, or brings
the status that was lost."""


def _class_for(code: int, reason: str) -> type[LinerError]:
    if code == code_pb2.INVALID_ARGUMENT and reason.startswith("AUDIO_"):
        return InvalidAudioError
    return _BY_CODE.get(code, LinerError)


def from_call(failure: grpc.aio.AioRpcError, *, request_id: str = "") -> LinerError:
    """Return the typed error for a failed call, with all that the server said about it."""
    code: int = failure.code().value[0]
    if failure.details() == _LOST_STATUS:
        code = code_pb2.UNAVAILABLE
    reason = ""
    violations: list[track_pb2.FieldViolation] = []
    retry_delay = None
    for detail in _details(failure):
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        try:
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(bad):
                violations.extend(
                    track_pb2.FieldViolation(
                        field=found.field, description=found.description, reason=found.reason
                    )
                    for found in bad.field_violations
                )
            elif detail.Unpack(retry):
                retry_delay = retry.retry_delay.ToTimedelta()
        except DecodeError:
            # A detail that cannot be read must not hide the error it came with.
            continue
    for key, value in failure.trailing_metadata() or ():
        if key == "liner-request-id" and isinstance(value, str):
            request_id = value
    return _class_for(code, reason)(
        failure.details() or failure.code().name,
        code=code,
        reason=reason,
        violations=violations,
        retry_delay=retry_delay,
        request_id=request_id,
    )


def from_item(error: track_pb2.Error) -> LinerError:
    """Return the typed error for one failed item of a batch."""
    return _class_for(error.code, error.reason)(
        error.message,
        code=error.code,
        reason=error.reason,
        violations=error.violations,
        retry_delay=error.retry_delay.ToTimedelta() if error.HasField("retry_delay") else None,
    )


def to_item(error: LinerError) -> track_pb2.Error:
    """Return the error as an item of a batch would carry it."""
    item = track_pb2.Error(
        code=error.code, reason=error.reason, message=error.message, violations=error.violations
    )
    if error.retry_delay is not None:
        item.retry_delay.FromTimedelta(error.retry_delay)
    return item


def _details(failure: grpc.aio.AioRpcError) -> Sequence[any_pb2.Any]:
    try:
        # It reads the three attributes an AioRpcError has too; its stubs name only the sync call.
        status = rpc_status.from_call(cast("grpc.Call", failure))
    except (ValueError, DecodeError):
        # grpc-status refuses details whose code or text differ from the status itself.
        return ()
    return tuple(status.details) if status is not None else ()
