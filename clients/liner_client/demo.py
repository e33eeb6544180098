"""`liner demo`: a real server, eight files with known answers, and a check of every one."""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from liner.v1 import enrichment_pb2

from liner_client import render
from liner_client.client import LinerClient
from liner_client.demo_checks import check_answered, check_track
from liner_client.demo_server import (
    DemoError,
    Started,
    check_stop,
    last_line,
    serving,
    step,
    verdict,
)
from liner_client.enriching import run_entries
from liner_client.inputs import Entry, InputError, collect
from liner_client.output import Output, OutputForm
from liner_client.records import Outcome


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
            async with serving(folder, screen) as server:
                if making is not None:
                    await making
                    step(screen, "tracks", f"8 made by the generator, in {tracks}")
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
        checks.append(check_stop(server))
        verdict(screen, checks, time.monotonic() - began, what="file")
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
            f"the tracks could not be made: {last_line(complaint.decode(errors='replace'))}",
            reason="TRACKS_NOT_MADE",
        )


async def _enrich(server: Started, entries: Sequence[Entry]) -> dict[str, Outcome]:
    """Enrich all entries through one stream, showing each; return the outcomes by path."""
    outcomes = {}
    options = enrichment_pb2.EnrichOptions()
    output = Output(OutputForm.TABLE, total=len(entries), what="enriching", quiet=False)
    async with LinerClient(server.address) as liner:
        with output:
            config = enrichment_pb2.BatchConfig(options=options, ordered=True)
            events = run_entries(liner, entries, config=config)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Outcome):
                        outcomes[str(event.entry.row["path"])] = event
                        failure = event.error.reason if event.error is not None else ""
                        output.add(
                            _flags(event),
                            partial(render.outcome_block, event),
                            failure=failure,
                        )
                    elif isinstance(event, enrichment_pb2.BatchProgress):
                        output.note(f"{event.in_flight} in flight")
    if not entries:
        raise InputError("no audio file is there")
    return outcomes


def _flags(outcome: Outcome) -> dict[str, Any]:
    return {"needs_review": outcome.answer.processing.needs_review} if outcome.answer else {}
