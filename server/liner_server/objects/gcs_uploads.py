"""What Cloud Storage keeps of uploads that may be resumed; see `gcs_upload` for the names."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

from liner.v1 import storage_pb2

from liner_server.errors import InvalidRequestError, NotFoundError
from liner_server.objects.gcs_bucket import CallHome
from liner_server.objects.gcs_upload import UPLOADS, delete_each, drop

_KEEP = timedelta(days=1)
_Objects = list[storage_pb2.StoredObject]


def key_of(upload_id: str) -> str:
    """Return how an upload is called in the bucket."""
    return hashlib.sha256(upload_id.encode()).hexdigest()


class Uploads:
    """The resumable uploads of a bucket."""

    def __init__(self, home: CallHome, now: Callable[[], float]) -> None:
        self._home = home
        self._now = now

    async def query(self, upload_id: str) -> storage_pb2.QueryUploadResponse:
        """Return what is kept of an upload, or the object that it became.

        Raises:
            NotFoundError: no such upload is kept.

        """
        key = key_of(upload_id)
        known = await self._state(key)
        if known is None:
            raise NotFoundError(
                f"no upload {upload_id} is kept", reason="UPLOAD_NOT_FOUND", resource=upload_id
            )
        if known.object.generation:
            known.persisted_size = known.object.size_bytes
        else:
            known.ClearField("object")
            known.persisted_size = sum(part.size_bytes for part in (await self._parts(key))[0])
        return known

    async def begin(self, spec: storage_pb2.UploadSpec) -> Sequence[storage_pb2.StoredObject]:
        """Remember an upload; return its parts, none where it begins anew.

        Raises:
            InvalidRequestError: the id belongs to an upload of another name.

        """
        key = key_of(spec.upload_id)
        known = await self._state(key)
        if known is not None and known.object.object_name != spec.object_name:
            raise InvalidRequestError.of(
                "spec.upload_id", "belongs to an upload of another object", "UPLOAD_ID_TAKEN"
            )
        parts, useless = await self._parts(key)
        if known is None or known.object.generation:
            parts, useless = [], [*parts, *useless]
        await delete_each(self._home, useless)
        await self._keep_state(key, spec.object_name, None)
        return parts

    async def end(self, spec: storage_pb2.UploadSpec, stored: storage_pb2.StoredObject) -> None:
        """Remember what an upload became."""
        await self._keep_state(key_of(spec.upload_id), spec.object_name, stored)

    async def drop_old(self, open_keys: Collection[str]) -> int:
        """Delete what is left of uploads whose day is over; return how many there were."""
        now = self._now()
        dropped, after = 0, ""
        while found := await self._home.blocking(self._home.bucket.names, UPLOADS, after, 1):
            key = found[0].object_name.removeprefix(UPLOADS).partition("/")[0]
            prefix = f"{UPLOADS}{key}/"
            after = prefix + chr(0x10FFFF)
            if key in open_keys or await self._state(key) is not None:
                continue
            parts = await self._home.blocking(self._home.bucket.names, prefix, "", 1000)
            newest = max(
                (part.create_time.ToDatetime(tzinfo=UTC).timestamp() for part in parts), default=now
            )
            if newest + _KEEP.total_seconds() <= now:
                await drop(self._home, prefix)
                dropped += 1
        return dropped

    async def _parts(self, key: str) -> tuple[_Objects, _Objects]:
        """Return the parts that follow each other from the first byte on, and the others."""
        parts: _Objects = []
        rest: _Objects = []
        offset, after = 0, ""
        prefix = f"{UPLOADS}{key}/"
        while found := await self._home.blocking(self._home.bucket.names, prefix, after, 1000):
            after = found[-1].object_name
            for part in found:
                if part.object_name == f"{prefix}{offset:016d}":
                    parts.append(part)
                    offset += part.size_bytes
                elif part.object_name != prefix + "state":
                    rest.append(part)
        return parts, rest

    async def _state(self, key: str) -> storage_pb2.QueryUploadResponse | None:
        """Return what is known of an upload whose time is not over."""
        try:
            data = await self._home.blocking(self._home.bucket.read, f"{UPLOADS}{key}/state")
        except NotFoundError:
            return None
        known = storage_pb2.QueryUploadResponse.FromString(data)
        expires = known.expire_time.ToDatetime(tzinfo=UTC).timestamp()
        return known if expires > self._now() else None

    async def _keep_state(
        self, key: str, object_name: str, stored: storage_pb2.StoredObject | None
    ) -> None:
        known = storage_pb2.QueryUploadResponse()
        known.object.object_name = object_name
        if stored is not None:
            known.object.CopyFrom(stored)
        known.expire_time.FromDatetime(datetime.fromtimestamp(self._now(), UTC) + _KEEP)
        facts = storage_pb2.StoredObject(object_name=f"{UPLOADS}{key}/state")
        data = known.SerializeToString()
        await self._home.blocking(
            lambda: self._home.bucket.create(facts, data, if_generation_match=None, passing=True)
        )
