"""The queues that the contract suite runs on, and jobs to put on them."""

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2
from liner_server.core.enums import Priority
from liner_server.ports_queue import JobQueue
from liner_server.queues.pubsub import PubSubQueue
from liner_server.queues.pubsub_wire import Names
from liner_server.queues.sqlite import SqliteQueue

from support.clock import ManualClock
from support.pubsub_emulator import create, shared_emulator

HIGH = enrichment_pb2.PRIORITY_HIGH
MEDIUM = enrichment_pb2.PRIORITY_MEDIUM
LOW = enrichment_pb2.PRIORITY_LOW


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One kind of queue."""

    open: Callable[[Path, ManualClock], AbstractAsyncContextManager[JobQueue]]
    """Opens the queue of a folder; again on the same folder is a restart."""

    spoil: Callable[[JobQueue, str], Awaitable[None]]
    """Turns the bytes of a waiting message into something that is no job."""


def _sqlite(folder: Path, clock: ManualClock) -> AbstractAsyncContextManager[JobQueue]:
    return SqliteQueue(folder / "queue.sqlite", clock=clock, steady=clock)


async def _spoil_sqlite(queue: JobQueue, message_id: str) -> None:
    assert isinstance(queue, SqliteQueue)
    await queue._file.write(
        lambda db: db.execute(
            "UPDATE messages SET body = ? WHERE message_id = ?", (b"\xff\xff\xff", message_id)
        )
    )


@asynccontextmanager
async def _pubsub(folder: Path, clock: ManualClock) -> AsyncIterator[JobQueue]:
    emulator = shared_emulator()
    word = f"t{zlib.crc32(bytes(folder)):08x}"
    names = Names(project="liner-test", topic=word, subscription=word)
    await create(emulator, names)
    async with PubSubQueue(
        folder / "pubsub.sqlite",
        names,
        emulator=emulator.address,
        clock=clock,
        steady=clock,
        # The suite asks for everybody's turn at once, and Pub/Sub may be slow on a busy machine.
        ahead=100,
        settle=timedelta(seconds=20),
        pull_wait=timedelta(seconds=2),
    ) as queue:
        yield queue


BACKENDS = {
    "sqlite": Backend(open=_sqlite, spoil=_spoil_sqlite),
    "pubsub": Backend(open=_pubsub, spoil=_spoil_sqlite),
}


def job(
    title: str = "x", *, priority: Priority = MEDIUM, tenant: str = "", request_id: str = ""
) -> queue_admin_pb2.EnrichmentJob:
    """Return a job for a track of this title, which is its track_id too."""
    return queue_admin_pb2.EnrichmentJob(
        track=track_pb2.Track(track_id=title, title=title),
        priority=priority,
        tenant=tenant,
        request_id=request_id,
    )
