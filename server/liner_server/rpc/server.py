"""The gRPC server: limits, services, health, and the order in which it stops."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from liner.v1 import (
    enrichment_pb2,
    enrichment_pb2_grpc,
    experiment_pb2,
    experiment_pb2_grpc,
    queue_admin_pb2,
    queue_admin_pb2_grpc,
    storage_pb2,
    storage_pb2_grpc,
)

from liner_server.rpc import accepting
from liner_server.rpc.interceptors import CallInterceptor, Running

MAX_MESSAGE_BYTES = 4 << 20
_ENRICHMENT = enrichment_pb2.DESCRIPTOR.services_by_name["EnrichmentService"].full_name
_STORAGE = storage_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name
_QUEUE = queue_admin_pb2.DESCRIPTOR.services_by_name["QueueAdmin"].full_name
_EXPERIMENT = experiment_pb2.DESCRIPTOR.services_by_name["ExperimentAdmin"].full_name
SERVING = (_ENRICHMENT, _STORAGE, _QUEUE, _EXPERIMENT)

_OPTIONS = (
    # One client that resets streams in a row must not take the others' places.
    ("grpc.max_concurrent_streams", 100),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A batch message holds up to 50 results with lyrics.
    ("grpc.max_send_message_length", 8 << 20),
    ("grpc.max_connection_idle_ms", 15 * 60 * 1000),
    ("grpc.keepalive_time_ms", 60 * 1000),
    ("grpc.http2.min_ping_interval_without_data_ms", 20 * 1000),
    # Who connects and does not even say what it speaks.
    ("grpc.server_handshake_timeout_ms", 20 * 1000),
    ("grpc.so_reuseport", 0),
)


class GrpcServer:
    """Serves the contract on one address until it is drained."""

    def __init__(
        self,
        *,
        address: str,
        interceptor: CallInterceptor,
        enrichment: enrichment_pb2_grpc.EnrichmentServiceServicer,
        storage: storage_pb2_grpc.StorageServiceServicer,
        queue: queue_admin_pb2_grpc.QueueAdminServicer,
        experiments: experiment_pb2_grpc.ExperimentAdminServicer,
        running: Running,
        use_reflection: bool,
        use_channelz: bool,
        most_connections: int = 16_384,
    ) -> None:
        self._address = address
        self._running = running
        accepting.tolerate_undecodable_names()
        options = (*_OPTIONS, ("grpc.max_allowed_incoming_connections", most_connections))
        self._server = grpc.aio.server(interceptors=(interceptor,), options=options)
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        enrichment_pb2_grpc.add_EnrichmentServiceServicer_to_server(enrichment, self._server)
        storage_pb2_grpc.add_StorageServiceServicer_to_server(storage, self._server)
        queue_admin_pb2_grpc.add_QueueAdminServicer_to_server(queue, self._server)
        experiment_pb2_grpc.add_ExperimentAdminServicer_to_server(experiments, self._server)
        if use_reflection:
            names = (*SERVING, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)
        if use_channelz:
            from grpc_channelz.v1 import channelz

            channelz.add_channelz_servicer(self._server)
        self._accepting: set[asyncio.Task[Any]] = set()
        self.port = 0
        """The port in use; known once started, also when 0 was asked for."""

    async def start(self) -> None:
        """Bind, serve, and say SERVING.

        Raises:
            OSError: the address is taken or cannot be bound.

        """
        try:
            self.port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {error}") from error
        others = accepting.loops()
        await self._server.start()
        self._accepting = accepting.loops() - others
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", *SERVING):
            await self._health.set(name, serving)

    async def drain(self, grace: timedelta, on_drain: Sequence[Callable[[], None]]) -> None:
        """Say NOT_SERVING, take no new calls, give running ones `grace`, then end them."""
        await self._health.enter_graceful_shutdown()
        for notify in on_drain:
            notify()
        stopped = asyncio.create_task(self._server.stop(grace.total_seconds()))
        idle = asyncio.create_task(self._running.idle())
        await asyncio.wait((stopped, idle), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        # What is left are watches of health and reflection, which end by themselves never.
        await self._server.stop(None)
        await stopped
        # stop() may return while handlers still run (grpc issue 37239); databases close next.
        await self._running.wait(timedelta(seconds=1))

    async def wait(self) -> None:
        """Return when the server accepts no more calls.

        Raises:
            Exception: what made it stop, if nobody asked it to.

        """
        if not self._accepting:
            await self._server.wait_for_termination()
        ended, _ = await asyncio.wait(self._accepting)
        for loop in ended:
            loop.result()


async def watch_loop(record: Callable[[float], None]) -> None:
    """Measure how late the event loop is, once a second, until cancelled."""
    loop = asyncio.get_running_loop()
    worst, report = 0.0, loop.time() + 1
    while True:
        due = loop.time() + 0.05
        await asyncio.sleep(0.05)
        worst = max(worst, loop.time() - due)
        if loop.time() >= report:
            record(worst)
            worst, report = 0.0, loop.time() + 1
