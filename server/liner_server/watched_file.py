"""A small file of the operator's that is read again while the server runs."""

import asyncio
import os
import stat
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import structlog

_log = structlog.get_logger()


class WatchedFile(ABC):
    """What a file says, as it was last read without fault: `async with` a subclass.

    The file is read before the context opens and then once an `interval`; it may be written in
    place or replaced, and may come later. It counts as a whole: with one thing wrong in it, what
    was last read without fault stays in force. So it does when the file vanishes. Each change for
    the worse is logged once.
    """

    kind = "file"
    """What log lines call it."""

    most_bytes = 64 << 10
    """A larger file was not meant to be this one."""

    def __init__(self, path: Path, *, interval: timedelta) -> None:
        self._path = path
        self._interval = interval
        self._problem = ""
        self._seen: bytes | str | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str:
        """Why the file as it is now is not in force, for an operator; empty when it is.

        A file that was never there is no problem.
        """
        return self._problem

    async def __aenter__(self) -> Self:
        await self._look()
        if self._seen is None:
            _log.info(f"no {self.kind} file yet", path=str(self._path), **self._facts())
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Put what the file says in force.

        Raises:
            ValueError: it cannot be; the text says why, and nothing has changed.

        """

    def _facts(self) -> dict[str, Any]:
        """Return what log lines say of what is in force."""
        return {}

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            await self._look()

    async def _look(self) -> None:
        # The whole file each time: it is small, and a file's times and size can stay the same
        # while its content does not.
        found = await asyncio.to_thread(_read, self._path, self.most_bytes)
        if found == self._seen:
            return
        self._seen = found
        wrong = self._taken(found) if isinstance(found, bytes) else found or "it is gone"
        if wrong:
            self._problem = f"{self._path}: {wrong}; the last good {self.kind} stay in force"
            _log.error(f"{self.kind} file not taken", problem=self._problem, **self._facts())
            return
        self._problem = ""
        _log.info(f"{self.kind} file taken", path=str(self._path), **self._facts())

    def _taken(self, data: bytes) -> str:
        """Put it in force, or return why it cannot be."""
        try:
            self._take(data)
        except ValueError as error:
            return str(error)
        return ""


def _read(path: Path, most_bytes: int) -> bytes | str | None:
    """Return the file's bytes, None when there is none, or why it cannot be read."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "it is not a regular file"
            data = file.read(most_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return data if len(data) <= most_bytes else f"it is larger than {most_bytes} bytes"


def _without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would otherwise wait for somebody to write to it.
    return os.open(path, flags | os.O_NONBLOCK)
