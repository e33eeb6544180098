"""Prefixes of names that belong to principals: who may touch what, through every door."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from liner.v1 import enrichment_pb2, storage_pb2, track_pb2
from liner_server.rpc.identity import new_token
from support.grpc_errors import fails
from support.server import Stubs, served

ROLES = ["enrich", "objects.read", "objects.write", "objects.admin"]
Metadata = tuple[tuple[str, str], ...]


class Callers:
    """A service with four callers, and their tokens."""

    def __init__(self, stubs: Stubs, tokens: dict[str, str]) -> None:
        self.stubs = stubs
        self._tokens = tokens

    def metadata(self, who: str) -> Metadata:
        """Return what a caller sends along."""
        return (("authorization", f"Bearer {self._tokens[who]}"),)

    async def put(self, who: str, name: str, **spec: str) -> storage_pb2.StoredObject:
        """Store an object."""
        frames = [
            storage_pb2.UploadRequest(spec=storage_pb2.UploadSpec(object_name=name, **spec)),
            storage_pb2.UploadRequest(chunk=storage_pb2.Chunk(data=b"data")),
            storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish()),
        ]
        call = self.stubs.storage.Upload(iter(frames), metadata=self.metadata(who))
        return (await call).object

    async def names(self, who: str, prefix: str = "", page_size: int = 2) -> list[str]:
        """List what a caller sees, in small pages."""
        found: list[str] = []
        request = storage_pb2.ListObjectsRequest(prefix=prefix, page_size=page_size)
        while True:
            page = await self.stubs.storage.ListObjects(request, metadata=self.metadata(who))
            found += [o.object_name for o in page.objects]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


@pytest.fixture
async def callers(tmp_path: Path) -> AsyncIterator[Callers]:
    """Two labels with prefixes of their own, one nested, an ingest without, an operator."""
    tokens, lines = {}, []
    for who, roles, prefixes in (
        ("label-a", ROLES, ["a/"]),
        ("label-b", ROLES, ["b/", "a/shared/b/"]),
        ("ingest", ROLES, []),
        ("operator", ["admin"], []),
        ("reader", ["objects.read"], []),
    ):
        tokens[who], line = new_token(who, roles, prefixes)
        lines.append(line)
    file = tmp_path / "tokens"
    file.write_text("\n".join(lines))
    async with served(tmp_path / "data", tokens_file=file) as (_, stubs):
        yield Callers(stubs, tokens)


def doors(callers: Callers, who: str, name: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every call that names an object."""
    storage, enrichment = callers.stubs.storage, callers.stubs.enrichment
    sent = {"metadata": callers.metadata(who)}
    track = track_pb2.Track(audio=track_pb2.Audio(object_name=name))

    async def download() -> None:
        async for _ in storage.Download(storage_pb2.DownloadRequest(object_name=name), **sent):
            pass

    def sign(operation: int) -> Awaitable[Any]:
        request = storage_pb2.GetSignedURLRequest(object_name=name, operation=operation)
        return storage.GetSignedURL(request, **sent)

    return {
        "Upload": lambda: callers.put(who, name),
        "Download": download,
        "StatObject": lambda: storage.StatObject(
            storage_pb2.StatObjectRequest(object_name=name), **sent
        ),
        "Delete": lambda: storage.Delete(storage_pb2.DeleteRequest(object_name=name), **sent),
        "read URL": lambda: sign(storage_pb2.SIGNED_URL_OPERATION_READ),
        "write URL": lambda: sign(storage_pb2.SIGNED_URL_OPERATION_WRITE),
        "EnrichMetadata": lambda: enrichment.EnrichMetadata(
            enrichment_pb2.EnrichMetadataRequest(track=track), **sent
        ),
        "ValidateMetadata": lambda: enrichment.ValidateMetadata(
            enrichment_pb2.ValidateMetadataRequest(track=track), **sent
        ),
        "SubmitEnrichment": lambda: enrichment.SubmitEnrichment(
            enrichment_pb2.SubmitEnrichmentRequest(track=track), **sent
        ),
    }


@pytest.mark.parametrize(
    ("who", "name"),
    [
        ("label-b", "a/x"),
        ("label-b", "a/nothing"),
        ("label-a", "b/x"),
        ("label-a", "a/shared/b/x"),
        ("label-a", "plain"),
        ("label-a", "a"),
        ("label-a", "ab/x"),
        ("ingest", "a/x"),
        ("ingest", "a/shared/b/x"),
        ("ingest", ".liner/retention/last-run"),
        ("label-a", ".liner/x"),
    ],
)
async def test_what_is_not_ones_own_is_refused_at_every_door(callers: Callers, who, name):
    """The same answer whether the object exists or not, so that nobody can find out."""
    await callers.put("label-a", "a/x")
    await callers.put("label-b", "b/x")

    for door, call in doors(callers, who, name).items():
        async with fails(grpc.StatusCode.PERMISSION_DENIED) as failure:
            await call()
        assert (door, failure.reason) == (door, "OBJECT_NOT_OWNED")


async def test_what_is_ones_own_is_let_in_and_listed(callers: Callers):
    """A list leaves out what is others', and steps over it."""
    for who, name in (
        *(("label-a", f"a/{n}") for n in range(5)),
        ("label-b", "a/shared/b/x"),
        *(("label-b", f"b/{n}") for n in range(3)),
        ("ingest", "0"),
        ("ingest", "c"),
        ("operator", ".liner/x"),
    ):
        await callers.put(who, name)

    assert await callers.names("label-a") == [f"a/{n}" for n in range(5)]
    assert await callers.names("label-a", "a/3") == ["a/3"]
    assert await callers.names("label-a", "b/") == []
    assert await callers.names("label-b") == ["a/shared/b/x", "b/0", "b/1", "b/2"]
    assert await callers.names("label-b", "a/") == ["a/shared/b/x"]
    assert await callers.names("ingest") == ["0", "c"]
    assert await callers.names("ingest", "a/") == []
    assert await callers.names("ingest", ".liner/") == []
    assert await callers.names("operator", ".liner/") == [".liner/x"]
    assert len(await callers.names("operator")) == 11


async def test_an_upload_is_its_callers_own(callers: Callers):
    """Who guesses an upload's id learns nothing of it and cannot go on with it."""
    begun = asyncio.Event()

    async def half():
        spec = storage_pb2.UploadSpec(object_name="a/x", upload_id="night")
        yield storage_pb2.UploadRequest(spec=spec)
        yield storage_pb2.UploadRequest(chunk=storage_pb2.Chunk(data=b"secret"))
        begun.set()
        await asyncio.Event().wait()

    call = callers.stubs.storage.Upload(half(), metadata=callers.metadata("label-a"))
    await begun.wait()
    call.cancel()

    query = storage_pb2.QueryUploadRequest(upload_id="night")
    async with fails(grpc.StatusCode.NOT_FOUND):
        await callers.stubs.storage.QueryUpload(query, metadata=callers.metadata("ingest"))
    await callers.put("ingest", "mine", upload_id="night")


async def test_a_url_needs_the_role_of_what_it_allows(callers: Callers):
    """A reader must not hand out writing."""
    await callers.put("ingest", "x")
    sent = {"metadata": callers.metadata("reader")}
    request = storage_pb2.GetSignedURLRequest(object_name="x", operation=1)

    assert (await callers.stubs.storage.GetSignedURL(request, **sent)).url
    request.operation = storage_pb2.SIGNED_URL_OPERATION_WRITE
    async with fails(grpc.StatusCode.PERMISSION_DENIED) as failure:
        await callers.stubs.storage.GetSignedURL(request, **sent)
    assert failure.reason == "ROLE_MISSING"
