"""Waits for a condition in place of sleeping for a guess."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, within: float = 10.0
) -> None:
    """Return as soon as `condition()` holds; it may be a coroutine function.

    Raises:
        AssertionError: it does not within so many seconds.

    """
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert loop.time() < end, f"still not so after {within} s"
        await asyncio.sleep(0.01)
