"""Deletes results and known answers whose time is over, and never more because of a clock."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog
from liner.v1 import enrichment_pb2

from liner_server.errors import LinerError
from liner_server.ports import ResultStore

_log = structlog.get_logger()
_FIRST, _EVERY = timedelta(minutes=1), timedelta(hours=1)
_JUMP = timedelta(hours=1)


class ResultsRetention:
    """Clears a `ResultStore` a minute after its start and then once an hour, in its context.

    Age counts from now, or from the newest result if that is older. A round is left out when the
    clock has moved an hour more or less than the time that passed: a wrong clock, set right soon,
    has then deleted nothing.
    """

    def __init__(
        self,
        store: ResultStore,
        *,
        results: timedelta,
        answers: timedelta,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how long each is kept; zero: for ever."""
        self._store = store
        self._results = results
        self._answers = answers
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None  # noqa: S101 - set on entering
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def clear(self) -> tuple[int, int]:
        """Delete what is too old now; return how many results and how many answers.

        Raises:
            LinerError: the store cannot be read or written.

        """
        before, self._offset = self._offset, self._wall() - self._steady()
        if abs(self._offset - before) > _JUMP.total_seconds():
            _log.warning("the clock jumped: no results are deleted this time")
            return 0, 0
        now = datetime.fromtimestamp(self._wall(), UTC)
        page = await self._store.list(
            enrichment_pb2.ListEnrichmentsRequest(
                page_size=1, order=enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST
            )
        )
        for newest in page.enrichments:
            now = min(now, newest.create_time.ToDatetime(tzinfo=UTC))
        results = answers = 0
        if self._results:
            results = await self._store.delete_before(now - self._results)
        if self._answers:
            answers = await self._store.forget_answers_before(now - self._answers)
        return results, answers

    async def _run(self) -> None:
        wait = _FIRST
        while True:
            await asyncio.sleep(wait.total_seconds())
            wait = _EVERY
            try:
                results, answers = await self.clear()
            except LinerError as error:
                _log.warning("old results were not deleted", error=str(error))
                continue
            if results or answers:
                _log.info("old results deleted", results=results, answers=answers)
