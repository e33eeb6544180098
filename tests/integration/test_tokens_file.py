"""Tokens are followed while the server runs: what is revoked opens nothing more."""

import asyncio
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from liner.v1 import enrichment_pb2, queue_admin_pb2, storage_pb2, track_pb2
from liner_server.rpc.identity import new_token
from support.eventually import eventually
from support.grpc_errors import fails
from support.http import fetch
from support.raw_http2 import RawConnection, call_headers
from support.server import Stubs, served

VALIDATE = enrichment_pb2.ValidateMetadataRequest(track=track_pb2.Track(title="x"))
ROLES = ["enrich", "queue.read", "objects.write"]


class Tokens:
    """A tokens file with one caller's token in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        token, self.line = new_token("ingest", ROLES)
        _, self.other_line = new_token("other", ROLES)
        self.metadata = (("authorization", f"Bearer {token}"),)
        self.write(self.line, self.other_line)

    def write(self, *lines: str) -> None:
        """Replace the file as an operator should: whole."""
        fresh = self.path.with_name("fresh")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace(self.path)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """A tokens file."""
    return Tokens(tmp_path / "tokens")


async def is_known(stubs: Stubs, tokens: Tokens) -> bool:
    """Whether the caller's token is accepted."""
    try:
        await stubs.enrichment.ValidateMetadata(VALIDATE, metadata=tokens.metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False
    return True


async def test_a_revoked_token_is_refused_without_a_restart(tmp_path: Path, tokens: Tokens) -> None:
    """An operator who takes a line out at three in the morning expects no less."""
    async with served(tmp_path / "data", tokens_file=tokens.path) as (_, stubs):
        assert await is_known(stubs, tokens)
        tokens.write(tokens.other_line)

        async def refused() -> bool:
            return not await is_known(stubs, tokens)

        await eventually(refused)
        tokens.write(tokens.other_line, tokens.line)

        async def known() -> bool:
            return await is_known(stubs, tokens)

        await eventually(known)


@pytest.mark.parametrize("text", [b"", b"# nobody\n", b"half a line", b"\xff\n", None])
async def test_a_file_that_cannot_be_used_changes_nothing(
    tmp_path: Path, tokens: Tokens, text: bytes | None
) -> None:
    """A slip may neither open the server nor shut everybody out; the metrics tell of it."""
    async with served(tmp_path / "data", tokens_file=tokens.path) as (app, stubs):
        url = f"http://{app.http_address}/metrics"
        assert 'liner_file_refused{file="tokens"} 0.0' in (await fetch(url))[1]
        if text is None:
            tokens.path.unlink()
        else:
            tokens.path.write_bytes(text)

        async def told() -> bool:
            return 'liner_file_refused{file="tokens"} 1.0' in (await fetch(url))[1]

        await eventually(told)
        assert await is_known(stubs, tokens)
        async with fails(grpc.StatusCode.UNAUTHENTICATED):
            await stubs.enrichment.ValidateMetadata(VALIDATE)


async def test_streams_of_a_revoked_token_end(tmp_path: Path, tokens: Tokens) -> None:
    """A batch can run for a night: its caller may not go on with it until then."""
    async with served(tmp_path / "data", tokens_file=tokens.path) as (_, stubs):
        batch = stubs.enrichment.BatchProcess(metadata=tokens.metadata)
        await batch.write(enrichment_pb2.BatchProcessRequest(config=enrichment_pb2.BatchConfig()))
        await batch.read()
        watch = stubs.queue.WatchStats(
            queue_admin_pb2.WatchStatsRequest(), metadata=tokens.metadata
        )
        await watch.read()
        upload = stubs.storage.Upload(metadata=tokens.metadata)
        await upload.write(
            storage_pb2.UploadRequest(spec=storage_pb2.UploadSpec(object_name="a/b"))
        )
        tokens.write(tokens.other_line)

        async def refused() -> bool:
            return not await is_known(stubs, tokens)

        await eventually(refused)
        items = enrichment_pb2.BatchItems(
            items=[enrichment_pb2.BatchItem(item_id="a", track=track_pb2.Track(title="x"))]
        )
        # A stream that had something to say has ended already.
        with suppress(asyncio.InvalidStateError):
            await batch.write(enrichment_pb2.BatchProcessRequest(items=items))
        with suppress(asyncio.InvalidStateError):
            await upload.write(storage_pb2.UploadRequest(chunk=storage_pb2.Chunk(data=b"x")))
            await upload.done_writing()

        async with asyncio.timeout(20):
            async with fails(grpc.StatusCode.UNAUTHENTICATED):
                while await batch.read() is not grpc.aio.EOF:
                    pass
            async with fails(grpc.StatusCode.UNAUTHENTICATED):
                while await watch.read() is not grpc.aio.EOF:
                    pass
            async with fails(grpc.StatusCode.UNAUTHENTICATED):
                await upload


async def test_streams_go_on_when_others_tokens_change(tmp_path: Path, tokens: Tokens) -> None:
    """A new caller is no reason to end anybody's batch."""
    async with served(tmp_path / "data", tokens_file=tokens.path) as (_, stubs):
        batch = stubs.enrichment.BatchProcess(metadata=tokens.metadata)
        await batch.write(enrichment_pb2.BatchProcessRequest(config=enrichment_pb2.BatchConfig()))
        await batch.read()
        stranger = Tokens(tmp_path / "stranger")
        tokens.write(tokens.line, stranger.line)

        async def known() -> bool:
            return await is_known(stubs, stranger)

        await eventually(known)
        items = enrichment_pb2.BatchItems(
            items=[enrichment_pb2.BatchItem(item_id="a", track=track_pb2.Track(title="x"))]
        )
        await batch.write(enrichment_pb2.BatchProcessRequest(items=items))
        await batch.done_writing()
        kinds = []
        while (reply := await batch.read()) is not grpc.aio.EOF:
            kinds.append(reply.WhichOneof("response"))

    assert "summary" in kinds


async def test_a_stranger_is_refused_before_the_request_is_read(
    tmp_path: Path, tokens: Tokens
) -> None:
    """Else anybody could make the server hold a hundred of the largest messages a connection."""
    path = b"/liner.v1.EnrichmentService/ValidateMetadata"
    async with served(tmp_path / "data", tokens_file=tokens.path) as (app, stubs):
        async with RawConnection(app.grpc_address) as raw:
            await raw.send(call_headers(path))
            answer = await raw.answer(within=5)
            wrong = (b"authorization", b"Bearer not-a-token-that-is-known")
            await raw.send(call_headers(path, wrong, stream=3))
            again = await raw.answer(stream=3, within=5)
        health = await health_pb2_grpc.HealthStub(stubs.channel).Check(
            health_pb2.HealthCheckRequest()
        )
        _, text = await fetch(f"http://{app.http_address}/metrics")

    assert b"grpc-status\x0216" in answer
    assert b"grpc-message" in again
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    labels = 'grpc_method="ValidateMetadata",grpc_service="liner.v1.EnrichmentService"'
    assert (
        f'grpc_server_handled_total{{grpc_code="UNAUTHENTICATED",{labels},grpc_type="UNARY"}} 2.0'
        in text
    )
