"""`liner demo`: a real server, eight files with known answers, and a check of every one."""

import asyncio
import contextlib
import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liner.v1 import enrichment_pb2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from liner_client import render
from liner_client.client import LinerClient
from liner_client.demo_checks import Check, check_answered, check_track
from liner_client.enriching import enrich_entries
from liner_client.errors import LinerError
from liner_client.inputs import Entry, InputError, collect
from liner_client.output import Output, OutputForm
from liner_client.records import Outcome

_READY = re.compile(r"liner-server ready grpc=(\S+) http=(\S+)")
_START_SECONDS = 30
_STOP_SECONDS = 10
"""What a platform grants between SIGTERM and SIGKILL."""


class DemoError(LinerError):
    """The demo could not be set up; the text says what to look at."""


async def run_demo(*, audio: Path | None, keep: Path | None) -> int:
    """Run the demo and return 0 only if everything held."""
    began = time.monotonic()
    screen = render.console()
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="liner-demo-")))
        else:
            folder = await asyncio.to_thread(keep.resolve)
        tracks = folder / "tracks"
        await asyncio.to_thread(tracks.mkdir, parents=True, exist_ok=True)
        making = asyncio.ensure_future(_make_tracks(tracks)) if audio is None else None
        try:
            # Both take a second or two, on a core each.
            async with _server(folder, screen) as server:
                if making is not None:
                    await making
                    _step(screen, "tracks", f"8 made by the generator, in {tracks}")
                entries = await asyncio.to_thread(_entries, audio, tracks)
                screen.print()
                outcomes = await _enrich(server, entries)
        finally:
            if making is not None:
                making.cancel()
                await asyncio.wait({making})
        if audio is None:
            truth = json.loads(await asyncio.to_thread((tracks / "truth.json").read_text))
            checks = [check_track(known, outcomes.get(known["path"])) for known in truth]
        else:
            checks = [
                check_answered(path, outcomes.get(path))
                for path in (str(e.row["path"]) for e in entries)
            ]
        checks.append(_check_stop(server))
        _verdict(screen, checks, time.monotonic() - began)
        return 0 if all(check.good for check in checks) else 1


def _entries(audio: Path | None, tracks: Path) -> list[Entry]:
    folder = audio or tracks
    entries = collect([str(audio or tracks / "delivery.jsonl")], stdin=sys.stdin)
    # Short names: where the folder lies is known.
    named = ((str(e.path.relative_to(folder)), e) for e in entries if e.path is not None)
    return [
        Entry(item_id=entry.item_id, path=entry.path, track=entry.track, row={"path": name})
        for name, entry in named
    ]


async def _make_tracks(folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "liner_server", "synth", "--out", str(folder)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise DemoError(
            f"the tracks could not be made: {_last_line(complaint.decode(errors='replace'))}",
            reason="TRACKS_NOT_MADE",
        )


@dataclass
class _Server:
    """A running server, and how it ended."""

    address: str
    log: Path
    exit_code: int | None = None
    stop_seconds: float = field(default=0.0)


@asynccontextmanager
async def _server(folder: Path, screen: Console) -> AsyncIterator[_Server]:
    """Start a server on free loopback ports; on leaving, ask it to stop and see how it does."""
    began = time.monotonic()
    log = folder / "server.log"
    with await asyncio.to_thread(log.open, "wb") as errors:
        # `env -i`: what the caller has exported must not change what is shown.
        process = await asyncio.create_subprocess_exec(
            *("env", "-i", "LINER_GRPC_ADDRESS=127.0.0.1:0", "LINER_HTTP_ADDRESS=127.0.0.1:0"),
            *(f"LINER_DATA_DIR={folder / 'data'}", sys.executable, "-m", "liner_server", "serve"),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        server = await _ready(process, log)
        took = time.monotonic() - began
        _step(screen, "server", f"serving on {server.address} after {took:.1f} s")
        yield server
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            server.exit_code = await process.wait()
        server.stop_seconds = time.monotonic() - asked
    except TimeoutError:
        # A server that did not stop is told by its missing exit code.
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _ready(process: asyncio.subprocess.Process, log: Path) -> _Server:
    """Return the server once it says that it serves."""
    output = process.stdout
    assert output is not None  # noqa: S101 - asked for when it was started
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS):
            while line := await output.readline():
                if found := _READY.search(line.decode(errors="replace")):
                    return _Server(address=found[1], log=log)
    told = await asyncio.to_thread(log.read_text, errors="replace")
    raise DemoError(
        f"the server did not start: {_last_line(told)} (--keep DIR keeps its log)",
        reason="SERVER_NOT_STARTED",
    )


def _last_line(log: str) -> str:
    return next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")


async def _enrich(server: _Server, entries: Sequence[Entry]) -> dict[str, Outcome]:
    """Enrich all entries through one stream, showing each; return the outcomes by path."""
    outcomes = {}
    options = enrichment_pb2.EnrichOptions()
    output = Output(OutputForm.TABLE, total=len(entries), what="enriching", quiet=False)
    async with LinerClient(server.address) as liner:
        with output:
            events = enrich_entries(liner, entries, options=options, ordered=True)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Outcome):
                        outcomes[str(event.entry.row["path"])] = event
                        failure = event.error.reason if event.error is not None else ""
                        output.add(_flags(event), render.outcome_block(event), failure=failure)
                    elif isinstance(event, enrichment_pb2.BatchProgress):
                        output.note(f"{event.in_flight} in flight")
    if not entries:
        raise InputError("no audio file is there")
    return outcomes


def _flags(outcome: Outcome) -> dict[str, Any]:
    return {"needs_review": outcome.answer.processing.needs_review} if outcome.answer else {}


def _check_stop(server: _Server) -> Check:
    if server.exit_code is None:
        found = f"did not stop within {_STOP_SECONDS} s"
    else:
        found = f"stopped in {server.stop_seconds:.1f} s with exit code {server.exit_code}"
    return Check(
        name="server", expected="stops on SIGTERM, code 0", found=found, good=not server.exit_code
        and server.exit_code is not None,
    )  # fmt: skip


def _step(screen: Console, name: str, text: str) -> None:
    screen.print(Text(f"{name:<8}", "bold").append(text, "not bold"), soft_wrap=True)


def _verdict(screen: Console, checks: Sequence[Check], seconds: float) -> None:
    """Print what was expected against what came, one line a file."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "file", "expected", "found"):
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
