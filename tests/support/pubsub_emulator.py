"""The real Pub/Sub emulator, one process for all tests that want it."""

import atexit
import contextlib
import functools
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Self

import grpc
from liner_server.cloud_parts import Part
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_setup import set_up
from liner_server.queues.pubsub_wire import Names

from support.external import missing, program
from support.ports import free_port

_INSTALL = "apt-get install google-cloud-cli-pubsub-emulator (needs Java), or LINER_PUBSUB_EMULATOR"
_DEBIAN = Path("/usr/lib/google-cloud-sdk/platform/pubsub-emulator/bin/cloud-pubsub-emulator")


class Emulator:
    """A Pub/Sub emulator on loopback: `with Emulator() as emulator`. A restart forgets all."""

    def __init__(self) -> None:
        elsewhere = os.environ.get("LINER_PUBSUB_EMULATOR") or not _DEBIAN.exists()
        self._program = (
            program("cloud-pubsub-emulator", install=_INSTALL, variable="LINER_PUBSUB_EMULATOR")
            if elsewhere
            else _DEBIAN
        )
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        """HOST:PORT, as PUBSUB_EMULATOR_HOST wants it."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, empty, and return when it answers."""
        with tempfile.TemporaryFile() as log:
            try:
                self._process = subprocess.Popen(
                    [self._program, "--host=127.0.0.1", f"--port={self._port}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            except OSError as error:
                missing(f"the Pub/Sub emulator ({error})", install=_INSTALL)
            with grpc.insecure_channel(self.address) as channel:
                ready = grpc.channel_ready_future(channel)
                end = time.monotonic() + 40
                while True:
                    with contextlib.suppress(grpc.FutureTimeoutError):
                        ready.result(timeout=0.2)
                        return
                    if self._process.poll() is not None or time.monotonic() > end:
                        self.stop()
                        log.seek(0)
                        tail = log.read()[-500:].decode(errors="replace")
                        missing(f"a Pub/Sub emulator that starts ({tail!r})", install=_INSTALL)

    def stop(self) -> None:
        """End it; what it kept is gone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@functools.cache
def shared_emulator() -> Emulator:
    """Return the emulator that the whole run shares; queues keep apart by their names."""
    emulator = Emulator()
    emulator.start()
    atexit.register(emulator.stop)
    return emulator


def fresh_names() -> Names:
    """Return names that no other queue has."""
    word = f"t{uuid.uuid4().hex[:12]}"
    return Names(project="liner-test", topic=word, subscription=word)


@asynccontextmanager
async def gateway(emulator: Emulator) -> AsyncIterator[Gateway]:
    """Yield the calls to the emulator."""
    async with Gateway(emulator=emulator.address) as opened:
        yield opened


def settings_on(names: Names) -> dict[str, str]:
    """Return the settings of a service on these topics of the shared emulator."""
    return {
        "queue": "pubsub",
        "google_cloud_project": names.project,
        "pubsub_topic": names.topic,
        "pubsub_subscription": names.subscription,
        "pubsub_emulator_host": shared_emulator().address,
    }


async def create(emulator: Emulator, names: Names) -> list[Part]:
    """Make a queue's topics and subscriptions; what a killed worker held comes back in 10 s."""
    async with gateway(emulator) as opened:
        return [part async for part in set_up(opened, names, hold=timedelta(seconds=10))]
