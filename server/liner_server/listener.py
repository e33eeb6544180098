"""Brings a track's audio, wherever it is, before the listening processes."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from liner.v1 import track_pb2

from liner_server.audio.errors import AudioError
from liner_server.audio.measurements import Listening
from liner_server.audio.pool import ListeningPool
from liner_server.context import RequestContext
from liner_server.errors import (
    DeadlineError,
    InvalidAudioError,
    LinerError,
    ResourceExhaustedError,
    UnavailableError,
)
from liner_server.ports import ObjectStore


class PoolListener:
    """Listens to stored and inline audio in the pool; translates its errors into ours."""

    def __init__(
        self, pool: ListeningPool, objects: ObjectStore, scratch: Path, *, excerpts: int
    ) -> None:
        """Take the number of excerpts a model that hears is sent."""
        self._excerpts = excerpts
        self._pool = pool
        self._objects = objects
        self._scratch = scratch

    async def listen(self, audio: track_pb2.Audio, context: RequestContext) -> Listening:
        """Return what is heard before the context's deadline.

        Raises:
            NotFoundError: no such object.
            InvalidAudioError: the audio can never be listened to.
            DeadlineError, ResourceExhaustedError, UnavailableError: this time it could not.

        """
        async with self._file(audio, context) as path:
            try:
                return await self._pool.listen(
                    path,
                    name=audio.file_name or audio.object_name,
                    deadline=context.deadline,
                )
            except AudioError as error:
                raise _translated(error, audio.object_name) from error

    async def excerpts(self, audio: track_pb2.Audio, context: RequestContext) -> list[bytes]:
        """Return windows of the audio for a model that hears.

        Raises:
            NotFoundError, InvalidAudioError, DeadlineError, ResourceExhaustedError,
            UnavailableError: as `listen` does.

        """
        async with self._file(audio, context) as path:
            try:
                return await self._pool.excerpts(
                    path, count=self._excerpts, deadline=context.deadline
                )
            except AudioError as error:
                raise _translated(error, audio.object_name) from error

    async def digest(self, audio: track_pb2.Audio, context: RequestContext) -> bytes:
        """Return what changes when the audio does, without listening to it.

        Raises:
            NotFoundError: no such object.
            PermissionDeniedError: it is not the caller's to use.

        """
        if audio.WhichOneof("content") == "inline":
            return b"inline" + audio.inline
        context.principal.check_object(audio.object_name)
        stored = await self._objects.stat(audio.object_name)
        return f"{stored.object_name}\0{stored.generation}\0{stored.crc32c}".encode()

    @asynccontextmanager
    async def _file(self, audio: track_pb2.Audio, context: RequestContext) -> AsyncIterator[Path]:
        if audio.WhichOneof("content") != "inline":
            context.principal.check_object(audio.object_name)
            async with AsyncExitStack() as stack:
                opening = self._objects.local_file(audio.object_name)
                try:
                    # A store that is elsewhere fetches the object first: that is the caller's time.
                    async with asyncio.timeout_at(context.deadline):
                        path = await stack.enter_async_context(opening)
                except TimeoutError as error:
                    raise DeadlineError(
                        "the audio was not here before the deadline", reason="DEADLINE"
                    ) from error
                yield path
            return
        path = await asyncio.to_thread(_spill, self._scratch, audio.inline)
        try:
            yield path
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)


def _spill(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="inline-", delete=False) as file:
        file.write(data)
    return Path(file.name)


_RETRYABLE: dict[str, Callable[..., LinerError]] = {
    "LISTENING_TIMEOUT": DeadlineError,
    "LISTENING_BUSY": ResourceExhaustedError,
    "LISTENING_CRASHED": UnavailableError,
}


def _translated(error: AudioError, name: str) -> LinerError:
    kind = _RETRYABLE.get(error.reason, InvalidAudioError)
    return kind(str(error), reason=error.reason, resource=name)
