"""Deletes rows of analytics whose time is over, and none because of a clock."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog

from liner_server.errors import LinerError
from liner_server.ports_analytics import AnalyticsSink

_log = structlog.get_logger()
_FIRST, _EVERY = timedelta(minutes=2), timedelta(hours=1)
_JUMP = timedelta(hours=1)


class AnalyticsRetention:
    """Clears an `AnalyticsSink` two minutes after its start and then once an hour, in its context.

    A round is left out when the clock has moved an hour more or less than the time that passed.
    """

    def __init__(
        self,
        sink: AnalyticsSink,
        kept: timedelta,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how long rows are kept; zero: for ever."""
        self._sink = sink
        self._kept = kept
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._kept:
            self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def clear(self) -> int:
        """Delete what is too old now; return how many rows.

        Raises:
            LinerError: the rows cannot be read or written.

        """
        before, self._offset = self._offset, self._wall() - self._steady()
        if abs(self._offset - before) > _JUMP.total_seconds():
            _log.warning("the clock jumped: no analytics are deleted this time")
            return 0
        return await self._sink.delete_before(
            datetime.fromtimestamp(self._wall(), UTC) - self._kept
        )

    async def _run(self) -> None:
        wait = _FIRST
        while True:
            await asyncio.sleep(wait.total_seconds())
            wait = _EVERY
            try:
                if deleted := await self.clear():
                    _log.info("old analytics deleted", rows=deleted)
            except LinerError as error:
                _log.warning("old analytics were not deleted", error=error.message)
