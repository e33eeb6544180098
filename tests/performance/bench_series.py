"""How many series the metrics hold, before and after 100,000 requests that try to make more.

    pytest tests/performance/bench_series.py -o python_files='bench_*.py' -s

Every request has titles, ids, models, methods or metadata that nobody saw before; some are refused,
some answered. A series that a caller can make would be one a request.
"""

import asyncio
import sys
from pathlib import Path

import grpc
import pytest
from liner.v1 import enrichment_pb2, storage_pb2, track_pb2
from prometheus_client.parser import text_string_to_metric_families
from support.http import fetch
from support.server import Stubs, connected, server_process

REQUESTS = 100_000
_AT_ONCE = 48


async def _series(address: str) -> int:
    _, text = await fetch(f"http://{address}/metrics")
    return sum(len(family.samples) for family in text_string_to_metric_families(text))


async def _attack(stubs: Stubs, number: int) -> None:
    """Send one request that was never sent before."""
    typed = f"typed-{number}\n\u202e{{x='{number}'}}"
    plain = f"typed-{number}"
    track = track_pb2.Track(title=typed, track_id=plain, genre=plain)
    try:
        match number % 8:
            case 0 | 1:
                request = enrichment_pb2.ValidateMetadataRequest(track=track)
                await stubs.enrichment.ValidateMetadata(request)
            case 2:
                request = enrichment_pb2.EnrichMetadataRequest(
                    track=track, options=enrichment_pb2.EnrichOptions(model=plain)
                )
                await stubs.enrichment.EnrichMetadata(request)
            case 3:
                request = enrichment_pb2.EnrichMetadataRequest(track=track_pb2.Track(title=plain))
                await stubs.enrichment.EnrichMetadata(request)
            case 4:
                method = stubs.channel.unary_unary(f"/liner.v1.EnrichmentService/{plain}")
                await method(b"")
            case 5:
                method = stubs.channel.unary_unary(f"/{plain}.Service/Method")
                await method(b"x")
            case 6:
                await stubs.storage.StatObject(storage_pb2.StatObjectRequest(object_name=plain))
            case _:
                metadata = (("liner-model", plain), ("traceparent", plain))
                request = enrichment_pb2.EnrichMetadataRequest(track=track)
                await stubs.enrichment.EnrichMetadata(request, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise


async def attacked(stubs: Stubs, first: int, number: int) -> None:
    """Send so many requests, some at once."""
    numbers = iter(range(first, first + number))

    async def work() -> None:
        for one in numbers:
            await _attack(stubs, one)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


@pytest.mark.timeout(900)
async def test_series(tmp_path: Path) -> None:
    """The number after a few hundred requests is the number for good."""
    async with (
        server_process(tmp_path, {"LINER_STORE_RESULTS": "false"}) as server,
        connected(server.grpc_address) as stubs,
    ):
        await attacked(stubs, 0, 800)
        before = await _series(server.http_address)
        await attacked(stubs, 800, REQUESTS)
        after = await _series(server.http_address)
    sys.stdout.write(f"series before {before}, after {REQUESTS:,} hostile requests {after}\n")

    assert after == before
