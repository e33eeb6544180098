"""QueueAdmin on the wire: whoever is on duty looks into the queue and mends it.

Every call that changes something is logged with who made it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol

import grpc
import structlog
from liner.v1 import queue_admin_pb2, queue_admin_pb2_grpc

from liner_server.context import Principal, current
from liner_server.errors import UnavailableError
from liner_server.ports_queue import JobQueue
from liner_server.rpc import queue_checks, requests

_log = structlog.get_logger()
_INTERVAL = 2.0

_Context = grpc.aio.ServicerContext[Any, Any]


class Judge(Protocol):
    """Who knows what jobs may name."""

    async def __call__(
        self, job: queue_admin_pb2.EnrichmentJob, principal: Principal, *, path: str
    ) -> None:
        """Pass if what the job names is there, and this principal's to use."""


class QueueAdminServicer(queue_admin_pb2_grpc.QueueAdminServicer):
    """Answers QueueAdmin from one `JobQueue`."""

    def __init__(self, queue: JobQueue, judge: Judge) -> None:
        """Take `judge`, which raises what is wrong with an edited job that breaks no rule."""
        self._queue = queue
        self._judge = judge
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End the watching streams: they would go on for as long as the server lets them."""
        self._draining.set()

    async def GetStats(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.GetStatsRequest, context: _Context
    ) -> queue_admin_pb2.GetStatsResponse:
        """Return the counts."""
        return queue_admin_pb2.GetStatsResponse(stats=await self._queue.stats())

    async def WatchStats(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.WatchStatsRequest, context: _Context
    ) -> AsyncIterator[queue_admin_pb2.WatchStatsResponse]:
        """Send the counts now and at every interval."""
        requests.check(queue_checks.interval_violations(request.interval))
        seconds = request.interval.ToTimedelta().total_seconds() or _INTERVAL
        while not self._draining.is_set():
            yield queue_admin_pb2.WatchStatsResponse(stats=await self._queue.stats())
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._draining.wait()
        raise UnavailableError(
            "the server is stopping", reason="SERVER_STOPPING", retry_after=timedelta(seconds=1)
        )

    async def PauseQueue(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.PauseQueueRequest, context: _Context
    ) -> queue_admin_pb2.PauseQueueResponse:
        """Stop handing out."""
        requests.check(queue_checks.pause_violations(request))
        stats = await self._queue.pause(by=current.get().principal.name, reason=request.reason)
        _changed("pause", request.request_id, reason=request.reason)
        return queue_admin_pb2.PauseQueueResponse(stats=stats)

    async def ResumeQueue(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.ResumeQueueRequest, context: _Context
    ) -> queue_admin_pb2.ResumeQueueResponse:
        """Hand out again."""
        requests.check(requests.request_id_violations(request.request_id))
        stats = await self._queue.resume()
        _changed("resume", request.request_id)
        return queue_admin_pb2.ResumeQueueResponse(stats=stats)

    async def ListMessages(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.ListMessagesRequest, context: _Context
    ) -> queue_admin_pb2.ListMessagesResponse:
        """List messages that are not dead."""
        requests.check(queue_checks.list_violations(request))
        return await self._queue.list_messages(request)

    async def GetMessage(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.GetMessageRequest, context: _Context
    ) -> queue_admin_pb2.GetMessageResponse:
        """Return one message."""
        requests.check(queue_checks.id_violations(request.message_id))
        message = await self._queue.get(request.message_id)
        return queue_admin_pb2.GetMessageResponse(message=message)

    async def RetryMessage(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.RetryMessageRequest, context: _Context
    ) -> queue_admin_pb2.RetryMessageResponse:
        """Make a delayed message due."""
        requests.check(queue_checks.id_violations(request.message_id))
        requests.check(requests.request_id_violations(request.request_id))
        message = await self._queue.retry(request.message_id)
        _changed("retry", request.request_id, message_id=request.message_id)
        return queue_admin_pb2.RetryMessageResponse(message=message)

    async def ListDeadLetters(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.ListDeadLettersRequest, context: _Context
    ) -> queue_admin_pb2.ListDeadLettersResponse:
        """List dead letters."""
        requests.check(queue_checks.list_violations(request))
        return await self._queue.list_dead_letters(request)

    async def ReplayDeadLetters(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.ReplayDeadLettersRequest, context: _Context
    ) -> queue_admin_pb2.ReplayDeadLettersResponse:
        """Put dead letters back."""
        requests.check(queue_checks.replay_violations(request))
        if request.HasField("edited_job"):
            # Or it would only die again, of a slip of the pen.
            await self._judge(request.edited_job, current.get().principal, path="edited_job.")
        response = await self._queue.replay(request)
        if not request.validate_only:
            _changed(
                "replay",
                request.request_id,
                count=response.replayed_count,
                edited=request.HasField("edited_job"),
            )
        return response

    async def PurgeDeadLetters(  # noqa: N802 - the contract's name
        self, request: queue_admin_pb2.PurgeDeadLettersRequest, context: _Context
    ) -> queue_admin_pb2.PurgeDeadLettersResponse:
        """Delete dead letters."""
        requests.check(queue_checks.choice_violations(request))
        response = await self._queue.purge(request)
        if not request.validate_only:
            _changed("purge", request.request_id, count=response.purged_count)
        return response


def _changed(what: str, request_id: str, **facts: object) -> None:
    call = current.get()
    _log.warning(
        "queue changed",
        what=what,
        principal=call.principal.name,
        request_id=request_id or call.request_id,
        **facts,
    )
