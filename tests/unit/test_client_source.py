"""What a batch takes from its caller is sent, whatever becomes of the stream meanwhile."""

import asyncio
from collections.abc import AsyncIterator

from liner.v1 import track_pb2
from liner_client.batch import _Source


async def test_a_message_whose_gathering_was_broken_off_is_gathered_again() -> None:
    """A stream that breaks while a slow source is waited for must not take items with it."""
    waits, more = asyncio.Event(), asyncio.Event()

    async def items() -> AsyncIterator[tuple[str, track_pb2.Track]]:
        for n in range(4):
            yield f"item-{n}", track_pb2.Track()
        waits.set()
        await more.wait()
        yield "item-4", track_pb2.Track()

    source = _Source(items())
    taking = asyncio.ensure_future(source.take(5))
    await waits.wait()
    taking.cancel()
    await asyncio.wait({taking})
    more.set()

    taken = await source.take(5)

    assert taking.cancelled()
    assert [item.item_id for item in taken] == [f"item-{n}" for n in range(5)]
    assert await source.take(5) == []
