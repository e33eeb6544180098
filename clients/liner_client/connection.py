"""One channel to a server, and what every call over it carries."""

import ipaddress
import json
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import grpc
from liner.v1 import (
    enrichment_pb2_grpc,
    experiment_pb2_grpc,
    queue_admin_pb2_grpc,
    storage_pb2_grpc,
)

from liner_client.errors import from_call

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_IDEMPOTENT = {
    "liner.v1.EnrichmentService": (
        "EnrichMetadata",
        "ValidateMetadata",
        "GetEnrichment",
        "ListEnrichments",
        # Safe because the client names every review.
        "ReviewEnrichment",
        # Safe because the client names every submission.
        "SubmitEnrichment",
        "ListModels",
    ),
    "liner.v1.QueueAdmin": (
        "GetStats",
        "PauseQueue",
        "ResumeQueue",
        "ListMessages",
        "GetMessage",
        "ListDeadLetters",
        # Safe because the client names every replay.
        "ReplayDeadLetters",
    ),
    "liner.v1.StorageService": ("StatObject", "ListObjects", "QueryUpload", "GetSignedURL"),
    "liner.v1.ExperimentAdmin": ("GetReport", "ListExperiments"),
    "grpc.health.v1.Health": ("Check",),
}

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": service, "method": method}
                for service, methods in _IDEMPOTENT.items()
                for method in methods
            ],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Retries stop while most calls fail, so that clients do not hold a struggling server down.
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
}

_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # Answers with long lyrics, a hundred a message, pass the default of 4 MiB.
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    # A server that comes back is found again within seconds; the default backs off to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """An open channel with its identity and default deadline."""

    channel: grpc.aio.Channel

    token: str | None
    """Sent as a bearer token with every call; None: the server must not want one."""

    deadline: timedelta
    """Longest time of a unary call that names none."""

    enrichment: "enrichment_pb2_grpc.EnrichmentServiceAsyncStub" = field(init=False)
    storage: "storage_pb2_grpc.StorageServiceAsyncStub" = field(init=False)
    queue: "queue_admin_pb2_grpc.QueueAdminAsyncStub" = field(init=False)

    experiment: "experiment_pb2_grpc.ExperimentAdminAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "enrichment", enrichment_pb2_grpc.EnrichmentServiceStub(self.channel)
        )
        object.__setattr__(self, "storage", storage_pb2_grpc.StorageServiceStub(self.channel))
        object.__setattr__(self, "queue", queue_admin_pb2_grpc.QueueAdminStub(self.channel))
        object.__setattr__(
            self, "experiment", experiment_pb2_grpc.ExperimentAdminStub(self.channel)
        )

    def metadata(self, request_id: str) -> grpc.aio.Metadata:
        """Return what one call sends beside its messages."""
        metadata = grpc.aio.Metadata(("liner-request-id", request_id))
        if self.token is not None:
            metadata.add("authorization", f"Bearer {self.token}")
        return metadata

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        *,
        deadline: timedelta | None = None,
        request_id: str | None = None,
    ) -> _Response:
        """Return the answer to one call, or raise a LinerError."""
        request_id = request_id or new_request_id()
        try:
            return await method(
                request,
                timeout=(deadline or self.deadline).total_seconds(),
                metadata=self.metadata(request_id),
            )
        except grpc.aio.AioRpcError as failure:
            raise from_call(failure, request_id=request_id) from None


def connect(
    target: str,
    *,
    token: str | None,
    tls: bool,
    root_certificates: bytes | None,
    plaintext_token: bool,
    deadline: timedelta,
) -> Connection:
    """Return a connection to `target`; nothing is sent before the first call.

    A token is a password. It is refused on a plaintext channel that leaves this machine, unless
    the caller says that something else, a service mesh say, encrypts the way.
    """
    if token is not None and not tls and not plaintext_token and not _is_local(target):
        raise ValueError(
            f"a token would travel to {target} in plain text: use TLS,"
            " or allow it where something else encrypts the way"
        )
    if tls:
        credentials = grpc.ssl_channel_credentials(root_certificates)
        channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
    return Connection(channel=channel, token=token, deadline=deadline)


def new_request_id() -> str:
    """Return a name for one request."""
    return str(uuid.uuid4())


def _is_local(target: str) -> bool:
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.removeprefix("dns:").lstrip("/").rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
