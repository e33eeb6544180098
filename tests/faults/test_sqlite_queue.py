"""The embedded queue on broken disks, under jumping clocks, and against a second process."""

import asyncio
import sqlite3
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest
from liner.v1 import queue_admin_pb2
from liner_server.errors import DataLossError, FailedPreconditionError, UnavailableError
from liner_server.queues.sqlite import SqliteQueue
from support import small_disk
from support.clock import ManualClock
from support.queue_backends import job

MINUTE = timedelta(minutes=1)
INVALID = queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID
DEAD = queue_admin_pb2.MESSAGE_STATE_DEAD

SETUP = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from liner.v1 import queue_admin_pb2, track_pb2
from liner_server.errors import FailedPreconditionError, ResourceExhaustedError
from liner_server.queues.sqlite import SqliteQueue

MINUTE = timedelta(minutes=1)
path = Path(sys.argv[1]) / "queue.sqlite"

def job(n):
    text = f"{n} " + "x" * 20000
    return queue_admin_pb2.EnrichmentJob(track=track_pb2.Track(title=str(n), lyrics=text))
"""


def on_a_small_disk(folder: Path, script: str, *, size: str = "16m") -> None:
    """Run a script on a disk of its own."""
    small_disk.run(folder, SETUP + textwrap.dedent(script), size=size)


def test_a_full_disk_refuses_new_jobs_and_lets_all_others_end(tmp_path: Path) -> None:
    """Nothing acknowledged is lost, the backlog can be worked off, and room brings it back."""
    on_a_small_disk(
        tmp_path,
        """
        async def main():
            acknowledged = []
            async with SqliteQueue(path) as queue:
                try:
                    for n in range(5000):
                        acknowledged.append(await queue.publish(job(n)))
                except ResourceExhaustedError as error:
                    assert error.reason == "DISK_FULL", error.reason
                else:
                    raise AssertionError("the disk was never full")
                assert len(acknowledged) > 20
                dead, released, done = await queue.lease(limit=3, duration=MINUTE)
                await queue.dead_letter(dead, cause=2, error=track_pb2.Error(reason="BAD"))
                await queue.release(released)
                await queue.ack(done)
                await queue.pause(by="ada", reason="full")
                await queue.resume()
                purged = await queue.purge(queue_admin_pb2.PurgeDeadLettersRequest(all=True))
                assert purged.purged_count == 1
                listed = []
                while leases := await queue.lease(limit=50, duration=MINUTE):
                    for lease in leases:
                        listed.append(lease.message.message_id)
                        await queue.ack(lease)
                gone = {done.message.message_id, dead.message.message_id}
                assert sorted(listed) == sorted(set(acknowledged) - gone)
                for n in range(50):
                    await queue.publish(job(n))
        asyncio.run(main())
        """,
    )


def test_a_disk_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    """At the start it is one clear error."""
    on_a_small_disk(
        tmp_path,
        """
        import subprocess
        async def main():
            async with SqliteQueue(path) as queue:
                await queue.publish(job(1))
            subprocess.run(["mount", "-o", "remount,ro", str(path.parent)], check=True)
            try:
                async with SqliteQueue(path):
                    pass
            except FailedPreconditionError as error:
                assert error.reason == "DISK_READ_ONLY", error.reason
            else:
                raise AssertionError("it opened")
        asyncio.run(main())
        """,
    )


async def test_a_damaged_file_is_said_to_be_so_and_left_alone(tmp_path: Path) -> None:
    """Whoever wants to save what is left must find it as it was."""
    path = tmp_path / "queue.sqlite"
    async with SqliteQueue(path) as queue:
        for n in range(200):
            await queue.publish(job(f"{n} " + "x" * 500))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)

    async def work_off() -> None:
        async with SqliteQueue(path) as queue:
            while leases := await queue.lease(limit=50, duration=MINUTE):
                for lease in leases:
                    await queue.ack(lease)

    with pytest.raises(DataLossError) as error:
        await work_off()

    assert error.value.reason == "STORE_CORRUPT"
    assert path.read_bytes()[4096:] == data[4096:]


@pytest.mark.timeout(60)
async def test_a_locked_file_is_retryable_and_loses_nothing(tmp_path: Path) -> None:
    """Somebody's backup held it for too long."""
    path = tmp_path / "queue.sqlite"
    async with SqliteQueue(path) as queue:
        job_id = await queue.publish(job("a"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError) as error:
            await queue.publish(job("b"))
        other.execute("ROLLBACK")
        other.close()
        [lease] = await queue.lease(limit=5, duration=MINUTE)

    assert error.value.reason == "STORE_LOCKED"
    assert error.value.retryable
    assert lease.message.message_id == job_id


async def test_one_process_has_the_queue(tmp_path: Path) -> None:
    """A second one would take the leases of the first for those of the dead."""
    async with SqliteQueue(tmp_path / "queue.sqlite"):
        with pytest.raises(FailedPreconditionError) as error:
            async with SqliteQueue(tmp_path / "queue.sqlite"):
                pass

    assert error.value.reason == "QUEUE_IN_USE"


async def test_a_file_of_another_version_is_not_touched(tmp_path: Path) -> None:
    """A newer program wrote it, and this one was rolled back to."""
    path = tmp_path / "queue.sqlite"
    async with SqliteQueue(path):
        pass
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()

    with pytest.raises(FailedPreconditionError) as error:
        async with SqliteQueue(path):
            pass

    assert error.value.reason == "QUEUE_VERSION"


@pytest.mark.parametrize("jump", [3600, -3600, 30 * 86400])
async def test_a_clock_that_jumps_ends_no_lease_and_drops_no_letter(
    tmp_path: Path, jump: float
) -> None:
    """A lease is measured in time that passes, and a letter's age is not believed after a jump."""
    wall, steady = ManualClock(1_800_000_000.0), ManualClock(5.0)
    every = timedelta(milliseconds=10)
    async with SqliteQueue(
        tmp_path / "queue.sqlite", clock=wall, steady=steady, look_every=every
    ) as queue:
        letter = await queue.publish(job("dead"))
        [lease] = await queue.lease(limit=1, duration=MINUTE)
        await queue.dead_letter(lease, cause=INVALID)
        await queue.publish(job("held"))
        [held] = await queue.lease(limit=1, duration=MINUTE)
        await _looks(queue)

        wall.advance(jump)
        steady.advance(30)
        await _looks(queue)

        assert await queue.lease(limit=1, duration=MINUTE) == []
        await queue.extend(held, MINUTE)
        assert (await queue.get(letter)).state == DEAD


async def test_old_letters_are_dropped_while_the_clock_is_even(tmp_path: Path) -> None:
    """After seven days nobody will look at them."""
    clock = ManualClock(1_800_000_000.0)
    async with SqliteQueue(
        tmp_path / "queue.sqlite",
        clock=clock,
        steady=clock,
        look_every=timedelta(milliseconds=10),
    ) as queue:
        await queue.publish(job("dead"))
        [lease] = await queue.lease(limit=1, duration=MINUTE)
        await queue.dead_letter(lease, cause=INVALID)
        await _looks(queue)
        clock.advance(timedelta(days=6))
        await _looks(queue)
        kept = sum(p.dead for p in (await queue.stats()).priorities)
        clock.advance(timedelta(days=2))
        await _looks(queue)
        left = sum(p.dead for p in (await queue.stats()).priorities)

    assert (kept, left) == (1, 0)


async def _looks(queue: SqliteQueue) -> None:
    """Wait until the housekeeping has looked twice since now."""
    real, looked = queue._tidy, asyncio.Event()
    seen = 0
    loop = asyncio.get_running_loop()

    def tidy(db: sqlite3.Connection) -> None:
        nonlocal seen
        real(db)
        seen += 1
        if seen == 2:
            loop.call_soon_threadsafe(looked.set)

    queue._tidy = tidy  # type: ignore[method-assign]
    try:
        async with asyncio.timeout(10):
            await looked.wait()
    finally:
        queue._tidy = real  # type: ignore[method-assign]


async def test_every_change_is_on_the_disk_when_it_is_told(tmp_path: Path) -> None:
    """kill -9 cannot show this: only FULL survives a power cut."""
    async with SqliteQueue(tmp_path / "queue.sqlite") as queue:
        mode = await queue._file.write(lambda db: db.execute("PRAGMA synchronous").fetchone()[0])
        journal = await queue._file.write(lambda db: db.execute("PRAGMA journal_mode").fetchone())

    assert (mode, journal) == (2, ("wal",))
