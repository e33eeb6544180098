"""The server's experiments: how they stand, who gets how much, and what another model would say."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta

import grpc
from liner.v1 import experiment_pb2

from liner_client.connection import Connection, new_request_id
from liner_client.errors import from_call


class ExperimentsClient:
    """Looks at experiments and steers them; reading needs the role experiment.read, changing and
    replaying experiment.admin.

    Every method raises a LinerError when the server refuses.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def report(
        self,
        name: str,
        *,
        time_from: datetime | None = None,
        time_before: datetime | None = None,
    ) -> experiment_pb2.GetReportResponse:
        """Return how an experiment's variants compare; may be asked as often as one likes."""
        request = experiment_pb2.GetReportRequest(experiment_name=name)
        if time_from is not None:
            request.time_from.FromDatetime(time_from)
        if time_before is not None:
            request.time_before.FromDatetime(time_before)
        return await self._connection.unary(self._connection.experiment.GetReport, request)

    async def list(self) -> Sequence[experiment_pb2.Experiment]:
        """Return all experiments, running ones first."""
        found: list[experiment_pb2.Experiment] = []
        request = experiment_pb2.ListExperimentsRequest()
        while True:
            stub = self._connection.experiment.ListExperiments
            page = await self._connection.unary(stub, request)
            found += page.experiments
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def set_traffic(
        self, name: str, variant: str, traffic: float, *, reason: str, force: bool = False
    ) -> experiment_pb2.Experiment:
        """Change a variant's share, 0 to 1, and say why; `force` restarts a stopped one."""
        request = experiment_pb2.SetTrafficRequest(
            experiment_name=name,
            variant=variant,
            traffic=traffic,
            reason=reason,
            force=force,
            request_id=new_request_id(),
        )
        stub = self._connection.experiment.SetTraffic
        return (await self._connection.unary(stub, request)).experiment

    async def replay(
        self, request: experiment_pb2.ReplayEnrichmentsRequest, *, within: timedelta
    ) -> AsyncGenerator[experiment_pb2.ReplayEnrichmentsResponse, None]:
        """Yield how far a replay is, and last its report; closing it ends the replay."""
        request_id = new_request_id()
        call = self._connection.experiment.ReplayEnrichments(
            request,
            timeout=within.total_seconds(),
            metadata=self._connection.metadata(request_id),
        )
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as failure:
            raise from_call(failure, request_id=request_id) from None
        finally:
            call.cancel()
