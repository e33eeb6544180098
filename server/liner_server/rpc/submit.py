"""SubmitEnrichment on the wire: what is wrong with a job is said before it is taken."""

from collections.abc import Callable, Collection
from datetime import UTC

import structlog
from liner.v1 import enrichment_pb2, queue_admin_pb2

from liner_server import tracing
from liner_server.context import Principal, RequestContext
from liner_server.errors import InvalidRequestError, LinerError
from liner_server.failpoints import Point, reach
from liner_server.ports import ObjectStore, ResultStore
from liner_server.ports_queue import JobQueue
from liner_server.rpc import queue_checks, requests

_log = structlog.get_logger()


class SubmitDesk:
    """Takes jobs: judged, put on the queue, and known to the result store."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        results: ResultStore,
        objects: ObjectStore,
        models: Callable[[], Collection[str]],
    ) -> None:
        """Take `models`, which names those that a job may ask for."""
        self._queue = queue
        self._results = results
        self._objects = objects
        self._models = models

    async def submit(
        self, request: enrichment_pb2.SubmitEnrichmentRequest, context: RequestContext
    ) -> enrichment_pb2.SubmitEnrichmentResponse:
        """Return the job's id once the job is durable.

        Raises:
            InvalidRequestError: the job could not succeed.
            NotFoundError: there is no such audio object.
            AlreadyExistsError: the request id came with other content.
            ResourceExhaustedError: the queue has no room.

        """
        requests.check(queue_checks.submit_violations(request))
        job = queue_admin_pb2.EnrichmentJob(
            track=request.track,
            options=request.options,
            priority=request.priority or enrichment_pb2.PRIORITY_MEDIUM,
            request_id=request.request_id,
            tenant=context.principal.name,
        )
        # What the metadata said of this call must hold when the job is worked on.
        job.options.model = request.options.model or context.model
        await self.judge(job, context.principal)
        not_before = (
            request.not_before.ToDatetime(tzinfo=UTC) if request.HasField("not_before") else None
        )
        with tracing.span("publish job", tracing.Kind.PRODUCER):
            attributes = {"liner-request-id": context.request_id, **tracing.carrier()}
            job_id = await self._queue.publish(job, attributes=attributes, not_before=not_before)
        reach(Point.AFTER_PUBLISH)
        await self._note(job_id, request.request_id)
        return enrichment_pb2.SubmitEnrichmentResponse(job_id=job_id)

    async def judge(
        self, job: queue_admin_pb2.EnrichmentJob, principal: Principal, *, path: str = ""
    ) -> None:
        """Pass if what the job names is there, and this principal's to use.

        `path` is where the request has the job.

        Raises:
            InvalidRequestError: its model is not configured.
            NotFoundError: there is no such audio object.
            PermissionDeniedError: the object is another's.

        """
        if job.options.model and job.options.model not in self._models():
            raise InvalidRequestError.of(
                f"{path}options.model", f"{job.options.model!r} is not configured", "MODEL_UNKNOWN"
            )
        if job.track.HasField("audio"):
            principal.check_object(job.track.audio.object_name)
            await self._objects.stat(job.track.audio.object_name)

    async def _note(self, job_id: str, request_id: str) -> None:
        """Let the job be asked for; it is safe on the queue, whatever happens here."""
        record = enrichment_pb2.Enrichment(
            enrichment_id=job_id,
            state=enrichment_pb2.ENRICHMENT_STATE_QUEUED,
            request_id=request_id,
        )
        try:
            await self._results.put(record)
        except LinerError as error:
            _log.warning("job is queued, its record is not", job=job_id, reason=error.reason)
