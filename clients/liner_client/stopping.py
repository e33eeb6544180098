"""How a command ends that is told to stop, by Ctrl-C or by SIGTERM, whatever it is doing.

Either way work is cancelled and cleaned up after: files that only this command uses are deleted,
processes that it started are stopped.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes, as a shell makes them of a signal: 128 and its number."""


class Stops:
    """Which signal stopped the command."""

    exit_code = INTERRUPTED

    def terminate(self, *_: object) -> None:
        """Do what Ctrl-C does, and remember that it was not one."""
        self.exit_code = TERMINATED
        signal.raise_signal(signal.SIGINT)


@contextmanager
def listening() -> Iterator[Stops]:
    """While open, SIGTERM stops the command as Ctrl-C does."""
    stops = Stops()
    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    before = signal.signal(signal.SIGTERM, stops.terminate)
    try:
        yield stops
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def at_once() -> Iterator[None]:
    """While open, the first Ctrl-C ends what blocks, such as reading from a terminal.

    Asyncio answers the first one by cancelling its task, which a call that blocks never notices.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
