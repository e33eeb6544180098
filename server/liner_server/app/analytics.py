"""Analytics and experiments, opened as the settings say."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from liner_server.analytics.buffer import AnalyticsBuffer
from liner_server.analytics.sqlite import SqliteSink
from liner_server.analytics_retention import AnalyticsRetention
from liner_server.core.experiment import Experiment, Variant
from liner_server.core.router import Lanes
from liner_server.experiments.file import ExperimentsFileError, read
from liner_server.experiments.service import Experiments
from liner_server.ports_analytics import AnalyticsSink
from liner_server.settings import (
    AnalyticsBackend,
    BigQueryWrites,
    Settings,
    SettingsError,
    TrackIds,
)
from liner_server.telemetry import Telemetry

if TYPE_CHECKING:
    # Half a second and 20 MB that only those who use BigQuery shall spend.
    from liner_server.analytics.bigquery import BigQuerySink, Place


@dataclass(frozen=True, kw_only=True)
class Analytics:
    """Who takes rows, and who draws tracks."""

    buffer: AnalyticsBuffer | None
    experiments: Experiments


async def open_analytics(
    settings: Settings, stack: AsyncExitStack, lanes: Lanes, telemetry: Telemetry
) -> Analytics:
    """Open the backend, the journal before it, and the experiments.

    Raises:
        SettingsError: the experiments cannot be as they are configured.

    """
    configured = _experiments(settings, lanes)
    sink = await _sink(settings, stack)
    buffer = None
    if sink is not None:
        buffer = await stack.enter_async_context(
            AnalyticsBuffer(
                sink,
                settings.data_dir / "analytics",
                observer=telemetry,
                max_bytes=settings.analytics_spill_bytes,
                plain_tracks=settings.analytics_track_ids is TrackIds.PLAIN,
            )
        )
    experiments = await stack.enter_async_context(
        Experiments(
            configured,
            sink=sink,
            rows=buffer,
            state=settings.data_dir / "experiments.json",
            observer=telemetry,
            check_every=timedelta(seconds=settings.experiment_check_seconds),
            guards=settings.experiment_guard,
        )
    )
    return Analytics(buffer=buffer, experiments=experiments)


async def open_sink(settings: Settings, stack: AsyncExitStack) -> AnalyticsSink | None:
    """Open the backend alone; None where rows are not kept."""
    match settings.analytics:
        case AnalyticsBackend.SQLITE:
            return await stack.enter_async_context(
                SqliteSink(settings.data_dir / "analytics.sqlite")
            )
        case AnalyticsBackend.BIGQUERY:
            return await stack.enter_async_context(bigquery_sink(settings)(place(settings)))
        case AnalyticsBackend.OFF:
            return None


def bigquery_sink(settings: Settings) -> "type[BigQuerySink]":
    """Return the backend on BigQuery that the settings ask for.

    Raises:
        SettingsError: what it needs is not installed.

    """
    from liner_server.analytics.bigquery import BigQuerySink

    if settings.bigquery_writes is BigQueryWrites.INSERT_ALL:
        return BigQuerySink
    try:
        from liner_server.analytics.bigquery_write import BigQueryWriteSink
    except ImportError as error:
        raise SettingsError(
            "LINER_BIGQUERY_WRITES=storage needs the extra liner[bqstorage]; it is not installed "
            f"({error})"
        ) from error
    return BigQueryWriteSink


def place(settings: Settings) -> "Place":
    """Return where the tables are in BigQuery."""
    from liner_server.analytics.bigquery import Place

    return Place(
        project=settings.google_cloud_project or "",
        dataset=settings.bigquery_dataset,
        emulator=settings.bigquery_emulator_host,
        write_emulator=settings.bigquery_write_emulator_host,
    )


async def _sink(settings: Settings, stack: AsyncExitStack) -> AnalyticsSink | None:
    sink = await open_sink(settings, stack)
    if sink is not None:
        kept = timedelta(days=settings.analytics_days)
        await stack.enter_async_context(AnalyticsRetention(sink, kept))
    return sink


def _experiments(settings: Settings, lanes: Lanes) -> Sequence[Experiment]:
    """Return what is configured, as far as there are models for it."""
    models = {
        lane.name
        for lane in (lanes.primary, lanes.fallback, lanes.experimental)
        if lane is not None
    }
    if settings.experiments_file is None:
        one = Experiment(
            name=settings.experiment_name,
            variants=(Variant(traffic=settings.experiment_share),),
            shadow=settings.experiment_shadow,
        )
        return [one] if lanes.experimental is not None else []
    where = f"LINER_EXPERIMENTS_FILE: {settings.experiments_file}"
    try:
        found = read(settings.experiments_file)
    except ExperimentsFileError as error:
        raise SettingsError(f"{where}: {error}") from error
    for experiment in found:
        for variant in experiment.variants:
            if variant.model not in models:
                raise SettingsError(
                    f"{where}: {experiment.name} tries the model {variant.model[:64]!r}; "
                    f"configured: {', '.join(sorted(models)) or 'none'}"
                )
    return found
