"""What the demos share: processes of Liner's own, started on free ports, and how they end."""

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from liner_client import render
from liner_client.demo_checks import Check
from liner_client.errors import LinerError

_START_SECONDS = 30
_STOP_SECONDS = 10
"""What a platform grants between SIGTERM and SIGKILL."""


class DemoError(LinerError):
    """The demo could not be set up; the text says what to look at."""


@dataclass
class Started:
    """A running process, and how it ended."""

    process: asyncio.subprocess.Process
    address: str
    """Where it listens, as it said itself."""

    exit_code: int | None = None
    stop_seconds: float = field(default=0.0)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def started(
    name: str,
    arguments: Sequence[str],
    *,
    ready: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Started]:
    """Yield `liner-server` with these arguments once it has printed `ready` and its address.

    On leaving it is asked to stop; how it does is left in what was yielded. It sees no variable
    of the caller's: what they have exported must not change what is shown.

    Raises:
        DemoError: it did not start.

    """
    variables = [f"{key}={value}" for key, value in (environment or {}).items()]
    with await asyncio.to_thread(log.open, "wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *("env", "-i", *variables, sys.executable, "-m", "liner_server", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        running = Started(process=process, address=await _address(process, name, ready, log))
        yield running
        if process.returncode is None:
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(_STOP_SECONDS):
                running.exit_code = await process.wait()
            running.stop_seconds = time.monotonic() - asked
    except TimeoutError:
        # A process that did not stop is told by its missing exit code.
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def serving(
    folder: Path, screen: Console, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Started]:
    """Yield a server on free loopback ports that keeps its data and its log in the folder."""
    began = time.monotonic()
    settings = {
        "LINER_GRPC_ADDRESS": "127.0.0.1:0",
        "LINER_HTTP_ADDRESS": "127.0.0.1:0",
        "LINER_DATA_DIR": str(folder / "data"),
        **(environment or {}),
    }
    async with started(
        "server",
        ["serve"],
        ready=r"liner-server ready grpc=(\S+)",
        log=folder / "server.log",
        environment=settings,
    ) as server:
        took = time.monotonic() - began
        step(screen, "server", f"serving on {server.address} after {took:.1f} s")
        yield server


async def _address(process: asyncio.subprocess.Process, name: str, ready: str, log: Path) -> str:
    """Return where the process listens, once it says so."""
    output = process.stdout
    assert output is not None  # noqa: S101 - asked for when it was started
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS):
            while line := await output.readline():
                if found := re.search(ready, line.decode(errors="replace")):
                    return found[1]
    told = await asyncio.to_thread(log.read_text, errors="replace")
    raise DemoError(
        f"the {name} did not start: {last_line(told)} (--keep DIR keeps its log)",
        reason="SERVER_NOT_STARTED",
    )


def last_line(log: str) -> str:
    """Return the last thing that a process said."""
    return next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")


def check_stop(server: Started) -> Check:
    """Return whether the server stopped as it was asked to."""
    if server.exit_code is None:
        found = f"did not stop within {_STOP_SECONDS} s"
    else:
        found = f"stopped in {server.stop_seconds:.1f} s with exit code {server.exit_code}"
    return Check(
        name="server",
        expected="stops on SIGTERM, code 0",
        found=found,
        good=server.exit_code == 0,
    )


def step(screen: Console, name: str, text: str) -> None:
    """Print one thing that was done."""
    screen.print(Text(f"{name:<8}", "bold").append(text, "not bold"), soft_wrap=True)


def verdict(screen: Console, checks: Sequence[Check], seconds: float, *, what: str) -> None:
    """Print what was expected against what came, one line a check; `what` heads their names."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", what, "expected", "found"):
        table.add_column(name, overflow="fold")
    for check in checks:
        mark = Text("ok", "green") if check.good else Text("NO", "bold red")
        found = Text(render.plain(check.found, longest=400), "" if check.good else "red")
        table.add_row(mark, render.plain(check.name), render.plain(check.expected), found)
    screen.print()
    screen.print(table)
    wrong = sum(not check.good for check in checks)
    screen.print()
    if wrong:
        screen.print(Text(f"{wrong} of {len(checks)} did not come as expected", "bold red"))
    else:
        screen.print(
            Text(f"all {len(checks)} as expected", "bold green").append(
                f"  in {seconds:.1f} s", "not bold dim"
            )
        )
