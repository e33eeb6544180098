"""A process that appends rows as a server does, to be killed: run as a module by the tests.

    python -m support.analytics_worker FOLDER BIGQUERY PREFIX COUNT

Prints a line for each row once it is kept: whoever reads it may count on that row. With COUNT 0 it
only delivers what others left. Ends when nothing waits any more, or is killed.
"""

import asyncio
import sys
from pathlib import Path

from liner.v1 import enrichment_pb2
from liner_server.analytics.bigquery import BigQuerySink, Place
from liner_server.analytics.buffer import AnalyticsBuffer
from liner_server.context import Principal, RequestContext
from liner_server.core.router import Plan
from liner_server.logs import configure_logs
from liner_server.settings import LogFormat

from support.eventually import eventually

PLACE = ("liner-test", "ai_metrics")


class Silent:
    """An observer that keeps nothing."""

    def rows_counted(self, outcome: str, count: int) -> None:
        """Take note of nothing."""

    def rows_waiting(self, count: int) -> None:
        """Take note of nothing."""


def answer(name: str) -> enrichment_pb2.EnrichMetadataResponse:
    """Return an answer as models give it: a dozen fields, half of them with a value of a model."""
    made = enrichment_pb2.EnrichMetadataResponse()
    made.track.title = name
    for number in range(12):
        made.fields.add(
            field=f"field{number}",
            value="x",
            confidence=0.5 + number / 30,
            decision=2,
            source=4 if number % 2 else 3,
            model="qwen2",
            reason="two witnesses say the same",
        )
    made.processing.model = "qwen2"
    made.processing.enrichment_id = name
    made.processing.confidence = 0.8
    return made


async def work(folder: Path, address: str, prefix: str, count: int) -> None:
    """Append, tell, deliver."""
    place = Place(project=PLACE[0], dataset=PLACE[1], emulator=address)
    context = RequestContext(
        request_id="", principal=Principal(name="t", roles=frozenset()), deadline=1e12
    )
    async with (
        BigQuerySink(place) as sink,
        AnalyticsBuffer(sink, folder, observer=Silent(), plain_tracks=True) as buffer,
    ):
        for number in range(count):
            name = f"{prefix}{number}"
            plan = Plan(lanes=(), experiment="e", variant="control", unit=name)
            buffer.answered(
                plan, answer(name), context, operation="enrich", outcome="ok", seconds=0.1
            )
            sys.stdout.write(name + "\n")
            if number % 100 == 99:
                sys.stdout.flush()
                await asyncio.sleep(0)
        sys.stdout.flush()
        await eventually(lambda: not buffer.waiting, within=120)


if __name__ == "__main__":
    # To standard error: standard output is for the rows.
    configure_logs("INFO", LogFormat.JSON)
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
