"""One SQLite file, written by one thread that commits for many callers at once.

Every embedded store but the objects' index stands on this: WAL, `synchronous=FULL`, and a
transaction that carries all that waits, each caller's work in a savepoint of its own. A caller
is told only after the commit, so one fdatasync is shared by hundreds.

    full disk       ResourceExhaustedError; work that `reclaims` gets the ballast's room
    read-only       FailedPreconditionError, until the disk can be written again
    locked          UnavailableError after five seconds
    I/O error       UnavailableError; the file is opened anew for the next work
    corrupt         DataLossError; nothing is written from then on and the file stays as it is
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from liner_server.errors import (
    DataLossError,
    FailedPreconditionError,
    LinerError,
    ResourceExhaustedError,
    UnavailableError,
)
from liner_server.failpoints import Point, reach

_T = TypeVar("_T")
_MOST_AT_ONCE = 512
_BALLAST_BYTES = 4 << 20
_ROOM_INSIDE_BYTES = 4 << 20
"""More than any one piece of work writes."""

_OPEN = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
PRAGMA busy_timeout=5000;
PRAGMA secure_delete=OFF;
"""
"""Some builds overwrite what is deleted, which takes the room in the log that it is to make."""

Work = Callable[[sqlite3.Connection], _T]
"""What is done to the file. It runs in a thread, inside a transaction, and may be run again if
that broke: it changes nothing but the database."""

Joint = Callable[[sqlite3.Connection, Sequence[Any]], Sequence[_T | LinerError]]
"""What is done to the file for many callers in a few statements: takes what each gave, returns in
the same order what each is told. If it raises, each caller's part is done by itself."""


@dataclass(slots=True)
class _Job(Generic[_T]):
    work: Work[_T] | None
    reclaims: bool
    answer: "asyncio.Future[_T]"
    joint: Joint[_T] | None = None
    item: Any = None
    result: Any = None
    error: BaseException | None = None


class SqliteFile:
    """A file of this schema, open for this process: `async with SqliteFile(path, schema)`.

    Other processes may have it open too. The schema is run at every start: it creates what is
    not there.
    """

    def __init__(
        self, path: Path, schema: str, *, readers: int = 2, ballast_bytes: int = _BALLAST_BYTES
    ) -> None:
        self._path = path
        self._schema = schema
        self._ballast = path.with_name(path.name + ".ballast")
        self._ballast_bytes = ballast_bytes
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name=path.name, daemon=True)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix=f"{path.name}-read")
        self._mine = threading.local()
        self._read_connections: list[sqlite3.Connection] = []
        self._loop: asyncio.AbstractEventLoop
        self._db: sqlite3.Connection | None = None
        self._corrupt: LinerError | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            await self._loop.run_in_executor(self._readers, self._start)
        except BaseException:
            self._readers.shutdown()
            raise
        self._writer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        self._jobs.put(None)
        await self._loop.run_in_executor(self._readers, self._writer.join)
        self._readers.shutdown()
        for connection in (self._db, *self._read_connections):
            if connection is not None:
                connection.close()

    async def write(self, work: Work[_T], *, reclaims: bool = False) -> _T:
        """Return what `work` returned, once that is durable.

        What it raises undoes its own changes and no one else's. `reclaims` says that it makes
        room or must succeed on a full disk: the ballast is given up for it. Work whose caller was
        cancelled may still be done.

        Raises:
            LinerError: as the module says; nothing was changed.

        """
        return await self._ask(_Job(work, reclaims, self._loop.create_future()))

    async def write_together(self, joint: Joint[_T], item: Any, *, reclaims: bool = False) -> _T:
        """Return what `joint` returned for this item, once that is durable; see `write`.

        Callers of the same `joint` that wait at the same time are served by one call of it. A
        statement gives the interpreter to others and must wait for it again, so for hundreds of
        callers one statement for all costs a third of one for each.

        Raises:
            LinerError: what `joint` returned for this item, or as the module says.

        """

        return await self._ask(_Job(None, reclaims, self._loop.create_future(), joint, item))

    async def _ask(self, job: _Job[_T]) -> _T:
        if self._closed:
            raise UnavailableError("the store is closed", reason="STORE_CLOSED")
        self._jobs.put(job)
        return await job.answer

    async def read(self, work: Work[_T]) -> _T:
        """Return what `work` returned of one state of the file; it may not write.

        Raises:
            LinerError: as the module says.

        """
        try:
            return await self._loop.run_in_executor(self._readers, self._read, work)
        except DataLossError as error:
            self._corrupt = error
            raise

    # Below: called in threads.

    def _start(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _translated(self._path.name):
            self._db = self._connect()
            self._db.executescript(self._schema)
        self._keep_ballast()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            db.executescript(_OPEN)
        except BaseException:
            db.close()
            raise
        return db

    def _read(self, work: Work[_T]) -> _T:
        db: sqlite3.Connection | None = getattr(self._mine, "db", None)
        with _translated(self._path.name):
            if db is None:
                db = self._mine.db = self._connect()
                self._read_connections.append(db)
                db.execute("PRAGMA query_only=ON")
            try:
                db.execute("BEGIN")
                found = work(db)
                db.execute("ROLLBACK")
            except BaseException:
                # Whatever is wrong with this connection, the next read gets another.
                self._mine.db = None
                self._read_connections.remove(db)
                db.close()
                raise
            return found

    def _write_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            group, last = [job], False
            while len(group) < _MOST_AT_ONCE:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                group.append(more)
            group = [job for job in group if not job.answer.cancelled()]
            self._write_group(group)
            # One wake-up of the loop tells all. A loop that is closed has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_tell, group)
            if last:
                return

    def _write_group(self, group: list[_Job[Any]]) -> None:
        failed: LinerError | None = None
        try:
            self._transact(group)
        except (ResourceExhaustedError, sqlite3.Error):
            # The transaction is gone with everybody's work. Alone, each fails for itself only:
            # on a full disk those that need no room still succeed.
            for job in group:
                if failed is None:
                    failed = self._write_alone(job)
                else:
                    job.error = failed
        except LinerError as error:
            for job in group:
                job.error = error

    def _write_alone(self, job: _Job[Any]) -> LinerError | None:
        """Do one job; return the error if it is one that all others would meet too."""
        try:
            try:
                self._transact([job])
            except ResourceExhaustedError:
                # The log is what fills a disk beside the file: it is emptied first.
                self._checkpoint()
                self._transact([job])
        except ResourceExhaustedError as error:
            job.error = error
            if (job.reclaims or self._has_room_inside()) and self._drop_ballast():
                self._checkpoint()
                try:
                    self._transact([job])
                except (LinerError, sqlite3.Error) as again:
                    job.error = again
                self._checkpoint()
                self._keep_ballast()
        except LinerError as error:
            job.error = error
            return error
        except sqlite3.Error as error:
            # A statement that SQLite refuses is a fault of ours, and this job's alone.
            job.error = error
        return None

    def _transact(self, group: list[_Job[Any]]) -> None:
        """Do the work of a group and commit; afterwards each job has its result or its error."""
        if self._corrupt is not None:
            raise self._corrupt
        try:
            with _translated(self._path.name):
                if self._db is None:
                    self._db = self._connect()
                db = self._db
                try:
                    db.execute("BEGIN IMMEDIATE")
                    for part in _parts(group):
                        _do_together(db, part)
                        reach(Point.MID_COMMIT)
                    db.execute("COMMIT")
                    reach(Point.AFTER_COMMIT)
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
        except DataLossError as error:
            self._corrupt = error
            raise
        except (UnavailableError, FailedPreconditionError) as error:
            if error.reason != "STORE_LOCKED" and self._db is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
                self._db = None
            raise

    def _checkpoint(self) -> None:
        # The log's room goes back to the disk, so that the ballast has a chance.
        with contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _has_room_inside(self) -> bool:
        # What was deleted left free pages: a write that fits into them needs room in the log only,
        # which the ballast lends and gets back.
        try:
            if self._db is None:
                return False
            (pages,) = self._db.execute("PRAGMA freelist_count").fetchone()
            (size,) = self._db.execute("PRAGMA page_size").fetchone()
        except sqlite3.Error:
            return False
        return bool(pages * size >= _ROOM_INSIDE_BYTES)

    def _drop_ballast(self) -> bool:
        try:
            self._ballast.unlink()
        except OSError:
            return False
        return True

    def _keep_ballast(self) -> None:
        with contextlib.suppress(OSError):
            if not self._ballast_bytes or self._ballast.exists():
                return
            handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(handle, 0, self._ballast_bytes)
            except OSError:
                self._ballast.unlink()
            finally:
                os.close(handle)


def _parts(group: list[_Job[Any]]) -> Iterator[list[_Job[Any]]]:
    """Yield the jobs that one call does: all of a joint, in the place of its first one.

    None of their callers has heard anything yet, so no order between them was promised.
    """
    joints: dict[Joint[Any], list[_Job[Any]]] = {}
    order: list[list[_Job[Any]]] = []
    for job in group:
        if job.joint is None:
            order.append([job])
            continue
        part = joints.get(job.joint)
        if part is None:
            part = joints[job.joint] = []
            order.append(part)
        part.append(job)
    yield from order


def _do_together(db: sqlite3.Connection, part: list[_Job[Any]]) -> None:
    """Do the work of a part; only what breaks the whole transaction is raised."""
    joint = part[0].joint
    if joint is None or len(part) == 1:
        for job in part:
            _do(db, job)
        return
    db.execute("SAVEPOINT part")
    try:
        found = joint(db, [job.item for job in part])
    except sqlite3.IntegrityError:
        found = None
    except sqlite3.Error:
        raise
    except Exception:
        # One of them spoils it for the others, and hears so alone.
        found = None
    if found is None:
        db.execute("ROLLBACK TO part")
    db.execute("RELEASE part")
    if found is None:
        for job in part:
            _do(db, job)
        return
    for job, told in zip(part, found, strict=True):
        job.result, job.error = (None, told) if isinstance(told, LinerError) else (told, None)


def _do(db: sqlite3.Connection, job: _Job[Any]) -> None:
    """Do one job's work in its savepoint; only what breaks the whole transaction is raised."""
    job.result, job.error = None, None
    db.execute("SAVEPOINT job")
    try:
        if job.joint is not None:
            [job.result] = job.joint(db, [job.item])
            if isinstance(job.result, LinerError):
                job.error = job.result
        elif job.work is not None:
            job.result = job.work(db)
    except sqlite3.IntegrityError as error:
        job.error = error
    except sqlite3.Error:
        raise
    except Exception as error:
        # What the work itself refuses is its caller's to hear.
        job.error = error
    if job.error is not None:
        db.execute("ROLLBACK TO job")
    db.execute("RELEASE job")


def _tell(group: list[_Job[Any]]) -> None:
    for job in group:
        if job.answer.done():
            continue
        if job.error is not None:
            job.answer.set_exception(job.error)
        else:
            job.answer.set_result(job.result)


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", "")
        if code == "SQLITE_ERROR":
            raise
        raise _error(f"{name}: {error}", code) from error


def _error(text: str, code: str) -> LinerError:
    if code.startswith("SQLITE_FULL"):
        return ResourceExhaustedError(text, reason="DISK_FULL")
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return FailedPreconditionError(text, reason="DISK_READ_ONLY")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DataLossError(text, reason="STORE_CORRUPT")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return UnavailableError(text, reason="STORE_LOCKED", retry_after=timedelta(seconds=1))
    return UnavailableError(text, reason="STORE")
