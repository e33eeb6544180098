"""What a long run has done, line by line on disk, so that it can go on after any kind of stop.

The first line says with which options the run was made; each further one holds a finished input:
its size and time, to notice a file that changed since, and its record. A line is on disk before
the next is written. A last line that was torn by a crash is dropped.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from liner_client.inputs import Entry, InputError
from liner_client.scratch import Scratch

_VERSION = 1
_BEGINNING = b'{"liner_checkpoint": '
_BLOCK = 1024 * 1024


class Checkpoint:
    """A run's record on disk."""

    def __init__(self, path: Path, options: Mapping[str, Any], *, resume: bool) -> None:
        """Open or begin the file.

        Raises:
            InputError: it is there and `resume` was not asked for, it is not a checkpoint, or
                it was made with other options, so that its answers are to another question.

        """
        self._path = path
        # Records stay in the file: what is remembered of each is where it stands.
        self._places = Scratch(
            "CREATE TABLE done (item_id TEXT PRIMARY KEY, place INTEGER, good INTEGER)"
        )
        header = {"liner_checkpoint": _VERSION, "options": dict(options)}
        there = path.exists()
        known = False
        for place, line in _lines(path) if there else ():
            if place == 0:
                known = True
                if not resume:
                    raise InputError(f"{path} is there already: --resume goes on with it")
                if line != header:
                    raise InputError(f"{path} is no checkpoint of a run with the same options")
                continue
            self._places.run(
                "INSERT OR REPLACE INTO done VALUES (?, ?, 0)", (line["record"]["item_id"], place)
            )
        if there:
            _cut_torn_line(path)
        # Not buffered: what a full disk refused must not be written later, behind other lines.
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._known: BinaryIO = path.open("rb")
        if not known:
            self._write(header)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._known.close()

    def record_of(self, entry: Entry) -> dict[str, Any] | None:
        """Return what was found for an input before; None if it failed, changed or was not done.

        Whether it changed is looked at once: a file that changes later is known all the same.
        """
        found = self._places.row("SELECT place, good FROM done WHERE item_id = ?", (entry.item_id,))
        if found is None:
            return None
        place, good = found
        self._known.seek(place)
        line = json.loads(self._known.readline())
        if not good:
            if line["made_of"] != _made_of(entry) or "error" in line["record"]:
                self._places.run("DELETE FROM done WHERE item_id = ?", (entry.item_id,))
                return None
            self._places.run("UPDATE done SET good = 1 WHERE item_id = ?", (entry.item_id,))
        record: dict[str, Any] = line["record"]
        return record

    def add(self, entry: Entry, record: Mapping[str, Any]) -> None:
        """Keep a record; returns when it is on disk."""
        self._write({"made_of": _made_of(entry), "record": record})

    def _write(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self._path)
            raise


def _made_of(entry: Entry) -> list[Any]:
    """Return what an answer depends on: the statement, and the file's size and time."""
    if entry.path is None:
        return [entry.row]
    try:
        facts = entry.path.stat()
    except OSError:
        return [entry.row, None]
    return [entry.row, facts.st_size, facts.st_mtime_ns]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the whole lines of a checkpoint and where each begins."""
    place, torn = 0, b""
    with path.open("rb") as file:
        for text in file:
            if not text.endswith(b"\n"):
                torn = text
                break
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            wanted = {"made_of", "record"} if place else set()
            if not isinstance(line, dict) or not wanted <= line.keys():
                raise InputError(f"{path} is not a checkpoint")
            yield place, line
            place += len(text)
    # A run that died in its first line leaves the beginning of one; anything else is someone's.
    if not place and not torn.startswith(_BEGINNING[: len(torn)]):
        raise InputError(f"{path} is not a checkpoint")


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        # Backwards to the last line's end: the file may be far larger than memory.
        while end:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        file.truncate(end)
