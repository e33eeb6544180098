"""Keeps the day's spending in a file, so that a restart gives nobody the day's money again."""

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import structlog

from liner_server.core.costs import Spending

_log = structlog.get_logger()

_EVERY_SECONDS = 2.0
"""What a crash may forget at most, and how often a busy service writes a few hundred bytes."""

_MOST_BYTES = 64 << 10


class SpendingFile:
    """Restores `spending` from a file, and writes it there while the context is open.

    A file that cannot be read or written is logged and costs no answer: then the day's sums are
    those of this process.
    """

    def __init__(self, path: Path, spending: Spending) -> None:
        self._path = path
        self._spending = spending
        self._written: dict[str, Any] | None = None
        self._complained = False
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            data = await asyncio.to_thread(_read, self._path)
            if data is not None:
                self._spending.restore(json.loads(data))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            _log.error("spending of today is not known", path=str(self._path), error=repr(error))
        self._writing = asyncio.create_task(self._write_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        await self._write()

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            await self._write()

    async def _write(self) -> None:
        state = self._spending.state()
        if state == self._written or not state["providers"]:
            return
        try:
            # Shielded: whoever stops us waits for the end of a write that has begun.
            await asyncio.shield(asyncio.to_thread(_replace, self._path, json.dumps(state)))
        except OSError as error:
            if not self._complained:
                _log.error("spending cannot be kept", path=str(self._path), error=repr(error))
            self._complained = True
            return
        self._written, self._complained = state, False


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too large")
    return data


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
