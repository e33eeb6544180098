"""What a peer sends to the gRPC port that no client of ours would."""

import asyncio
import codecs
import resource
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.rpc.accepting import tolerate_undecodable_names
from support.http import fetch
from support.raw_http2 import RawConnection, call_headers, message
from support.server import connected, served, server_process

UNIMPLEMENTED = b"grpc-status\x0212"
NO_TEXT = b"/liner.v1.\xff\xfe/Method"


async def test_a_method_whose_name_is_no_text_is_nobodys(tmp_path: Path) -> None:
    """grpc reads names in the loop that accepts every call: one such name ended the server."""
    async with served(tmp_path) as (app, stubs):
        for _ in range(3):
            async with RawConnection(app.grpc_address) as raw:
                await raw.send(call_headers(NO_TEXT) + message())
                assert UNIMPLEMENTED in await raw.answer()
        answer = await stubs.enrichment.ValidateMetadata(
            enrichment_pb2.ValidateMetadataRequest(track=track_pb2.Track(title="x")), timeout=5
        )

        assert answer.confidence > 0
        assert not app.broken.is_set()


def test_text_that_is_none_is_still_an_error_everywhere_else() -> None:
    """The way round grpc's loop is one for the whole process: nobody else may notice."""
    tolerate_undecodable_names()

    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode()
    with pytest.raises(UnicodeEncodeError):
        "\udcff".encode()


async def test_a_server_that_ended_by_itself_says_so(tmp_path: Path) -> None:
    """A process that lives on without gRPC would be left so by whoever looks after it."""
    async with served(tmp_path) as (app, _), RawConnection(app.grpc_address) as raw:
        # What is known to end grpc's loop, with the way round it taken away.
        codecs.register_error("strict", codecs.strict_errors)
        await raw.send(call_headers(NO_TEXT) + message())
        async with asyncio.timeout(10):
            await app.broken.wait()
        status, _ = await fetch(f"http://{app.http_address}/healthz")

    assert status == 503


async def test_connections_do_not_take_the_files(tmp_path: Path) -> None:
    """A shell's thousand are fewer than one peer can hold; the databases need some, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    request = enrichment_pb2.ValidateMetadataRequest(track=track_pb2.Track(title="x"))
    async with AsyncExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        try:
            server = await stack.enter_async_context(server_process(tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for address in (server.grpc_address, server.http_address):
            host, _, port = address.rpartition(":")
            for _ in range(200):
                _, writer = await asyncio.open_connection(host, int(port))
                stack.callback(writer.close)
        stubs = await stack.enter_async_context(connected(server.grpc_address))
        answer = await stubs.enrichment.ValidateMetadata(request, timeout=10)
        status, _ = await fetch(f"http://{server.http_address}/healthz")

    assert answer.confidence > 0
    assert status == 200
