"""A client that submits jobs until each is acknowledged, and writes down that it was.

`python -m support.chaos_producer ADDRESS LEDGER WORD COUNT` submits WORD0, WORD1, and so on. What
is acknowledged is on the disk in its ledger before it counts. Killed and started anew it goes on
with what its ledger does not have, under the same request ids.
"""

import asyncio
import sys
from pathlib import Path

import grpc
from liner.v1 import enrichment_pb2, enrichment_pb2_grpc

from support.queue_ledger import Ledger

_AT_ONCE = 24
_PRIORITIES = (
    enrichment_pb2.PRIORITY_HIGH,
    enrichment_pb2.PRIORITY_MEDIUM,
    enrichment_pb2.PRIORITY_LOW,
)
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


async def produce(address: str, path: Path, word: str, count: int) -> None:
    """Submit what the ledger lacks, `_AT_ONCE` at once."""
    with Ledger(path) as ledger:
        known = ledger.jobs()
        missing = iter([n for n in range(count) if f"{word}{n}" not in known])
        told: list[tuple[str, str]] = []
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            stub: enrichment_pb2_grpc.EnrichmentServiceAsyncStub = (
                enrichment_pb2_grpc.EnrichmentServiceStub(channel)
            )

            async def caller() -> None:
                for n in missing:
                    request = enrichment_pb2.SubmitEnrichmentRequest(
                        request_id=f"{word}{n}", priority=_PRIORITIES[n % 3]
                    )
                    request.track.title = f"Track {word}{n}"
                    while True:
                        try:
                            answer = await stub.SubmitEnrichment(
                                request, timeout=60, wait_for_ready=True
                            )
                        except grpc.aio.AioRpcError as error:
                            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                                raise
                            # Nobody answered: it is asked again, and must be the same job.
                            await asyncio.sleep(0.02)
                            continue
                        break
                    if not told:
                        asyncio.get_running_loop().call_later(0.005, write_down)
                    told.append((request.request_id, answer.job_id))

            def write_down() -> None:
                if told:
                    ledger.all_acknowledged(told)
                    told.clear()

            await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))
            write_down()


if __name__ == "__main__":
    asyncio.run(produce(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
