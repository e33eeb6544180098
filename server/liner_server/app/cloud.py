"""What of Google Cloud the settings need: its names, and making it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING

from liner_server.settings import (
    AnalyticsBackend,
    ObjectsBackend,
    QueueBackend,
    Settings,
    SettingsError,
)

if TYPE_CHECKING:
    # A second and 23 MB that only those who use Pub/Sub shall spend.
    from liner_server.cloud_parts import Part
    from liner_server.queues.pubsub_wire import Names


def names(settings: Settings) -> "Names":
    """Return how the topics and subscriptions are called."""
    from liner_server.queues.pubsub_wire import Names

    return Names(
        project=settings.google_cloud_project or "",
        topic=settings.pubsub_topic,
        subscription=settings.pubsub_subscription,
    )


async def set_up_cloud(settings: Settings, *, dry_run: bool) -> "AsyncIterator[Part]":
    """Make what the settings need in Google Cloud, and yield each part of it.

    Raises:
        SettingsError: no project is named.
        LinerError: this account may not, or the service cannot be reached.

    """
    if settings.objects is ObjectsBackend.GCS:
        async for part in _set_up_bucket(settings, dry_run=dry_run):
            yield part
    tables = settings.analytics is AnalyticsBackend.BIGQUERY
    if tables:
        async for part in _set_up_tables(settings, dry_run=dry_run):
            yield part
    alone = settings.objects is ObjectsBackend.LOCAL and not tables
    if settings.queue is QueueBackend.PUBSUB or alone:
        async for part in _set_up_pubsub(settings, dry_run=dry_run):
            yield part


async def _set_up_bucket(settings: Settings, *, dry_run: bool) -> "AsyncIterator[Part]":
    from liner_server.app.storage import bucket, policy
    from liner_server.objects.gcs_setup import set_up

    async for part in set_up(bucket(settings), policy(settings), dry_run=dry_run):
        yield part


async def _set_up_pubsub(settings: Settings, *, dry_run: bool) -> "AsyncIterator[Part]":
    from liner_server.queues.pubsub_gateway import Gateway
    from liner_server.queues.pubsub_setup import set_up

    if not settings.google_cloud_project:
        raise SettingsError("GOOGLE_CLOUD_PROJECT: must name a project; it is not set")
    async with Gateway(emulator=settings.pubsub_emulator_host) as gateway:
        async for part in set_up(
            gateway, names(settings), dry_run=dry_run, ordered=settings.pubsub_ordered
        ):
            yield part


async def _set_up_tables(settings: Settings, *, dry_run: bool) -> "AsyncIterator[Part]":
    from liner_server.analytics.bigquery_setup import set_up
    from liner_server.app.analytics import place

    async for part in set_up(
        place(settings),
        location=settings.bigquery_location,
        kept=timedelta(days=settings.analytics_days),
        dry_run=dry_run,
    ):
        yield part
