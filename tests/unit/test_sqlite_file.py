"""What every SQLite store stands on: grouped commits, and errors that say what to do."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from liner_server.errors import (
    ConflictError,
    DataLossError,
    FailedPreconditionError,
    LinerError,
    ResourceExhaustedError,
    UnavailableError,
)
from liner_server.sqlite_file import SqliteFile
from support.eventually import eventually

SCHEMA = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)"


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteFile]:
    """An open file with one empty table."""
    async with SqliteFile(tmp_path / "x.sqlite", SCHEMA) as file:
        yield file


def insert(number: int, body: bytes = b""):
    """Return work that adds a row."""
    return lambda db: db.execute("INSERT INTO t VALUES (?, ?)", (number, body)).lastrowid


def numbers(db: sqlite3.Connection) -> list[int]:
    """Read the rows there are."""
    return [number for (number,) in db.execute("SELECT id FROM t ORDER BY id")]


def fill(db: sqlite3.Connection, *, pages: int) -> None:
    """Let the database have room for so many more pages: to SQLite, that is a full disk."""
    (count,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={count + pages}")


async def test_writes_that_wait_share_a_commit(file: SqliteFile):
    """One fdatasync for hundreds of callers is what makes FULL affordable."""
    entered, go = threading.Event(), threading.Event()

    def hold(db: sqlite3.Connection) -> None:
        entered.set()
        assert go.wait(10)

    statements: list[str] = []
    await file.write(lambda db: db.set_trace_callback(statements.append))
    held = asyncio.create_task(file.write(hold))
    await eventually(entered.is_set)
    writes = [asyncio.create_task(file.write(insert(n))) for n in range(300)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(held, *writes)

    assert await file.read(numbers) == list(range(300))
    assert statements.count("COMMIT") <= 3


async def test_commits_reach_the_disk_before_the_caller_hears(file: SqliteFile):
    """A kill cannot tell FULL from NORMAL; the pragma can."""
    mode = await file.write(lambda db: db.execute("PRAGMA synchronous").fetchone()[0])
    journal = await file.write(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0])

    assert (mode, journal) == (2, "wal")


async def test_what_one_caller_breaks_is_that_callers_alone(file: SqliteFile):
    """A doubled id and a bug in the midst of a group leave its neighbours' work done."""

    def half(db: sqlite3.Connection) -> None:
        insert(10)(db)
        raise KeyError("no")

    outcomes = await asyncio.gather(
        file.write(insert(1)),
        file.write(insert(1)),
        file.write(half),
        file.write(lambda db: db.execute("SELECT nothing FROM nowhere")),
        file.write(insert(2)),
        return_exceptions=True,
    )

    assert [type(o) for o in outcomes] == [
        int,
        sqlite3.IntegrityError,
        KeyError,
        sqlite3.OperationalError,
        int,
    ]
    assert await file.read(numbers) == [1, 2]


class Inserts:
    """Adds rows for many callers at once; remembers how many each call was for."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def all(
        self, db: sqlite3.Connection, rows: Sequence[tuple[int, bytes]]
    ) -> list[int | LinerError]:
        """Refuse row 13, fail at 7 whoever else is there, and add the others."""
        self.calls.append(len(rows))
        for number, body in rows:
            insert(number, body)(db)
            if number == 7:
                raise KeyError(number)
        db.execute("DELETE FROM t WHERE id = 13")
        return [ConflictError("13", reason="UNLUCKY") if n == 13 else n for n, _ in rows]


async def together(file: SqliteFile, inserts: Inserts, rows: Sequence[tuple[int, bytes]]):
    """Write these while the writer is busy, so that they are one group; return what each hears."""
    entered, go = threading.Event(), threading.Event()

    def hold(db: sqlite3.Connection) -> None:
        entered.set()
        assert go.wait(10)

    held = asyncio.create_task(file.write(hold))
    await eventually(entered.is_set)
    writes = [asyncio.create_task(file.write_together(inserts.all, row)) for row in rows]
    await asyncio.sleep(0)
    go.set()
    await held
    return await asyncio.gather(*writes, return_exceptions=True)


async def test_callers_of_the_same_kind_are_served_by_one_call(file: SqliteFile):
    """Each hears its own answer, refusals too, in the order in which they asked."""
    inserts = Inserts()

    heard = await together(file, inserts, [(3, b""), (13, b""), (1, b"")])

    assert inserts.calls == [3]
    assert (heard[0], heard[2]) == (3, 1)
    assert isinstance(heard[1], ConflictError)
    assert await file.read(numbers) == [1, 3]


async def test_who_spoils_a_joint_call_is_refused_alone(file: SqliteFile):
    """What it had done for all is undone first: nobody's row is there twice or half."""
    inserts = Inserts()

    heard = await together(file, inserts, [(1, b""), (7, b""), (2, b""), (2, b"")])

    assert inserts.calls == [4, 1, 1, 1, 1]
    assert [type(one) for one in heard] == [int, KeyError, int, sqlite3.IntegrityError]
    assert await file.read(numbers) == [1, 2]


async def test_a_full_disk_refuses_of_a_joint_call_only_what_grows(file: SqliteFile):
    """The small one of the group is written though the large one has no room."""
    await file.write(lambda db: fill(db, pages=1))

    heard = await together(file, Inserts(), [(1, b""), (2, bytes(1 << 20))])

    assert heard[0] == 1
    assert isinstance(heard[1], ResourceExhaustedError)
    assert await file.read(numbers) == [1]


async def test_a_full_disk_refuses_what_grows_and_passes_what_shrinks(file: SqliteFile):
    """RESOURCE_EXHAUSTED for the one that needs room; the others of its group are written."""
    await file.write(insert(1, bytes(100)))
    await file.write(lambda db: fill(db, pages=1))

    outcomes = await asyncio.gather(
        file.write(insert(2)),
        file.write(insert(3, bytes(1 << 20))),
        file.write(lambda db: db.execute("DELETE FROM t WHERE id = 1").rowcount, reclaims=True),
        return_exceptions=True,
    )

    assert outcomes[0] == 2
    assert isinstance(outcomes[1], ResourceExhaustedError)
    assert outcomes[1].reason == "DISK_FULL"
    assert outcomes[2] == 1
    assert await file.read(numbers) == [2]
    await file.write(lambda db: fill(db, pages=1000))
    assert await file.write(insert(4, bytes(1 << 20))) == 4


async def test_work_that_makes_room_gets_the_ballast(file: SqliteFile, tmp_path: Path):
    """Deleting needs a little room first: it is kept aside, used, and put aside again."""
    ballast = tmp_path / "x.sqlite.ballast"
    assert ballast.stat().st_size == 4 << 20
    seen: list[bool] = []

    def grows_unless_there_is_room(db: sqlite3.Connection) -> None:
        seen.append(ballast.exists())
        fill(db, pages=1 if ballast.exists() else 1000)
        insert(1, bytes(1 << 20))(db)

    await file.write(grows_unless_there_is_room, reclaims=True)

    assert seen[-1] is False
    assert ballast.stat().st_size == 4 << 20


async def test_a_file_that_may_not_be_written_is_opened_anew(file: SqliteFile):
    """FAILED_PRECONDITION while it lasts; an operator mends the disk without a restart."""
    await file.write(lambda db: db.execute("PRAGMA query_only=ON"))

    with pytest.raises(FailedPreconditionError) as error:
        await file.write(insert(1))

    assert error.value.reason == "DISK_READ_ONLY"
    assert await file.write(insert(2)) == 2
    assert await file.read(numbers) == [2]


async def test_a_file_locked_by_another_process_is_unavailable(tmp_path: Path):
    """The caller may try again; nobody waits five seconds for each of a hundred writes."""
    async with SqliteFile(tmp_path / "x.sqlite", SCHEMA) as file:
        await file.write(lambda db: db.execute("PRAGMA busy_timeout=50"))
        other = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcomes = await asyncio.gather(
            *(file.write(insert(n)) for n in range(100)), return_exceptions=True
        )
        waited = loop.time() - started
        other.execute("ROLLBACK")
        other.close()
        await file.write(insert(1))

        assert {type(o) for o in outcomes} == {UnavailableError}
        assert {o.reason for o in outcomes if isinstance(o, UnavailableError)} == {"STORE_LOCKED"}
        assert waited < 2
        assert await file.read(numbers) == [1]


async def test_a_corrupt_file_is_left_as_it_is(tmp_path: Path):
    """DATA_LOSS, and not a byte more is written: what can be saved must stay."""
    path = tmp_path / "x.sqlite"
    async with SqliteFile(path, SCHEMA) as file:
        for number in range(200):
            await file.write(insert(number, os.urandom(500)))
    whole = bytearray(path.read_bytes())
    for page in range(1, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(whole)

    async with SqliteFile(path, SCHEMA) as file:
        with pytest.raises(DataLossError):
            await file.read(lambda db: db.execute("SELECT sum(length(body)) FROM t").fetchall())
        with pytest.raises(DataLossError):
            await file.write(lambda db: db.execute("PRAGMA user_version=7"))
    assert path.read_bytes() == bytes(whole)


async def test_what_is_no_database_stops_the_start(tmp_path: Path):
    """A wrong path in the settings must not cost somebody a file."""
    (tmp_path / "x.sqlite").write_bytes(b"dear diary " * 1000)

    with pytest.raises(DataLossError):
        async with SqliteFile(tmp_path / "x.sqlite", SCHEMA):
            pass

    assert (tmp_path / "x.sqlite").read_bytes() == b"dear diary " * 1000


async def test_readers_cannot_write(file: SqliteFile):
    """All writing is in the one thread that groups it."""
    with pytest.raises(FailedPreconditionError):
        await file.read(insert(1))

    assert await file.read(numbers) == []


async def test_closing_finishes_what_was_begun(tmp_path: Path):
    """A write that was taken is answered; one that comes later is refused."""
    async with SqliteFile(tmp_path / "x.sqlite", SCHEMA) as file:
        writes = [asyncio.create_task(file.write(insert(n))) for n in range(50)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*writes) == list(range(50))

    with pytest.raises(UnavailableError):
        await file.write(insert(99))
    async with SqliteFile(tmp_path / "x.sqlite", SCHEMA) as again:
        assert await again.read(numbers) == list(range(50))


async def test_a_caller_who_left_costs_nothing(file: SqliteFile):
    """Work whose caller was cancelled before its turn is not done."""
    entered, go = threading.Event(), threading.Event()

    def hold(db: sqlite3.Connection) -> None:
        entered.set()
        assert go.wait(10)

    held = asyncio.create_task(file.write(hold))
    await eventually(entered.is_set)
    left = asyncio.create_task(file.write(insert(1)))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    go.set()
    await held

    assert await file.write(insert(2)) == 2
    assert await file.read(numbers) == [2]
