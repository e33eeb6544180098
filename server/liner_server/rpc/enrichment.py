"""EnrichmentService on the wire: checks, admission, and the shared core behind it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
from liner.v1 import enrichment_pb2, enrichment_pb2_grpc

from liner_server.context import current
from liner_server.core.breaker import BreakerState
from liner_server.core.enricher import Enricher
from liner_server.errors import ResourceExhaustedError
from liner_server.rpc import requests
from liner_server.rpc.batch import BatchRunner
from liner_server.rpc.results import ResultsDesk
from liner_server.rpc.submit import SubmitDesk
from liner_server.telemetry import Telemetry

_Context = grpc.aio.ServicerContext[Any, Any]


class EnrichmentServicer(enrichment_pb2_grpc.EnrichmentServiceServicer):
    """Answers EnrichmentService through one `Enricher`, whichever RPC the track came by."""

    def __init__(
        self,
        *,
        enricher: Enricher,
        batches: BatchRunner,
        telemetry: Telemetry,
        flags: Callable[[], enrichment_pb2.FeatureFlags],
        flags_problem: Callable[[], str],
        results: ResultsDesk,
        submits: SubmitDesk,
        max_in_flight: int,
    ) -> None:
        self._enricher = enricher
        self._batches = batches
        self._telemetry = telemetry
        self._flags = flags
        self._flags_problem = flags_problem
        self._results = results
        self._submits = submits
        self._free = max_in_flight

    async def EnrichMetadata(  # noqa: N802 - the contract's name
        self, request: enrichment_pb2.EnrichMetadataRequest, context: _Context
    ) -> enrichment_pb2.EnrichMetadataResponse:
        """Enrich one track within the caller's deadline."""
        requests.check(requests.enrich_violations(request))
        call = current.get()
        if request.request_id:
            call = replace(call, request_id=request.request_id)
        async with self._admitted():
            return await self._enricher.enrich(request.track, request.options, call)

    async def ValidateMetadata(  # noqa: N802 - the contract's name
        self, request: enrichment_pb2.ValidateMetadataRequest, context: _Context
    ) -> enrichment_pb2.ValidateMetadataResponse:
        """Judge one track's metadata."""
        requests.check(requests.validate_violations(request))
        async with self._admitted():
            return await self._enricher.validate(request.track, request.profile, current.get())

    async def BatchProcess(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[enrichment_pb2.BatchProcessRequest],
        context: _Context,
    ) -> AsyncIterator[enrichment_pb2.BatchProcessResponse]:
        """Enrich many tracks over one stream."""
        enabled = self._flags().enable_batch_processing
        async for response in self._batches.run(request_iterator, current.get(), enabled=enabled):
            yield response

    async def SubmitEnrichment(  # noqa: N802 - the contract's name
        self, request: enrichment_pb2.SubmitEnrichmentRequest, context: _Context
    ) -> enrichment_pb2.SubmitEnrichmentResponse:
        """Put one track on the queue."""
        return await self._submits.submit(request, current.get())

    async def GetEnrichment(  # noqa: N802 - the contract's name
        self, request: enrichment_pb2.GetEnrichmentRequest, context: _Context
    ) -> enrichment_pb2.GetEnrichmentResponse:
        """Return a stored enrichment, or where a submitted job stands."""
        return await self._results.get(request)

    async def ListEnrichments(  # noqa: N802 - the contract's name
        self, request: enrichment_pb2.ListEnrichmentsRequest, context: _Context
    ) -> enrichment_pb2.ListEnrichmentsResponse:
        """List stored enrichments a page at a time."""
        return await self._results.list(request)

    async def ReviewEnrichment(  # noqa: N802 - the contract's name
        self, request: enrichment_pb2.ReviewEnrichmentRequest, context: _Context
    ) -> enrichment_pb2.ReviewEnrichmentResponse:
        """Store an editor's judgement."""
        return await self._results.review(request, current.get().principal)

    async def ListModels(  # noqa: N802 - the contract's name
        self, request: enrichment_pb2.ListModelsRequest, context: _Context
    ) -> enrichment_pb2.ListModelsResponse:
        """List the configured models and the flags in force."""
        response = enrichment_pb2.ListModelsResponse(
            flags=self._flags(), flags_problem=self._flags_problem()
        )
        for lane in self._enricher.lanes:
            response.models.add(
                name=lane.name,
                version=lane.provider.version,
                ready=lane.ready
                and lane.state is not BreakerState.OPEN
                and not (lane.spent or lane.silent),
                breaker_state=f"BREAKER_STATE_{lane.state.name}",
                hears_audio=lane.provider.hears_audio,
                role=lane.role,
                status=lane.trouble,
                fields=lane.provider.fields,
                usage_today=lane.today(),
            )
        embedded = self._enricher.embedded
        response.models.add(
            name=embedded.name,
            version=embedded.version,
            ready=True,
            hears_audio=embedded.hears_audio,
            role="measurement",
            fields=embedded.fields,
        )
        return response

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """Let in as many calls as the settings allow; a queue here would only hide overload."""
        if self._free <= 0:
            raise ResourceExhaustedError(
                "too many calls in flight", reason="OVERLOADED", retry_after=timedelta(seconds=1)
            )
        self._free -= 1
        self._telemetry.in_flight.inc()
        try:
            yield
        finally:
            self._free += 1
            self._telemetry.in_flight.dec()
