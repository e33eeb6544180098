"""How the command ends when its output, its input or its caller goes away: real processes."""

import array
import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import termios
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest
from support.eventually import eventually
from support.stub_server import running_stub

_LINER = (sys.executable, "-m", "liner_client.cli")


async def _ended(process: Process) -> tuple[int, str]:
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


def _catalogue(folder: Path, rows: int) -> Path:
    path = folder / "list.csv"
    path.write_text("title\n" + "".join(f"Track {n}\n" for n in range(rows)))
    return path


@pytest.mark.parametrize("form", ["table", "jsonl", "json"])
async def test_a_full_disk_is_named_in_one_line(tmp_path: Path, form: str) -> None:
    """A script's log must say what to mend, and the exit code that something is missing."""
    async with running_stub() as stub:
        full = os.open("/dev/full", os.O_WRONLY)
        process = await asyncio.create_subprocess_exec(
            *_LINER, "enrich", str(_catalogue(tmp_path, 3)), "-q", "-o", form,
            "--server", stub.address, stdout=full, stderr=PIPE,
        )  # fmt: skip
        os.close(full)
        ended = await _ended(process)

    assert ended == (1, "liner: standard output: No space left on device\n")


@pytest.mark.parametrize("form", ["table", "jsonl"])
async def test_a_reader_that_goes_away_is_no_failure_of_inputs(tmp_path: Path, form: str) -> None:
    """`liner enrich ... | head -1` ends at once, without a traceback, as a shell knows it."""
    async with running_stub() as stub:
        read, write = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *_LINER, "enrich", str(_catalogue(tmp_path, 3)), "-q", "-o", form,
            "--server", stub.address, stdout=write, stderr=PIPE,
        )  # fmt: skip
        os.close(write)
        os.close(read)
        ended = await _ended(process)

    assert ended == (141, "")


@pytest.mark.parametrize(
    ("closed", "told"),
    [(">&-", (1, "liner: standard output is closed\n")),
     ("<&-", (2, "liner: standard input is closed\n"))],
)  # fmt: skip
async def test_a_closed_stream_is_said(closed: str, told: tuple[int, str]) -> None:
    """Services are started so; nothing may be written in the place of what was closed."""
    command = f'exec "$0" -m liner_client.cli enrich - {closed}'
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, sys.executable, stdout=subprocess.DEVNULL, stderr=PIPE
    )

    assert await _ended(process) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGINT, (130, "liner: interrupted\n")),
     (signal.SIGTERM, (143, "liner: terminated\n"))],
)  # fmt: skip
@pytest.mark.parametrize("arguments", [["enrich", "-"], ["cp", "-", "liner:a"]])
async def test_the_first_signal_ends_a_command_that_reads(
    tmp_path: Path, arguments: list[str], number: signal.Signals, told: tuple[int, str]
) -> None:
    """Somebody who forgot the list presses Ctrl-C once; what was kept meanwhile is deleted."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *_LINER, *arguments, stdin=read, stdout=PIPE, stderr=PIPE, env=environment
    )
    os.close(read)
    # It reads once the pipe is empty again.
    os.write(write, b'{"title": "x"}\n')
    await eventually(lambda: not _waiting(write), within=20)
    process.send_signal(number)

    assert await _ended(process) == told
    assert not list(tmp_path.glob("liner-*"))
    os.close(write)


def _waiting(pipe: int) -> int:
    """Return how many bytes of a pipe nobody has read yet."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
