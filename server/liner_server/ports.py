"""The boundaries of Liner: what the core asks of the outside. The docstrings are the spec.

Every port's backends pass one contract suite in `tests/contracts`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from liner.v1 import enrichment_pb2, storage_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.context import RequestContext
from liner_server.core.calibration import Calibrated
from liner_server.core.claims import Lost, ProviderAnswer
from liner_server.core.enums import State
from liner_server.errors import LinerError


class Upload(Protocol):
    """An object on its way in; nobody sees it before `commit` returned."""

    @property
    def offset(self) -> int:
        """Bytes taken so far: more than 0 at the start when an upload is resumed."""

    async def append(self, data: bytes) -> None:
        """Take the next bytes; returns when they may be forgotten by the caller.

        Raises:
            ResourceExhaustedError: the object or the disk has no room for them.
            FailedPreconditionError: the backend cannot be written.

        """

    async def commit(self, finish: storage_pb2.UploadFinish) -> storage_pb2.StoredObject:
        """Check, make durable, then visible; return the object's facts.

        Raises:
            InvalidRequestError: the size is not the one the spec promised.
            DataLossError: a checksum does not match; the bytes are dropped.
            ConflictError: `if_generation_match` no longer holds.

        """


class ObjectStore(Protocol):
    """Keeps objects by name; a reader sees a whole object or none.

    Names follow `objects.names` on every backend (InvalidRequestError otherwise). Generations
    grow with every write of a name and are never used again. A write is durable before it is
    visible, and a crash at any moment leaves the old object or the new one. Whoever reads an
    object while it is replaced or deleted reads the one it began with, to its end.
    """

    def upload(self, spec: storage_pb2.UploadSpec) -> AbstractAsyncContextManager[Upload]:
        """Open an upload. Leaving the context without `commit` drops it, unless the spec has an
        upload_id: then what was taken is kept for a day and the next upload with this id and
        name goes on behind it. A process that dies loses at most the last 4 MiB taken.

        Raises:
            InvalidRequestError: a bad name, or an upload_id that belongs to another name.
            ConflictError: `if_generation_match` does not hold, or the upload is open elsewhere.

        """

    async def query_upload(self, upload_id: str) -> storage_pb2.QueryUploadResponse:
        """Return what is kept of an upload, or the object that it became.

        Raises:
            NotFoundError: no such upload is kept.

        """

    def read(
        self,
        name: str,
        *,
        offset: int = 0,
        length: int = 0,
        chunk_bytes: int = 1 << 19,
        if_generation_match: int | None = None,
    ) -> AbstractAsyncContextManager[tuple[storage_pb2.StoredObject, AsyncIterator[bytes]]]:
        """Open an object: its facts, and `length` bytes from `offset` (0: all to the end) in
        chunks of at most `chunk_bytes`.

        Raises:
            NotFoundError: no such object.
            OutOfRangeError: the range is not inside it.
            ConflictError: its generation is another one.

        """

    async def stat(self, name: str) -> storage_pb2.StoredObject:
        """Return an object's facts.

        Raises:
            NotFoundError: no such object.

        """

    async def list(
        self, prefix: str, *, after: str = "", limit: int = 100
    ) -> Sequence[storage_pb2.StoredObject]:
        """Return objects whose names begin with `prefix` and come behind `after`, in byte order."""

    async def delete(self, name: str, *, if_generation_match: int | None = None) -> None:
        """Delete an object; durable when it returns.

        Raises:
            NotFoundError: no such object.
            ConflictError: its generation is another one.

        """

    async def delete_all(
        self, objects: Sequence[storage_pb2.StoredObject]
    ) -> Sequence[storage_pb2.StoredObject]:
        """Delete these generations, and no others of the same names; return those deleted here.

        Durable when it returns. One that is gone or replaced is passed over, so of two who delete
        the same objects at once each object is returned to one.

        Raises:
            LinerError: none could be deleted, and why.
        """

    async def drop_uploads(self) -> int:
        """Drop what is kept of uploads whose day is over; return how many. Open ones stay."""

    def local_file(self, name: str) -> AbstractAsyncContextManager[Path]:
        """Open an object as a local file that keeps its bytes for as long as the context is open,
        whatever happens to the object. Not to be written.

        Raises:
            NotFoundError: no such object.

        """

    async def signed_url(
        self, request: storage_pb2.GetSignedURLRequest
    ) -> storage_pb2.GetSignedURLResponse:
        """Return a URL that lets anyone who has it read or write this one object until it expires.

        A URL for writing states the generation it replaces, by default the one that is there now
        (0: none), so it cannot be used twice. The expiry must be set and has been checked.

        Raises:
            NotFoundError: no such object, for reading.
            ConflictError: `if_generation_match` does not hold now.
            FailedPreconditionError: this backend has nothing to sign with.

        """


SIGNED_PATH = "/objects/"
"""Below this the side port answers signed URLs of objects that are kept here."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a signed URL allows."""

    name: str
    writes: bool
    expires: int
    """Unix seconds."""
    content_type: str = ""
    """Type that must be sent; empty: any."""
    max_bytes: int = 0
    generation: int = 0
    """What a write replaces; 0: nothing."""


class CleanUp(Protocol):
    """Deletes what has had its time."""

    async def __call__(
        self, *, dry_run: bool, force: bool, principal: str
    ) -> storage_pb2.RunCleanupResponse:
        """Return what was done, or with `dry_run` would be.

        Raises:
            FailedPreconditionError: too much would go at once, or the clock looks wrong; nothing
                was deleted. `force` skips this.

        """


class ResultStore(Protocol):
    """Keeps enrichments, what editors said of them, and answers that may be given again.

    One record an `enrichment_id`. The result of a queued job is stored under the job's id, so
    `enrichment_id`, `answer.processing.enrichment_id` and the job's id are the same there, and a
    job that runs twice finds its first result. A record is DONE once and for ever: after that
    only reviews are added and retention deletes it. What a call stored is durable when it
    returns, a crash at any moment leaves all of it or nothing, and calls at the same time behave
    as if one came after the other. Times of records are kept to the microsecond.

    Every method may also raise:
        ResourceExhaustedError: the disk is full; reading and deleting still work.
        FailedPreconditionError: the disk is read-only; reading still works.
        UnavailableError: the store cannot be reached or is locked; retrying may help.
        DataLossError: what is stored is corrupt; nothing is written any more.
    """

    async def put(self, enrichment: enrichment_pb2.Enrichment) -> bool:
        """Store a record unless its id is taken; return whether this call did.

        An unfinished job's record (QUEUED, RUNNING, FAILED) gives way to one that is DONE, which
        then has the job's `create_time` and `request_id`. `create_time` and `update_time` are set
        to now where they are unset. Nothing of `enrichment` is changed.

        A consumer acks after this returned, be it True or False: the job has a result.
        """

    async def update_state(
        self,
        job_id: str,
        state: State,
        *,
        error: track_pb2.Error | None = None,
    ) -> bool:
        """Say where a job stands: QUEUED, RUNNING, or FAILED with its error; return False, and
        change nothing, if it is DONE.

        A job nobody has heard of gets a record. To say QUEUED of a new job use `put`, which
        never takes back what a quick worker has said meanwhile.
        """

    async def get(self, enrichment_id: str) -> enrichment_pb2.Enrichment:
        """Return a record by its enrichment's or its job's id.

        Raises:
            NotFoundError: there is none.

        """

    async def list(
        self, request: enrichment_pb2.ListEnrichmentsRequest
    ) -> enrichment_pb2.ListEnrichmentsResponse:
        """Return a page of the records that are DONE and match every filter.

        An enrichment needs review for as long as its answer says so and no editor has reviewed
        it. REVIEW_FIRST: those first, then the others, each by confidence, the lowest first, and
        of equal ones the newest first. NEWEST_FIRST: by `create_time`. Ties are broken by id, so
        that a record that does not change is on exactly one page, whatever is stored meanwhile.
        A page is cut short at 3 MiB.

        Raises:
            InvalidRequestError: `page_token` was not given for these filters and this order.

        """

    async def add_review(
        self, enrichment_id: str, review: enrichment_pb2.Review, *, request_id: str = ""
    ) -> enrichment_pb2.Enrichment:
        """Add an editor's judgement behind the others and return the record with it.

        The same `request_id` for the same record adds it once; an empty one always adds.

        Raises:
            NotFoundError: no such record is DONE.
            AlreadyExistsError: the request id came with another judgement before.
            ResourceExhaustedError: the record has no room for more.

        """

    async def delete_before(self, time: datetime) -> int:
        """Delete records created before `time`, jobs that are QUEUED or RUNNING excepted; return
        how many.
        """

    async def find_answer(
        self, key: bytes, *, since: datetime
    ) -> enrichment_pb2.EnrichMetadataResponse | None:
        """Return the answer kept under a key at or after `since`, or None."""

    async def keep_answer(self, key: bytes, answer: enrichment_pb2.EnrichMetadataResponse) -> None:
        """Keep an answer under a key of at most 64 bytes, in place of what was there."""

    async def forget_answers_before(self, time: datetime) -> int:
        """Forget answers kept before `time`; return how many."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a provider is asked about one track."""

    track: track_pb2.Track
    """As the caller stated it; hostile text, never to be changed."""

    fields: frozenset[str]
    """Paths wanted; empty for all that the provider can answer."""

    listening: Listening | None
    """What was heard; None when the track has no audio."""

    context: RequestContext
    audio_wav: Sequence[bytes] = field(default=(), repr=False)
    """Excerpts for a provider that hears: WAV, 16 kHz, mono, 16 bit, at most 30 s each."""

    lost: Lost = field(default_factory=Lost, repr=False, compare=False)
    """Where a provider counts what it used when it ends without an answer, cancelled or not."""


class ModelProvider(Protocol):
    """Proposes values for the fields of a track.

    A provider answers with claims and decides nothing: the ledger weighs them beside what was
    given, tagged and measured. It returns before `question.context.deadline`, and stops all work
    it caused, upstream too, as soon as its caller is cancelled. What it used without an answer it
    adds to `question.lost`. What it returns has been checked: values in canonical text form,
    confidences in [0, 1], only fields it lists in `fields`.
    """

    @property
    def name(self) -> str:
        """Short and stable: "embedded", "qwen2", "openai"; safe as a metric label."""

    @property
    def version(self) -> str:
        """Changes whenever the same question may get another answer."""

    @property
    def hears_audio(self) -> bool:
        """Whether it makes use of audio."""

    @property
    def fields(self) -> Sequence[str]:
        """Paths in Track that it can answer."""

    def answerable(self, question: Question) -> frozenset[str]:
        """Return those of the fields wanted that it can say anything about for this track.

        A question about none of them is not worth asking.
        """

    def ceiling(self, path: str, *, heard: bool) -> Calibrated:
        """Return the highest confidence that its claims about a field can have, and their basis.

        `heard` is whether it is sent excerpts.
        """

    def estimate(self, question: Question) -> Decimal:
        """Return the most that one question is reckoned to cost, in US dollars."""

    async def propose(self, question: Question) -> ProviderAnswer:
        """Return what the provider claims; no claims at all is a proper answer.

        Raises:
            ProviderError: it failed; `retryable` says whether the same call may succeed later.
            DeadlineError: it could not answer in time.

        """

    async def propose_many(
        self, questions: Sequence[Question]
    ) -> Sequence[ProviderAnswer | LinerError]:
        """Return an answer or an error for each question, in order, from as few calls as it takes.

        All ask for the same fields and have no audio. A question that cannot be answered spoils
        none of the others.

        Raises:
            ProviderError, DeadlineError: none of them could be answered.

        """


class Listener(Protocol):
    """Listens to the audio that a track refers to."""

    async def listen(self, audio: track_pb2.Audio, context: RequestContext) -> Listening:
        """Return what is heard before the context's deadline.

        Raises:
            NotFoundError: there is no such object.
            InvalidAudioError: the audio can never be listened to.
            DeadlineError, ResourceExhaustedError, UnavailableError: this time it could not.

        """

    async def excerpts(self, audio: track_pb2.Audio, context: RequestContext) -> Sequence[bytes]:
        """Return the windows that a model which hears is sent, as `Question.audio_wav` wants them.

        Raises:
            NotFoundError, InvalidAudioError, DeadlineError, ResourceExhaustedError,
            UnavailableError: as `listen` does.

        """

    async def digest(self, audio: track_pb2.Audio, context: RequestContext) -> bytes:
        """Return bytes that are equal only for equal audio, without listening to it.

        Raises:
            NotFoundError: there is no such object.
            PermissionDeniedError: it is not the caller's to use, whether it exists or not.

        """
