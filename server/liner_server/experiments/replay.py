"""Stored enrichments, worked out again by another model and compared: an experiment in a day.

Nothing of it is stored or counted: the report is made of sums held in memory. What was asked is
put together from what is stored: the track without what Liner filled in, and with what the caller
had stated where Liner corrected it.
"""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from liner.v1 import enrichment_pb2, experiment_pb2, track_pb2

from liner_server.context import RequestContext
from liner_server.core import report
from liner_server.core.enricher import Enricher
from liner_server.core.experiment import Experiment, Variant
from liner_server.core.fields import write
from liner_server.core.rows import model_agreed
from liner_server.core.tallied import seconds_bin
from liner_server.errors import InvalidRequestError, LinerError, NotFoundError
from liner_server.ports import ResultStore
from liner_server.ports_analytics import (
    CONFIDENCE_BINS,
    NONE,
    RELIABILITY_BINS,
    Bin,
    Period,
    Reviewed,
    Sums,
    Tally,
    Window,
)

STORED, REPLAYED = "stored", "replay"
"""The variants of a replay's report."""

_TRACKS, _IN_FLIGHT = 100, 4
_ONE = timedelta(seconds=120)
"""Longest time that one track may take."""

_TELL_SECONDS = 1.0


@dataclass
class _Sums:
    """What one side did so far."""

    success: Sums = NONE
    confidence: Sums = NONE
    seconds: Sums = NONE
    cost: Sums = NONE
    agreement: Sums = NONE
    accepted: Sums = NONE
    fallbacks: int = 0
    fields: int = 0
    accepted_fields: int = 0
    second_bins: dict[int, int] = field(default_factory=dict)
    confidence_bins: dict[int, int] = field(default_factory=dict)
    reliability: dict[int, list[float]] = field(default_factory=dict)


class Replay:
    """Replays what a `ResultStore` holds through the server's own `Enricher`."""

    def __init__(self, results: ResultStore, enricher: Enricher) -> None:
        self._results = results
        self._enricher = enricher

    async def run(
        self,
        request: experiment_pb2.ReplayEnrichmentsRequest,
        context: RequestContext,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> AsyncIterator[experiment_pb2.ReplayEnrichmentsResponse]:
        """Yield how far it is about once a second, and last the report.

        Raises:
            InvalidRequestError: there is no such model.
            NotFoundError: nothing that is stored can be asked again.
            LinerError: the store cannot be read.

        """
        if request.model not in self._enricher.models:
            raise InvalidRequestError.of(
                "model",
                f"no such model; configured: {', '.join(self._enricher.models)}",
                "MODEL_UNKNOWN",
            )
        run = _Run(self._enricher, request, context)
        began = now()
        work = asyncio.create_task(run.work(self._stored(request)))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_TELL_SECONDS)
                yield run.progress()
            await work
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, LinerError):
                await work
        if not run.replayed:
            raise NotFoundError(
                f"none of {run.skipped} stored enrichments can be asked again",
                reason="NOTHING_TO_REPLAY",
            )
        last = run.progress()
        last.report.CopyFrom(run.report(began, now()))
        yield last

    async def _stored(
        self, request: experiment_pb2.ReplayEnrichmentsRequest
    ) -> AsyncIterator[enrichment_pb2.Enrichment]:
        asked = enrichment_pb2.ListEnrichmentsRequest(
            model=request.stored_model,
            order=enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST,
            page_size=50,
        )
        left = request.max_tracks or _TRACKS
        while True:
            page = await self._results.list(asked)
            for enrichment in page.enrichments:
                yield enrichment
                left -= 1
                if not left:
                    return
            if not page.next_page_token:
                return
            asked.page_token = page.next_page_token


class _Run:
    def __init__(
        self,
        enricher: Enricher,
        request: experiment_pb2.ReplayEnrichmentsRequest,
        context: RequestContext,
    ) -> None:
        self._enricher = enricher
        self._request = request
        self._context = context
        self._sides = {STORED: _Sums(), REPLAYED: _Sums()}
        self.replayed = self.skipped = 0
        self._cost = 0.0
        self._out_of_money = False

    async def work(self, stored: AsyncIterator[enrichment_pb2.Enrichment]) -> None:
        """Replay all, so many at a time, until the money is spent."""
        free = asyncio.Semaphore(self._request.max_in_flight or _IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            async for enrichment in stored:
                await free.acquire()
                if self._cost >= self._request.max_cost_usd:
                    self._out_of_money = True
                    return
                group.create_task(self._one(enrichment)).add_done_callback(lambda _: free.release())

    def progress(self) -> experiment_pb2.ReplayEnrichmentsResponse:
        return experiment_pb2.ReplayEnrichmentsResponse(
            replayed=self.replayed,
            skipped=self.skipped,
            cost_usd=self._cost,
            out_of_money=self._out_of_money,
        )

    def report(self, began: datetime, now: datetime) -> experiment_pb2.GetReportResponse:
        experiment = Experiment(
            name=f"replay of {self._request.model}",
            variants=(Variant(name=REPLAYED, model=self._request.model, traffic=0.5),),
        )
        end = max(now, began + timedelta(seconds=1))
        window = Window(experiment=experiment.name, start=began, end=end, width=end - began)
        response = report.report(experiment, _tally(self._sides), window, now=now, control=STORED)
        response.experiment.running = False
        response.experiment.start_time.FromDatetime(began)
        # Both sides answered every track: there were no shares to speak of.
        for variant in response.experiment.variants:
            variant.ClearField("traffic")
        response.ClearField("trend")
        return response

    async def _one(self, enrichment: enrichment_pb2.Enrichment) -> None:
        track = as_asked(enrichment.answer)
        if track is None:
            self.skipped += 1
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        context = replace(
            self._context,
            request_id=f"replay-{uuid.uuid4().hex}",
            deadline=min(self._context.deadline, began + _ONE.total_seconds()),
            recorded=False,
        )
        options = enrichment_pb2.EnrichOptions(model=self._request.model, skip_cache=True)
        answer: enrichment_pb2.EnrichMetadataResponse | None = None
        try:
            answer = await self._enricher.enrich(track, options, context, operation="replay")
        except NotFoundError:
            # Its audio has been deleted.
            self.skipped += 1
            return
        except LinerError:
            # A failure of the model's counts against it.
            pass
        seconds = loop.time() - began
        self.replayed += 1
        stored = enrichment.answer
        judged = _judgements(enrichment)
        _add(
            self._sides[STORED],
            stored,
            stored.processing.processing_time.ToTimedelta().total_seconds(),
            judged,
        )
        _add(self._sides[REPLAYED], answer, seconds, judged)
        if answer is not None:
            self._cost += answer.processing.usage.cost_usd


def as_asked(answer: enrichment_pb2.EnrichMetadataResponse) -> track_pb2.Track | None:
    """Return the track as it was asked about, or None if its audio is not there any more."""
    track = track_pb2.Track()
    track.CopyFrom(answer.track)
    if answer.HasField("audio_identity") and track.audio.WhichOneof("content") != "object_name":
        return None
    for result in answer.fields:
        if result.decision == track_pb2.DECISION_FILLED:
            _clear(track, result.field)
        elif result.decision == track_pb2.DECISION_CORRECTED:
            _clear(track, result.field)
            # What was given may be no value at all, "12O BPM": then the field is left out, for
            # the correction would give the answer away.
            with suppress(ValueError, OverflowError):
                write(track, result.field, result.given_value)
    return track


def _clear(track: track_pb2.Track, path: str) -> None:
    parent, _, name = path.rpartition(".")
    owner = getattr(track, parent) if parent else track
    owner.ClearField(name)  # type: ignore[arg-type]


def _judgements(
    enrichment: enrichment_pb2.Enrichment,
) -> Mapping[str, tuple[str | None, str]]:
    """Return by field the value that an editor holds right, None if only one is known wrong, and
    the value that was judged.
    """
    values = {result.field: result.value for result in enrichment.answer.fields}
    found: dict[str, tuple[str | None, str]] = {}
    for review in enrichment.reviews:
        for said in review.reviews:
            right: str | None = None
            if said.verdict == enrichment_pb2.VERDICT_ACCEPT:
                right = values.get(said.field)
            elif said.verdict == enrichment_pb2.VERDICT_CORRECT:
                right = said.corrected_value
            found[said.field] = (right, values.get(said.field, ""))
    return found


def _add(
    side: _Sums,
    answer: enrichment_pb2.EnrichMetadataResponse | None,
    seconds: float,
    judged: Mapping[str, tuple[str | None, str]],
) -> None:
    success = answer is not None and not answer.processing.HasField("error")
    side.success += _sum(float(success))
    side.seconds += _sum(seconds)
    place = seconds_bin(seconds)
    side.second_bins[place] = side.second_bins.get(place, 0) + 1
    if answer is None:
        side.cost += _sum(0.0)
        return
    processing = answer.processing
    side.cost += _sum(processing.usage.cost_usd)
    side.fallbacks += processing.fallback_used
    if success:
        side.confidence += _sum(processing.confidence)
        place = min(math.floor(processing.confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
        side.confidence_bins[place] = side.confidence_bins.get(place, 0) + 1
    agreed = [said for result in answer.fields if (said := model_agreed(result)) is not None]
    if agreed:
        side.agreement += _sum(sum(agreed) / len(agreed))
    good = list(_accepted(answer, judged))
    if good:
        side.accepted += _sum(sum(right for right, _ in good) / len(good))
    for right, confidence in good:
        side.fields += 1
        side.accepted_fields += right
        place = min(math.floor(confidence * RELIABILITY_BINS), RELIABILITY_BINS - 1)
        one = side.reliability.setdefault(place, [0, 0, 0.0])
        one[0], one[1], one[2] = one[0] + 1, one[1] + right, one[2] + confidence


def _accepted(
    answer: enrichment_pb2.EnrichMetadataResponse, judged: Mapping[str, tuple[str | None, str]]
) -> Iterable[tuple[bool, float]]:
    """Yield for each judged field whether the editor would have accepted it, and how sure it was.

    A value that is neither the right one nor the rejected one was judged by nobody: passed over.
    """
    for result in answer.fields:
        if result.field not in judged or not result.value:
            continue
        right, was = judged[result.field]
        if right is not None:
            yield result.value == right, result.confidence
        elif result.value == was:
            yield False, result.confidence


def _sum(value: float) -> Sums:
    return Sums(count=1, total=value, squares=value * value)


def _tally(sides: Mapping[str, _Sums]) -> Tally:
    return Tally(
        periods=[
            Period(
                variant=name,
                period=0,
                success=side.success,
                confidence=side.confidence,
                seconds=side.seconds,
                cost=side.cost,
                agreement=side.agreement,
                fallbacks=side.fallbacks,
            )
            for name, side in sides.items()
        ],
        reviewed=[
            Reviewed(
                variant=name,
                period=0,
                accepted=side.accepted,
                fields=side.fields,
                accepted_fields=side.accepted_fields,
            )
            for name, side in sides.items()
            if side.accepted.count
        ],
        seconds=[
            Bin(variant=name, bin=place, count=count)
            for name, side in sides.items()
            for place, count in side.second_bins.items()
        ],
        confidence=[
            Bin(variant=name, bin=place, count=count)
            for name, side in sides.items()
            for place, count in side.confidence_bins.items()
        ],
        reliability=[
            Bin(variant=name, bin=place, count=int(n), accepted=int(good), total=total)
            for name, side in sides.items()
            for place, (n, good, total) in side.reliability.items()
        ],
    )
