"""The HTTP side port: /metrics for Prometheus, /healthz for probes, /pubsub/push for Pub/Sub, and
/objects/ for signed URLs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from liner_server.rpc.object_urls import ObjectUrls

_MOST_PUSHED_BYTES = 15 << 20
"""A message of 10 MB in base64, and what is round it."""


@asynccontextmanager
async def side_port(
    address: str,
    *,
    registry: CollectorRegistry,
    healthy: Callable[[], bool],
    push: Callable[[web.Request], Awaitable[web.Response]] | None = None,
    urls: ObjectUrls | None = None,
) -> AsyncIterator[int]:
    """Serve the side port while the context is open; yields the port in use.

    Raises:
        OSError: the address is taken or cannot be bound.

    """

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.to_thread(encode, registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def health(request: web.Request) -> web.Response:
        if healthy():
            return web.Response(text="ok\n")
        return web.Response(text="stopping\n", status=503)

    app = web.Application(client_max_size=_MOST_PUSHED_BYTES if push is not None else 1 << 20)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", health)
    if push is not None:
        app.router.add_post("/pubsub/push", push)
    if urls is not None:
        urls.add_to(app.router)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        host, _, port = address.rpartition(":")
        site = web.TCPSite(runner, host.strip("[]"), int(port))
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
