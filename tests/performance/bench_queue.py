"""What the embedded queue takes and gives a second, and how long the urgent waits behind a backlog.

`make bench`, or `pytest tests/performance/bench_queue.py -o python_files='bench_*.py' -s`. The
disk decides: rates swing tenfold from hour to hour, so every rate is printed beside that of
commits of one row each on the same disk in the same run.
"""

import asyncio
import os
import resource
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from liner_server.queues import publishing
from liner_server.queues.sqlite import SqliteQueue
from support import external
from support.eventually import eventually
from support.queue_backends import HIGH, LOW, job

Act = Callable[[int], Awaitable[object]]
MINUTE = timedelta(minutes=1)
ROUNDS = 5
BACKLOG = int(os.environ.get("BENCH_BACKLOG", "100000"))
KILLS = 5


def one_by_one(path: Path, rows: int) -> float:
    """Return rows a second that a plain FULL database takes, a commit each."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
    body = job("x").SerializeToString()
    began = time.perf_counter()
    for _ in range(rows):
        db.execute("INSERT INTO t(body) VALUES (?)", (body,))
    took = time.perf_counter() - began
    db.close()
    return rows / took


async def at_once(count: int, callers: int, act: Act) -> float:
    """Return acts a second of so many callers that each wait for theirs."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await act(number)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - began)


@pytest.mark.parametrize("callers", [1, 64, 256])
async def test_rates(tmp_path: Path, callers: int):
    """Publish, and lease with acknowledgement, by callers who wait for the disk each time."""
    plain = one_by_one(tmp_path / "plain.sqlite", 300)
    count = 400 if callers == 1 else 8000
    async with SqliteQueue(tmp_path / "queue.sqlite") as queue:
        publish = await at_once(count, callers, lambda n: queue.publish(job(str(n))))

        async def work(_: int) -> None:
            for lease in await queue.lease(limit=1, duration=MINUTE):
                await queue.ack(lease)

        done = await at_once(count, callers, work)
    print(  # noqa: T201 - what it is for
        f"\n{callers:4d} callers: publish {publish:7.0f}/s ({publish / plain:5.1f} x one row a "
        f"commit), lease + ack {done:7.0f}/s ({done / plain:5.1f} x)"
    )
    assert publish > 0
    assert done > 0


@pytest.mark.timeout(600)
async def test_beside_other_queues(tmp_path: Path):
    """The same work on two queues from the package index, in turns, so that all meet the same disk.

    Of each queue 256 callers want something all the time. Neither of the others can be called by
    two at once on one connection, so theirs are served one after the other, which is also what
    they are quickest at. persist-queue writes as durably as we do; litequeue does not wait for
    the disk at all: it is there for its speed.
    """
    try:
        import litequeue
        import persistqueue
    except ImportError:
        external.missing(
            "persist-queue or litequeue", install="uv pip install persist-queue litequeue"
        )
    body = job("x").SerializeToString()
    durable = persistqueue.SQLiteAckQueue(str(tmp_path / "persist"), auto_commit=True)
    quick = litequeue.LiteQueue(str(tmp_path / "lite.db"))
    rates: dict[str, list[tuple[float, float]]] = {"ours": [], "persist-queue": [], "litequeue": []}

    async def of(name: str, put: Act, get: Act, count: int) -> None:
        rates[name].append((await at_once(count, 256, put), await at_once(count, 256, get)))

    async with SqliteQueue(tmp_path / "queue.sqlite") as queue:

        async def work(_: int) -> None:
            for lease in await queue.lease(limit=1, duration=MINUTE):
                await queue.ack(lease)

        for _ in range(ROUNDS):
            await of(
                "persist-queue",
                _called(lambda: durable.put(body)),
                _called(lambda: durable.ack(durable.get())),
                100,
            )
            await of(
                "litequeue",
                _called(lambda: quick.put("x" * len(body))),
                _called(lambda: quick.done(quick.pop().message_id)),
                5_000,
            )
            await of("ours", lambda n: queue.publish(job(str(n))), work, 5_000)
    durable.close()
    quick.conn.close()
    for name in ("persist-queue", "litequeue"):
        publish, done = (
            sorted(
                ours[kind] / theirs[kind]
                for ours, theirs in zip(rates["ours"], rates[name], strict=True)
            )
            for kind in (0, 1)
        )
        print(  # noqa: T201 - what it is for
            f"\n256 callers, {ROUNDS} rounds: publish {_spread(publish)} x {name}, "
            f"lease + ack {_spread(done)} x"
        )
    middle = [sorted(found)[ROUNDS // 2] for found in zip(*rates["ours"], strict=True)]
    print(f"\nours: publish {middle[0]:.0f}/s, lease + ack {middle[1]:.0f}/s")  # noqa: T201
    assert middle[0] > 0


def _called(act: Callable[[], object]) -> Act:
    """Return a call that does not wait as one that may be awaited."""

    async def called(_: int) -> None:
        act()

    return called


def _spread(ratios: list[float]) -> str:
    return f"{ratios[len(ratios) // 2]:.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"


@pytest.mark.timeout(900)
async def test_the_urgent_behind_a_backlog(tmp_path: Path):
    """High-priority jobs behind many low ones wait as if there were none, and low ones go on."""
    path = tmp_path / "queue.sqlite"
    waits: dict[str, list[float]] = {"empty": [], "backlog": []}
    async with SqliteQueue(path) as queue:
        await _urgent(queue, waits["empty"])
        await at_once(BACKLOG, 512, lambda n: queue.publish(job(str(n), priority=LOW)))
        low = await _urgent(queue, waits["backlog"])
        began = time.perf_counter()
        stats = await queue.stats()
        stats_seconds = time.perf_counter() - began
    began = time.perf_counter()
    async with SqliteQueue(path) as queue:
        leases = await queue.lease(limit=1, duration=MINUTE)
        ready = time.perf_counter() - began
    p99 = {name: sorted(found)[int(len(found) * 0.99)] * 1000 for name, found in waits.items()}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(  # noqa: T201 - what it is for
        f"\nhigh behind {BACKLOG} low: p99 wait {p99['backlog']:.1f} ms, empty queue "
        f"{p99['empty']:.1f} ms ({p99['backlog'] / p99['empty']:.2f} x); low served meanwhile: "
        f"{low}; stats {stats_seconds * 1000:.2f} ms; open to first lease {ready:.2f} s; most "
        f"memory {resident:.0f} MB"
    )
    assert leases
    assert low > 0
    assert sum(entry.ready for entry in stats.priorities) > BACKLOG * 0.9


async def _urgent(queue: SqliteQueue, waits: list[float]) -> int:
    """Publish 400 urgent jobs, one after the other, under two workers; return low ones served."""
    published: dict[str, float] = {}
    low = 0

    async def worker() -> None:
        nonlocal low
        while len(waits) < 400:
            for lease in await queue.lease(
                limit=1, duration=MINUTE, wait=timedelta(milliseconds=50)
            ):
                if lease.message.priority == HIGH:
                    waits.append(time.perf_counter() - published[lease.message.message_id])
                else:
                    low += 1
                await queue.ack(lease)

    async def publisher() -> None:
        for n in range(400):
            request = job(str(n), priority=HIGH)
            request.job_id = f"high-{os.urandom(8).hex()}"
            published[request.job_id] = time.perf_counter()
            await queue.publish(request)
            await asyncio.sleep(0.002)

    await asyncio.gather(worker(), worker(), publisher())
    return low


@pytest.mark.timeout(1800)
async def test_a_worker_before_a_deep_queue(tmp_path: Path):
    """Memory of `liner-server worker`, and its start after kill -9, with so many jobs queued."""
    data = tmp_path / "data"
    async with SqliteQueue(data / "queue.sqlite") as queue:
        await _fill(queue, BACKLOG)
    ready: list[float] = []
    memory: list[float] = []
    cpu: list[float] = []
    left = BACKLOG
    for _ in range(KILLS + 1):
        began = time.perf_counter()
        async with _worker(data) as process:
            ready.append(time.perf_counter() - began)
            cpu.append(sum(psutil.Process(process.pid).cpu_times()[:2]))
            before, left = left, await _until_fewer(data, left)
            memory.append(psutil.Process(process.pid).memory_info().rss / 2**20)
            process.kill()
    print(  # noqa: T201 - what it is for
        f"\nworker with {BACKLOG} queued: memory {max(memory):.0f} MB; {KILLS} x kill -9: ready "
        f"in {min(ready[1:]):.2f} to {max(ready[1:]):.2f} s, {max(cpu[1:]):.2f} s CPU at most"
    )
    assert left < before


async def _fill(queue: SqliteQueue, count: int) -> None:
    """Put so many jobs on a queue, thousands a commit."""
    for start in range(0, count, 5000):
        times = queue._times()
        letters = [
            (publishing.letter_of(job(str(n), priority=LOW), {}, None, times), times)
            for n in range(start, start + 5000)
        ]
        await queue._file.write(lambda db, letters=letters: publishing.publish_all(db, letters, 0))


@asynccontextmanager
async def _worker(data: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        "LINER_DATA_DIR": str(data),
        "LINER_HTTP_ADDRESS": "127.0.0.1:0",
        "LINER_LOG_LEVEL": "ERROR",
        "LINER_LISTENING_PROCESSES": "1",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "liner_server", "worker"),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert b"ready" in await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_fewer(data: Path, than: int) -> int:
    """Wait until some hundred jobs are gone; return how many are left."""
    left = than

    def gone() -> bool:
        nonlocal left
        with closing(sqlite3.connect(f"file:{data}/queue.sqlite?mode=ro", uri=True)) as db:
            (left,) = db.execute("SELECT sum(n) FROM counts").fetchone()
        return left <= than - 300

    await eventually(gone, within=120)
    return left
