"""What a peer sends to the gRPC port that no client of ours would."""

import asyncio
import codecs
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.rpc.accepting import tolerate_undecodable_names
from support.http import fetch
from support.raw_http2 import RawConnection, call_headers, message
from support.server import served

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
