"""What listening costs: CPU for a minute of audio by part, memory for an hour of it, a cold start.

Measurements, not tests. CPU is that of the process that listens, so other work does not count.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soxr
from liner_server.audio.pool import ListeningPool, PoolPolicy
from support.audio_files import encode, piece

_MINUTES = 4
_PARTS = """
import resource, sys, time
from pathlib import Path
from liner_server.audio import listen as module
from liner_server.audio.decode import Decoding
from liner_server.audio.limits import Limits
from liner_server.audio.sniff import sniff

def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

path, minutes = Path(sys.argv[1]), float(sys.argv[2])
module.listen(path, name="", limits=Limits())
with path.open("rb") as file:
    size = file.seek(0, 2)
    sniffed = sniff(file)
    begin = cpu()
    with Decoding(file, sniffed, size=size, limits=Limits()) as decoding:
        for block in decoding.blocks():
            pass
    decoded = cpu()
    with Decoding(file, sniffed, size=size, limits=Limits()) as decoding:
        module._hear(decoding)
heard = cpu()
module.listen(path, name="", limits=Limits())
whole = cpu()
print((decoded - begin) / minutes, (heard - decoded) / minutes, (whole - heard) / minutes)
"""


def _say(what: str, figure: str, target: str) -> None:
    sys.stdout.write(f"{what:<58} {figure:>14}   target {target}\n")


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "vorbis", "opus", "aac", "alac"])
def test_cpu_for_a_minute(kind: str, tmp_path: Path) -> None:
    """Decoding alone; with loudness, faults and fingerprint; and all, with tempo and key."""
    rate = 48_000 if kind == "opus" else 44_100
    minute = soxr.resample(piece(60, seed=1).T, 44_100, rate).T
    path = tmp_path / "song"
    path.write_bytes(encode(np.tile(minute, (1, _MINUTES)), kind, rate=rate))

    done = subprocess.run(
        [sys.executable, "-c", _PARTS, str(path), str(_MINUTES)],
        env={"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )

    decoding, hearing, whole = (float(figure) for figure in done.stdout.split())
    _say(f"{kind}: decoding, CPU a minute of audio", f"{decoding:.2f} s", "-")
    _say(f"{kind}: and loudness, faults, fingerprint", f"{hearing:.2f} s", "-")
    _say(f"{kind}: and tempo, key, content: all of it", f"{whole:.2f} s", "<= 1.5 s")


@pytest.mark.timeout(0)
async def test_an_hour(tmp_path: Path) -> None:
    """The most that a file may last: time, and the largest the process ever was."""
    path = tmp_path / "hour.flac"
    path.write_bytes(_hour())
    loop = asyncio.get_running_loop()
    async with ListeningPool(policy=PoolPolicy(processes=1)) as pool:
        began = time.monotonic()
        await pool.warm_up()
        [worker] = psutil.Process().children()
        _say("cold start of a process, wall", f"{time.monotonic() - began:.2f} s", "-")
        _say("cold start of a process, CPU", f"{sum(worker.cpu_times()[:2]):.2f} s", "-")
        began = time.monotonic()
        await pool.listen(path, name="", deadline=loop.time() + 600)
        _say("an hour of FLAC, wall", f"{time.monotonic() - began:.1f} s", "-")
        status = Path(f"/proc/{worker.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        _say("most memory it ever held (RSS)", f"{peak:.0f} MiB", "<= 350 MiB")


def _hour() -> bytes:
    """FLAC of a minute, its frames over and over: their repeating numbers disturb no decoder."""
    minute = encode(piece(60, seed=1), "flac")
    start = minute.index(b"\xff\xf8")
    return minute[:start] + minute[start:] * 59
