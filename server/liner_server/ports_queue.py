"""The boundary to the queue: jobs that are durable before anybody is told so.

`tests/contracts/test_job_queue.py` holds every backend to these docstrings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from liner.v1 import queue_admin_pb2, track_pb2

from liner_server.core.enums import Cause

NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})
"""What a message carries beside its job when nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A message that one worker has for a while."""

    message: queue_admin_pb2.QueueMessage
    """As of the lease: LEASED, `delivery_attempt` counted, `attempts` of the past ones. Its `job`
    is unset when the bytes on the queue are no job."""

    token: str
    """Fences off workers whose lease has ended: no other lease ever has the same one."""


class JobQueue(Protocol):
    """Keeps jobs until they are done, at least once each, and what became of those that failed.

    **Durable.** A call that changes something has done so for good when it returns, whatever is
    killed afterwards. A call that is cancelled or ends in an error may have changed it or not.

    **Leases.** `lease` hands a message to one worker for a time. Whoever's lease has ended, by
    the clock or by `ack`, `nack`, `release` or `dead_letter`, is refused from then on with
    ConflictError (reason LEASE_LOST) and changes nothing, also if nobody has the message yet. A
    message whose lease ended by the clock is due again, in its old place in the order, and that
    attempt stays in its history without an end. The history holds the newest 100 attempts.

    **Attempts** are counted when a message is leased, so that one that kills its worker is
    counted too. The queue counts and never gives up: that is its user's to decide.

    **Order.** Priorities that have due messages are served 8 (HIGH) : 3 (MEDIUM) : 1 (LOW).
    Within a priority the tenants with due messages take turns, and a tenant's messages come by
    due time, those of equal time as they were published. None of it is a promise across workers.

    **Request ids.** While a job is on the queue, and for 7 days from its publication, publishing
    the same request id of the same tenant again makes no second job.

    **Dead letters** are kept 7 days from their death, and then dropped; a clock that jumped
    drops none.

    Every call may raise UnavailableError (the backend cannot be reached or is locked; retryable),
    FailedPreconditionError (it cannot be written) and DataLossError (what it kept is damaged);
    what puts something on the queue also ResourceExhaustedError (there is no room; reason
    DISK_FULL). Without room what is on the queue can still be leased, finished, made a dead
    letter and purged.
    """

    async def publish(
        self,
        job: queue_admin_pb2.EnrichmentJob,
        *,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        not_before: datetime | None = None,
    ) -> str:
        """Put a job on the queue and return its id; `job` is not changed.

        The id is `job.job_id`, or made if that is empty. Priority, tenant and request id are the
        job's; an unspecified priority is MEDIUM. The job is due at `not_before` (aware of its
        time zone), at once if that is None or past.

        When the tenant used the request id before with the same content (all of the job but its
        id, and `not_before`), nothing is changed and the first job's id returned.

        Raises:
            AlreadyExistsError: the request id came with other content (REQUEST_ID_REUSED), or
                there is a message with this job id (JOB_ID_TAKEN).
            ResourceExhaustedError: there is no room.
            InvalidRequestError: this backend cannot keep it, above all for so long (TOO_LATE).

        """

    async def lease(
        self, *, limit: int, duration: timedelta, wait: timedelta = timedelta(0)
    ) -> list[Lease]:
        """Return at most `limit` due messages, leased for `duration`.

        Returns as soon as there is one, and with none when `wait` is over; a paused queue has
        none. Let the call end: what a cancelled one leased stays leased until `duration` is over.
        """

    async def extend(self, lease: Lease, duration: timedelta) -> None:
        """Let the lease end `duration` from now.

        Raises:
            ConflictError: the lease is lost.

        """

    async def ack(self, lease: Lease) -> None:
        """Take a finished message off the queue, with its history.

        Raises:
            ConflictError: the lease is lost.

        """

    async def nack(
        self,
        lease: Lease,
        *,
        delay: timedelta,
        error: track_pb2.Error | None = None,
        model: str = "",
    ) -> None:
        """End a failed attempt: it goes into the history, and the message is due in `delay`.

        Raises:
            ConflictError: the lease is lost.

        """

    async def release(self, lease: Lease, *, delay: timedelta = timedelta(0)) -> None:
        """Give a message back as if it had not been leased: the attempt is not counted.

        It keeps its place in the order unless there is a delay.

        Raises:
            ConflictError: the lease is lost.

        """

    async def dead_letter(
        self,
        lease: Lease,
        *,
        cause: Cause,
        error: track_pb2.Error | None = None,
        model: str = "",
    ) -> None:
        """End the last attempt: it goes into the history, and the message is a dead letter.

        Raises:
            ConflictError: the lease is lost.

        """

    async def stats(self) -> queue_admin_pb2.QueueStats:
        """Return the counts; costs the same however long the queue is."""

    async def get(self, message_id: str) -> queue_admin_pb2.QueueMessage:
        """Return a message, dead letters included.

        Raises:
            NotFoundError: no such message; a job that is done is none (MESSAGE_NOT_FOUND).

        """

    async def list_messages(
        self, request: queue_admin_pb2.ListMessagesRequest
    ) -> queue_admin_pb2.ListMessagesResponse:
        """Return a page of messages that are not dead, in the order of their publication.

        With `filter.state` DEAD it is a page of dead letters, in that order too. A message is on
        at most one page, and on one if it was there all the time that the pages were read.

        Raises:
            InvalidRequestError: the page token is none of this listing's (PAGE_TOKEN).

        """

    async def list_dead_letters(
        self, request: queue_admin_pb2.ListDeadLettersRequest
    ) -> queue_admin_pb2.ListDeadLettersResponse:
        """Return a page of dead letters, the newest death first. `filter.state` is not looked at.

        Raises:
            InvalidRequestError: the page token is none of this listing's (PAGE_TOKEN).

        """

    async def retry(self, message_id: str) -> queue_admin_pb2.QueueMessage:
        """Make a delayed message due now and return it; one that is due stays as it is.

        Raises:
            NotFoundError: no such message (MESSAGE_NOT_FOUND).
            FailedPreconditionError: it is leased (MESSAGE_LEASED) or dead (MESSAGE_DEAD).

        """

    async def replay(
        self, request: queue_admin_pb2.ReplayDeadLettersRequest
    ) -> queue_admin_pb2.ReplayDeadLettersResponse:
        """Put the dead letters that the request chooses back on the queue, oldest first.

        Their history stays, their attempts count anew. With `max_per_second` they are due one
        after the other at that rate. Ids that are no dead letter's are passed over. An
        `edited_job` takes the old one's place; id, tenant and request id stay, as does the
        priority where the new one states none. The same `request_id` gets the first answer again
        for 7 days. With `validate_only` nothing is changed and the answer says what would be.

        Raises:
            AlreadyExistsError: the request id asked for another replay before (REQUEST_ID_REUSED).
            InvalidRequestError: this backend cannot keep the last ones for so long (TOO_LATE).
            ResourceExhaustedError: there is no room.

        """

    async def purge(
        self, request: queue_admin_pb2.PurgeDeadLettersRequest
    ) -> queue_admin_pb2.PurgeDeadLettersResponse:
        """Delete the dead letters that the request chooses, as far as they are dead already.

        With `validate_only` nothing is changed and the answer says what would be.
        """

    async def pause(self, *, by: str, reason: str) -> queue_admin_pb2.QueueStats:
        """Stop handing out, across restarts, and return the counts.

        What is leased may be finished, publishing goes on. A paused queue stays as it is paused.
        """

    async def resume(self) -> queue_admin_pb2.QueueStats:
        """Hand out again, and return the counts."""
