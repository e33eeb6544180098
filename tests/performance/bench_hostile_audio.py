"""Thousands of hostile files before a listening pool: how each one ended.

    make bench
    HOSTILE_CASES=10000 HOSTILE_SEED=2 python -m pytest -s tests/performance/bench_hostile_audio.py

Unlike its neighbours it judges: a process that died or had to be stopped is a fault.
"""

import itertools
import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from liner_server.audio.pool import ListeningPool
from support.hostile import base_files, bomb, drawn_cases, fixed_cases
from support.statuses import statuses

CASES = int(os.environ.get("HOSTILE_CASES", "3000"))
SEED = int(os.environ.get("HOSTILE_SEED", "1"))


@pytest.mark.timeout(0)
async def test_hostile_files(tmp_path: Path) -> None:
    """Every file gets a status before its deadline, and no process dies of it."""
    files = base_files()
    fixed = [*fixed_cases(files), ("bomb.flac", bomb(10))]
    drawn = itertools.islice(drawn_cases(files, seed=SEED), max(0, CASES - len(fixed)))
    began = time.monotonic()

    async with ListeningPool() as pool:
        found = await statuses(pool, itertools.chain(fixed, drawn), tmp_path, deadline_seconds=300)

    lines = [f"{len(found)} hostile files, seed {SEED}, in {time.monotonic() - began:.0f} s"]
    counts = Counter(status.reason for status in found)
    lines += [f"  {count:6} {reason}" for reason, count in counts.most_common()]
    for status in sorted(found, key=lambda status: -status.seconds)[:3]:
        lines.append(f"  slowest {status.seconds:.1f} s {status.reason} {status.name}")
    bad = [status for status in found if status.reason.startswith("LISTENING_")]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert len(found) >= CASES
    assert not bad
