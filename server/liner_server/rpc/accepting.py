"""The one loop of grpc.aio's that accepts every call: kept alive, and watched.

It decodes the path of each call before any code of ours is asked. A path that is not UTF-8 raises
there, and the whole server shuts down: anybody who reaches the port could end it with one request,
unauthenticated. No option of grpc's prevents it.
"""

import asyncio
import codecs
from typing import Any

_LOOP = "AioServer._server_main_loop"
"""Its coroutine; a test sends such a path, should the name change."""


def tolerate_undecodable_names() -> None:
    """Let grpc read such a name with a replacement character in it: nobody's method.

    This is the strict handler of decoding errors for the whole process, for grpc names no other.
    It raises as Python's own does, everywhere but in that loop.
    """
    codecs.register_error("strict", _strict)


def loops() -> set[asyncio.Task[Any]]:
    """Return the tasks in which servers of this event loop accept calls; one that ends is broken
    or was stopped. grpc tells nobody: its wait for the end goes on for ever when the loop fails.
    """
    return {task for task in asyncio.all_tasks() if _accepts(task)}


def _strict(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        try:
            task = asyncio.current_task()
        except RuntimeError:
            # No event loop in this thread.
            task = None
        if task is not None and _accepts(task):
            return "\N{REPLACEMENT CHARACTER}", error.end
    raise error


def _accepts(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "") == _LOOP
