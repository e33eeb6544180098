"""What a long run has done, line by line on disk, so that it can go on after any kind of stop.

The first line says with which options the run was made; each further one holds a finished input:
its size and time, to notice a file that changed since, and its record. A line is on disk before
the next is written. A last line that was torn by a crash is dropped.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from liner_client.inputs import Entry, InputError

_VERSION = 1
_BEGINNING = b'{"liner_checkpoint": '


class Checkpoint:
    """A run's record on disk."""

    def __init__(self, path: Path, options: Mapping[str, Any], *, resume: bool) -> None:
        """Open or begin the file.

        Raises:
            InputError: it is there and `resume` was not asked for, it is not a checkpoint, or
                it was made with other options, so that its answers are to another question.

        """
        self._done: dict[str, dict[str, Any]] = {}
        header = {"liner_checkpoint": _VERSION, "options": dict(options)}
        there = path.exists()
        known = _lines(path) if there else []
        if known and not resume:
            raise InputError(f"{path} is there already: --resume goes on with it")
        if known and known[0] != header:
            raise InputError(f"{path} is no checkpoint of a run with the same options")
        for line in known[1:]:
            self._done[line["record"]["item_id"]] = line
        if there:
            _cut_torn_line(path)
        self._file: BinaryIO = path.open("ab")
        if not known:
            self._write(header)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def record_of(self, entry: Entry) -> dict[str, Any] | None:
        """Return what was found for an input before; None if it failed, changed or was not done."""
        line = self._done.get(entry.item_id)
        if line is None or line["made_of"] != _made_of(entry) or "error" in line["record"]:
            return None
        record: dict[str, Any] = line["record"]
        return record

    def add(self, entry: Entry, record: Mapping[str, Any]) -> None:
        """Keep a record; returns when it is on disk."""
        self._write({"made_of": _made_of(entry), "record": record})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _made_of(entry: Entry) -> list[Any]:
    """Return what an answer depends on: the statement, and the file's size and time."""
    if entry.path is None:
        return [entry.row]
    try:
        facts = entry.path.stat()
    except OSError:
        return [entry.row, None]
    return [entry.row, facts.st_size, facts.st_mtime_ns]


def _lines(path: Path) -> list[dict[str, Any]]:
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        lines = [{}]
    if not all(isinstance(line, dict) for line in lines) or not all(
        {"made_of", "record"} <= line.keys() for line in lines[1:]
    ):
        raise InputError(f"{path} is not a checkpoint")
    # A run that died in its first line leaves the beginning of one; anything else is someone's.
    if not lines and not path.read_bytes().startswith(_BEGINNING[: path.stat().st_size]):
        raise InputError(f"{path} is not a checkpoint")
    return lines


def _cut_torn_line(path: Path) -> None:
    whole, newline, _ = path.read_bytes().rpartition(b"\n")
    os.truncate(path, len(whole) + len(newline))
