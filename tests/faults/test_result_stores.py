"""Both stores of results on full and read-only disks, killed at random, and after a crash."""

import asyncio
import subprocess
import sys
import time
from datetime import UTC
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2, storage_pb2, track_pb2
from liner_server.errors import NotFoundError
from liner_server.objects.local import LocalObjectStore
from liner_server.results.objects import ObjectResultStore
from liner_server.results.sqlite import SqliteResultStore
from support import small_disk

SETUP = """
import asyncio, contextlib, os, subprocess, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.errors import FailedPreconditionError, NotFoundError, ResourceExhaustedError
from liner_server.objects.local import LocalObjectStore
from liner_server.results.objects import ObjectResultStore
from liner_server.results.sqlite import SqliteResultStore

root = Path(sys.argv[1])

@contextlib.asynccontextmanager
async def opened():
    if BACKEND == "sqlite":
        async with SqliteResultStore(root / "results.sqlite") as store:
            yield store
    else:
        async with LocalObjectStore(root / "results", spare_bytes=1 << 20) as objects:
            yield ObjectResultStore(objects)

def record(name, size=0):
    found = enrichment_pb2.Enrichment(
        enrichment_id=name, state=enrichment_pb2.ENRICHMENT_STATE_DONE)
    found.answer.track.lyrics = os.urandom(size).hex()
    return found

async def names(store):
    request, found = enrichment_pb2.ListEnrichmentsRequest(page_size=500), set()
    while True:
        page = await store.list(request)
        found |= {r.enrichment_id for r in page.enrichments}
        request.page_token = page.next_page_token
        if not request.page_token:
            return found
"""
BACKENDS = pytest.mark.parametrize("backend", ["sqlite", "objects"])


def script(backend: str, body: str) -> str:
    """Return a program on one backend."""
    return f"BACKEND = {backend!r}\n{SETUP}\n{body}"


@BACKENDS
def test_a_full_disk_refuses_results_whole_and_clears_up(tmp_path: Path, backend: str):
    """RESOURCE_EXHAUSTED, nothing half written; reading and retention go on, then all does."""
    body = """
async def main():
    async with opened() as store:
        kept = set()
        while True:
            name = f"r{len(kept)}"
            try:
                await store.put(record(name, 100_000))
            except ResourceExhaustedError as error:
                assert error.reason == "DISK_FULL", error
                break
            kept.add(name)
            assert len(kept) < 300, "the disk never filled"
        assert kept
        assert await names(store) == kept
        for refused in (store.put(record("other", 100_000)),
                        store.keep_answer(b"k", record("x", 500_000).answer)):
            try:
                await refused
            except ResourceExhaustedError:
                continue
            raise AssertionError("it was taken")
        assert await names(store) == kept
        late = datetime.now(UTC) + timedelta(days=1)
        assert await store.delete_before(late) == len(kept)
        assert await names(store) == set()
        assert await store.put(record("after", 100_000))
    async with opened() as store:
        assert await names(store) == {"after"}

asyncio.run(main())
"""
    small_disk.run(tmp_path, script(backend, body), size="16m")


@BACKENDS
def test_a_read_only_disk_stops_the_start_with_the_reason(tmp_path: Path, backend: str):
    """FAILED_PRECONDITION before anybody's result is taken and lost."""
    body = """
async def main():
    async with opened() as store:
        assert await store.put(record("before"))
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
    try:
        async with opened():
            raise AssertionError("it opened")
    except FailedPreconditionError as error:
        assert error.reason == "DISK_READ_ONLY", error
    subprocess.run(["mount", "-o", "remount,rw,bind", root], check=True)
    async with opened() as store:
        assert await names(store) == {"before"}

asyncio.run(main())
"""
    small_disk.run(tmp_path, script(backend, body), size="16m")


WRITER = """
async def main():
    async with opened() as store:
        async def put(n):
            name = f"{os.getpid()}-{n}"
            made = record(name, 50)
            made.answer.processing.needs_review = n % 2 == 0
            assert await store.put(made)
            said = enrichment_pb2.Review(reviewer="ana")
            print("put", name, flush=True)
            await store.add_review(name, said, request_id="r")
            print("reviewed", name, flush=True)
        n = 0
        while True:
            await asyncio.gather(*(put(n + i) for i in range(8)))
            n += 8

asyncio.run(main())
"""


@BACKENDS
async def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path, backend: str):
    """Killed in the midst of everything, ten times: each result is there once, in both orders."""
    told: dict[str, set[str]] = {"put": set(), "reviewed": set()}
    for round_ in range(10):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script(backend, WRITER), str(tmp_path)),
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        for _ in range(3 + 7 * round_):
            what, name = (await child.stdout.readline()).decode().split()
            told[what].add(name)
        child.kill()
        # What it said before it died was acknowledged too; a torn last line was not said.
        for line in (await child.stdout.read()).decode().splitlines(keepends=True):
            if line.endswith("\n"):
                what, name = line.split()
                told[what].add(name)
        await child.wait()

    async with opened(tmp_path, backend) as store:
        by_order = [
            await listed(store, order)
            for order in (
                enrichment_pb2.ENRICHMENT_ORDER_REVIEW_FIRST,
                enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST,
            )
        ]
        for names in by_order:
            assert told["put"] <= set(names)
            assert len(names) == len(set(names))
        assert set(by_order[0]) == set(by_order[1])
        for name in told["reviewed"]:
            assert len((await store.get(name)).reviews) == 1
    assert len(told["put"]) > 100


def opened(folder: Path, backend: str):
    """Open a store as the scripts do."""
    if backend == "sqlite":
        return SqliteResultStore(folder / "results.sqlite")
    return _OnObjects(folder / "results")


class _OnObjects:
    """An object store and the results on it, as one context."""

    def __init__(self, folder: Path) -> None:
        self._objects = LocalObjectStore(folder)

    async def __aenter__(self) -> ObjectResultStore:
        return ObjectResultStore(await self._objects.__aenter__())

    async def __aexit__(self, *error: object) -> None:
        await self._objects.__aexit__(*error)


async def listed(store, order: int) -> list[str]:
    """Return the ids of all pages."""
    request = enrichment_pb2.ListEnrichmentsRequest(page_size=500, order=order)
    names: list[str] = []
    while True:
        page = await store.list(request)
        names += [record.enrichment_id for record in page.enrichments]
        request.page_token = page.next_page_token
        if not request.page_token:
            return names


async def test_index_entries_that_a_crash_left_do_no_harm(tmp_path: Path):
    """An entry without its record lists nothing, and an old one goes with the old records."""
    done = enrichment_pb2.Enrichment(
        enrichment_id="a",
        state=enrichment_pb2.ENRICHMENT_STATE_DONE,
        answer=enrichment_pb2.EnrichMetadataResponse(
            processing=track_pb2.ProcessingResult(needs_review=True)
        ),
    )
    done.create_time.FromJsonString("2020-01-01T00:00:00Z")
    async with LocalObjectStore(tmp_path) as objects:
        store = ObjectResultStore(objects)
        await store.put(done)
        stored = [o.object_name for o in await objects.list("results/")]
        for name in (name for name in stored if "/records/" not in name):
            # The same places, as if "b" had died before its record was written.
            left = name.rpartition("/")[0] + "/" + b"b".hex()
            async with objects.upload(storage_pb2.UploadSpec(object_name=left)) as upload:
                await upload.commit(storage_pb2.UploadFinish())
        with pytest.raises(NotFoundError):
            await store.get("b")
        review, newest = (
            enrichment_pb2.ENRICHMENT_ORDER_REVIEW_FIRST,
            enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST,
        )
        assert await listed(store, review) == await listed(store, newest) == ["a"]

        limit = done.create_time.ToDatetime().replace(year=2021, tzinfo=UTC)
        assert await store.delete_before(limit) == 1
        kept = [o.object_name for o in await objects.list("results/")]
        assert len(kept) == 2, "entries of this hour may belong to a write under way"
        later = ObjectResultStore(objects, now=lambda: time.time() + 86_400)
        assert await later.delete_before(limit) == 0
        assert await objects.list("results/") == []
