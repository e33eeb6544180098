"""Kills whoever takes part in a queue's work, again and again, and counts what became of it.

    producers  submit jobs by gRPC and write down what was acknowledged (`chaos_producer`)
    server     takes jobs and works on them: `liner-server serve`
    worker     only works on them, in the server's place: `liner-server worker`

They die at random moments and at failpoints. What the producers wrote down is held against the
files afterwards: nothing of the service's own counting is believed.
"""

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from liner.v1 import queue_admin_pb2
from liner_server.failpoints import Point

from support.eventually import eventually
from support.queue_ledger import Ledger, Verdict, interrupted, judge
from support.server import connected

ON_THE_QUEUE = [point for point in Point if point is not Point.AFTER_SEND]
"""Failpoints of the embedded queue."""

_TESTS = Path(__file__).parents[1]
_SERVER = ("-m", "liner_server")


@dataclass(kw_only=True)
class Chaos:
    """What shall happen, and then what did."""

    messages: int
    kills: int
    seed: int = 1
    producers: int = 2
    program: Sequence[str] = _SERVER
    """What is started as the server: Python's arguments before `serve` or `worker`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Settings of the server and the worker."""
    queue_file: str = "queue"
    points: Sequence[Point] = field(default_factory=lambda: list(ON_THE_QUEUE))

    killed: Counter[str] = field(default_factory=Counter)
    """Kills by role."""
    at: Counter[str] = field(default_factory=Counter)
    """Kills of the server or the worker by where: a failpoint, or "random"."""
    acknowledged: int = 0
    again: int = 0
    """Jobs that were being worked on at a kill, and so were worked on again."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from a kill until the next process was ready."""
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    async def run(self, folder: Path, *, through: Sequence[Point] = ()) -> None:
        """Do it all: afterwards every job was acknowledged and nothing waits.

        Before the random kills the server dies once at each of the failpoints `through`.
        """
        began = time.monotonic()
        self._rng = random.Random(self.seed)
        self._data = folder / "data"
        self._address = f"127.0.0.1:{_free_port()}"
        self._ledgers = [folder / f"ledger-{n}" for n in range(self.producers)]
        async with AsyncExitStack() as stack:
            self._running = [
                await stack.enter_async_context(self._producer(n)) for n in range(self.producers)
            ]
            for point in through:
                await self._die_at(point)
            while sum(self.killed.values()) < self.kills:
                await self._life(stack)
            await self._last_life()
            for producer in self._running:
                assert await producer.wait() == 0, "a producer was told something else"
        told: dict[str, set[str]] = {}
        for path in self._ledgers:
            with Ledger(path) as ledger:
                told.update(ledger.jobs())
        self.acknowledged = len(told)
        self.verdict = judge(told, self._data, queue_file=self.queue_file)
        self.seconds = time.monotonic() - began

    def report(self) -> str:
        """Return what happened, in a few lines."""
        slow = sorted(self.recoveries)
        found = self.verdict
        roles = ", ".join(f"{name} {n}" for name, n in sorted(self.killed.items()))
        places = ", ".join(f"{name} {n}" for name, n in sorted(self.at.items()))
        return (
            f"messages {self.acknowledged}, kills {sum(self.killed.values())} ({roles})\n"
            f"server and worker killed at: {places}\n"
            f"lost {len(found.lost)}, stored twice {len(found.doubled)}, left on the queue with a "
            f"result {len(found.both)}, done {found.done}, dead letters {found.waiting}\n"
            f"re-executed {100 * self.again / max(1, self.acknowledged):.2f} %, recovery p50 "
            f"{slow[len(slow) // 2]:.2f} s, p99 {slow[int(len(slow) * 0.99)]:.2f} s; "
            f"{self.seconds:.0f} s in all"
        )

    async def _life(self, stack: AsyncExitStack) -> None:
        """One process from its start to its violent end."""
        # In turn: by chance alone a short run may leave a role out.
        role = "worker" if sum(self.at.values()) % 3 == 1 else "server"
        point = self._rng.choice(self.points) if self._rng.random() < 0.5 else None
        since = time.monotonic()
        fault = f"{point}:{self._rng.randrange(1, 200)}" if point else ""
        async with self._process(role, fault) as process:
            if process.returncode is None:
                self.recoveries.append(time.monotonic() - since)
            if not self.killed["producer"] or self._rng.random() < 0.6:
                await self._kill_a_producer(stack)
            # Deaths of servers, about half of all, are spread over the messages.
            share = 2 * self.messages / self.kills
            enough = self._told() + self._rng.uniform(0.2, 1.8) * share
            # A worker takes no jobs, and a failpoint may lie where this process never comes by.
            end = time.monotonic() + self._rng.uniform(0.2, 1.5) * (1 if role == "worker" else 6)
            while process.returncode is None and time.monotonic() < end:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02 + 0.05 * self._rng.random()):
                        await process.wait()
                if role == "server" and point is None and self._told() >= enough:
                    break
            if process.returncode is None:
                process.kill()
                point = None
            assert await process.wait() == -9, "it ended otherwise than by a kill"
        self._buried(role, point or "random")

    async def _die_at(self, point: Point) -> None:
        async with self._process("server", f"{point}:{self._rng.randrange(1, 30)}") as process:
            try:
                async with asyncio.timeout(60):
                    assert await process.wait() == -9, "it ended otherwise than by a kill"
            except TimeoutError:
                raise AssertionError(f"nobody came by {point}") from None
        self._buried("server", point)

    def _buried(self, role: str, at: str) -> None:
        self.killed[role] += 1
        self.at[at] += 1
        if (self._data / "results.sqlite").exists():
            self.again += interrupted(self._data, queue_file=self.queue_file)

    async def _last_life(self) -> None:
        """A server that nobody kills finishes what is left."""
        async with (
            self._process("server", "") as process,
            connected(self._address) as stubs,
        ):

            async def idle() -> bool:
                request = queue_admin_pb2.GetStatsRequest()
                stats = (await stubs.queue.GetStats(request)).stats
                left = any(p.ready + p.delayed + p.leased for p in stats.priorities)
                return self._told() == self.messages and not left

            await eventually(idle, within=3600)
            process.terminate()
            assert await process.wait() == 0

    async def _kill_a_producer(self, stack: AsyncExitStack) -> None:
        number = self._rng.randrange(self.producers)
        process = self._running[number]
        if process.returncode is not None:
            return
        process.kill()
        await process.wait()
        self.killed["producer"] += 1
        self._running[number] = await stack.enter_async_context(self._producer(number))

    def _told(self) -> int:
        """Return how many jobs were acknowledged so far."""
        return sum(_lines(path) for path in self._ledgers)

    @asynccontextmanager
    async def _process(self, role: str, fault: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Yield a process that is ready, or died at its failpoint before it was."""
        environment = {
            "LINER_GRPC_ADDRESS": self._address,
            "LINER_HTTP_ADDRESS": "127.0.0.1:0",
            "LINER_DATA_DIR": str(self._data),
            "LINER_LOG_LEVEL": "ERROR",
            "LINER_LISTENING_PROCESSES": "1",
            # Jobs that had nothing to do with a death must not become dead letters for it.
            "LINER_QUEUE_MAX_ATTEMPTS": "100",
            **self.environment,
        }
        if fault:
            environment["LINER_FAILPOINTS"] = fault
        command = "serve" if role == "server" else "worker"
        async with _started(*self.program, command, environment=environment) as process:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                line = (await process.stdout.readline()).decode()
            if "ready" not in line:
                async with asyncio.timeout(10):
                    await process.wait()
            yield process

    @asynccontextmanager
    async def _producer(self, number: int) -> AsyncIterator[asyncio.subprocess.Process]:
        count = self.messages // self.producers + (number < self.messages % self.producers)
        told = (self._address, str(self._ledgers[number]), f"p{number}-", str(count))
        async with _started("-m", "support.chaos_producer", *told, environment={}) as process:
            yield process


@asynccontextmanager
async def _started(
    *arguments: str, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    path = (str(_TESTS), os.environ.get("PYTHONPATH"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **environment},
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _free_port() -> int:
    # Below the ephemeral range: the server comes back to it again and again.
    for port in random.SystemRandom().sample(range(12_000, 18_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")
