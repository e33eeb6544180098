"""The local object store's index: which names there are, in one SQLite file.

Used from one thread. A name's row is what makes an object exist; a file's row in `doomed` is what
makes the next start delete it.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liner.v1 import storage_pb2

from liner_server.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidRequestError,
    LinerError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from liner_server.objects.names import check_generation

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects(
  name TEXT PRIMARY KEY, generation INT NOT NULL, facts BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads(
  upload_id TEXT PRIMARY KEY, object_name TEXT NOT NULL, expires REAL NOT NULL,
  object BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS doomed(file TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter(one INT PRIMARY KEY CHECK (one = 1), generation INT NOT NULL);
INSERT OR IGNORE INTO counter VALUES (1, 0);
"""

_LAST = chr(0x10FFFF)
"""No name has this character, so it closes the range of names that begin with a prefix."""


class Index:
    """Names, generations and facts of the objects in one folder."""

    def __init__(self, path: Path) -> None:
        with _translated():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA busy_timeout=5000")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, name: str) -> storage_pb2.StoredObject:
        """Return an object's facts.

        Raises:
            NotFoundError: no such object.

        """
        row = self._row("SELECT facts FROM objects WHERE name = ?", name)
        if row is None:
            raise NotFoundError(f"no object {name}", reason="OBJECT_NOT_FOUND", resource=name)
        return storage_pb2.StoredObject.FromString(row[0])

    def check(self, name: str, expected: int | None) -> None:
        """Pass if the object's generation is the expected one; 0 expects no such object.

        Raises:
            ConflictError: it is another.

        """
        row = self._row("SELECT generation FROM objects WHERE name = ?", name)
        check_generation(name, row[0] if row else 0, expected)

    def names(self, prefix: str, after: str, limit: int) -> list[storage_pb2.StoredObject]:
        """Return objects by name in byte order, which is SQLite's own for text."""
        with _translated():
            rows = self._db.execute(
                "SELECT facts FROM objects WHERE name >= ? AND name > ? AND name < ? "
                "ORDER BY name LIMIT ?",
                (prefix, after, prefix + _LAST, limit),
            )
            return [storage_pb2.StoredObject.FromString(facts) for (facts,) in rows]

    def next_generation(self) -> int:
        """Return a number greater than all before: time in microseconds, if the clock agrees."""
        with self._transaction():
            (last,) = self._db.execute("SELECT generation FROM counter").fetchone()
            generation: int = max(last + 1, time.time_ns() // 1000)
            self._db.execute("UPDATE counter SET generation = ?", (generation,))
        return generation

    def put(
        self, stored: storage_pb2.StoredObject, expected: int | None, upload_id: str
    ) -> str | None:
        """Make an object visible; return the file it replaces, which is doomed now.

        Raises:
            ConflictError: its generation is not the expected one.

        """
        name = stored.object_name
        with self._transaction():
            self.check(name, expected)
            row = self._row("SELECT generation FROM objects WHERE name = ?", name)
            replaced = file_name(name, row[0]) if row else None
            facts = stored.SerializeToString()
            self._db.execute(
                "INSERT INTO objects VALUES (?, ?, ?) ON CONFLICT(name) DO UPDATE SET "
                "generation = excluded.generation, facts = excluded.facts",
                (name, stored.generation, facts),
            )
            self._db.execute(
                "DELETE FROM doomed WHERE file = ?", (file_name(name, stored.generation),)
            )
            self._db.execute(
                "UPDATE uploads SET object = ? WHERE upload_id = ?", (facts, upload_id)
            )
            if replaced:
                self._db.execute("INSERT OR IGNORE INTO doomed VALUES (?)", (replaced,))
        return replaced

    def delete(self, name: str, expected: int | None) -> str:
        """Make an object vanish; return its file, which is doomed now.

        Raises:
            NotFoundError: no such object.
            ConflictError: its generation is not the expected one.

        """
        with self._transaction():
            stored = self.get(name)
            self.check(name, expected)
            file = file_name(name, stored.generation)
            self._db.execute("DELETE FROM objects WHERE name = ?", (name,))
            self._db.execute("INSERT OR IGNORE INTO doomed VALUES (?)", (file,))
        return file

    def delete_all(
        self, objects: Iterable[storage_pb2.StoredObject]
    ) -> list[storage_pb2.StoredObject]:
        """Make these generations vanish in one step; return those that were there.

        Their files are doomed now.
        """
        deleted = []
        with self._transaction():
            for stored in objects:
                gone = self._db.execute(
                    "DELETE FROM objects WHERE name = ? AND generation = ?",
                    (stored.object_name, stored.generation),
                )
                if gone.rowcount:
                    deleted.append(stored)
            self._db.executemany(
                "INSERT OR IGNORE INTO doomed VALUES (?)",
                ((file_name(stored.object_name, stored.generation),) for stored in deleted),
            )
        return deleted

    def doom(self, file: str) -> None:
        """Let the next start delete a file, unless `put` or `forget` comes first."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO doomed VALUES (?)", (file,))

    def doomed(self) -> list[str]:
        """Return the files that a crash left behind."""
        with _translated():
            return [file for (file,) in self._db.execute("SELECT file FROM doomed")]

    def forget(self, *files: str) -> None:
        """Say that doomed files are gone."""
        with self._transaction():
            self._db.executemany("DELETE FROM doomed WHERE file = ?", ((file,) for file in files))

    def begin_upload(self, spec: storage_pb2.UploadSpec, expires: float) -> bool:
        """Remember a resumable upload; return whether it goes on.

        One that was finished or has expired begins anew.

        Raises:
            InvalidRequestError: the id belongs to an upload of another name.

        """
        with self._transaction():
            row = self._row(
                "SELECT object_name, object FROM uploads WHERE upload_id = ? AND expires > ?",
                spec.upload_id,
                time.time(),
            )
            if row is not None and row[0] != spec.object_name:
                raise InvalidRequestError.of(
                    "spec.upload_id", "belongs to an upload of another object", "UPLOAD_ID_TAKEN"
                )
            self._db.execute(
                "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, NULL)",
                (spec.upload_id, spec.object_name, expires),
            )
        return row is not None and row[1] is None

    def upload(self, upload_id: str) -> storage_pb2.QueryUploadResponse | None:
        """Return what is known of an upload; its size is the part file's."""
        row = self._row(
            "SELECT expires, object FROM uploads WHERE upload_id = ? AND expires > ?",
            upload_id,
            time.time(),
        )
        if row is None:
            return None
        known = storage_pb2.QueryUploadResponse()
        known.expire_time.FromNanoseconds(int(row[0] * 1e9))
        if row[1] is not None:
            known.object.ParseFromString(row[1])
            known.persisted_size = known.object.size_bytes
        return known

    def expired_uploads(self) -> list[str]:
        """Return the ids of uploads whose time is over."""
        with _translated():
            rows = self._db.execute(
                "SELECT upload_id FROM uploads WHERE expires <= ?", (time.time(),)
            )
            return [upload_id for (upload_id,) in rows]

    def forget_upload(self, upload_id: str) -> None:
        """Forget an upload whose time is over, unless it has begun anew meanwhile."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM uploads WHERE upload_id = ? AND expires <= ?", (upload_id, time.time())
            )

    def live_uploads(self) -> list[str]:
        """Return the ids whose parts are to be kept, and forget those that have expired."""
        with self._transaction():
            self._db.execute("DELETE FROM uploads WHERE expires <= ?", (time.time(),))
            rows = self._db.execute("SELECT upload_id FROM uploads WHERE object IS NULL")
            return [upload_id for (upload_id,) in rows]

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with _translated():
            row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
            return row

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def file_name(name: str, generation: int) -> str:
    """Return where an object generation lies below data/: a digest, in one of 256 folders."""
    digest = hashlib.sha256(f"{generation}\0{name}".encode()).hexdigest()
    return f"{digest[:2]}/{digest[2:]}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _error(error) from error


def _error(error: sqlite3.Error) -> LinerError:
    text = f"the object index: {error}"
    code = getattr(error, "sqlite_errorname", "") or ""
    if code.startswith("SQLITE_FULL"):
        return ResourceExhaustedError(text, reason="DISK_FULL")
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return FailedPreconditionError(text, reason="DISK_READ_ONLY")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DataLossError(text, reason="INDEX_CORRUPT")
    return UnavailableError(text, reason="INDEX")
