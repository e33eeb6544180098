"""What a long run must remember and memory need not hold: a table in a temporary file.

SQLite deletes the file as soon as it is open, so nobody else sees it and no kind of end leaves it
behind; a small table never leaves memory. It lies where SQLite puts such files (`TMPDIR`).
"""

import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

_CACHE_KIB = 16 * 1024


class ScratchError(Exception):
    """The temporary file cannot be written or read; the text says why."""


class Scratch:
    """One table, for one thread."""

    def __init__(self, table: str) -> None:
        """Make the table from its statement."""
        self._connection = sqlite3.connect("", isolation_level=None)
        weakref.finalize(self, self._connection.close)
        for statement in (f"PRAGMA cache_size=-{_CACHE_KIB}", "PRAGMA journal_mode=OFF", table):
            self.run(statement)

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement that changes something; return how many rows it changed."""
        try:
            return self._connection.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise ScratchError(_told(error)) from None

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a question; more may be asked meanwhile."""
        try:
            yield from self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise ScratchError(_told(error)) from None

    def row(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Return the first row of an answer, None without one."""
        return next(self.rows(statement, values), None)


def _told(error: sqlite3.Error) -> str:
    return f"the inputs do not fit into a temporary file (TMPDIR): {error}"
