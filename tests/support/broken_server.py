"""The real server with one promise broken on purpose: `-m support.broken_server FAULT serve`.

A harness that finds nothing wrong proves nothing until it was seen to find this.
"""

import sys
from typing import Any

from liner_server.__main__ import main
from liner_server.queues import publishing, statements
from liner_server.queues.sqlite import SqliteQueue


def ack_first() -> None:
    """Take a job off the queue as it is leased: acknowledged before its result is stored."""
    lease = SqliteQueue.lease
    ack = SqliteQueue.ack

    async def lease_and_forget(self: SqliteQueue, **options: Any) -> Any:
        leases = await lease(self, **options)
        for one in leases:
            await ack(self, one)
        return leases

    async def nothing(self: SqliteQueue, lease: Any) -> None:
        """It is gone already."""

    SqliteQueue.lease = lease_and_forget  # type: ignore[method-assign]
    SqliteQueue.ack = nothing  # type: ignore[method-assign]


def forget_request_ids() -> None:
    """Make another job each time a request comes again."""

    def publish(db: Any, letter: Any, times: Any, remembered: float) -> str:
        statements.insert(db, publishing._INSERT, [publishing._row(letter, times)])
        return str(letter.job_id)

    def publish_all(db: Any, letters: Any, remembered: float) -> list[str]:
        return [publish(db, letter, times, remembered) for letter, times in letters]

    publishing.publish = publish
    publishing.publish_all = publish_all


FAULTS = {"ack-first": ack_first, "forget-request-ids": forget_request_ids}

if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    main()
