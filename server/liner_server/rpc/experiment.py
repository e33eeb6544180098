"""ExperimentAdmin on the wire: how experiments stand, and who gets how much of the traffic.

Every call that changes something or costs money is logged with who made it.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from liner.v1 import experiment_pb2, experiment_pb2_grpc, track_pb2

from liner_server.context import current
from liner_server.errors import UnavailableError
from liner_server.experiments.replay import Replay
from liner_server.experiments.service import Experiments
from liner_server.rpc import requests

_log = structlog.get_logger()
_MAX_REASON_BYTES = 256
_MAX_NAME = 64
_PAGE, _LARGEST_PAGE = 50, 500
_MOST_TRACKS, _MOST_IN_FLIGHT = 10_000, 32
_LATEST_SECONDS = 253_402_300_799

_Context = grpc.aio.ServicerContext[Any, Any]
Violations = Iterator[track_pb2.FieldViolation]


class ExperimentAdminServicer(experiment_pb2_grpc.ExperimentAdminServicer):
    """Answers ExperimentAdmin from the server's experiments."""

    def __init__(self, experiments: Experiments, replay: Replay) -> None:
        self._experiments = experiments
        self._replay = replay
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End running replays: they would go on for as long as the server lets them."""
        self._draining.set()

    async def GetReport(  # noqa: N802 - the contract's name
        self, request: experiment_pb2.GetReportRequest, context: _Context
    ) -> experiment_pb2.GetReportResponse:
        """Compare an experiment's variants."""
        requests.check(report_violations(request))
        return await self._experiments.report(
            request.experiment_name,
            start=_time(request.time_from) if request.HasField("time_from") else None,
            end=_time(request.time_before) if request.HasField("time_before") else None,
        )

    async def ListExperiments(  # noqa: N802 - the contract's name
        self, request: experiment_pb2.ListExperimentsRequest, context: _Context
    ) -> experiment_pb2.ListExperimentsResponse:
        """List experiments a page at a time."""
        requests.check(list_violations(request))
        # They are configured, a handful: a place in the list is a token that is good enough.
        begin = int(request.page_token or 0)
        size = min(request.page_size or _PAGE, _LARGEST_PAGE)
        found = self._experiments.described()
        end = begin + size
        return experiment_pb2.ListExperimentsResponse(
            experiments=found[begin:end], next_page_token=str(end) if end < len(found) else ""
        )

    async def SetTraffic(  # noqa: N802 - the contract's name
        self, request: experiment_pb2.SetTrafficRequest, context: _Context
    ) -> experiment_pb2.SetTrafficResponse:
        """Change a variant's share."""
        requests.check(traffic_violations(request))
        call = current.get()
        experiment = await self._experiments.set_traffic(
            request.experiment_name,
            request.variant,
            request.traffic,
            principal=call.principal.name,
            reason=request.reason,
            request_id=request.request_id or call.request_id,
            force=request.force,
        )
        return experiment_pb2.SetTrafficResponse(experiment=experiment)

    async def ReplayEnrichments(  # noqa: N802 - the contract's name
        self, request: experiment_pb2.ReplayEnrichmentsRequest, context: _Context
    ) -> AsyncIterator[experiment_pb2.ReplayEnrichmentsResponse]:
        """Ask another model what stored enrichments were asked."""
        requests.check(replay_violations(request))
        call = current.get()
        _log.warning(
            "replay",
            model=request.model,
            max_tracks=request.max_tracks,
            max_cost_usd=request.max_cost_usd,
            principal=call.principal.name,
            request_id=call.request_id,
        )
        async for response in self._replay.run(request, call):
            yield response
            if self._draining.is_set() and not response.HasField("report"):
                raise UnavailableError(
                    "the server is stopping",
                    reason="SERVER_STOPPING",
                    retry_after=timedelta(seconds=1),
                )


def report_violations(request: experiment_pb2.GetReportRequest) -> Violations:
    """Yield what is wrong with a request for a report."""
    yield from _name_violations("experiment_name", request.experiment_name)
    times = []
    for name in ("time_from", "time_before"):
        time: Timestamp = getattr(request, name)
        if not (0 <= time.seconds <= _LATEST_SECONDS and 0 <= time.nanos < 10**9):
            yield requests.violation(name, "is not a time from 1970 to 9999", "TIME_RANGE")
            return
        times.append(time.ToNanoseconds())
    both = request.HasField("time_from") and request.HasField("time_before")
    if both and times[0] >= times[1]:
        yield requests.violation("time_before", "must be after time_from", "TIME_RANGE")


def list_violations(request: experiment_pb2.ListExperimentsRequest) -> Violations:
    """Yield what is wrong with a request to list."""
    if request.page_size < 0:
        yield requests.violation("page_size", "must not be negative", "NUMBER_RANGE")
    token = request.page_token
    if token and not (token.isascii() and token.isdigit() and len(token) < 6):
        yield requests.violation("page_token", "was not given by this server", "PAGE_TOKEN")


def traffic_violations(request: experiment_pb2.SetTrafficRequest) -> Violations:
    """Yield what is wrong with a request to change a share."""
    yield from _name_violations("experiment_name", request.experiment_name)
    yield from _name_violations("variant", request.variant)
    if not (math.isfinite(request.traffic) and 0 <= request.traffic <= 1):
        yield requests.violation("traffic", "from 0 to 1", "NUMBER_RANGE")
    if not request.reason.strip():
        yield requests.violation("reason", "required: why is it changed?", "REQUIRED")
    elif len(request.reason.encode()) > _MAX_REASON_BYTES:
        yield requests.violation("reason", f"at most {_MAX_REASON_BYTES} bytes", "TEXT_TOO_LONG")
    yield from requests.request_id_violations(request.request_id)


def replay_violations(request: experiment_pb2.ReplayEnrichmentsRequest) -> Violations:
    """Yield what is wrong with a request to replay."""
    yield from _name_violations("model", request.model)
    if len(request.stored_model) > _MAX_NAME:
        yield requests.violation("stored_model", f"at most {_MAX_NAME} bytes", "TEXT_TOO_LONG")
    if not (math.isfinite(request.max_cost_usd) and request.max_cost_usd > 0):
        yield requests.violation("max_cost_usd", "required, above 0", "REQUIRED")
    for name, most in (("max_tracks", _MOST_TRACKS), ("max_in_flight", _MOST_IN_FLIGHT)):
        if not 0 <= getattr(request, name) <= most:
            yield requests.violation(name, f"from 0 to {most}", "NUMBER_RANGE")


def _name_violations(field: str, name: str) -> Violations:
    if not name:
        yield requests.violation(field, "required", "REQUIRED")
    elif len(name.encode()) > _MAX_NAME:
        yield requests.violation(field, f"at most {_MAX_NAME} bytes", "TEXT_TOO_LONG")


def _time(time: Timestamp) -> datetime:
    return time.ToDatetime(tzinfo=UTC)
