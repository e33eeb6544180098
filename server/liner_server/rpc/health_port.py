"""grpc.health.v1 alone, for a process that serves nothing else: what Cloud Run's probes ask."""

from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from liner_server.rpc.accepting import tolerate_undecodable_names


class HealthPort:
    """Answers SERVING for as long as its context is open, and NOT_SERVING once it drains.

    `async with HealthPort(address) as health`. Open to everybody, like health on the server: it
    tells nothing else.

    Raises:
        OSError: the address is taken or cannot be bound.

    """

    def __init__(self, address: str) -> None:
        self._address = address
        tolerate_undecodable_names()
        # No reuse: another process on this port would answer every second probe.
        options = (("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 16))
        self._server = grpc.aio.server(options=options)
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = 0
        """The port in use; known once open, also when 0 was asked for."""

    async def __aenter__(self) -> Self:
        try:
            self.port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {error}") from error
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def drain(self) -> None:
        """Say NOT_SERVING from now on; may be called twice."""
        await self._health.enter_graceful_shutdown()
