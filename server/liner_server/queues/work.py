"""The queue at work inside a process: its consumer runs, and its counts are shown."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Self

import structlog
from liner.v1 import queue_admin_pb2

from liner_server.ports_queue import JobQueue
from liner_server.queues.consumer import Consumer

_log = structlog.get_logger()


class QueueWork:
    """Works on jobs for as long as its context is open: `async with QueueWork(...) as work`."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        consumer: Consumer | None,
        counted: Callable[[queue_admin_pb2.QueueStats], None],
        every: timedelta = timedelta(seconds=2),
    ) -> None:
        """Take who is shown the counts, and how often; without a consumer that is all."""
        self._queue = queue
        self._consumer = consumer
        self._counted = counted
        self._every = every.total_seconds()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks.append(asyncio.create_task(self._count()))
        if self._consumer is not None:
            self._tasks.append(asyncio.create_task(self._consumer.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain(timedelta(0))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drain(self, grace: timedelta) -> None:
        """Take no more jobs and give those at work `grace` to end; may be called twice."""
        if self._consumer is not None:
            await self._consumer.drain(grace)

    async def _count(self) -> None:
        while True:
            try:
                self._counted(await self._queue.stats())
            except Exception as error:
                # The last counts stay until the queue can be read again.
                _log.warning("queue cannot be counted", error=str(error))
            await asyncio.sleep(self._every)
