"""The composition root: settings in, a running service out, everything closed in order."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from liner_server import failpoints
from liner_server.app.parts import Parts, open_parts
from liner_server.app.tracing import traced_as
from liner_server.collector import settle_collector
from liner_server.core.retry import RetryBudget
from liner_server.descriptors import take_descriptors
from liner_server.experiments.replay import Replay
from liner_server.logs import configure_logs
from liner_server.queues.consumer import Consumer
from liner_server.queues.consumer_policy import ConsumerPolicy
from liner_server.queues.work import QueueWork
from liner_server.rpc import queue_checks, requests
from liner_server.rpc.batch import BatchLimits, BatchRunner
from liner_server.rpc.batch_records import BatchRecords
from liner_server.rpc.enrichment import EnrichmentServicer
from liner_server.rpc.experiment import ExperimentAdminServicer
from liner_server.rpc.health_port import HealthPort
from liner_server.rpc.interceptors import CallInterceptor, Running
from liner_server.rpc.object_urls import ObjectUrls
from liner_server.rpc.queue_admin import QueueAdminServicer
from liner_server.rpc.results import ResultsDesk
from liner_server.rpc.server import GrpcServer, watch_loop
from liner_server.rpc.side_port import side_port
from liner_server.rpc.storage import StorageServicer
from liner_server.rpc.submit import SubmitDesk
from liner_server.rpc.tokens_file import TokensFile
from liner_server.settings import Settings, SettingsError, is_loopback

if TYPE_CHECKING:
    # A second and 23 MB that only those who use Pub/Sub shall spend.
    from liner_server.queues.pubsub import PubSubQueue
    from liner_server.rpc.push import PushEndpoint

_log = structlog.get_logger()


class App:
    """A running service: where it listens, and how to stop it."""

    def __init__(
        self, *, grpc_address: str, drain: Callable[[], Awaitable[None]], http_address: str = ""
    ) -> None:
        """Take what ends everything within the drain time."""
        self._drain = drain
        self.grpc_address = grpc_address
        """HOST:PORT of the gRPC server, with the port in use; empty for a worker."""
        self.http_address = http_address
        """HOST:PORT of the side port, with the port in use."""
        self.stopping = False
        self.broken = asyncio.Event()
        """Set when the gRPC server ended by itself: the process must be started anew."""

    async def stop(self) -> None:
        """Finish what is in flight within the drain time, refuse the rest; may be called twice."""
        if self.stopping:
            return
        self.stopping = True
        await self._drain()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[App]:
    """Yield the service, serving; it is stopped and every part closed when the context ends.

    Raises:
        SettingsError: the tokens file cannot be used.
        OSError: an address or the data folder cannot be used.

    """
    descriptors = take_descriptors()
    tokens = TokensFile(settings.tokens_file) if settings.tokens_file else None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(traced_as(settings, "liner-server"))
        parts = await open_parts(settings, stack, serves=True)
        if tokens is not None:
            await stack.enter_async_context(tokens)
            parts.telemetry.watch_file("tokens", lambda: bool(tokens.problem))
        enricher, telemetry = parts.enricher, parts.telemetry
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
            authenticator=(lambda: tokens.current) if tokens is not None else None,
            telemetry=telemetry,
            retry_budget=RetryBudget(),
            default_deadline=timedelta(seconds=settings.default_deadline_seconds),
            running=handlers,
        )
        submits = SubmitDesk(
            queue=parts.queue,
            results=parts.results,
            objects=parts.objects,
            models=lambda: enricher.models,
        )
        queue_admin = QueueAdminServicer(parts.queue, submits.judge)
        experiment_admin = ExperimentAdminServicer(
            parts.analytics.experiments, Replay(parts.results, enricher)
        )
        server = GrpcServer(
            address=settings.grpc_bind,
            interceptor=interceptor,
            enrichment=EnrichmentServicer(
                enricher=enricher,
                batches=batches,
                telemetry=telemetry,
                flags=parts.flags,
                flags_problem=parts.flags_problem,
                results=ResultsDesk(parts.results, parts.queue, parts.analytics.buffer),
                submits=submits,
                max_in_flight=settings.max_in_flight,
            ),
            storage=StorageServicer(parts.objects, parts.retention.run),
            queue=queue_admin,
            experiments=experiment_admin,
            running=handlers,
            use_reflection=settings.reflection,
            use_channelz=settings.channelz,
            most_connections=descriptors.grpc,
        )
        watch = asyncio.create_task(watch_loop(telemetry.event_loop_lag.set))
        stack.callback(watch.cancel)
        work = await stack.enter_async_context(_work(settings, parts))

        async def stop() -> None:
            await asyncio.gather(
                server.drain(drain, (batches.drain, queue_admin.drain, experiment_admin.drain)),
                work.drain(drain),
            )

        app = App(grpc_address="", drain=stop)
        app.http_address = await _side_port(settings, stack, app, parts)
        await server.start()
        app.grpc_address = _with_port(settings.grpc_bind, server.port)
        serving = asyncio.create_task(server.wait())
        serving.add_done_callback(partial(_ended, app))
        stack.push_async_callback(app.stop)
        yield app


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[App]:
    """Yield a process that only works on the queue, and answers on the side port.

    Raises:
        SettingsError: the settings leave it nothing to do.
        LinerError: another process has the data folder.
        OSError: an address or the data folder cannot be used.

    """
    async with AsyncExitStack() as stack:
        if not settings.workers:
            raise SettingsError("LINER_WORKERS: a worker needs 1 at least; it is 0")
        await stack.enter_async_context(traced_as(settings, "liner-worker"))
        parts = await open_parts(settings, stack, serves=False)
        work = await stack.enter_async_context(_work(settings, parts))
        health = None
        if settings.port is not None:
            # Cloud Run sends probes there, and stops what does not listen.
            health = await stack.enter_async_context(HealthPort(settings.grpc_bind))

        async def stop() -> None:
            if health is not None:
                await health.drain()
            await work.drain(timedelta(seconds=settings.drain_seconds))

        app = App(grpc_address="", drain=stop)
        app.http_address = await _side_port(settings, stack, app, parts)
        stack.push_async_callback(app.stop)
        yield app


def _ended(app: App, serving: asyncio.Task[None]) -> None:
    """Say that a server is broken which nobody asked to stop."""
    if serving.cancelled():
        return
    error = serving.exception()
    if app.stopping:
        return
    _log.critical("the gRPC server ended by itself", exc_info=error)
    app.broken.set()


async def _push(
    settings: Settings, stack: AsyncExitStack, queue: "PubSubQueue | None", app: App
) -> "PushEndpoint | None":
    """Return what answers pushed messages, if any are expected."""
    audience, account = settings.pubsub_push_audience, settings.pubsub_push_account
    if queue is None or audience is None or account is None:
        return None
    from liner_server.rpc.push import OidcVerifier, PushEndpoint

    verifier = await stack.enter_async_context(
        OidcVerifier(audience=audience, account=account, certs_url=settings.pubsub_push_certs_url)
    )
    return PushEndpoint(
        verifier=verifier, deliver=queue.take_pushed, open_now=lambda: not app.stopping
    )


def _work(settings: Settings, parts: Parts) -> QueueWork:
    """Return the work on the queue, without a consumer where the settings want none."""
    consumer = Consumer(
        queue=parts.queue,
        results=parts.results,
        enricher=parts.enricher,
        check=lambda job: requests.check(queue_checks.job_violations(job)),
        policy=ConsumerPolicy(
            workers=settings.workers,
            workers_least=settings.workers_least,
            job_timeout=timedelta(seconds=settings.queue_job_timeout_seconds),
            max_attempts=settings.queue_max_attempts,
        ),
        observer=parts.telemetry,
        publish=parts.pubsub.announce if parts.pubsub is not None else None,
    )
    if settings.workers:
        parts.telemetry.queue_concurrency.set_function(lambda: consumer.limit)
    return QueueWork(
        queue=parts.queue,
        consumer=consumer if settings.workers else None,
        counted=parts.telemetry.counted,
    )


async def _side_port(settings: Settings, stack: AsyncExitStack, app: App, parts: Parts) -> str:
    """Open the side port and return its address."""
    push = await _push(settings, stack, parts.pubsub, app)
    signer = parts.signer
    port = await stack.enter_async_context(
        side_port(
            settings.http_address,
            registry=parts.telemetry.registry,
            healthy=lambda: not (app.stopping or app.broken.is_set()),
            push=push.answer if push is not None else None,
            most_connections=take_descriptors().http,
            urls=ObjectUrls(parts.objects, signer.check) if signer is not None else None,
        )
    )
    address = _with_port(settings.http_address, port)
    if signer is not None:
        # Without a stated address only those on this machine know how to reach it.
        here = f"http://{address}" if is_loopback(address) else ""
        signer.base_url = settings.public_url or here
    return address


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once.

    Raises:
        SystemExit: with 1, when gRPC ended by itself.

    """
    await _until_asked(settings, running(settings))


async def work(settings: Settings) -> None:
    """Work on the queue until SIGTERM or SIGINT; a second signal ends at once."""
    await _until_asked(settings, working(settings))


async def _until_asked(settings: Settings, process: AbstractAsyncContextManager[App]) -> None:
    configure_logs(settings.log_level, settings.log_format, track_ids=settings.log_track_ids)
    if settings.failpoints:
        _log.warning("this process is set to die for a fault test", at=settings.failpoints)
        failpoints.arm(settings.failpoints)
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
    async with process as app:
        # One line for whoever started us: scripts read the ports from it.
        grpc = f"grpc={app.grpc_address} " if app.grpc_address else ""
        name = "liner-server" if grpc else "liner-server worker"
        sys.stdout.write(f"{name} ready {grpc}http={app.http_address}\n")
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        settle_collector()
        _log.info("serving", grpc=app.grpc_address, http=app.http_address)
        ends = [asyncio.create_task(event.wait()) for event in (asked, app.broken)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        broken = app.broken.is_set()
        _log.info("stopping", grace_seconds=settings.drain_seconds)
    _log.info("stopped")
    if broken:
        # Whoever watches over the process starts it anew; alive without gRPC it would be left so.
        raise SystemExit(1)


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"
