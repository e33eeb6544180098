"""A consumer over real stores and a real `Enricher`, whose only model does what a test says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2
from liner_server.audio.measurements import Listening
from liner_server.context import RequestContext
from liner_server.core.answers import AnswerCache
from liner_server.core.calibration import Calibrated
from liner_server.core.claims import ProviderAnswer
from liner_server.core.enricher import Enricher
from liner_server.core.enums import Priority
from liner_server.core.router import Router
from liner_server.errors import LinerError, NotFoundError
from liner_server.ports import Question
from liner_server.ports_queue import JobQueue
from liner_server.queues.consumer import Consumer, Publish
from liner_server.queues.consumer_policy import ConsumerPolicy
from liner_server.queues.sqlite import SqliteQueue
from liner_server.results.sqlite import SqliteResultStore
from liner_server.telemetry import Telemetry

from support.clock import ManualClock


@dataclass(kw_only=True)
class TitledModel:
    """Answers a track as the test says for its title; counts how often each was asked."""

    acts: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    name = "embedded"
    version = "1"
    hears_audio = False
    fields = ("genre",)

    def answerable(self, question: Question) -> frozenset[str]:
        """Return the fields wanted that it answers."""
        return frozenset(self.fields) & (question.fields or frozenset(self.fields))

    def ceiling(self, path: str, *, heard: bool) -> Calibrated:
        """It is as sure as it says."""
        return Calibrated(probability=1.0, basis=track_pb2.CONFIDENCE_BASIS_CALIBRATED)

    def estimate(self, question: Question) -> Decimal:
        """It costs nothing."""
        return Decimal(0)

    async def propose(self, question: Question) -> ProviderAnswer:
        """Do what the title stands for, then claim nothing."""
        title = question.track.title
        self.asked[title] += 1
        if title in self.acts:
            await self.acts[title]()
        return ProviderAnswer(claims=(), model_version="1")

    async def propose_many(
        self, questions: Sequence[Question]
    ) -> Sequence[ProviderAnswer | LinerError]:
        """Answer one by one."""
        return [await self.propose(question) for question in questions]


class NoAudio:
    """A listener that finds no object."""

    async def listen(self, audio: track_pb2.Audio, context: RequestContext) -> Listening:
        """Find nothing."""
        raise NotFoundError("no object", reason="OBJECT_NOT_FOUND")

    async def excerpts(self, audio: track_pb2.Audio, context: RequestContext) -> Sequence[bytes]:
        """Find nothing."""
        raise NotFoundError("no object", reason="OBJECT_NOT_FOUND")

    async def digest(self, audio: track_pb2.Audio, context: RequestContext) -> bytes:
        """Find nothing."""
        raise NotFoundError("no object", reason="OBJECT_NOT_FOUND")


class Outcomes:
    """What became of each attempt."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def job_ended(self, priority: Priority, outcome: str) -> None:
        """Count it."""
        self.seen[outcome] += 1


@dataclass(kw_only=True)
class Worker:
    """A consumer and what it stands on."""

    queue: SqliteQueue
    results: SqliteResultStore
    model: TitledModel
    outcomes: Outcomes
    consumer: Consumer

    async def state_of(self, job_id: str) -> int:
        """Return where the stored record says that a job stands; 0 if there is none."""
        try:
            return (await self.results.get(job_id)).state
        except NotFoundError:
            return 0


def enricher_of(model: TitledModel) -> Enricher:
    """Return a core that asks only this model and remembers nothing."""
    telemetry = Telemetry()
    router = Router(
        primary=None,
        fallback=None,
        experimental=None,
        flags=enrichment_pb2.FeatureFlags,
        observer=telemetry,
    )
    return Enricher(
        embedded=model,
        router=router,
        listener=NoAudio(),
        answers=AnswerCache(0),
        observer=telemetry,
    )


def accept(_: queue_admin_pb2.EnrichmentJob) -> None:
    """Find nothing wrong with a job."""


@asynccontextmanager
async def working(
    folder: Path,
    clock: ManualClock,
    *,
    model: TitledModel | None = None,
    check: Callable[[queue_admin_pb2.EnrichmentJob], None] = accept,
    through: Callable[[JobQueue], JobQueue] = lambda queue: queue,
    run: bool = True,
    publish: Publish | None = None,
    **policy: Any,
) -> AsyncIterator[Worker]:
    """Yield a consumer that works on the queue of a folder; `through` may wrap its queue."""
    model = model or TitledModel()
    outcomes = Outcomes()
    settings = ConsumerPolicy(
        **{
            "pull_wait": timedelta(milliseconds=20),
            "suspect_delay": timedelta(milliseconds=20),
            "delays": (timedelta(0),),
            **policy,
        }
    )
    async with (
        SqliteQueue(folder / "queue.sqlite", clock=clock, steady=clock) as queue,
        SqliteResultStore(folder / "results.sqlite", now=clock) as results,
    ):
        consumer = Consumer(
            queue=through(queue),
            results=results,
            enricher=enricher_of(model),
            check=check,
            policy=settings,
            observer=outcomes,
            publish=publish,
        )
        task = asyncio.create_task(consumer.run()) if run else None
        try:
            yield Worker(
                queue=queue, results=results, model=model, outcomes=outcomes, consumer=consumer
            )
        finally:
            if task is not None:
                await consumer.drain(timedelta(seconds=1))
                await task
