"""The boundaries of Liner: what the core asks of the outside. The docstrings are the spec.

Every port's backends pass one contract suite in `tests/contracts`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from liner.v1 import storage_pb2, track_pb2

from liner_server.audio.measurements import Listening
from liner_server.context import RequestContext
from liner_server.core.claims import ProviderAnswer
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
        name goes on behind it.

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

    def local_file(self, name: str) -> AbstractAsyncContextManager[Path]:
        """Open an object as a local file that keeps its bytes for as long as the context is open,
        whatever happens to the object. Not to be written.

        Raises:
            NotFoundError: no such object.

        """


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


class ModelProvider(Protocol):
    """Proposes values for the fields of a track.

    A provider answers with claims and decides nothing: the ledger weighs them beside what was
    given, tagged and measured. It returns before `question.context.deadline`, and stops all work
    it caused, upstream too, as soon as its caller is cancelled. What it returns has been checked:
    values in canonical text form, confidences in [0, 1], only fields it lists in `fields`.
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

    async def digest(self, audio: track_pb2.Audio) -> bytes:
        """Return bytes that are equal only for equal audio, without listening to it.

        Raises:
            NotFoundError: there is no such object.

        """
