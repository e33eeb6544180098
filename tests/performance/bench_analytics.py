"""What analytics costs an answer, and an outage of ten minutes with kills; `-s` shows the figures.

CPU figures stand; the outage is ten minutes' rows as fast as they go.
"""

import statistics
import sys
import time
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2
from liner.v1.track_pb2 import SOURCE_MEASURED
from liner_server.analytics.buffer import AnalyticsBuffer
from liner_server.analytics.sqlite import SqliteSink
from liner_server.context import Principal, RequestContext
from liner_server.core.router import Plan
from support.analytics_kills import outage
from support.analytics_worker import Silent, answer
from support.eventually import eventually

_ANSWERS, _ROUNDS = 2000, 15
_OUTAGE_ROWS = 200 * 600


def say(text: str) -> None:
    """Print one figure."""
    sys.stdout.write(f"\n{text}")


def heard() -> enrichment_pb2.EnrichMetadataResponse:
    """Return an answer of the size that one has whose audio was listened to: 4 kB."""
    made = answer("song")
    made.track.audio.object_name = f"audio/{'5' * 64}.flac"
    made.audio_identity.fingerprint = b"f" * 1600
    for field in made.fields:
        for other in range(4):
            field.alternatives.add(value=f"other {other}", confidence=0.01, source=SOURCE_MEASURED)
    for number in range(6):
        made.issues.add(rule_id="AUDIO_QUIET", field=f"field{number}", message="quieter than most")
    return made


@pytest.mark.parametrize("said", [answer("song"), heard()], ids=["text", "heard"])
async def test_what_a_row_costs(
    said: enrichment_pb2.EnrichMetadataResponse, tmp_path: Path
) -> None:
    """While its answer waits: one thread's CPU. In all: the process's, delivery included."""
    context = RequestContext(
        request_id="r" * 36, principal=Principal(name="t", roles=frozenset()), deadline=1e12
    )
    plan = Plan(
        lanes=(),
        experiment="model",
        variant="control",
        allocation="control=0.9,experimental=0.1",
        unit="track",
    )
    bare, waiting, whole = [], [], []
    async with (
        SqliteSink(tmp_path / "a.sqlite") as sink,
        AnalyticsBuffer(sink, tmp_path / "j", observer=Silent()) as buffer,
    ):
        for _ in range(_ROUNDS):
            thread = time.thread_time_ns()
            for _ in range(_ANSWERS):
                said.SerializeToString()
            bare.append((time.thread_time_ns() - thread) / _ANSWERS / 1000)
            process, thread = time.process_time_ns(), time.thread_time_ns()
            for _ in range(_ANSWERS):
                buffer.answered(plan, said, context, operation="enrich", outcome="ok", seconds=0.2)
            waiting.append((time.thread_time_ns() - thread) / _ANSWERS / 1000)
            await eventually(lambda: not buffer.waiting, within=120)
            whole.append((time.process_time_ns() - process) / _ANSWERS / 1000)
    say(
        f"analytics, an answer of {said.ByteSize():,} bytes (to write it down costs "
        f"{statistics.median(bare):.1f} us): "
        f"{statistics.median(waiting):.1f} us CPU while it waits "
        f"(best {min(waiting):.1f}; aim 15), {statistics.median(whole):.1f} in all with delivery "
        f"to SQLite (best {min(whole):.1f})"
    )


async def test_ten_minutes_without_a_backend(tmp_path: Path) -> None:
    """BigQuery down for 200 rows/s x 600 s, a kill in the middle, a kill while it recovers."""
    found = await outage(tmp_path / "j", _OUTAGE_ROWS)
    say(
        f"analytics: {found.told} rows through an outage with two kills: {found.lost} lost, "
        f"{found.twice} counted twice ({found.copies} stored again, counted once)"
    )
    assert (found.lost, found.twice) == (0, 0)
