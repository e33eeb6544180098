"""What may be asked of StorageService, and by whom."""

import re

from liner.v1 import storage_pb2

from liner_server.context import Principal
from liner_server.errors import InvalidRequestError, PermissionDeniedError
from liner_server.rpc.identity import LOCAL

_MAX_METADATA_BYTES = 8 << 10
_MAX_METADATA = 32
_RESERVED = "liner-"
"""Cloud Storage keeps what we know of an object among its pairs."""

_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADER_TEXT = re.compile(r"([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?")
_MAX_REQUEST_ID = 128
_MOST_SECONDS = 7 * 24 * 3600


def check_own(principal: Principal, name: str) -> None:
    """Pass if objects of this name are the principal's to use.

    Raises:
        PermissionDeniedError: they are not.

    """
    principal.check_object(name)


def own_id(principal: Principal, upload_id: str) -> str:
    """Keep the upload ids of principals apart, so that nobody goes on with another's bytes."""
    if not upload_id or principal is LOCAL:
        return upload_id
    return f"{principal.name}/{upload_id}"


def check_signing(request: storage_pb2.GetSignedURLRequest, principal: Principal) -> None:
    """Pass if the principal may have this URL.

    Raises:
        InvalidRequestError: nothing may be signed so.
        PermissionDeniedError: the principal may not do this itself.

    """
    writes = request.operation == storage_pb2.SIGNED_URL_OPERATION_WRITE
    if not writes and request.operation != storage_pb2.SIGNED_URL_OPERATION_READ:
        raise InvalidRequestError.of("operation", "must be READ or WRITE", "ENUM_UNKNOWN")
    role = "objects.write" if writes else "objects.read"
    if not principal.may(role):
        raise PermissionDeniedError.of_role(role)
    check_own(principal, request.object_name)
    if request.HasField("expiry"):
        seconds = request.expiry.seconds + request.expiry.nanos / 1e9
        if not 1 <= seconds <= _MOST_SECONDS:
            raise InvalidRequestError.of("expiry", "1 s to 7 days", "DURATION_RANGE")
    if request.max_size_bytes < 0 or request.if_generation_match < 0:
        raise InvalidRequestError.of("max_size_bytes", "must not be negative", "NUMBER_RANGE")
    # It becomes a header that the URL's user sends.
    if len(request.content_type) > 256 or not _HEADER_TEXT.fullmatch(request.content_type):
        raise InvalidRequestError.of(
            "content_type", "at most 256 printable ASCII characters", "CONTROL_CHARACTER"
        )


def check_spec(spec: storage_pb2.UploadSpec) -> None:
    """Pass if an upload may begin so; its name is another's to judge.

    Raises:
        InvalidRequestError: it may not.

    """
    if len(spec.content_type.encode()) > 256:
        raise InvalidRequestError.of("spec.content_type", "at most 256 bytes", "TEXT_TOO_LONG")
    if spec.upload_id:
        check_upload_id(spec.upload_id, "spec.upload_id")
    check_request_id(spec.request_id, "spec.request_id")
    if _CONTROL.search(spec.content_type) or any(
        not key or _CONTROL.search(key + value) for key, value in spec.metadata.items()
    ):
        # They become header lines in one backend and log lines in all.
        raise InvalidRequestError.of(
            "spec", "no empty key and no control character in type or pairs", "CONTROL_CHARACTER"
        )
    try:
        spec.custom_time.ToDatetime()
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError.of(
            "spec.custom_time", "is not a time from year 1 to 9999", "TIME_RANGE"
        ) from error
    if spec.size_bytes < 0 or spec.if_generation_match < 0:
        raise InvalidRequestError.of("spec", "numbers must not be negative", "NUMBER_RANGE")
    if any(key.lower().startswith(_RESERVED) for key in spec.metadata):
        raise InvalidRequestError.of(
            "spec.metadata",
            f"keys that begin with {_RESERVED} are the server's",
            "METADATA_RESERVED",
        )
    size = sum(len(key.encode()) + len(value.encode()) for key, value in spec.metadata.items())
    if len(spec.metadata) > _MAX_METADATA or size > _MAX_METADATA_BYTES:
        raise InvalidRequestError.of(
            "spec.metadata",
            f"at most {_MAX_METADATA} pairs of together {_MAX_METADATA_BYTES} bytes",
            "METADATA_TOO_LARGE",
        )


def check_request_id(request_id: str, field: str) -> None:
    """Pass if a call may be named so.

    Raises:
        InvalidRequestError: it may not.

    """
    if len(request_id) > _MAX_REQUEST_ID:
        raise InvalidRequestError.of(
            field, f"at most {_MAX_REQUEST_ID} characters", "TEXT_TOO_LONG"
        )


def check_upload_id(upload_id: str, field: str) -> None:
    """Pass if an upload may be named so.

    Raises:
        InvalidRequestError: it may not.

    """
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise InvalidRequestError.of(
            field, "1 to 128 of A-Z a-z 0-9 - _ characters", "UPLOAD_ID_FORMAT"
        )
