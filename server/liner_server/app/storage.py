"""The object store that the settings name, what signs its URLs, and its clean-ups."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from liner_server.core.retention import RetentionPolicy
from liner_server.objects.local import LocalObjectStore
from liner_server.objects.retention import Retention, RetentionObserver
from liner_server.objects.signing import SigningKeys, UrlSigner
from liner_server.ports import ObjectStore
from liner_server.settings import ObjectsBackend, Settings, SettingsError

if TYPE_CHECKING:
    # Half a second and 20 MB that only those who use Cloud Storage shall spend.
    from liner_server.objects.gcs import GcsObjectStore
    from liner_server.objects.gcs_bucket import Bucket


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The object store, open."""

    objects: ObjectStore
    signer: UrlSigner | None
    """Signs URLs that the side port answers; None where they lead elsewhere."""


async def open_storage(settings: Settings, stack: AsyncExitStack) -> Storage:
    """Open the object store; the stack closes it."""
    if settings.objects is ObjectsBackend.GCS:
        return Storage(objects=await stack.enter_async_context(gcs(settings)), signer=None)
    signer = UrlSigner(signing_keys(settings))
    store = LocalObjectStore(
        settings.data_dir / "objects", max_object_bytes=settings.max_object_bytes, signer=signer
    )
    return Storage(objects=await stack.enter_async_context(store), signer=signer)


def bucket(settings: Settings) -> "Bucket":
    """Return the calls to the bucket that the settings name, not yet open."""
    from liner_server.objects.gcs_bucket import Bucket

    if not settings.gcs_bucket:
        raise SettingsError("GCS_BUCKET: must name a bucket; it is not set")
    return Bucket(
        settings.gcs_bucket,
        project=settings.google_cloud_project,
        emulator=settings.storage_emulator_host,
        kms_key=settings.gcs_kms_key,
        user_project=settings.gcs_user_project,
        signing_account=settings.gcs_signing_account,
    )


def gcs(settings: Settings) -> "GcsObjectStore":
    """Return the store in the bucket that the settings name, not yet open."""
    from liner_server.objects.gcs import GcsObjectStore

    return GcsObjectStore(
        bucket(settings),
        scratch=settings.data_dir / "scratch",
        max_object_bytes=settings.max_object_bytes,
    )


def signing_keys(settings: Settings) -> SigningKeys:
    """Return the keys of signed URLs."""
    return SigningKeys(settings.signing_keys_file or settings.data_dir / "signing.keys")


def policy(settings: Settings) -> RetentionPolicy:
    """Return how long objects are kept."""
    return RetentionPolicy(
        temp=timedelta(hours=settings.retention_temp_hours),
        free=timedelta(days=settings.retention_free_days),
        pro=timedelta(days=settings.retention_pro_days),
        enterprise=timedelta(days=settings.retention_enterprise_days),
        most_share=settings.cleanup_max_share,
        prefixes=settings.retention_prefixes,
    )


def retention(
    settings: Settings,
    objects: ObjectStore,
    *,
    observer: RetentionObserver,
    clear_results: Callable[[], Awaitable[tuple[int, int]]],
) -> Retention:
    """Return what runs clean-ups."""
    return Retention(objects, policy(settings), observer=observer, clear_results=clear_results)
