"""Putting files before a listening pool and noting how each one ended."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from liner_server.audio.errors import AudioError
from liner_server.audio.pool import ListeningPool

from support.hostile import Case


@dataclass(frozen=True)
class Status:
    """How one file ended."""

    name: str
    reason: str
    """The reason of the error, or HEARD."""

    text: str
    seconds: float


async def statuses(
    pool: ListeningPool, cases: Iterable[Case], folder: Path, *, deadline_seconds: float = 20
) -> list[Status]:
    """Return how each case ended, a few at a time; anything but an AudioError is raised."""
    places = asyncio.Semaphore(2 * pool.size)

    async def one(index: int, name: str, data: bytes) -> Status:
        path = folder / f"{index}"
        await asyncio.to_thread(path.write_bytes, data)
        started = time.monotonic()
        deadline = asyncio.get_running_loop().time() + deadline_seconds
        try:
            await pool.listen(path, name=name, deadline=deadline)
        except AudioError as error:
            reason, text = error.reason, str(error)
        else:
            reason, text = "HEARD", ""
        path.unlink()
        return Status(name, reason, text, time.monotonic() - started)

    tasks = []
    for index, (name, data) in enumerate(cases):
        await places.acquire()
        task = asyncio.create_task(one(index, name, data))
        task.add_done_callback(lambda _: places.release())
        tasks.append(task)
    return list(await asyncio.gather(*tasks))
