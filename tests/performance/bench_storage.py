"""What storing costs: memory, rate beside a handler that only counts, cuts, clean-ups.

    make bench STORAGE=1

Prints one line a figure with its target, and judges none. The server and the counting handler are
processes of their own; rates are compared in turns of the same run, so that other work on the
machine slows both. BENCH_GIB (4), BENCH_CUTS (200) and BENCH_OBJECTS (1,000,000) set the sizes.
Objects lie on the disk of pytest's temporary folder (--basetemp), and an upload is done when that
disk has it: where it is slower than the network, its rate is the disk's. The comparison with a
handler that only counts is therefore also made in /dev/shm, whose disk costs next to nothing.
"""

import asyncio
import hashlib
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import google_crc32c
import grpc
import psutil
import pytest
from liner.v1 import storage_pb2
from liner_server.core.retention import RetentionPolicy
from liner_server.objects.index import Index
from liner_server.objects.local import LocalObjectStore
from liner_server.objects.retention import Retention
from support.http import fetch
from support.server import Stubs, connected, server_process

_GIB = float(os.environ.get("BENCH_GIB", "4"))
_CUTS = int(os.environ.get("BENCH_CUTS", "200"))
_OBJECTS = int(os.environ.get("BENCH_OBJECTS", "1000000"))
_MIB = 1 << 20
_CHUNK = bytes(range(256)) * 4096
"""1 MiB, the largest that a message may hold."""

_COUNTING = """
import asyncio, sys, grpc
from liner.v1 import storage_pb2, storage_pb2_grpc

class Counting(storage_pb2_grpc.StorageServiceServicer):
    async def Upload(self, requests, context):
        size = 0
        async for request in requests:
            size += len(request.chunk.data)
        return storage_pb2.UploadResponse(object=storage_pb2.StoredObject(size_bytes=size))

async def main():
    server = grpc.aio.server()
    storage_pb2_grpc.add_StorageServiceServicer_to_server(Counting(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()

import uvloop
uvloop.run(main())
"""


def _say(what: str, figure: str, target: str) -> None:
    sys.stdout.write(f"{what:<66} {figure:>16}   target {target}\n")
    sys.stdout.flush()


@asynccontextmanager
async def _counting() -> AsyncIterator[tuple[Stubs, psutil.Process]]:
    """Yield a server whose Upload only counts bytes, and its process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _COUNTING),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with connected(f"127.0.0.1:{port}") as stubs:
            yield stubs, psutil.Process(process.pid)
    finally:
        process.kill()
        await process.wait()


async def _send(
    stubs: Stubs, name: str, chunks: int, upload_id: str = ""
) -> storage_pb2.StoredObject:
    crc = google_crc32c.value(_CHUNK)

    async def frames() -> AsyncIterator[storage_pb2.UploadRequest]:
        spec = storage_pb2.UploadSpec(object_name=name, upload_id=upload_id)
        yield storage_pb2.UploadRequest(spec=spec)
        for n in range(chunks):
            chunk = storage_pb2.Chunk(offset=n * _MIB, data=_CHUNK, crc32c=crc)
            yield storage_pb2.UploadRequest(chunk=chunk)
        yield storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish())

    return (await stubs.storage.Upload(frames())).object


async def _fetch(stubs: Stubs, name: str) -> tuple[int, int]:
    size = crc = 0
    request = storage_pb2.DownloadRequest(object_name=name, chunk_bytes=_MIB)
    async for response in stubs.storage.Download(request):
        crc = google_crc32c.extend(crc, response.chunk.data)
        size += len(response.chunk.data)
    return size, crc


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class _Memory:
    """The most memory that a process has, above what it had at first."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._first = self.most = process.memory_info().rss
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.most = max(self.most, self._process.memory_info().rss)

    def growth(self) -> str:
        """Return the growth in words, and stop watching."""
        self._task.cancel()
        return f"{(self.most - self._first) / _MIB:.0f} MiB"


async def test_one_large_object(tmp_path: Path) -> None:
    """Memory must not know how large an object is."""
    chunks = int(_GIB * 1024)
    async with server_process(tmp_path) as server, connected(server.grpc_address) as stubs:
        process = psutil.Process(server.process.pid)
        await _send(stubs, "warm", 64)
        memory, began = _Memory(process), time.perf_counter()
        stored = await _send(stubs, "large", chunks)
        up = time.perf_counter() - began
        _say(f"upload of {_GIB:g} GiB: memory grows by (RSS)", memory.growth(), "<= 64 MiB")
        _say(f"upload of {_GIB:g} GiB", f"{chunks / up:.0f} MiB/s", "-")
        memory, began = _Memory(process), time.perf_counter()
        size, crc = await _fetch(stubs, "large")
        down = time.perf_counter() - began
        assert (size, crc) == (chunks * _MIB, stored.crc32c)
        _say(f"download of {_GIB:g} GiB: memory grows by (RSS)", memory.growth(), "<= 64 MiB")
        _say(f"download of {_GIB:g} GiB", f"{chunks / down:.0f} MiB/s", "-")


@pytest.mark.parametrize("where", ["the disk", "/dev/shm"])  # noqa: S108 - nothing secret
async def test_beside_a_handler_that_only_counts(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    """Upload in turns: what checksums, a file and an index cost."""
    if where != "the disk":
        tmp_path = Path(tempfile.mkdtemp(dir=where))
        request.addfinalizer(lambda: shutil.rmtree(tmp_path))
    rates, cpus = [], []
    chunks = 256
    async with (
        server_process(tmp_path) as server,
        connected(server.grpc_address) as stubs,
        _counting() as (bare, bare_process),
    ):
        process = psutil.Process(server.process.pid)

        async def turn(to: Stubs, of: psutil.Process, name: str) -> tuple[float, float]:
            cpu, began = _cpu(of), time.perf_counter()
            await _send(to, name, chunks)
            return time.perf_counter() - began, _cpu(of) - cpu

        await turn(stubs, process, "x")
        await turn(bare, bare_process, "x")
        for n in range(8):
            before = await turn(bare, bare_process, "x")
            ours = await turn(stubs, process, f"turn-{n}")
            after = await turn(bare, bare_process, "x")
            rates.append((before[0] + after[0]) / 2 / ours[0])
            cpus.append(ours[1] / ((before[1] + after[1]) / 2))
            request = storage_pb2.DeleteRequest(object_name=f"turn-{n}")
            await stubs.storage.Delete(request)
    rates.sort()
    _say(
        f"upload to {where}: of a counting handler's rate, {chunks} MiB",
        f"{statistics.median(rates):.2f} ({rates[0]:.2f}, {rates[-1]:.2f})",
        ">= 0.7",
    )
    _say("the same: CPU of the server, times", f"{statistics.median(cpus):.2f}", "-")


async def test_sixteen_at_once(tmp_path: Path) -> None:
    """Nothing is lost or mixed up."""
    async with server_process(tmp_path) as server, connected(server.grpc_address) as stubs:
        memory, began = _Memory(psutil.Process(server.process.pid)), time.perf_counter()
        stored = await asyncio.gather(*(_send(stubs, f"p/{n}", 64) for n in range(16)))
        wall = time.perf_counter() - began
        expected = hashlib.sha256(_CHUNK * 64).hexdigest()
        whole = sum(one.sha256 == expected and one.size_bytes == 64 * _MIB for one in stored)
        _say("16 uploads of 64 MiB at once, whole", f"{whole}", "16")
        _say("the same, together", f"{1024 / wall:.0f} MiB/s", "-")
        _say("the same: memory grows by (RSS)", memory.growth(), "-")


async def test_cutting(tmp_path: Path) -> None:
    """Uploads cut at random moments, each taken up until it is done."""
    rng = random.Random(11)
    same, uploads, cuts, needed = 0, 0, 0, 0
    async with server_process(tmp_path) as server, connected(server.grpc_address) as stubs:
        while cuts < _CUTS:
            chunk = rng.choice((16 << 10, 64 << 10, 256 << 10))
            data = rng.randbytes(rng.randrange(1, 3 * _MIB))
            name = f"cut-{uploads}"
            stored, one_cuts = await _with_cuts(stubs, name, data, chunk, rng)
            uploads, cuts = uploads + 1, cuts + one_cuts
            needed += -(-len(data) // chunk)
            same += stored.sha256 == hashlib.sha256(data).hexdigest()
            await stubs.storage.Delete(storage_pb2.DeleteRequest(object_name=name))
        _, text = await fetch(f"http://{server.http_address}/metrics")
        left = list((tmp_path / "objects" / "uploads").iterdir())
    # Frames that the server read: specs and chunks; each upload that was done had a finish too.
    calls, frames = (
        int(float(re.search(rf'^{name}{{.*method="Upload",.*}} (\S+)$', text, re.MULTILINE)[1]))
        for name in ("grpc_server_started_total", "grpc_server_msg_received_total")
    )
    twice = frames - calls - uploads - needed
    _say(f"{cuts} cuts of {uploads} uploads: with the same sha256", f"{same}", f"{uploads}")
    _say("chunks that the server read twice, a cut", f"{twice / cuts:.3f}", "<= 1")
    _say("part files left", f"{len(left)}", "0")


async def _with_cuts(
    stubs: Stubs, name: str, data: bytes, chunk: int, rng: random.Random
) -> tuple[storage_pb2.StoredObject, int]:
    """Send, cutting the line up to four times; return the object and how often it was cut."""
    cuts = offset = 0
    while True:
        stop = len(data) if cuts == 4 else rng.randrange(offset, len(data) + len(data) // 3 + 1)

        async def frames(start: int = offset, stop: int = stop) -> AsyncIterator[object]:
            spec = storage_pb2.UploadSpec(object_name=name, upload_id=name)
            yield storage_pb2.UploadRequest(spec=spec)
            for at in range(start, min(stop, len(data)), chunk):
                part = data[at : at + chunk]
                yield storage_pb2.UploadRequest(
                    chunk=storage_pb2.Chunk(offset=at, data=part, crc32c=google_crc32c.value(part))
                )
            if stop < len(data):
                raise ConnectionError("cut")
            yield storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish())

        try:
            return (await stubs.storage.Upload(frames(), timeout=60)).object, cuts
        except grpc.aio.AioRpcError as error:
            # The server has not noticed yet that the stream before this one is dead, or was still
            # writing when it was asked: neither is a cut.
            busy = (grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT)
            cuts += error.code() not in busy
        except asyncio.CancelledError:
            cuts += 1
        known = await _kept(stubs, name)
        if known.HasField("object"):
            # It was stored, and only the answer got lost.
            return known.object, cuts
        offset = known.persisted_size


async def _kept(stubs: Stubs, upload_id: str) -> storage_pb2.QueryUploadResponse:
    """Return what the server has, once that does not grow any more."""
    last = -1
    while True:
        try:
            query = storage_pb2.QueryUploadRequest(upload_id=upload_id)
            known = await stubs.storage.QueryUpload(query, timeout=20)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            known = storage_pb2.QueryUploadResponse()
        if known.persisted_size == last:
            return known
        last = known.persisted_size
        await asyncio.sleep(0.05)


async def test_cleaning_up(tmp_path: Path) -> None:
    """A million objects, a tenth of them due."""
    await asyncio.to_thread(_fill, tmp_path)
    process = psutil.Process()
    async with LocalObjectStore(tmp_path) as store:
        cleaner = Retention(store, RetentionPolicy(), observer=_Deaf())
        for what, dry, target in (
            ("judged", True, ">= 5,000"),
            ("judged twice, and what is due deleted", False, "-"),
        ):
            memory, cpu, began = _Memory(process), _cpu(process), time.perf_counter()
            done = await cleaner.run(dry_run=dry, force=False, principal="bench")
            cpu, wall = _cpu(process) - cpu, time.perf_counter() - began
            examined = sum(count.examined for count in done.counts)
            deleted = sum(count.deleted for count in done.counts)
            _say(
                f"{examined:,} objects {what} ({deleted:,} deleted), a CPU second",
                f"{examined / cpu:,.0f}",
                target,
            )
            _say("the same, by the clock", f"{wall:.0f} s", "-")
            _say("the same: memory grows by (RSS)", memory.growth(), "flat")


class _Deaf:
    def retained(self, outcome: str, count: int) -> None:
        """Count nothing."""


def _fill(folder: Path) -> None:
    """Put rows into the index as a store would; the objects' files are not needed to judge them."""
    folder.mkdir(parents=True, exist_ok=True)
    index = Index(folder / "index.sqlite")
    now = time.time()

    def rows():
        for n in range(_OBJECTS):
            stored = storage_pb2.StoredObject(
                object_name=f"tracks/{n % 997:03d}/{n:08d}.flac",
                size_bytes=40_000_000,
                content_type="audio/flac",
                generation=n + 1,
                crc32c=n,
                sha256=hashlib.sha256(b"%d" % n).hexdigest(),
                metadata={"tier": "free" if n % 2 else "pro"},
            )
            age = 31 if n % 10 == 1 else 3
            stored.create_time.FromSeconds(int(now - age * 86_400))
            yield stored.object_name, stored.generation, stored.SerializeToString()

    with index._transaction():
        index._db.executemany("INSERT INTO objects VALUES (?, ?, ?)", rows())
    index.close()
