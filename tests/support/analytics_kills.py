"""A backend that is down, a process killed in the middle, and what came of the rows."""

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from liner_server.analytics.bigquery import Place
from liner_server.analytics.bigquery_setup import set_up

from support.analytics_worker import PLACE
from support.bigquery_fake import fake_bigquery

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outage:
    """What an outage left."""

    told: int
    """Rows that a process said are kept."""
    lost: int
    twice: int
    """Rows that count more than once."""
    copies: int
    """Rows that are stored more than once; the statements count one of them."""


async def outage(folder: Path, rows: int) -> Outage:
    """Append rows while BigQuery is down, kill the process half-way, go on in another, recover."""
    with fake_bigquery() as (kept, address):
        place = Place(project=PLACE[0], dataset=PLACE[1], emulator=address)
        async for _ in set_up(place):
            pass
        # The worst of the insert ids: what comes again is stored again.
        kept.forgets = True
        kept.down = True
        told = _until_killed(folder, address, "a", rows, kill_after=rows // 2)
        told += _until_killed(folder, address, "b", rows - len(told), kill_after=rows)
        # Back, and dead once more in the middle of the recovery.
        kept.down = False
        _until_killed(folder, address, "c", 0, kill_when=lambda: kept.count("ai_experiments"))
        _until_killed(folder, address, "d", 0)
        found = Counter(
            str(track) for (track,) in kept.db.execute("SELECT track FROM ai_experiments")
        )
        counted = Counter(
            str(track)
            for (track,) in kept.db.execute(
                "SELECT track FROM ai_experiments GROUP BY row_id, track"
            )
        )
    return Outage(
        told=len(told),
        lost=len(set(told) - set(found)),
        twice=sum(count - 1 for count in counted.values()),
        copies=sum(found.values()) - len(found),
    )


def _until_killed(
    folder: Path,
    address: str,
    prefix: str,
    rows: int,
    *,
    kill_after: int = 0,
    kill_when: "object" = None,
) -> list[str]:
    """Return what a worker told before it was killed, or before it ended by itself."""
    paths = os.pathsep.join(str(_ROOT / name) for name in ("server", "generated", "tests"))
    process = subprocess.Popen(
        [sys.executable, "-m", "support.analytics_worker", str(folder), address, prefix, str(rows)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
    )
    assert process.stdout is not None
    told: list[str] = []
    try:
        for line in process.stdout:
            # A line cut off by the kill was not told.
            if line.endswith("\n"):
                told.append(line.strip())
            if kill_after and len(told) >= min(kill_after, rows):
                break
        while callable(kill_when) and not kill_when() and process.poll() is None:
            pass
        if kill_after or kill_when is not None:
            process.send_signal(signal.SIGKILL)
        # What was in the pipe had been told too.
        told += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    return told
