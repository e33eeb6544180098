"""The HTTP side port: /metrics for Prometheus, /healthz for probes, /pubsub/push for Pub/Sub, and
/objects/ for signed URLs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from liner_server.rpc.object_urls import ObjectUrls

_MOST_PUSHED_BYTES = 15 << 20
"""A message of 10 MB in base64, and what is round it."""

_IDLE_SECONDS = 75
"""Longest time for the head of a request to be there, and between two on one connection."""


class _OfOurs(logging.Filter):
    """Leaves out what a peer did wrong: its request, as long as it likes, would be in the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


_log = logging.getLogger("aiohttp.server")
_log.addFilter(_OfOurs())


@asynccontextmanager
async def side_port(
    address: str,
    *,
    registry: CollectorRegistry,
    healthy: Callable[[], bool],
    push: Callable[[web.Request], Awaitable[web.Response]] | None = None,
    urls: ObjectUrls | None = None,
    most_connections: int = 1000,
) -> AsyncIterator[int]:
    """Serve the side port while the context is open; yields the port in use.

    With `most_connections` open, one that asks for nothing makes room for a new one: probes and
    scrapes get through whoever else holds connections.

    Raises:
        OSError: the address is taken or cannot be bound.

    """
    encoding = asyncio.Lock()

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = _encoder(request.headers.get("Accept", ""))
        # One at a time: many at once would take every thread there is, and the interpreter.
        async with encoding:
            body = await asyncio.to_thread(encode, registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def health(request: web.Request) -> web.Response:
        if healthy():
            return web.Response(text="ok\n")
        return web.Response(text="stopping\n", status=503)

    connections = _Connections(most_connections)
    app = web.Application(
        client_max_size=_MOST_PUSHED_BYTES if push is not None else 1 << 20,
        middlewares=[connections.at_work],
    )
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", health)
    if push is not None:
        app.router.add_post("/pubsub/push", push)
    if urls is not None:
        urls.add_to(app.router)
    # Nothing that is asked here may come compressed: a small body could unpack to a large one.
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_log,
        shutdown_timeout=1,
        keepalive_timeout=_IDLE_SECONDS,
        auto_decompress=False,
    )
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        listening = await asyncio.get_running_loop().create_server(
            connections.of(runner), host.strip("[]"), int(port)
        )
        try:
            yield int(listening.sockets[0].getsockname()[1])
        finally:
            listening.close()
    finally:
        await runner.cleanup()


class _Connections:
    """The connections of a server, and which of them are at work on a request."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._at_work: set[object] = set()

    def of(self, runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of a new connection, and room for it."""

        def make() -> asyncio.Protocol:
            server = runner.server
            if server is None:
                return _Closing()
            # In the order in which they came; those without a transport are closed already.
            there = [each for each in server.connections if each.transport is not None]
            if len(there) >= self._most:
                idle = next((each for each in there if each not in self._at_work), None)
                if idle is None:
                    return _Closing()
                idle.force_close()
            return server()

        return make

    @web.middleware
    async def at_work(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Note which connections are at work; a middleware."""
        self._at_work.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._at_work.discard(request.protocol)


class _Closing(asyncio.Protocol):
    """Ends a connection as it comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return how metrics are written for whom accepts this; as plain text if that makes no sense.

    The library stumbles over versions that are no numbers.
    """
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
