"""A night of deaths: producers, workers and servers killed under load, and what was lost by it.

`make chaos`; MESSAGES and KILLS set its length. `tests/faults/test_queue_chaos.py` does the same in
a minute, and proves that the harness sees what is lost or stored twice.
"""

import os
from pathlib import Path

import pytest
from support.chaos import ON_THE_QUEUE, Chaos

MESSAGES = int(os.environ.get("CHAOS_MESSAGES", "2000"))
KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.mark.timeout(7200)
async def test_chaos(tmp_path: Path):
    """Every acknowledged job has one result, whoever died and wherever."""
    chaos = Chaos(messages=MESSAGES, kills=KILLS, seed=SEED)

    await chaos.run(tmp_path, through=ON_THE_QUEUE)

    print(f"\n{chaos.report()}")  # noqa: T201 - what it is for
    assert chaos.verdict.broken == chaos.verdict.lost == []
    assert chaos.verdict.doubled == chaos.verdict.both == []
    assert (chaos.acknowledged, chaos.verdict.done) == (MESSAGES, MESSAGES)
    assert sum(chaos.killed.values()) >= KILLS
