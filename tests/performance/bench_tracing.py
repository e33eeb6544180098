"""What tracing adds to the CPU of a call: two servers take turns, one of them traces every call.

pytest tests/performance/bench_tracing.py -o python_files='bench_*.py' -s
"""

import statistics
import sys
from pathlib import Path

import psutil
import pytest
from liner.v1 import enrichment_pb2, track_pb2
from support.collector import collector
from support.server import ServerProcess, Stubs, connected, server_process

_SLICES = 16
_CALLS = 200


async def _cpu_a_call(server: ServerProcess, stubs: Stubs) -> float:
    """Return the server's CPU seconds for one call, over a slice of them."""
    process = psutil.Process(server.process.pid)
    before = process.cpu_times()
    for n in range(_CALLS):
        request = enrichment_pb2.EnrichMetadataRequest(
            track=track_pb2.Track(title=f"Blue Hour {n}"),
            options=enrichment_pb2.EnrichOptions(skip_cache=True),
        )
        await stubs.enrichment.EnrichMetadata(request)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / _CALLS


@pytest.mark.timeout(600)
async def test_tracing(tmp_path: Path) -> None:
    """Each slice of the tracing server lies between two of the other."""
    plain = {"LINER_STORE_RESULTS": "false", "LINER_ANALYTICS": "off"}
    async with (
        collector() as spans,
        server_process(tmp_path / "off", plain) as off,
        server_process(
            tmp_path / "on", {**plain, "OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint}
        ) as on,
        connected(off.grpc_address) as without,
        connected(on.grpc_address) as traced,
    ):
        await _cpu_a_call(on, traced)
        baseline = [await _cpu_a_call(off, without)]
        ratios = []
        for _ in range(_SLICES):
            figure = await _cpu_a_call(on, traced)
            baseline.append(await _cpu_a_call(off, without))
            ratios.append(figure / statistics.mean(baseline[-2:]))
        assert spans.spans
    low, middle, high = statistics.quantiles(ratios, n=4)
    sys.stdout.write(
        f"CPU a call without tracing {1000 * statistics.median(baseline):.2f} ms; "
        f"traced {middle:.2f} times that (quartiles {low:.2f} to {high:.2f})\n"
    )
