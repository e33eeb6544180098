"""Liner's client: enrich and validate track metadata, move audio, from async Python.

Messages are those of the contract, `from liner.v1 import track_pb2, enrichment_pb2`.
"""

from liner_client.batch import BatchEvent, Items
from liner_client.client import LinerClient
from liner_client.errors import (
    AlreadyExistsError,
    ConflictError,
    DataLossError,
    DeadlineError,
    FailedPreconditionError,
    InvalidAudioError,
    InvalidRequestError,
    LinerError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from liner_client.health import ServingStatus

__all__ = [
    "AlreadyExistsError",
    "BatchEvent",
    "ConflictError",
    "DataLossError",
    "DeadlineError",
    "FailedPreconditionError",
    "InvalidAudioError",
    "InvalidRequestError",
    "Items",
    "LinerClient",
    "LinerError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "ServingStatus",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
]
