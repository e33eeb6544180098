"""The calls to one bucket of Cloud Storage: blocking, safe from many threads, in our own words.

Every write states the generation it replaces or carries an id of its own, so that a call which
was repeated because its answer got lost is recognised and not reported as a conflict.
"""

import base64
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import google_crc32c
import requests
from google.api_core import exceptions
from google.auth import default as default_credentials
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage  # type: ignore[attr-defined]  # it has no types
from google.cloud.storage.retry import DEFAULT_RETRY
from liner.v1 import storage_pb2

from liner_server.errors import (
    ConflictError,
    DataLossError,
    FailedPreconditionError,
    InvalidRequestError,
    LinerError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)

ENDPOINT = "https://storage.googleapis.com"
MOST_SOURCES = 32
"""Objects that one compose call takes."""

_RETRY = DEFAULT_RETRY.with_timeout(20.0)
_TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and between two pieces of an answer."""

_T = TypeVar("_T")
_CONNECTIONS = 32
_SHA256, _WRITE = "liner-sha256", "liner-write"
_MOST_METADATA = 8 << 10
_HOLD = "legal-hold"


class CallHome(Protocol):
    """Who makes the calls to a bucket, in threads of its own."""

    @property
    def bucket(self) -> "Bucket":
        """The calls, which block."""

    @property
    def max_bytes(self) -> int:
        """Largest object taken."""

    async def blocking(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run a call in a thread."""


class Bucket:
    """One bucket, as one account sees it."""

    def __init__(
        self,
        name: str,
        *,
        project: str | None = None,
        emulator: str | None = None,
        kms_key: str | None = None,
        user_project: str | None = None,
        signing_account: str | None = None,
        credentials: Any = None,
    ) -> None:
        """Take where the bucket is; without `credentials` those of the environment are used."""
        self.name = name
        self.endpoint = (emulator or ENDPOINT).rstrip("/")
        self.kms_key = kms_key
        self.user_project = user_project
        self.signing_account = signing_account
        self.credentials: Any = credentials
        self._project = project
        self._emulator = emulator
        self._session: AuthorizedSession
        self._client: Any
        self._bucket: Any

    def open(self) -> None:
        """Connect, and see that the bucket is there.

        Raises:
            FailedPreconditionError: there are no credentials, or no such bucket.
            UnavailableError: Cloud Storage cannot be reached.

        """
        with _translated(self.name):
            self._connect()
            try:
                next(iter(self._listed("", "", 1)), None)
            except exceptions.NotFound as error:
                raise FailedPreconditionError(
                    f"there is no bucket {self.name}; `liner-server setup-cloud` says what is "
                    "missing",
                    reason="BUCKET_MISSING",
                ) from error

    def _connect(self) -> None:
        if self._emulator:
            session_credentials: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]
        else:
            if self.credentials is None:
                self.credentials, found = default_credentials(
                    scopes=["https://www.googleapis.com/auth/cloud-platform"]
                )
                self._project = self._project or found
            session_credentials = self.credentials
        self._session = AuthorizedSession(session_credentials)  # type: ignore[no-untyped-call]
        self._session.hooks["response"].append(_check_headers)
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._client = storage.Client(
            project=self._project or "none",
            credentials=session_credentials,
            _http=self._session,
            client_options={"api_endpoint": self.endpoint},
        )
        self._bucket = self._client.bucket(self.name, user_project=self.user_project)

    def close(self) -> None:
        """Drop the connections."""
        self._session.close()  # type: ignore[no-untyped-call]

    def stat(self, name: str) -> storage_pb2.StoredObject:
        """Return an object's facts.

        Raises:
            NotFoundError: no such object.

        """
        with _translated(name):
            blob = self._bucket.blob(name)
            blob.reload(retry=_RETRY, timeout=_TIMEOUT)
            return _facts(blob)

    def names(self, prefix: str, after: str, limit: int) -> list[storage_pb2.StoredObject]:
        """Return objects by name, behind `after`."""
        with _translated(prefix):
            found = self._listed(prefix, after, limit + 1)
            return [_facts(blob) for blob in found if blob.name > after or not after][:limit]

    def _listed(self, prefix: str, after: str, limit: int) -> Iterator[Any]:
        listed: Iterator[Any] = self._client.list_blobs(
            self._bucket,
            prefix=prefix or None,
            # The first name, itself included; it is left out by the caller.
            start_offset=after or None,
            max_results=limit,
            page_size=min(limit, 1000),
            retry=_RETRY,
            timeout=_TIMEOUT,
        )
        return listed

    def create(
        self,
        facts: storage_pb2.StoredObject,
        data: bytes,
        *,
        if_generation_match: int | None,
        passing: bool = False,
    ) -> storage_pb2.StoredObject:
        """Store an object in one request, whole or not at all.

        `passing` is for what will be deleted soon: it is not kept in a class that charges for that.

        Raises:
            ConflictError: its generation is not the expected one.

        """
        with _translated(facts.object_name):
            blob = self._blob(facts)
            if passing:
                blob.storage_class = "STANDARD"
            return self._written(
                blob,
                lambda: blob.upload_from_string(
                    data,
                    content_type=facts.content_type or None,
                    if_generation_match=if_generation_match,
                    checksum="crc32c",
                    retry=_RETRY,
                    timeout=_TIMEOUT,
                ),
                google_crc32c.value(data),
            )

    def compose(
        self,
        facts: storage_pb2.StoredObject,
        sources: Sequence[storage_pb2.StoredObject],
        *,
        if_generation_match: int | None,
    ) -> storage_pb2.StoredObject:
        """Put at most 32 objects together, as one that is there whole or not at all.

        Raises:
            ConflictError: its generation is not the expected one.
            DataLossError: the bytes are not those that were to be.

        """
        with _translated(facts.object_name):
            blob = self._blob(facts)
            parts = [
                self._bucket.blob(source.object_name, generation=source.generation)
                for source in sources
            ]

            def write() -> None:
                try:
                    blob.compose(
                        parts,
                        if_generation_match=if_generation_match,
                        retry=_RETRY,
                        timeout=_TIMEOUT,
                    )
                except exceptions.NotFound as error:
                    raise ConflictError(
                        "another stream has taken this upload's parts", reason="UPLOAD_OPEN"
                    ) from error

            return self._written(blob, write, facts.crc32c or None)

    def delete(self, name: str, generation: int) -> None:
        """Delete this generation of an object.

        Raises:
            NotFoundError, ConflictError: it is not there, or another is.
            FailedPreconditionError: it is held, or under a retention policy of the bucket.

        """
        with _translated(name):
            self._bucket.blob(name).delete(
                if_generation_match=generation, retry=_RETRY, timeout=_TIMEOUT
            )

    def read(self, name: str) -> bytes:
        """Return a small object's bytes.

        Raises:
            NotFoundError: no such object.

        """
        with _translated(name):
            data: bytes = self._bucket.blob(name).download_as_bytes(retry=_RETRY, timeout=_TIMEOUT)
            return data

    def open_range(self, name: str, generation: int, offset: int, end: int) -> Any:
        """Return the HTTP response whose raw stream holds these bytes of a generation.

        Raises:
            NotFoundError: there is no such generation any more.

        """
        with _translated(name):
            parameters = {"alt": "media", "generation": str(generation)}
            if self.user_project:
                parameters["userProject"] = self.user_project
            response = self._session.get(
                f"{self.endpoint}/download/storage/v1/b/{self.name}/o/{quote(name, safe='')}",
                params=parameters,
                # What is stored compressed is sent as it is stored.
                headers={"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "gzip"},
                stream=True,
                timeout=_TIMEOUT,
            )
            if response.status_code not in (200, 206):
                response.close()
                raise exceptions.from_http_status(  # type: ignore[no-untyped-call]
                    response.status_code, "reading"
                )
            return response

    def sign(self, name: str, **how: Any) -> str:
        """Return a V4 signed URL; `how` is as `Blob.generate_signed_url` takes it."""
        with _translated(name):
            url: str = self._bucket.blob(name).generate_signed_url(
                version="v4", api_access_endpoint=self.endpoint, **how
            )
            return url

    def lifecycle(self) -> list[dict[str, Any]]:
        """Return the bucket's lifecycle rules."""
        with _translated(self.name):
            self._bucket.reload(retry=_RETRY, timeout=_TIMEOUT)
            return [dict(rule) for rule in self._bucket.lifecycle_rules]

    def set_lifecycle(self, rules: Sequence[dict[str, Any]]) -> None:
        """Replace the bucket's lifecycle rules."""
        with _translated(self.name):
            self._bucket.lifecycle_rules = list(rules)
            self._bucket.patch(retry=_RETRY, timeout=_TIMEOUT)

    def _blob(self, facts: storage_pb2.StoredObject) -> Any:
        blob = self._bucket.blob(facts.object_name, kms_key_name=self.kms_key)
        metadata = dict(facts.metadata)
        for key, value in ((_WRITE, uuid.uuid4().hex), (_SHA256, facts.sha256)):
            size = sum(len(k.encode()) + len(v.encode()) for k, v in metadata.items())
            # Cloud Storage takes 8 KiB, and what is the caller's comes first.
            if value and size + len(key) + len(value) <= _MOST_METADATA:
                metadata[key] = value
        blob.metadata = metadata
        blob.content_type = facts.content_type or None
        if facts.HasField("custom_time"):
            blob.custom_time = facts.custom_time.ToDatetime()
        return blob

    def _written(
        self, blob: Any, write: Callable[[], None], crc32c: int | None
    ) -> storage_pb2.StoredObject:
        mark = (blob.metadata or {}).get(_WRITE)
        try:
            write()
        except exceptions.PreconditionFailed:
            blob = self._bucket.get_blob(blob.name, retry=_RETRY, timeout=_TIMEOUT)
            if blob is None or not mark or (blob.metadata or {}).get(_WRITE) != mark:
                raise
        stored = _facts(blob)
        if crc32c is not None and stored.crc32c != crc32c:
            raise DataLossError("Cloud Storage has other bytes than were sent", reason="CHECKSUM")
        return stored


def _check_headers(response: requests.Response, **_: object) -> None:
    """Pass if an answer has all its headers.

    Where a connection breaks in mid-header, Python's HTTP client takes those that came for all.

    Raises:
        requests.ConnectionError: it has not; Google's client tries again.

    """
    if response.status_code in (204, 304):
        return
    if not {"content-length", "transfer-encoding"} & {name.lower() for name in response.headers}:
        response.close()
        raise requests.ConnectionError("the answer broke off in its headers")


def _facts(blob: Any) -> storage_pb2.StoredObject:
    metadata = dict(blob.metadata or {})
    stored = storage_pb2.StoredObject(
        object_name=blob.name,
        size_bytes=blob.size or 0,
        content_type=blob.content_type or "application/octet-stream",
        generation=blob.generation or 0,
        crc32c=int.from_bytes(base64.b64decode(blob.crc32c or ""), "big"),
        sha256=metadata.pop(_SHA256, ""),
    )
    metadata.pop(_WRITE, None)
    if blob.temporary_hold or blob.event_based_hold:
        metadata.setdefault(_HOLD, "true")
    stored.metadata.update(metadata)
    if blob.time_created is not None:
        stored.create_time.FromDatetime(blob.time_created)
    if blob.custom_time is not None:
        stored.custom_time.FromDatetime(blob.custom_time)
    return stored


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (
        exceptions.GoogleAPIError,
        auth_exceptions.GoogleAuthError,
        requests.RequestException,
    ) as error:
        raise _error(error, name) from error


def _error(error: Exception, name: str) -> LinerError:
    text = f"Cloud Storage: {getattr(error, 'message', None) or error}"[:500]
    match error:
        case exceptions.NotFound():
            return NotFoundError(f"no object {name}", reason="OBJECT_NOT_FOUND", resource=name)
        case exceptions.PreconditionFailed():
            return ConflictError(
                f"{name} is at another generation", reason="GENERATION", resource=name
            )
        case exceptions.Forbidden() | exceptions.Unauthorized():
            return FailedPreconditionError(text, reason="GCS_REFUSED", resource=name)
        case exceptions.TooManyRequests():
            return ResourceExhaustedError(text, reason="GCS_BUSY")
        case exceptions.BadRequest():
            return InvalidRequestError.of("object_name", text, "GCS_INVALID")
        case auth_exceptions.DefaultCredentialsError() | auth_exceptions.RefreshError():
            return FailedPreconditionError(text, reason="GCS_CREDENTIALS")
        case _:
            return UnavailableError(text, reason="GCS")
