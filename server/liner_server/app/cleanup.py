"""A clean-up from the command line: here, or by the server that has the data folder open."""

from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import grpc
from liner.v1 import storage_pb2, storage_pb2_grpc
from prometheus_client import CollectorRegistry, Counter, write_to_textfile

from liner_server.app.parts import open_results, results_retention
from liner_server.app.storage import open_storage, retention
from liner_server.errors import FailedPreconditionError, LinerError, UnavailableError
from liner_server.settings import Settings

LONGEST = timedelta(hours=12)


class _Counted:
    """Keeps what a run did for a file of metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._objects = Counter(
            "retention_objects_total",
            "Objects that the clean-up looked at, by what became of them",
            ("outcome",),
            registry=self.registry,
        )

    def retained(self, outcome: str, count: int) -> None:
        """Count objects."""
        self._objects.labels(outcome).inc(count)


async def clean_up(
    settings: Settings, *, dry_run: bool, force: bool, metrics: Path | None
) -> tuple[storage_pb2.RunCleanupResponse, str]:
    """Run a clean-up and return what it did, and the address of the server that did it, if any.

    `metrics` is a file that is written, whole, for a collector of text files.

    Raises:
        LinerError: it was refused, or failed.
        OSError: the file of metrics cannot be written.

    """
    counted = _Counted()
    async with AsyncExitStack() as stack:
        try:
            storage = await open_storage(settings, stack)
        except FailedPreconditionError as error:
            if error.reason != "STORE_IN_USE":
                raise
            return await _by_the_server(settings, dry_run=dry_run, force=force), settings.grpc_bind
        results = await stack.enter_async_context(open_results(settings, storage.objects))
        run = retention(
            settings,
            storage.objects,
            observer=counted,
            clear_results=results_retention(settings, results).clear,
        )
        done = await run.run(dry_run=dry_run, force=force, principal="liner-server cleanup")
        if metrics is not None:
            write_to_textfile(str(metrics), counted.registry)
        return done, ""


async def _by_the_server(
    settings: Settings, *, dry_run: bool, force: bool
) -> storage_pb2.RunCleanupResponse:
    """Ask the server: it alone may change its folder, and its own metrics count the run."""
    address = settings.grpc_bind
    # A server that listens everywhere listens on loopback too.
    for everywhere, loopback in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if address.startswith(everywhere):
            address = address.replace(everywhere, loopback)
    metadata: tuple[tuple[str, str], ...] = ()
    if settings.token is not None:
        metadata = (("authorization", f"Bearer {settings.token.get_secret_value()}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: storage_pb2_grpc.StorageServiceAsyncStub
        stub = storage_pb2_grpc.StorageServiceStub(channel)
        try:
            return await stub.RunCleanup(
                storage_pb2.RunCleanupRequest(validate_only=dry_run, force=force),
                timeout=LONGEST.total_seconds(),
                metadata=metadata,
            )
        except grpc.aio.AioRpcError as error:
            raise _told(error, address) from error


def _told(error: grpc.aio.AioRpcError, address: str) -> LinerError:
    text = f"the server at {address}: {error.details()}"
    if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
        return FailedPreconditionError(text, reason="CLEANUP_REFUSED")
    return UnavailableError(f"{text} ({error.code().name})", reason="CLEANUP_SERVER")
