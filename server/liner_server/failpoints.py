"""Named places at which a fault test lets this process die, as `kill -9` would end it.

LINER_FAILPOINTS names them with the time at which to die: `before-ack:3,mid-commit:10`. It is read
by `liner-server serve` and `worker` alone. Unset, as it is everywhere but in those tests, a place
costs one look at an empty table.
"""

import os
import signal
from enum import StrEnum


class Point(StrEnum):
    """Where a process can be made to die."""

    AFTER_LEASE = "after-lease"
    """The consumer has leased jobs and not begun them."""
    BEFORE_STORE = "before-store"
    """A job is answered, nothing of it stored."""
    AFTER_STORE = "after-store"
    """The result is stored, nobody was told."""
    BEFORE_ACK = "before-ack"
    """The result is stored and announced, the job still on the queue."""
    MID_COMMIT = "mid-commit"
    """A transaction has done part of what its callers want, or all, and is not committed."""
    AFTER_COMMIT = "after-commit"
    """A transaction is committed, and none of its callers has been told."""
    AFTER_PUBLISH = "after-publish"
    """A submitted job is durable, its submitter has not been told."""
    AFTER_SEND = "after-send"
    """Pub/Sub has a message, the host's file does not know yet."""


_armed: dict[Point, int] = {}


def parsed(text: str) -> dict[Point, int]:
    """Return what LINER_FAILPOINTS says: at which time to die at which place.

    Raises:
        ValueError: it names no such place, or no time.

    """
    found = {}
    for part in filter(None, text.split(",")):
        name, _, times = part.strip().partition(":")
        try:
            found[Point(name)] = int(times or "1")
        except ValueError:
            places = ", ".join(Point)
            raise ValueError(f"must be PLACE:TIME,... with a place of {places}") from None
    return found


def arm(text: str) -> None:
    """Let this process die as `text` says."""
    _armed.update(parsed(text))


def reach(point: Point) -> None:
    """Die here if this is the time to."""
    if _armed and point in _armed:
        _armed[point] -= 1
        if _armed[point] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
