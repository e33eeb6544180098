"""What the server process costs: start, idle memory, the event loop while audio is heard, a batch.

    make bench

Prints one line a figure with its target, and judges none: these are measurements, not tests. CPU
is read from the kernel's counters of the server process, so other work on the machine does not
count. Needs nothing but this machine.
"""

import asyncio
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest
from liner.v1 import enrichment_pb2, track_pb2
from support.server import connected, server_process

_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
_SONG = (
    "from pathlib import Path; import sys;"
    "from liner_server.evaluation.encode import write;"
    "from liner_server.evaluation.synth import Piece, render;"
    "write(Path(sys.argv[1]), render(Piece(bpm=124.0, key='F minor', seconds=30.0)), 44_100)"
)


def _say(what: str, figure: str, target: str) -> None:
    sys.stdout.write(f"{what:<58} {figure:>14}   target {target}\n")


async def test_starting(tmp_path: Path) -> None:
    """Start-up and idling."""
    async with server_process(tmp_path) as server:
        process = psutil.Process(server.process.pid)
        times = process.cpu_times()
        _say("process start to SERVING, CPU", f"{times.user + times.system:.2f} s", "<= 1.0 s")
        await asyncio.sleep(2)
        _say("idle memory (RSS)", f"{process.memory_info().rss / 2**20:.0f} MiB", "<= 150 MiB")


def _lag(address: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics") as response:
        text = response.read().decode()
    found = re.search(r"^liner_event_loop_lag_seconds (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_listening(tmp_path: Path, song: Path) -> None:
    """The event loop must not notice that audio is heard."""
    async with (
        server_process(tmp_path, {"LINER_ANSWER_CACHE_ENTRIES": "0"}) as server,
        connected(server.grpc_address) as stubs,
    ):
        process = psutil.Process(server.process.pid)
        audio = track_pb2.Audio(inline=song.read_bytes())
        request = enrichment_pb2.EnrichMetadataRequest(track=track_pb2.Track(audio=audio))
        await stubs.enrichment.EnrichMetadata(request, timeout=60)
        before = sum(process.cpu_times()[:2])
        began = time.perf_counter()
        worst = 0.0
        calls = {
            asyncio.ensure_future(stubs.enrichment.EnrichMetadata(request, timeout=120))
            for _ in range(24)
        }
        while calls:
            _, calls = await asyncio.wait(calls, timeout=0.5)
            worst = max(worst, await asyncio.to_thread(_lag, server.http_address))
        wall = time.perf_counter() - began
        cpu = sum(process.cpu_times()[:2]) - before
        _say(
            "event loop late at worst while 24 files are heard", f"{worst * 1e3:.0f} ms", "<= 50 ms"
        )
        _say("server process CPU a file heard", f"{cpu / 24 * 1e3:.1f} ms", "-")
        _say("30 s files heard a second, all CPUs", f"{24 / wall:.2f}", "-")


async def test_refusing(tmp_path: Path) -> None:
    """Calls that fail must not leave their payloads behind until the collector comes by."""
    async with server_process(tmp_path) as server, connected(server.grpc_address) as stubs:
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        for number in range(200):
            audio = track_pb2.Audio(inline=number.to_bytes(2) + os.urandom(1_900_000))
            request = enrichment_pb2.EnrichMetadataRequest(track=track_pb2.Track(audio=audio))
            with suppress(grpc.RpcError):
                await stubs.enrichment.EnrichMetadata(request, timeout=60)
        grown = process.memory_info().rss - before
        _say("memory kept after 200 refused files of 1.9 MB", f"{grown / 2**20:.0f} MiB", "-")


async def test_streaming(tmp_path: Path) -> None:
    """What a track without audio costs in a stream."""
    count = 5000
    async with (
        server_process(
            tmp_path,
            {"LINER_ANSWER_CACHE_ENTRIES": "0", "LINER_BATCH_MAX_IN_FLIGHT": "64"},
        ) as server,
        connected(server.grpc_address) as stubs,
    ):
        process = psutil.Process(server.process.pid)

        def requests():
            yield enrichment_pb2.BatchProcessRequest(config=enrichment_pb2.BatchConfig())
            for at in range(0, count, 50):
                yield enrichment_pb2.BatchProcessRequest(
                    items=enrichment_pb2.BatchItems(
                        items=[
                            enrichment_pb2.BatchItem(
                                item_id=str(n),
                                track=track_pb2.Track(
                                    title=f"Song {n}",
                                    artists=[track_pb2.Artist(name="Ana")],
                                    isrc="USRC17607839",
                                    bpm=120,
                                ),
                            )
                            for n in range(at, at + 50)
                        ]
                    )
                )

        before = sum(process.cpu_times()[:2])
        async for _ in stubs.enrichment.BatchProcess(requests()):
            pass
        cpu = sum(process.cpu_times()[:2]) - before
        _say(
            f"server CPU a track without audio, stream of {count}",
            f"{cpu / count * 1e6:.0f} us",
            "-",
        )
        _say("memory after it (RSS)", f"{process.memory_info().rss / 2**20:.0f} MiB", "-")


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty seconds of music."""
    path = tmp_path_factory.mktemp("audio") / "song.ogg"
    # In a process of its own: numpy's memory and time are not the client's.
    subprocess.run([sys.executable, "-c", _SONG, str(path)], check=True, env=_ENVIRONMENT)
    return path
