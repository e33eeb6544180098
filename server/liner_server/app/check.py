"""What of the configuration works: each part is tried the way that the server uses it.

A backend brings its own probe: a function of the settings that returns a `Finding`, or raises what
its adapter raises. `PROBES` is the list. Probes change nothing that stays: a server that runs on
the same data folder does not notice.
"""

import asyncio
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from liner.v1 import enrichment_pb2

from liner_server.app.analytics import bigquery_sink, place
from liner_server.app.cloud import names
from liner_server.app.storage import gcs
from liner_server.core.calibration import Calibration
from liner_server.core.experiment import EXPERIMENTAL
from liner_server.errors import LinerError
from liner_server.experiments import kept
from liner_server.experiments.file import ExperimentsFileError
from liner_server.experiments.file import read as read_experiments
from liner_server.flags import FlagsFileError, parse_flags
from liner_server.rpc.identity import TokenAuthenticator
from liner_server.settings import (
    AnalyticsBackend,
    ObjectsBackend,
    QueueBackend,
    ResultsBackend,
    Settings,
    SettingsError,
    is_loopback,
)
from liner_server.telemetry import Telemetry


class Works(StrEnum):
    """Whether a part can be used."""

    YES = "works"
    OFF = "off"
    """Not configured; nothing is missing without it."""
    DOUBT = "doubt"
    """It works, and an operator should know something."""
    NO = "FAILS"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one part."""

    part: str = ""
    works: Works = Works.YES
    detail: str
    todo: str = ""
    """What to do, where something is to be done."""


Probe = Callable[[Settings], Awaitable[Finding]]

_MODEL_SECONDS = 60.0
"""Longer than anybody waits: the command's own time for a part ends it."""


async def check_config(settings: Settings, *, seconds: float) -> AsyncIterator[Finding]:
    """Yield what was found of each part, in the order of `PROBES`; no part takes longer than
    `seconds`, all of them together not much more. Never raises for what a part does.
    """
    trying = {part: asyncio.create_task(_try(probe, settings, seconds)) for part, probe in PROBES}
    try:
        for part, task in trying.items():
            found = await task
            yield Finding(part=part, works=found.works, detail=found.detail, todo=found.todo)
    finally:
        for task in trying.values():
            task.cancel()


async def _try(probe: Probe, settings: Settings, seconds: float) -> Finding:
    try:
        async with asyncio.timeout(seconds):
            return await probe(settings)
    except TimeoutError:
        return Finding(
            works=Works.NO,
            detail=f"no answer within {seconds:g} s",
            todo="is its address right, and may this machine reach it?",
        )
    except (LinerError, SettingsError) as error:
        return Finding(works=Works.NO, detail=str(error))
    except Exception as error:
        # Its message may hold anything, a key among it.
        return Finding(works=Works.NO, detail=f"{type(error).__name__} while it was tried")


async def _in_thread(work: Callable[[], object]) -> None:
    """Run what blocks in a thread that nobody waits for once the time is over."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, daemon=True).start()
    await done


# -- This machine ---------------------------------------------------------------------------------


async def _access(settings: Settings) -> Finding:
    """Addresses, and who may call; without tokens the settings allow loopback only."""
    where = f"gRPC {settings.grpc_bind}, HTTP {settings.http_address}"
    if settings.tokens_file is None:
        return Finding(detail=f"{where}; no tokens: this machine only, everybody on it")
    TokenAuthenticator.from_file(settings.tokens_file)
    if settings.tokens_file.stat().st_mode & 0o007:
        return Finding(
            works=Works.DOUBT,
            detail=f"{where}; every user of this machine may read {settings.tokens_file}",
            todo=f"chmod o= {settings.tokens_file}",
        )
    metrics = "" if is_loopback(settings.http_address) else "; metrics are open without a token"
    return Finding(detail=f"{where}; tokens from {settings.tokens_file}{metrics}")


async def _data_folder(settings: Settings) -> Finding:
    return await asyncio.to_thread(_folder, settings.data_dir)


def _folder(folder: Path) -> Finding:
    there = folder
    while not there.exists():
        there = there.parent
    todo = f"let this user (uid {os.getuid()}) write there, or set LINER_DATA_DIR"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(works=Works.NO, detail=f"{there} cannot be written", todo=todo)
    if there != folder:
        return Finding(detail=f"{folder} is made at the first start")
    probe = folder / f".check-config-{os.getpid()}"
    try:
        with probe.open("xb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(works=Works.NO, detail=f"{folder}: {error.strerror}", todo=todo)
    finally:
        probe.unlink(missing_ok=True)
    disk = shutil.disk_usage(folder)
    room = f"{folder}, {disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free"
    if disk.free < disk.total / 10:
        return Finding(
            works=Works.DOUBT, detail=room, todo="enlarge the disk or delete old results"
        )
    return Finding(detail=room)


async def _listening(_: Settings) -> Finding:
    """Whether audio can be listened to: libraries and weights."""
    todo = "install requirements/server.txt and weights.txt (make setup does)"
    try:
        from liner_server.audio import beatnet, decode, musicnn  # noqa: F401 - whether they load

        weights = [*map(beatnet.weights_path, beatnet.MODELS), musicnn.weights_path("MSD")]
    except ImportError as error:
        return Finding(works=Works.NO, detail=str(error), todo=todo)
    if missing := [str(path) for path in weights if not path.exists()]:
        return Finding(works=Works.NO, detail=f"not there: {', '.join(missing)}", todo=todo)
    return Finding(detail="libraries and weights are there")


async def _flags(settings: Settings) -> Finding:
    path = settings.flags_file
    if path is None:
        return Finding(
            works=Works.OFF, detail="LINER_FLAGS_FILE is not set; flags of the environment"
        )
    try:
        parse_flags(await asyncio.to_thread(path.read_bytes), enrichment_pb2.FeatureFlags())
    except FileNotFoundError:
        return Finding(works=Works.DOUBT, detail=f"{path} is not there yet; the defaults hold")
    except (OSError, FlagsFileError) as error:
        return Finding(works=Works.NO, detail=f"{path}: {error}", todo="mend the file")
    return Finding(detail=str(path))


async def _calibration(settings: Settings) -> Finding:
    path = settings.calibration_file
    if path is None:
        return Finding(
            works=Works.OFF,
            detail="LINER_CALIBRATION_FILE is not set; models' scores count 0.6 at most",
        )
    try:
        await asyncio.to_thread(Calibration.load, path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Finding(
            works=Works.NO,
            detail=f"{path} is no table ({type(error).__name__})",
            todo="write it with `liner-server calibrate`",
        )
    return Finding(detail=str(path))


async def _traces(settings: Settings) -> Finding:
    if settings.otlp_endpoint is None:
        return Finding(works=Works.OFF, detail="OTEL_EXPORTER_OTLP_ENDPOINT is not set")
    import grpc

    address = settings.otlp_endpoint.partition("://")[2]
    secure = settings.otlp_endpoint.startswith("https://")
    channel = (
        grpc.aio.secure_channel(address, grpc.ssl_channel_credentials())
        if secure
        else grpc.aio.insecure_channel(address)
    )
    async with channel:
        await channel.channel_ready()
    return Finding(detail=f"connected to {settings.otlp_endpoint}")


# -- Stores ---------------------------------------------------------------------------------------


async def _queue(settings: Settings) -> Finding:
    if settings.queue is QueueBackend.SQLITE:
        return await _database(settings.data_dir / "queue.sqlite")
    from liner_server.queues.pubsub_gateway import Gateway
    from liner_server.queues.pubsub_setup import check

    async with Gateway(emulator=settings.pubsub_emulator_host) as gateway:
        await check(gateway, names(settings))
    where = settings.pubsub_emulator_host or "Google Pub/Sub"
    return Finding(detail=f"{where}: all topics and subscriptions of {settings.pubsub_topic}")


async def _results(settings: Settings) -> Finding:
    if settings.results is ResultsBackend.SQLITE:
        return await _database(settings.data_dir / "results.sqlite")
    if settings.objects is ObjectsBackend.GCS:
        return Finding(detail="kept with the objects")
    return await _database(settings.data_dir / "results" / "index.sqlite")


async def _objects(settings: Settings) -> Finding:
    if settings.objects is ObjectsBackend.LOCAL:
        return await _database(settings.data_dir / "objects" / "index.sqlite")
    # Not the store, which would clear the scratch folder of a server that runs.
    bucket = gcs(settings).bucket
    await _in_thread(bucket.open)
    bucket.close()
    where = settings.storage_emulator_host or "Cloud Storage"
    return Finding(detail=f"{where}: bucket {settings.gcs_bucket} can be listed")


async def _analytics(settings: Settings) -> Finding:
    if settings.analytics is AnalyticsBackend.OFF:
        return Finding(works=Works.OFF, detail="LINER_ANALYTICS=off; experiments have no reports")
    if settings.analytics is AnalyticsBackend.SQLITE:
        return await _database(settings.data_dir / "analytics.sqlite")
    from liner_server.analytics.bigquery_setup import set_up

    bigquery_sink(settings)
    parts = [part async for part in set_up(place(settings), dry_run=True)]
    if lacking := [part.path for part in parts if part.state != "exists"]:
        return Finding(
            works=Works.NO,
            detail=f"missing, or without a column: {', '.join(lacking)}",
            todo="liner-server setup-cloud",
        )
    where = settings.bigquery_emulator_host or "BigQuery"
    return Finding(detail=f"{where}: all tables of {settings.bigquery_dataset}")


async def _experiments(settings: Settings) -> Finding:
    await asyncio.to_thread(kept.read, settings.data_dir / "experiments.json")
    path = settings.experiments_file
    if path is None:
        return Finding(works=Works.OFF, detail="LINER_EXPERIMENTS_FILE is not set")
    try:
        found = await asyncio.to_thread(read_experiments, path)
    except ExperimentsFileError as error:
        return Finding(works=Works.NO, detail=f"{path}: {error}", todo="mend the file")
    models = {
        name
        for name, configured in (
            ("qwen2", settings.qwen2_endpoint),
            ("openai", settings.openai_api_key),
            (EXPERIMENTAL, settings.experimental_endpoint and settings.experimental_model),
        )
        if configured
    }
    for experiment in found:
        for variant in experiment.variants:
            if variant.model not in models:
                return Finding(
                    works=Works.NO,
                    detail=f"{path}: {experiment.name} tries the model {variant.model[:64]!r}; "
                    f"configured: {', '.join(sorted(models)) or 'none'}",
                    todo="configure the model, or mend the file",
                )
    return Finding(detail=f"{path}: {', '.join(experiment.name for experiment in found)}")


async def _database(path: Path) -> Finding:
    return await asyncio.to_thread(_sound, path, time.monotonic() + 2)


def _sound(path: Path, until: float) -> Finding:
    """Look whether a SQLite file is whole, as far as the time goes, and leave nothing beside it."""
    if not path.exists():
        return Finding(detail=f"{path} is made at the first start")
    # Without a log nobody has it open: SQLite must not make one, which could be another user's.
    alone = not path.with_name(path.name + "-wal").exists()
    mode = "immutable=1" if alone else "mode=ro"
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=1)
        try:
            connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
            [(said,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return Finding(detail=f"{path} opens; too large to be looked through in two seconds")
        return Finding(
            works=Works.NO, detail=f"{path}: {error}", todo="may this user read and write it?"
        )
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said != "ok":
        return Finding(
            works=Works.NO,
            detail=f"{path} is damaged: {said}",
            todo="keep the file, and put its newest copy in its place",
        )
    return Finding(detail=str(path) if alone else f"{path}, open in another process")


# -- Models ---------------------------------------------------------------------------------------


def _model(name: str, unset: str) -> Probe:
    async def probe(settings: Settings) -> Finding:
        if not (settings.qwen2_endpoint or settings.openai_api_key or settings.experimental_model):
            return Finding(works=Works.OFF, detail=unset)
        from liner_server.models.lanes import LanesFactory

        factory = LanesFactory(
            settings, calibration=Calibration.load(), observer=Telemetry(), used=lambda _: None
        )
        deadline = asyncio.get_running_loop().time() + _MODEL_SECONDS
        found = await factory.probe(name, deadline=deadline)
        if found is None:
            return Finding(works=Works.OFF, detail=unset)
        if not found.ready:
            return Finding(
                works=Works.NO,
                detail=found.reason,
                todo="the address, the model's name and the key; Liner answers without it",
            )
        if found.reason:
            return Finding(works=Works.DOUBT, detail=found.reason)
        return Finding(detail="answers, hears audio" if found.hears_audio else "answers")

    return probe


PROBES: tuple[tuple[str, Probe], ...] = (
    ("access", _access),
    ("data folder", _data_folder),
    ("listening", _listening),
    ("queue", _queue),
    ("results", _results),
    ("objects", _objects),
    ("analytics", _analytics),
    ("qwen2", _model("qwen2", "QWEN2_ENDPOINT is not set; what is measured is the answer")),
    ("openai", _model("openai", "OPENAI_API_KEY is not set; there is no fallback")),
    ("experimental", _model("experimental", "LINER_EXPERIMENTAL_ENDPOINT is not set")),
    ("experiments", _experiments),
    ("calibration", _calibration),
    ("flags", _flags),
    ("traces", _traces),
)
"""Every part, in the order of the table."""
