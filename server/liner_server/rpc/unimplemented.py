"""Services whose part of the contract this release does not answer yet: each says so."""

from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from liner.v1 import experiment_pb2

from liner_server.errors import UnimplementedError

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_EXPERIMENT = experiment_pb2.DESCRIPTOR.services_by_name["ExperimentAdmin"]
SERVICES = (_EXPERIMENT.full_name,)
"""Full names of the services answered here."""


def handlers() -> list[grpc.GenericRpcHandler]:
    """Return handlers that answer every method of these services with UNIMPLEMENTED and why."""
    from google.protobuf import message_factory

    found = []
    for service, why in ((_EXPERIMENT, "experiments"),):
        methods = {}
        for method in service.methods:
            request: type[Message] = message_factory.GetMessageClass(method.input_type)
            make = _unary_stream if method.server_streaming else _unary
            methods[method.name] = make(f"{method.name} ({why})", request)
        found.append(grpc.method_handlers_generic_handler(service.full_name, methods))
    return found


def _unary(what: str, request: type[Message]) -> _Handler:
    async def refuse(message: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        raise UnimplementedError(what)

    return grpc.unary_unary_rpc_method_handler(
        refuse, request.FromString, lambda response: response.SerializeToString()
    )


def _unary_stream(what: str, request: type[Message]) -> _Handler:
    async def refuse(message: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        raise UnimplementedError(what)
        yield  # makes it a stream, as the contract says

    return grpc.unary_stream_rpc_method_handler(
        refuse, request.FromString, lambda response: response.SerializeToString()
    )
