"""A clean-up on every object store: what goes, what stays, what is written down."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from liner.v1 import storage_pb2
from liner_server.core.retention import RetentionPolicy
from liner_server.errors import FailedPreconditionError, ResourceExhaustedError
from liner_server.objects.local import LocalObjectStore
from liner_server.objects.retention import Retention
from liner_server.ports import ObjectStore
from support.fake_gcs import shared_gcs

DAY = 86_400


@pytest.fixture(params=["local", "gcs"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """The backend under test, empty."""
    if request.param == "local":
        async with LocalObjectStore(tmp_path / "objects") as local:
            yield local
    else:
        fake = shared_gcs()
        async with fake.store(fake.new_bucket(), tmp_path / "scratch") as gcs:
            yield gcs


class Told:
    """What the metrics were told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def retained(self, outcome: str, count: int) -> None:
        """Count objects."""
        self.counts[outcome] += count


async def put(store: ObjectStore, name: str, *, age: float = 0.0, **metadata: str) -> None:
    """Store an object whose own time is so many days ago."""
    pairs = {key.replace("_", "-"): value for key, value in metadata.items()}
    spec = storage_pb2.UploadSpec(object_name=name, metadata=pairs)
    spec.custom_time.FromNanoseconds(int((time.time() - age * DAY) * 1e9))
    async with store.upload(spec) as upload:
        await upload.append(b"data")
        await upload.commit(storage_pb2.UploadFinish())


async def names(store: ObjectStore) -> list[str]:
    """All names but the server's own."""
    return [o.object_name for o in await store.list("") if not o.object_name.startswith(".liner/")]


def retention(store: ObjectStore, told: Told | None = None, *, ahead: float = 0.0) -> Retention:
    """Return what cleans up, with a clock so many days ahead."""
    return Retention(
        store,
        RetentionPolicy(),
        observer=told or Told(),
        now=lambda: time.time() + ahead * DAY,
    )


async def run(cleaner: Retention, **options: bool) -> storage_pb2.RunCleanupResponse:
    """Run a clean-up."""
    return await cleaner.run(**{"dry_run": False, "force": False, "principal": "test"} | options)


def counted(done: storage_pb2.RunCleanupResponse, column: str) -> dict[str, int]:
    """Return one column of the report, without zeros."""
    return {count.kind: getattr(count, column) for count in done.counts if getattr(count, column)}


async def filled(store: ObjectStore) -> None:
    """Store something of each kind; two of seven with a tier and a limit are due."""
    await put(store, "temp/old", age=1.1)
    await put(store, "temp/new", age=0.9)
    await put(store, "free/old", age=31, tier="free")
    await put(store, "free/soon", age=24, tier="free")
    await put(store, "free/new", age=1, tier="free")
    await put(store, "free/held", age=99, tier="free", legal_hold="true")
    await put(store, "pro/old", age=181, tier="pro")
    await put(store, "pro/new", age=31, tier="pro")
    await put(store, "big/own", age=9, tier="enterprise", retention_days="30")
    await put(store, "big/for-ever", age=9999, tier="enterprise")
    await put(store, "plain", age=9999)
    await put(store, "odd", age=9999, tier="gold")


STAY = [
    *("big/for-ever", "big/own", "free/held", "free/new", "free/soon", "odd", "plain", "pro/new"),
    "temp/new",
]


async def test_what_has_had_its_time_goes_and_the_rest_stays(store):
    """By kind, with a notice for what is next, and metrics of all."""
    told = Told()
    await filled(store)

    done = await run(retention(store, told))

    assert await names(store) == STAY
    assert counted(done, "deleted") == {"temp": 1, "free": 1, "pro": 1}
    assert counted(done, "due") == {"temp": 1, "free": 1, "pro": 1}
    assert counted(done, "noticed") == {"free": 1}
    assert counted(done, "held") == {"free": 1}
    assert done.due_share == pytest.approx(2 / 7)
    assert told.counts == {"deleted": 3, "gone": 0, "noticed": 1, "held": 1, "kept": 8}
    async with store.read(done.notices_object) as (_, chunks):
        [row] = [json.loads(line) for line in b"".join([c async for c in chunks]).splitlines()]
    assert (row["object_name"], row["kind"]) == ("free/soon", "free")


async def test_a_dry_run_counts_the_same_and_changes_nothing(store):
    """What an operator looks at before the first real run."""
    await filled(store)
    before = list(await store.list(""))

    dry = await run(retention(store), dry_run=True)

    assert list(await store.list("")) == before
    assert counted(dry, "due") == {"temp": 1, "free": 1, "pro": 1}
    assert not counted(dry, "deleted")
    wet = await run(retention(store))
    assert counted(wet, "deleted") == counted(dry, "due")


async def test_a_notice_is_written_once(store):
    """A run a day for a week must not warn seven times."""
    await filled(store)

    first = await run(retention(store))
    second = await run(retention(store))
    await put(store, "free/late", age=25, tier="free")
    third = await run(retention(store))

    assert (bool(first.notices_object), second.notices_object) == (True, "")
    assert counted(third, "noticed") == {"free": 1}


async def test_a_wrong_clock_empties_nothing(store):
    """A year ahead, a day behind, and five days ahead with too much due."""
    for n in range(4):
        await put(store, f"free/{n}", age=26, tier="free")
    await put(store, "temp/a", age=0.5)
    stored = await names(store)

    for ahead, reason in ((365, "CLEANUP_CLOCK"), (5, "CLEANUP_SHARE")):
        with pytest.raises(FailedPreconditionError) as error:
            await run(retention(store, ahead=ahead))
        assert error.value.reason == reason
    behind = await run(retention(store, ahead=-1))

    assert not counted(behind, "deleted")
    assert await names(store) == stored
    await run(retention(store, ahead=5), force=True)
    assert await names(store) == []


async def test_two_at_once_delete_each_object_once(store):
    """The counts of both together are the truth."""
    for n in range(40):
        await put(store, f"temp/{n:02}", age=2 if n % 2 else 0)

    both = await asyncio.gather(run(retention(store)), run(retention(store)))

    assert sum(counted(done, "deleted").get("temp", 0) for done in both) == 20
    assert await names(store) == [f"temp/{n:02}" for n in range(0, 40, 2)]


async def test_what_is_replaced_while_it_is_judged_stays(store, monkeypatch):
    """The new object is not the one that was old."""
    await put(store, "temp/a", age=2)
    real = type(store).delete_all

    async def replaced_first(self, objects):
        if any(one.object_name == "temp/a" for one in objects):
            await put(store, "temp/a")
        return await real(self, objects)

    monkeypatch.setattr(type(store), "delete_all", replaced_first)
    told = Told()

    await run(retention(store, told))

    assert await names(store) == ["temp/a"]
    assert (told.counts["deleted"], told.counts["gone"]) == (0, 1)


async def test_a_disk_without_room_for_notices_is_still_cleaned(store, monkeypatch):
    """Deleting is what makes room; the notices come with the next run."""
    await filled(store)
    real = type(store).upload

    def full(self, spec):
        if spec.object_name.startswith(".liner/"):
            raise ResourceExhaustedError("the disk is full", reason="DISK_FULL")
        return real(self, spec)

    monkeypatch.setattr(type(store), "upload", full)
    first = await run(retention(store))
    monkeypatch.undo()
    second = await run(retention(store))

    assert first.notices_object == ""
    assert await names(store) == STAY
    assert second.notices_object


async def test_results_and_uploads_go_by_their_own_limits(store):
    """What deletes them is asked, and what it did is told."""

    async def clear() -> tuple[int, int]:
        return 3, 5

    cleaner = Retention(store, RetentionPolicy(), observer=Told(), clear_results=clear)

    done = await run(cleaner)

    assert counted(done, "deleted") == {"results": 3, "answers": 5}
