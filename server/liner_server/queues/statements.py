"""SQL for many rows at once."""

import itertools
import sqlite3
from collections.abc import Sequence, Sized


def insert(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Run an INSERT for many rows, in as few statements as there can be; return how many it wrote.

    `statement` ends in VALUES. A few lengths only, so that SQLite need not parse it each time.
    """
    written, start = 0, 0
    row = f"({marks(rows[0])})"
    for size in (128, 16, 1):
        while len(rows) - start >= size:
            part = itertools.chain.from_iterable(rows[start : start + size])
            written += db.execute(statement + ",".join([row] * size), tuple(part)).rowcount
            start += size
    return written


def marks(values: Sized) -> str:
    """Return as many question marks as there are values."""
    return ",".join("?" * len(values))
