"""Everything below the doors, opened in order as the settings say."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from liner.v1 import enrichment_pb2

from liner_server.app.analytics import Analytics, open_analytics
from liner_server.app.cloud import names
from liner_server.app.storage import open_storage, retention
from liner_server.audio.limits import Limits
from liner_server.audio.pool import ListeningPool, PoolPolicy
from liner_server.context import RESERVED
from liner_server.core.answers import AnswerCache
from liner_server.core.breaker import BreakerState
from liner_server.core.calibration import Calibration
from liner_server.core.enricher import Enricher
from liner_server.core.lane import Lane
from liner_server.core.router import Lanes, Router
from liner_server.flags import FlagsFile
from liner_server.listener import PoolListener
from liner_server.models.embedded import EmbeddedProvider
from liner_server.objects.local import LocalObjectStore
from liner_server.objects.retention import Retention
from liner_server.objects.signing import UrlSigner
from liner_server.ports import ObjectStore, ResultStore
from liner_server.ports_queue import JobQueue
from liner_server.queues.sqlite import SqliteQueue
from liner_server.recorder import StoreRecorder
from liner_server.results.objects import ObjectResultStore
from liner_server.results.sqlite import SqliteResultStore
from liner_server.results_retention import ResultsRetention
from liner_server.settings import (
    ObjectsBackend,
    QueueBackend,
    ResultsBackend,
    Settings,
    SettingsError,
)
from liner_server.telemetry import Telemetry

if TYPE_CHECKING:
    # A second and 23 MB that only those who use Pub/Sub shall spend.
    from liner_server.queues.pubsub import PubSubQueue


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What every kind of process is made of."""

    telemetry: Telemetry
    objects: ObjectStore
    signer: UrlSigner | None
    """Signs URLs of objects that the side port answers."""
    retention: Retention
    results: ResultStore
    queue: JobQueue
    pubsub: "PubSubQueue | None"
    """The queue, where it is one on Pub/Sub."""
    flags: Callable[[], enrichment_pb2.FeatureFlags]
    flags_problem: Callable[[], str]
    enricher: Enricher
    analytics: Analytics


async def open_parts(settings: Settings, stack: AsyncExitStack, *, serves: bool) -> Parts:
    """Open everything below the doors; the stack closes it in order."""
    telemetry = Telemetry()
    telemetry.watch_disk(settings.data_dir)
    storage = await open_storage(settings, stack)
    objects = storage.objects
    results = await stack.enter_async_context(open_results(settings, objects))
    pubsub = None
    if settings.queue is QueueBackend.PUBSUB:
        pubsub = _pubsub(settings, results, serves=serves)
    queue: SqliteQueue = pubsub or SqliteQueue(settings.data_dir / "queue.sqlite")
    await stack.enter_async_context(queue)
    recorder = await stack.enter_async_context(
        StoreRecorder(
            results,
            observer=telemetry,
            store_results=settings.store_results,
            answers_kept=timedelta(days=settings.answer_cache_days),
        )
    )
    old_results = await stack.enter_async_context(results_retention(settings, results))
    pool = await stack.enter_async_context(
        ListeningPool(
            policy=PoolPolicy(processes=settings.listening_processes),
            limits=Limits(max_duration=timedelta(seconds=settings.max_audio_seconds)),
        )
    )
    flags, flags_problem = await _flags(settings, stack)
    if settings.flags_file is not None:
        telemetry.watch_file("flags", lambda: bool(flags_problem()))
    calibration = _calibration(settings)
    lanes = await _lanes(settings, stack, calibration, telemetry)
    analytics = await open_analytics(settings, stack, lanes, telemetry)
    router = Router(
        primary=lanes.primary,
        fallback=lanes.fallback,
        experimental=lanes.experimental,
        assign=analytics.experiments.assign,
        flags=flags,
        observer=telemetry,
    )
    stack.push_async_callback(router.close)
    enricher = Enricher(
        embedded=EmbeddedProvider(calibration),
        router=router,
        listener=PoolListener(
            pool,
            objects,
            settings.data_dir / "scratch",
            excerpts=settings.model_audio_windows,
        ),
        # Where nothing is to be known in memory, nothing is known from before either.
        answers=AnswerCache(
            settings.answer_cache_entries, recorder if settings.answer_cache_entries else None
        ),
        observer=telemetry,
        recorder=recorder,
        analyst=analytics.buffer,
    )
    return Parts(
        telemetry=telemetry,
        objects=objects,
        signer=storage.signer,
        retention=retention(settings, objects, observer=telemetry, clear_results=old_results.clear),
        results=results,
        queue=queue,
        pubsub=pubsub,
        flags=flags,
        flags_problem=flags_problem,
        enricher=enricher,
        analytics=analytics,
    )


def _pubsub(settings: Settings, results: ResultStore, *, serves: bool) -> "PubSubQueue":
    """Return the queue on Pub/Sub; the process that serves keeps what all finished."""
    from liner_server.queues.pubsub import PubSubQueue

    return PubSubQueue(
        settings.data_dir / "pubsub.sqlite",
        names(settings),
        emulator=settings.pubsub_emulator_host,
        pulls=settings.pubsub_push_audience is None,
        takes_letters=serves,
        results=results,
        ordered=settings.pubsub_ordered,
    )


def results_retention(settings: Settings, results: ResultStore) -> ResultsRetention:
    """Return what deletes old results."""
    return ResultsRetention(
        results,
        results=timedelta(days=settings.results_days),
        answers=timedelta(days=settings.answer_cache_days),
    )


@asynccontextmanager
async def open_results(settings: Settings, objects: ObjectStore) -> AsyncIterator[ResultStore]:
    """Open the store of results."""
    if settings.results is ResultsBackend.SQLITE:
        async with SqliteResultStore(settings.data_dir / "results.sqlite") as store:
            yield store
        return
    if settings.objects is ObjectsBackend.GCS:
        # In the same bucket, below the names that are the server's own.
        yield ObjectResultStore(objects, prefix=RESERVED + "results/")
        return
    # Objects that callers upload are elsewhere: nobody can put a result in by its name.
    async with LocalObjectStore(settings.data_dir / "results") as objects:
        yield ObjectResultStore(objects)


async def _flags(
    settings: Settings, stack: AsyncExitStack
) -> tuple[Callable[[], enrichment_pb2.FeatureFlags], Callable[[], str]]:
    """Return what tells the flags in force now, and what is wrong with their file."""
    stated = enrichment_pb2.FeatureFlags(
        enable_experimental_model=settings.enable_experimental_model,
        use_openai_fallback=settings.use_openai_fallback,
        enable_batch_processing=settings.enable_batch_processing,
    )
    if settings.flags_file is None:
        return lambda: stated, str
    watched = await stack.enter_async_context(FlagsFile(settings.flags_file, stated))
    return lambda: watched.current, lambda: watched.problem


async def _lanes(
    settings: Settings, stack: AsyncExitStack, calibration: Calibration, telemetry: Telemetry
) -> Lanes:
    """Return the lanes to the models that the settings name."""
    if not (settings.qwen2_endpoint or settings.openai_api_key or settings.experimental_endpoint):
        return Lanes()
    # The models' client costs 0.8 s of CPU to import and 30 MiB: only who uses it pays.
    from liner_server.models.lanes import LanesFactory

    factory = LanesFactory(
        settings, calibration=calibration, observer=telemetry, used=telemetry.used
    )
    lanes = await factory.open(stack)
    telemetry.watch_models(
        {
            lane.name: partial(_is_open, lane)
            for lane in (lanes.primary, lanes.fallback, lanes.experimental)
            if lane is not None
        },
        lambda: factory.budget_spent,
    )
    return lanes


def _is_open(lane: Lane) -> bool:
    """Whether calls to a model are refused, or let through one at a time only."""
    return lane.state is not BreakerState.CLOSED


def _calibration(settings: Settings) -> Calibration:
    """The shipped tables, and those that were fitted on the operator's own results."""
    try:
        return Calibration.load(*filter(None, [settings.calibration_file]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"LINER_CALIBRATION_FILE: {settings.calibration_file} cannot be used "
            f"({type(error).__name__}); `liner-server calibrate` writes one"
        ) from error
