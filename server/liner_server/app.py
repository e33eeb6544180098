"""The composition root: settings in, a running service out, everything closed in order."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta

import structlog
from liner.v1 import enrichment_pb2

from liner_server.audio.limits import Limits
from liner_server.audio.pool import ListeningPool, PoolPolicy
from liner_server.core.answers import AnswerCache
from liner_server.core.calibration import Calibration
from liner_server.core.enricher import Enricher
from liner_server.core.experiment import Experiment
from liner_server.core.retry import RetryBudget
from liner_server.core.router import Router
from liner_server.flags import FlagsFile
from liner_server.listener import PoolListener
from liner_server.logs import configure_logs
from liner_server.models.embedded import EmbeddedProvider
from liner_server.models.lanes import EXPERIMENTAL, LanesFactory
from liner_server.objects.local import LocalObjectStore
from liner_server.ports import ResultStore
from liner_server.recorder import StoreRecorder
from liner_server.results.objects import ObjectResultStore
from liner_server.results.sqlite import SqliteResultStore
from liner_server.results_retention import ResultsRetention
from liner_server.rpc.batch import BatchLimits, BatchRunner
from liner_server.rpc.batch_records import BatchRecords
from liner_server.rpc.enrichment import EnrichmentServicer
from liner_server.rpc.identity import TokenAuthenticator
from liner_server.rpc.interceptors import CallInterceptor, Running
from liner_server.rpc.results import ResultsDesk
from liner_server.rpc.server import GrpcServer, watch_loop
from liner_server.rpc.side_port import side_port
from liner_server.rpc.storage import StorageServicer
from liner_server.settings import ResultsBackend, Settings, SettingsError
from liner_server.telemetry import Telemetry

_log = structlog.get_logger()


class App:
    """A running service: where it listens, and how to stop it."""

    def __init__(
        self, *, server: GrpcServer, batches: BatchRunner, grpc_address: str, drain: timedelta
    ) -> None:
        self._server = server
        self._batches = batches
        self._drain = drain
        self.grpc_address = grpc_address
        """HOST:PORT of the gRPC server, with the port in use."""
        self.http_address = ""
        """HOST:PORT of the side port, with the port in use."""
        self.stopping = False

    async def stop(self) -> None:
        """Finish what is in flight within the drain time, refuse the rest; may be called twice."""
        if self.stopping:
            return
        self.stopping = True
        await self._server.drain(self._drain, (self._batches.drain,))


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[App]:
    """Yield the service, serving; it is stopped and every part closed when the context ends.

    Raises:
        SettingsError: the tokens file cannot be used.
        OSError: an address or the data folder cannot be used.

    """
    authenticator = (
        TokenAuthenticator.from_file(settings.tokens_file) if settings.tokens_file else None
    )
    async with AsyncExitStack() as stack:
        telemetry = Telemetry()
        objects = await stack.enter_async_context(
            LocalObjectStore(
                settings.data_dir / "objects", max_object_bytes=settings.max_object_bytes
            )
        )
        results = await stack.enter_async_context(_results(settings))
        recorder = await stack.enter_async_context(
            StoreRecorder(
                results,
                observer=telemetry,
                store_results=settings.store_results,
                answers_kept=timedelta(days=settings.answer_cache_days),
            )
        )
        await stack.enter_async_context(
            ResultsRetention(
                results,
                results=timedelta(days=settings.results_days),
                answers=timedelta(days=settings.answer_cache_days),
            )
        )
        pool = await stack.enter_async_context(
            ListeningPool(
                policy=PoolPolicy(processes=settings.listening_processes),
                limits=Limits(max_duration=timedelta(seconds=settings.max_audio_seconds)),
            )
        )
        flags = await _flags(settings, stack)
        calibration = _calibration(settings)
        lanes = LanesFactory(
            settings, calibration=calibration, observer=telemetry, used=telemetry.used
        ).open(stack)
        router = Router(
            primary=lanes.primary,
            fallback=lanes.fallback,
            experimental=lanes.experimental,
            experiment=Experiment(
                name=settings.experiment_name,
                provider=EXPERIMENTAL,
                share=settings.experiment_share,
                shadow=settings.experiment_shadow,
            ),
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
            answers=AnswerCache(settings.answer_cache_entries, recorder),
            observer=telemetry,
            recorder=recorder,
        )
        drain = timedelta(seconds=settings.drain_seconds)
        batches = BatchRunner(
            enricher,
            BatchLimits(
                max_in_flight=settings.batch_max_in_flight,
                item_timeout=timedelta(seconds=settings.batch_item_timeout_seconds),
                # Streams end before the server's own grace does, so that clients learn where
                # to resume.
                drain=drain * 0.85,
            ),
            BatchRecords(timedelta(seconds=settings.batch_resume_seconds)),
        )
        handlers = Running()
        interceptor = CallInterceptor(
            authenticator=authenticator,
            telemetry=telemetry,
            retry_budget=RetryBudget(),
            default_deadline=timedelta(seconds=settings.default_deadline_seconds),
            running=handlers,
        )
        server = GrpcServer(
            address=settings.grpc_bind,
            interceptor=interceptor,
            enrichment=EnrichmentServicer(
                enricher=enricher,
                batches=batches,
                telemetry=telemetry,
                flags=flags,
                results=ResultsDesk(results),
                max_in_flight=settings.max_in_flight,
            ),
            storage=StorageServicer(objects),
            running=handlers,
            use_reflection=settings.reflection,
            use_channelz=settings.channelz,
        )
        watch = asyncio.create_task(watch_loop(telemetry.event_loop_lag.set))
        stack.callback(watch.cancel)
        app = App(server=server, batches=batches, grpc_address="", drain=drain)
        http_port = await stack.enter_async_context(
            side_port(
                settings.http_address,
                registry=telemetry.registry,
                healthy=lambda: not app.stopping,
            )
        )
        app.http_address = _with_port(settings.http_address, http_port)
        await server.start()
        app.grpc_address = _with_port(settings.grpc_bind, server.port)
        stack.push_async_callback(app.stop)
        yield app


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once."""
    configure_logs(settings.log_level, settings.log_format)
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def ask() -> None:
        if asked.is_set():
            # The exit code a shell gives to a process that a signal ended.
            sys.stderr.write("stopped at once by a second signal\n")
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    async with running(settings) as app:
        # One line for whoever started us: scripts read the ports from it.
        sys.stdout.write(f"liner-server ready grpc={app.grpc_address} http={app.http_address}\n")
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        _log.info("serving", grpc=app.grpc_address, http=app.http_address)
        await asked.wait()
        _log.info("stopping", grace_seconds=settings.drain_seconds)
    _log.info("stopped")


@asynccontextmanager
async def _results(settings: Settings) -> AsyncIterator[ResultStore]:
    """Open the store of results."""
    if settings.results is ResultsBackend.SQLITE:
        async with SqliteResultStore(settings.data_dir / "results.sqlite") as store:
            yield store
        return
    # Objects that callers upload are elsewhere: nobody can put a result in by its name.
    async with LocalObjectStore(settings.data_dir / "results") as objects:
        yield ObjectResultStore(objects)


async def _flags(
    settings: Settings, stack: AsyncExitStack
) -> Callable[[], enrichment_pb2.FeatureFlags]:
    """Return what tells the flags in force now."""
    stated = enrichment_pb2.FeatureFlags(
        enable_experimental_model=settings.enable_experimental_model,
        use_openai_fallback=settings.use_openai_fallback,
        enable_batch_processing=settings.enable_batch_processing,
    )
    if settings.flags_file is None:
        return lambda: stated
    watched = await stack.enter_async_context(FlagsFile(settings.flags_file, stated))
    return lambda: watched.current


def _calibration(settings: Settings) -> Calibration:
    """The shipped tables, and those that were fitted on the operator's own results."""
    try:
        return Calibration.load(*filter(None, [settings.calibration_file]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"LINER_CALIBRATION_FILE: {settings.calibration_file} cannot be used "
            f"({type(error).__name__}); `liner-server calibrate` writes one"
        ) from error


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"
