"""Feature flags that an operator switches while the server runs, by writing a file.

The file holds a JSON object, with any of the settings' names and nothing else:

    {"ENABLE_EXPERIMENTAL_MODEL": false, "USE_OPENAI_FALLBACK": true}
"""

import asyncio
import json
import os
import stat
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import structlog
from liner.v1 import enrichment_pb2

_log = structlog.get_logger()

_NAMES = {field.name.upper(): field.name for field in enrichment_pb2.FeatureFlags.DESCRIPTOR.fields}
"""By what the operator writes, the field of FeatureFlags."""

_MOST_BYTES = 64 << 10
"""A larger file was not meant to be this one."""


class FlagsFileError(ValueError):
    """A flags file that cannot be taken as it is; the text says what is wrong with it."""


class FlagsFile:
    """The flags in force: what the file says, and `defaults` where it says nothing.

        async with FlagsFile(path, defaults) as flags:
            if flags.current.enable_batch_processing: ...

    The file is read before the context opens and then once an `interval`; it may be written in
    place or replaced, and may come later. It counts as a whole: with one thing wrong in it, what
    was last read without fault stays in force. So it does when the file vanishes; taking a flag
    out of the file is what returns it to its default. Each change for the worse is logged once.
    """

    def __init__(
        self,
        path: Path,
        defaults: enrichment_pb2.FeatureFlags,
        *,
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self._path = path
        self._defaults = _copied(defaults)
        self._interval = interval
        self._current = self._defaults
        self._problem = ""
        self._seen: bytes | str | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def current(self) -> enrichment_pb2.FeatureFlags:
        """The flags in force now; the caller's own copy, which does not change later."""
        return _copied(self._current)

    @property
    def problem(self) -> str:
        """Why the file as it is now is not in force, for an operator; empty when it is.

        A file that was never there is no problem: the defaults are in force.
        """
        return self._problem

    async def __aenter__(self) -> Self:
        await self._look()
        if self._seen is None:
            _log.info("no flags file yet", path=str(self._path), **_named(self._current))
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            await self._look()

    async def _look(self) -> None:
        # The whole file each time: it is small, and a file's times and size can stay the same
        # while its content does not.
        found = await asyncio.to_thread(_read, self._path)
        if found == self._seen:
            return
        self._seen = found
        try:
            taken = self._taken(found)
        except FlagsFileError as error:
            self._problem = f"{self._path}: {error}; the last good flags stay in force"
            _log.error("flags file not taken", problem=self._problem, **_named(self._current))
            return
        self._current = taken
        self._problem = ""
        _log.info("flags file taken", path=str(self._path), **_named(taken))

    def _taken(self, found: bytes | str | None) -> enrichment_pb2.FeatureFlags:
        if isinstance(found, bytes):
            return parse_flags(found, self._defaults)
        raise FlagsFileError(found or "it is gone")


def parse_flags(data: bytes, defaults: enrichment_pb2.FeatureFlags) -> enrichment_pb2.FeatureFlags:
    """Return the flags that a file's bytes state, over the defaults.

    Raises:
        FlagsFileError: it is not a JSON object of known flags, each once, each true or false.

    """
    try:
        # Some editors begin a file with a byte order mark.
        stated = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique)
    except FlagsFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise FlagsFileError("it is not JSON in UTF-8") from error
    if not isinstance(stated, dict):
        raise FlagsFileError("it is not a JSON object")
    flags = _copied(defaults)
    for name, value in stated.items():
        if name not in _NAMES:
            raise FlagsFileError(f"{name[:40]!r} is none of {', '.join(_NAMES)}")
        if not isinstance(value, bool):
            raise FlagsFileError(f"{name} is neither true nor false")
        setattr(flags, _NAMES[name], value)
    return flags


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FlagsFileError("it names a flag twice")
    return found


def _read(path: Path) -> bytes | str | None:
    """Return the file's bytes, None when there is none, or why it cannot be read."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "it is not a regular file"
            data = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return data if len(data) <= _MOST_BYTES else f"it is larger than {_MOST_BYTES} bytes"


def _without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would otherwise wait for somebody to write to it.
    return os.open(path, flags | os.O_NONBLOCK)


def _copied(flags: enrichment_pb2.FeatureFlags) -> enrichment_pb2.FeatureFlags:
    copy = enrichment_pb2.FeatureFlags()
    copy.CopyFrom(flags)
    return copy


def _named(flags: enrichment_pb2.FeatureFlags) -> dict[str, bool]:
    return {name: getattr(flags, name) for name in _NAMES.values()}
