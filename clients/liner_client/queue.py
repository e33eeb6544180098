"""The server's queue: tracks submitted to it, and what an operator asks and changes of it."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta

import grpc
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_client.connection import Connection, new_request_id
from liner_client.errors import from_call


async def submit(
    connection: Connection,
    track: track_pb2.Track,
    *,
    options: enrichment_pb2.EnrichOptions | None,
    priority: enrichment_pb2.Priority.ValueType,
    not_before: datetime | None,
    request_id: str | None,
) -> str:
    """Put a track on the queue once, however often the call has to be made; return the job's id."""
    request = enrichment_pb2.SubmitEnrichmentRequest(
        track=track,
        options=options,
        priority=priority,
        request_id=request_id or new_request_id(),
    )
    if not_before is not None:
        request.not_before.FromDatetime(not_before)
    return (await connection.unary(connection.enrichment.SubmitEnrichment, request)).job_id


class QueueClient:
    """Looks into the queue and mends it; reading needs the role queue.read, changing queue.admin.

    Every method raises a LinerError when the server refuses.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def stats(self) -> queue_admin_pb2.QueueStats:
        """Return the counts."""
        stub, request = self._connection.queue, queue_admin_pb2.GetStatsRequest()
        return (await self._connection.unary(stub.GetStats, request)).stats

    async def watch(
        self, interval: timedelta | None = None
    ) -> AsyncGenerator[queue_admin_pb2.QueueStats, None]:
        """Yield the counts now and at every interval, until closed."""
        request = queue_admin_pb2.WatchStatsRequest()
        if interval is not None:
            request.interval.FromTimedelta(interval)
        request_id = new_request_id()
        call = self._connection.queue.WatchStats(
            request, metadata=self._connection.metadata(request_id)
        )
        try:
            async for response in call:
                yield response.stats
        except grpc.aio.AioRpcError as failure:
            raise from_call(failure, request_id=request_id) from None
        finally:
            call.cancel()

    async def pause(self, reason: str = "") -> queue_admin_pb2.QueueStats:
        """Stop handing out messages, and say why."""
        request = queue_admin_pb2.PauseQueueRequest(reason=reason)
        return (await self._connection.unary(self._connection.queue.PauseQueue, request)).stats

    async def resume(self) -> queue_admin_pb2.QueueStats:
        """Hand out messages again."""
        request = queue_admin_pb2.ResumeQueueRequest()
        return (await self._connection.unary(self._connection.queue.ResumeQueue, request)).stats

    async def get(self, message_id: str) -> queue_admin_pb2.QueueMessage:
        """Return a message, dead letters included; NotFoundError without one."""
        request = queue_admin_pb2.GetMessageRequest(message_id=message_id)
        return (await self._connection.unary(self._connection.queue.GetMessage, request)).message

    async def retry(self, message_id: str) -> queue_admin_pb2.QueueMessage:
        """Make a delayed message due now."""
        request = queue_admin_pb2.RetryMessageRequest(message_id=message_id)
        return (await self._connection.unary(self._connection.queue.RetryMessage, request)).message

    async def messages(
        self, chosen: queue_admin_pb2.MessageFilter | None = None
    ) -> AsyncGenerator[queue_admin_pb2.QueueMessage, None]:
        """Yield messages that are not dead, oldest first, a page at a time."""
        request = queue_admin_pb2.ListMessagesRequest(filter=chosen, page_size=100)
        while True:
            page = await self._connection.unary(self._connection.queue.ListMessages, request)
            for message in page.messages:
                yield message
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def dead_letters(
        self, chosen: queue_admin_pb2.MessageFilter | None = None
    ) -> AsyncGenerator[queue_admin_pb2.QueueMessage, None]:
        """Yield dead letters, the newest death first, a page at a time."""
        request = queue_admin_pb2.ListDeadLettersRequest(filter=chosen, page_size=100)
        while True:
            page = await self._connection.unary(self._connection.queue.ListDeadLetters, request)
            for message in page.messages:
                yield message
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def replay(
        self,
        message_ids: Sequence[str] = (),
        *,
        chosen: queue_admin_pb2.MessageFilter | None = None,
        everything: bool = False,
        max_per_second: float = 0.0,
        edited_job: queue_admin_pb2.EnrichmentJob | None = None,
        validate_only: bool = False,
    ) -> queue_admin_pb2.ReplayDeadLettersResponse:
        """Put dead letters back: those named, those that a filter chooses, or all."""
        request = queue_admin_pb2.ReplayDeadLettersRequest(
            message_ids=message_ids,
            filter=chosen,
            all=everything,
            max_per_second=max_per_second,
            edited_job=edited_job,
            validate_only=validate_only,
            request_id=new_request_id(),
        )
        return await self._connection.unary(self._connection.queue.ReplayDeadLetters, request)

    async def purge(
        self,
        message_ids: Sequence[str] = (),
        *,
        chosen: queue_admin_pb2.MessageFilter | None = None,
        everything: bool = False,
        validate_only: bool = False,
    ) -> queue_admin_pb2.PurgeDeadLettersResponse:
        """Delete dead letters for good: those named, those that a filter chooses, or all."""
        request = queue_admin_pb2.PurgeDeadLettersRequest(
            message_ids=message_ids,
            filter=chosen,
            all=everything,
            validate_only=validate_only,
            request_id=new_request_id(),
        )
        return await self._connection.unary(self._connection.queue.PurgeDeadLetters, request)
