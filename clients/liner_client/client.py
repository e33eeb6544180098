"""The way other programs talk to Liner."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from liner.v1 import enrichment_pb2, storage_pb2, track_pb2

from liner_client import health as health_check
from liner_client import objects, results
from liner_client import queue as job_queue
from liner_client.batch import BatchEvent, Items, run_batch
from liner_client.connection import connect
from liner_client.errors import NotFoundError
from liner_client.experiments import ExperimentsClient
from liner_client.health import ServingStatus


class LinerClient:
    """An async client of one Liner server; safe to share between tasks.

        async with LinerClient("127.0.0.1:50051", token=token) as liner:
            audio = await liner.upload_file("song.flac")
            track = Track(title="So What", audio=Audio(object_name=audio.object_name))
            answer = await liner.enrich(track)

    Every failed call raises a `LinerError`. Calls that change nothing are tried up to three times
    when the server cannot be reached; a batch is resumed, a broken transfer goes on where it
    stopped. There is no blocking twin: a script says `asyncio.run(main())`.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        tls: bool = False,
        root_certificates: bytes | None = None,
        plaintext_token: bool = False,
        deadline: timedelta = timedelta(seconds=30),
        object_prefix: str = "",
    ) -> None:
        """Prepare a channel; nothing is sent before the first call.

        `deadline` is the longest time of each unary call that names none. `root_certificates` (PEM)
        replaces the system's. A token over plaintext to another machine is refused with
        ValueError unless `plaintext_token` says that something else encrypts the way.
        `object_prefix` is put before names that are made of content, for a token that owns one.
        """
        self._object_prefix = object_prefix
        self._connection = connect(
            target,
            token=token,
            tls=tls,
            root_certificates=root_certificates,
            plaintext_token=plaintext_token,
            deadline=deadline,
        )

    async def __aenter__(self) -> "LinerClient":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls that still run are cancelled."""
        await self._connection.channel.close()

    async def enrich(
        self,
        track: track_pb2.Track,
        *,
        options: enrichment_pb2.EnrichOptions | None = None,
        deadline: timedelta | None = None,
        request_id: str | None = None,
    ) -> enrichment_pb2.EnrichMetadataResponse:
        """Return what Liner concludes about one track, with confidence and reasons by field."""
        request = enrichment_pb2.EnrichMetadataRequest(
            track=track, options=options, request_id=request_id or ""
        )
        return await self._connection.unary(
            self._connection.enrichment.EnrichMetadata,
            request,
            deadline=deadline,
            request_id=request_id,
        )

    async def validate(
        self,
        track: track_pb2.Track,
        *,
        profile: enrichment_pb2.DeliveryProfile.ValueType = enrichment_pb2.DELIVERY_PROFILE_MINIMAL,
        deadline: timedelta | None = None,
        request_id: str | None = None,
    ) -> enrichment_pb2.ValidateMetadataResponse:
        """Return the rules that the track's statements break, and how to mend them."""
        request = enrichment_pb2.ValidateMetadataRequest(track=track, profile=profile)
        return await self._connection.unary(
            self._connection.enrichment.ValidateMetadata,
            request,
            deadline=deadline,
            request_id=request_id,
        )

    def enrich_many(
        self,
        items: Items,
        *,
        config: enrichment_pb2.BatchConfig | None = None,
        chunk_items: int = 50,
        resume_for: timedelta = timedelta(minutes=2),
    ) -> AsyncGenerator[BatchEvent, None]:
        """Yield the events of one batch: a result an item, progress, and the summary last.

            async for event in liner.enrich_many(items):
                if isinstance(event, BatchResult): ...

        `items` are pairs of item_id and track, from an async or an ordinary iterable (which must
        not block). They are taken as fast as results are taken from here, and no faster; a
        trickling source is sent on at once, a fast one `chunk_items` (1 to 200) a message.
        Failed items come as results with an error. When the server goes away the stream is
        opened again and only unanswered items are sent again; after `resume_for` without any
        result the last error is raised. What the source raises is raised here. Leaving the loop
        early: close the generator (`contextlib.aclosing`), which cancels the batch.
        """
        if not 1 <= chunk_items <= 200:
            raise ValueError("chunk_items must be 1 to 200")
        return run_batch(
            self._connection,
            items,
            config=config or enrichment_pb2.BatchConfig(),
            chunk_items=chunk_items,
            resume_for=resume_for,
        )

    @property
    def experiments(self) -> ExperimentsClient:
        """The server's experiments, for whoever compares models."""
        return ExperimentsClient(self._connection)

    @property
    def queue(self) -> job_queue.QueueClient:
        """The server's queue, for whoever looks after it."""
        return job_queue.QueueClient(self._connection)

    async def submit(
        self,
        track: track_pb2.Track,
        *,
        options: enrichment_pb2.EnrichOptions | None = None,
        priority: enrichment_pb2.Priority.ValueType = enrichment_pb2.PRIORITY_MEDIUM,
        not_before: datetime | None = None,
        request_id: str | None = None,
    ) -> str:
        """Return the id of a job that is durable now; `get_enrichment` has its answer later.

        The same `request_id` with the same content makes one job, for a week at least. Audio is
        named by `audio.object_name`: upload it first.
        """
        return await job_queue.submit(
            self._connection,
            track,
            options=options,
            priority=priority,
            not_before=not_before,
            request_id=request_id,
        )

    async def get_enrichment(self, enrichment_id: str) -> enrichment_pb2.Enrichment:
        """Return a stored enrichment, by its own or a job's id; NotFoundError without one."""
        return await results.get(self._connection, enrichment_id)

    def list_enrichments(
        self, asked: enrichment_pb2.ListEnrichmentsRequest | None = None
    ) -> AsyncGenerator[enrichment_pb2.Enrichment, None]:
        """Yield stored enrichments, page by page; by default the most doubtful first."""
        return results.list_all(self._connection, asked or enrichment_pb2.ListEnrichmentsRequest())

    async def review(
        self,
        enrichment_id: str,
        reviews: Iterable[enrichment_pb2.FieldReview],
        *,
        request_id: str | None = None,
    ) -> enrichment_pb2.Enrichment:
        """Store what an editor says of fields, once, and return the enrichment with it last."""
        return await results.review(self._connection, enrichment_id, reviews, request_id=request_id)

    async def list_models(self) -> enrichment_pb2.ListModelsResponse:
        """Return the configured models with their state, and the feature flags in force."""
        return await self._connection.unary(
            self._connection.enrichment.ListModels, enrichment_pb2.ListModelsRequest()
        )

    async def health(
        self, service: str = "", *, deadline: timedelta = timedelta(seconds=5)
    ) -> ServingStatus:
        """Return whether the server, or one of its services, takes calls."""
        try:
            return await health_check.check(self._connection, service, deadline=deadline)
        except NotFoundError:
            return ServingStatus.SERVICE_UNKNOWN

    async def upload_file(
        self,
        path: str | Path,
        object_name: str | None = None,
        *,
        content_type: str | None = None,
        if_generation_match: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> storage_pb2.StoredObject:
        """Return the stored object for a local file.

        Without a name the object is called after its content, `audio/<sha256><extension>`, and
        bytes that are there already are not sent again. With a name it replaces what is there,
        unless `if_generation_match` says otherwise (0: only if there is nothing). `metadata` is
        the caller's own; retention reads "tier", "retention-days" and "legal-hold".
        """
        return await objects.upload_file(
            self._connection,
            Path(path),
            object_name,
            content_type=content_type,
            if_generation_match=if_generation_match,
            metadata=metadata,
            prefix=self._object_prefix,
        )

    async def sign_url(
        self,
        object_name: str,
        *,
        write: bool = False,
        expiry: timedelta = timedelta(minutes=15),
        content_type: str = "",
        max_size_bytes: int = 0,
        if_generation_match: int | None = None,
    ) -> storage_pb2.GetSignedURLResponse:
        """Return a URL with which anyone may GET the object, or PUT it once, until it expires.

        What the response names as headers must be sent with a PUT. At most 7 days.
        """
        request = storage_pb2.GetSignedURLRequest(
            object_name=object_name,
            operation=storage_pb2.SIGNED_URL_OPERATION_WRITE
            if write
            else storage_pb2.SIGNED_URL_OPERATION_READ,
            content_type=content_type,
            max_size_bytes=max_size_bytes,
            if_generation_match=if_generation_match,
        )
        request.expiry.FromTimedelta(expiry)
        return await objects.sign(self._connection, request)

    def download(
        self, object_name: str, *, offset: int = 0, length: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """Yield an object's bytes in blocks of about 512 KiB; `length` 0 means to the end."""
        return objects.download(self._connection, object_name, offset=offset, length=length)

    async def download_file(self, object_name: str, path: str | Path) -> int:
        """Write an object to a file and return its size; nothing is replaced by half a file."""
        return await objects.download_file(self._connection, object_name, Path(path))

    async def stat(self, object_name: str) -> storage_pb2.StoredObject:
        """Return an object's facts; NotFoundError when there is none."""
        return await objects.stat(self._connection, object_name)

    def list_objects(self, prefix: str = "") -> AsyncGenerator[storage_pb2.StoredObject, None]:
        """Yield the objects whose names begin with `prefix`, in byte order of names."""
        return objects.list_objects(self._connection, prefix)

    async def delete(self, object_name: str, *, if_generation_match: int | None = None) -> None:
        """Delete an object; ConflictError when its generation is another one."""
        await self._connection.unary(
            self._connection.storage.Delete,
            storage_pb2.DeleteRequest(
                object_name=object_name, if_generation_match=if_generation_match
            ),
        )
