"""Every error this service raises on purpose, and the gRPC status each becomes.

    LinerError
    |- InvalidRequestError        the request breaks rules that the caller can fix
    |- InvalidAudioError          the audio itself can never be listened to
    |- NotFoundError              no such object, job or enrichment
    |- AlreadyExistsError         the same request id came with other content
    |- ConflictError              stale generation or lost lease
    |- OutOfRangeError            a byte range outside the object
    |- DataLossError              bytes do not match their checksum
    |- FailedPreconditionError    the system is in a state that refuses the call
    |- UnauthenticatedError       nobody knows who calls
    |- PermissionDeniedError      the caller may not do this
    |- UnimplementedError         a part of the contract that this build does not answer yet
    |- DeadlineError              the caller's time ran out
    |- ResourceExhaustedError     a limit of size or load; retrying later may help
    `- UnavailableError           a dependency failed; retrying may help
       `- ProviderError           a model provider answered with an error

The consumer reads `retryable` to choose between another attempt and a dead letter.
"""

from collections.abc import Sequence
from datetime import timedelta

from google.rpc import code_pb2
from liner.v1 import track_pb2


class LinerError(Exception):
    """Base of every error this service raises on purpose."""

    code: int = code_pb2.INTERNAL
    """Value of google.rpc.Code that the caller sees."""

    retryable = False
    """Whether the same call may succeed later unchanged."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        retry_after: timedelta | None = None,
        resource: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        """Stable, in capitals; what programs compare."""
        self.retry_after = retry_after
        self.resource = resource
        """Name of the object, job or enrichment it is about."""

    def to_item_error(self) -> track_pb2.Error:
        """Return the error as one item of a batch carries it."""
        error = track_pb2.Error(code=self.code, reason=self.reason, message=self.message)
        if self.retryable:
            error.retry_delay.FromTimedelta(self.retry_after or timedelta(seconds=1))
        return error


class InvalidRequestError(LinerError):
    """The request breaks rules that the caller can fix; carries every violation found."""

    code = code_pb2.INVALID_ARGUMENT

    def __init__(
        self, violations: Sequence[track_pb2.FieldViolation], *, reason: str = "INVALID_REQUEST"
    ) -> None:
        text = "; ".join(f"{v.field}: {v.description}" for v in violations)
        super().__init__(text, reason=reason)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, description: str, reason: str) -> "InvalidRequestError":
        """Return the error for a single violation."""
        violation = track_pb2.FieldViolation(field=field, description=description, reason=reason)
        return cls([violation])

    def to_item_error(self) -> track_pb2.Error:
        """Return the error as one item of a batch carries it, with its violations."""
        error = super().to_item_error()
        error.violations.extend(self.violations)
        return error


class InvalidAudioError(LinerError):
    """The audio itself can never be listened to; `reason` is one of the AUDIO_ ones."""

    code = code_pb2.INVALID_ARGUMENT


class NotFoundError(LinerError):
    """There is no such object, job or enrichment."""

    code = code_pb2.NOT_FOUND


class AlreadyExistsError(LinerError):
    """The same request id came with other content."""

    code = code_pb2.ALREADY_EXISTS


class ConflictError(LinerError):
    """A generation or lease that the caller relied on is no longer the current one."""

    code = code_pb2.ABORTED


class OutOfRangeError(LinerError):
    """A byte range outside the object."""

    code = code_pb2.OUT_OF_RANGE


class DataLossError(LinerError):
    """Bytes do not match their checksum."""

    code = code_pb2.DATA_LOSS


class FailedPreconditionError(LinerError):
    """The system is in a state that refuses the call."""

    code = code_pb2.FAILED_PRECONDITION


class UnauthenticatedError(LinerError):
    """Nobody knows who calls. One text for all causes, so that nothing can be probed."""

    code = code_pb2.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("valid credentials are required", reason="UNAUTHENTICATED")


class PermissionDeniedError(LinerError):
    """The caller may not do this."""

    code = code_pb2.PERMISSION_DENIED

    def __init__(self, message: str, *, reason: str, resource: str = "") -> None:
        super().__init__(message, reason=reason, resource=resource)

    @classmethod
    def of_role(cls, role: str) -> "PermissionDeniedError":
        """Return the error for a caller who is known and lacks a role."""
        return cls(f"this call needs the role {role}", reason="ROLE_MISSING")


class UnimplementedError(LinerError):
    """A part of the contract that this build does not answer yet."""

    code = code_pb2.UNIMPLEMENTED

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not part of this release", reason="NOT_IN_THIS_RELEASE")


class DeadlineError(LinerError):
    """The caller's time ran out."""

    code = code_pb2.DEADLINE_EXCEEDED
    retryable = True


class ResourceExhaustedError(LinerError):
    """A limit of size or load was met; a load limit passes."""

    code = code_pb2.RESOURCE_EXHAUSTED
    retryable = True


class UnavailableError(LinerError):
    """A dependency failed; retrying may help."""

    code = code_pb2.UNAVAILABLE
    retryable = True


class ProviderError(UnavailableError):
    """A model provider answered with an error, or not at all; some errors would only come again."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        retryable: bool = True,
        retry_after: timedelta | None = None,
        resource: str = "",
        of_question: bool = False,
    ) -> None:
        super().__init__(message, reason=reason, retry_after=retry_after, resource=resource)
        self.retryable = retryable
        self.of_question = of_question
        """Whether this question may be to blame: the provider may be well."""
        self.tokens = (0, 0)
        """What was used of the prompt's and the answer's, where it did reply."""
