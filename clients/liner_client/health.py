"""Asking grpc.health.v1, without the package that exists for servers.

The two messages are tiny and frozen. They live in a pool of their own, so that a program that
also imports grpcio-health-checking does not meet the same file twice.
"""

from datetime import timedelta
from enum import Enum
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from liner_client.connection import Connection


class ServingStatus(Enum):
    """What a server says of a service, numbered as on the wire."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


def _messages() -> tuple[type[Message], type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    kind = descriptor_pb2.FieldDescriptorProto
    file.message_type.add(name="HealthCheckRequest").field.add(
        name="service", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL
    )
    # An enum and an int32 are the same on the wire.
    file.message_type.add(name="HealthCheckResponse").field.add(
        name="status", number=1, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.health.v1.{name}"))
        for name in ("HealthCheckRequest", "HealthCheckResponse")
    )
    return request, response


_HealthCheckRequest, _HealthCheckResponse = _messages()


async def check(connection: Connection, service: str, *, deadline: timedelta) -> ServingStatus:
    """Return the status of one service, or of the server as a whole when `service` is empty."""
    method = connection.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=_HealthCheckRequest.SerializeToString,
        response_deserializer=_HealthCheckResponse.FromString,
    )
    answer: Any = await connection.unary(
        method, _HealthCheckRequest(service=service), deadline=deadline
    )
    return ServingStatus(answer.status)
