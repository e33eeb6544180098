"""Starts the real server for a test: in this process, or as a process of its own."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from liner.v1 import (
    enrichment_pb2_grpc,
    experiment_pb2_grpc,
    queue_admin_pb2_grpc,
    storage_pb2_grpc,
)
from liner_server.app import App, running
from liner_server.settings import load

_READY = re.compile(r"^liner-server ready grpc=(\S+) http=(\S+)$")


@dataclass(frozen=True, kw_only=True)
class Stubs:
    """Stubs of every service on one channel."""

    channel: grpc.aio.Channel
    enrichment: "enrichment_pb2_grpc.EnrichmentServiceAsyncStub"
    storage: "storage_pb2_grpc.StorageServiceAsyncStub"
    queue: "queue_admin_pb2_grpc.QueueAdminAsyncStub"
    experiment: "experiment_pb2_grpc.ExperimentAdminAsyncStub"


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Stubs]:
    """Yield stubs for a server's address."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield Stubs(
            channel=channel,
            enrichment=enrichment_pb2_grpc.EnrichmentServiceStub(channel),
            storage=storage_pb2_grpc.StorageServiceStub(channel),
            queue=queue_admin_pb2_grpc.QueueAdminStub(channel),
            experiment=experiment_pb2_grpc.ExperimentAdminStub(channel),
        )


@asynccontextmanager
async def served(data_dir: Path, **overrides: object) -> AsyncIterator[tuple[App, Stubs]]:
    """Yield the whole service, running in this process on free loopback ports, and its stubs."""
    settings = load(
        **{
            "grpc_address": "127.0.0.1:0",
            "http_address": "127.0.0.1:0",
            "data_dir": data_dir,
            "drain_seconds": 2.0,
            "listening_processes": 1,
            **overrides,
        }
    )
    async with running(settings) as app, connected(app.grpc_address) as stubs:
        yield app, stubs


@dataclass(kw_only=True)
class ServerProcess:
    """A server in a process of its own."""

    process: asyncio.subprocess.Process
    grpc_address: str
    http_address: str

    async def terminate(self, *, within: float = 9.5) -> int:
        """Send SIGTERM and return the exit code.

        Raises:
            TimeoutError: it did not end within so many seconds.

        """
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(within):
            return await self.process.wait()


@asynccontextmanager
async def server_process(
    data_dir: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[ServerProcess]:
    """Yield `liner-server serve` on free loopback ports; killed if it still runs at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "liner_server",
        "serve",
        env={
            **os.environ,
            "LINER_GRPC_ADDRESS": "127.0.0.1:0",
            "LINER_HTTP_ADDRESS": "127.0.0.1:0",
            "LINER_DATA_DIR": str(data_dir),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode().strip()
        match = _READY.match(line)
        assert match, f"the server said {line!r} and not where it listens"
        yield ServerProcess(process=process, grpc_address=match[1], http_address=match[2])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
