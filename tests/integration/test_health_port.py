"""A worker that somebody probes by gRPC, as Cloud Run does."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from liner.v1 import enrichment_pb2, enrichment_pb2_grpc
from liner_server.rpc.health_port import HealthPort
from liner_server.rpc.identity import new_token
from support.grpc_errors import fails

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_turns_when_it_drains() -> None:
    """A probe must not keep a process that is on its way out."""
    async with (
        HealthPort("127.0.0.1:0") as health,
        grpc.aio.insecure_channel(f"127.0.0.1:{health.port}") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        first = (await watch.read()).status
        await health.drain()
        second = (await watch.read()).status
        watch.cancel()

    assert (first, second) == (SERVING, NOT_SERVING)


async def test_a_port_that_is_taken_says_so() -> None:
    """Probes that reach another process tell lies."""
    async with HealthPort("127.0.0.1:0") as health:
        with pytest.raises(OSError, match="cannot listen"):
            await HealthPort(f"127.0.0.1:{health.port}").__aenter__()


async def test_a_worker_answers_probes_on_port_and_nothing_else(tmp_path: Path) -> None:
    """Cloud Run stops a service that does not listen on PORT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, line = new_token("ops", ["admin"])
    (tmp_path / "tokens").write_text(line + "\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "liner_server", "worker"),
        env={
            **os.environ,
            "PORT": str(port),
            "LINER_TOKENS_FILE": str(tmp_path / "tokens"),
            "LINER_DATA_DIR": str(tmp_path / "data"),
            "LINER_HTTP_ADDRESS": "127.0.0.1:0",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert b"worker ready" in await process.stdout.readline()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            status = (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status
            async with fails(grpc.StatusCode.UNIMPLEMENTED):
                await enrichment_pb2_grpc.EnrichmentServiceStub(channel).ListModels(
                    enrichment_pb2.ListModelsRequest(), timeout=5
                )
        process.terminate()
        async with asyncio.timeout(9.5):
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert status == SERVING
    assert code == 0
