"""Hostile files: each gets a status in time, and the server does not notice.

A few hundred here; `tests/performance/bench_hostile_audio.py` runs thousands.
"""

import asyncio
import itertools
from collections import Counter
from datetime import timedelta
from pathlib import Path

from liner_server.audio.limits import Limits
from liner_server.audio.pool import ListeningPool, PoolPolicy
from support.hostile import base_files, bomb, drawn_cases, fixed_cases
from support.statuses import Status, statuses

LIMITS = Limits(max_duration=timedelta(seconds=60))
"""Short, so that a bomb is recognised within a second instead of after an hour of audio."""


async def test_every_hostile_file_gets_a_status_in_time(tmp_path: Path) -> None:
    """Cuts at every tenth, flipped bits, lying headers, playlists, random bytes behind magics."""
    files = base_files(seconds=0.6)
    cases = [*fixed_cases(files), *itertools.islice(drawn_cases(files, seed=1), 100)]

    async with ListeningPool(policy=PoolPolicy(processes=2), limits=LIMITS) as pool:
        found = await statuses(pool, cases, tmp_path)

    assert len(found) == len(cases)
    assert_harmless(found)


async def test_a_decompression_bomb_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    """Ten hours of silence in less than a megabyte cost no more than the limit's seconds."""
    data = bomb(10)
    assert len(data) < 10 << 20

    async with ListeningPool(policy=PoolPolicy(processes=1), limits=LIMITS) as pool:
        [status] = await statuses(pool, [("bomb.flac", data)], tmp_path)

    assert status.reason == "AUDIO_TOO_LONG"
    assert status.seconds < 10


async def test_the_same_files_are_hostile_every_time() -> None:
    """A failure must be found again by its seed and its name."""
    files = base_files()

    one, other = (list(itertools.islice(drawn_cases(files, seed=5), 50)) for _ in range(2))

    assert one == other
    await asyncio.sleep(0)


def assert_harmless(found: list[Status]) -> None:
    """No process died and none had to be stopped; only the expected reasons were given."""
    reasons = Counter(status.reason for status in found)
    unexpected = [status for status in found if status.reason.startswith("LISTENING_")]
    assert not unexpected
    assert set(reasons) <= {
        *("HEARD", "AUDIO_EMPTY", "AUDIO_UNSUPPORTED", "AUDIO_BROKEN", "AUDIO_TOO_LONG"),
        *("AUDIO_TOO_LARGE", "AUDIO_LIMITS"),
    }
    assert reasons["HEARD"] > 0
