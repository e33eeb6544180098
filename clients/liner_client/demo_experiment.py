"""The second act of `liner demo --models`: an A/B test from the first track to the verdict.

Two stand-ins answer, and the editor is a script that accepts more of one than of the other: what
is shown is how Liner draws, counts and decides, not that one model is better.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path

from liner.v1 import enrichment_pb2, experiment_pb2, track_pb2
from rich.console import Console
from rich.text import Text

from liner_client.client import LinerClient
from liner_client.demo_checks import Check
from liner_client.demo_server import Started, serving, started, step
from liner_client.errors import NotFoundError
from liner_client.experiment_commands import report_block
from liner_client.experiment_page import page

_NAME, _SHARE, _TRACKS = "new-model", 0.5, 900
_ACCEPTS = {"control": 0.74, "experimental": 0.93}
"""How much of each variant's genres the scripted editor accepts."""

_GENRES = ("Jazz", "House", "Folk", "Ambient", "Techno", "Soul", "Latin", "Metal", "Indie", "Blues")
_MODELS = {"control": "the-usual-model", "experimental": "the-new-model"}
_PRICES = '{"the-usual-model": [0.05, 0.1], "the-new-model": [0.08, 0.16]}'
_AT_ONCE = 20


@dataclass
class _Seen:
    """What the run saw."""

    variants: Counter[str] = field(default_factory=Counter)
    reviewed: int = 0
    report: experiment_pb2.GetReportResponse = field(
        default_factory=experiment_pb2.GetReportResponse
    )


async def run_experiment(folder: Path, screen: Console, out: Path) -> list[Check]:
    """Run the experiment, write its page to `out` and return what had to hold."""
    screen.print()
    screen.print(Text("A/B test: is the new model better?", "bold"))
    async with (
        _played(folder, "control") as usual,
        _played(folder, "experimental", "--delay", "0.004") as tried,
    ):
        environment = {
            "LINER_DATA_DIR": str(folder / "experiment"),
            "QWEN2_ENDPOINT": usual.address,
            "LINER_QWEN2_MODEL": _MODELS["control"],
            "LINER_EXPERIMENTAL_ENDPOINT": tried.address,
            "LINER_EXPERIMENTAL_MODEL": _MODELS["experimental"],
            "LINER_EXPERIMENT_NAME": _NAME,
            "LINER_EXPERIMENT_SHARE": str(_SHARE),
            "ENABLE_EXPERIMENTAL_MODEL": "true",
            "LINER_MODEL_AUDIO_WINDOWS": "0",
            "LINER_MODEL_PRICES": _PRICES,
        }
        async with (
            serving(folder, screen, environment) as server,
            LinerClient(server.address) as liner,
        ):
            seen = _Seen()
            await _run(liner, seen)
            seen.report = await _counted(liner)
    step(screen, "tracks", f"{_TRACKS} answered, drawn {dict(seen.variants)}")
    step(
        screen,
        "editor",
        f"a script: accepts {_ACCEPTS['control']:.0%} of the usual model's "
        f"genres and {_ACCEPTS['experimental']:.0%} of the new one's",
    )
    screen.print()
    screen.print(report_block(seen.report))
    await asyncio.to_thread(_write, out, page(seen.report))
    step(screen, "page", f"{out}: open it in a browser")
    return _checks(seen, out)


def _played(folder: Path, variant: str, *options: str) -> AbstractAsyncContextManager[Started]:
    return started(
        f"stand-in for {_MODELS[variant]}",
        ["play-model", "--model", _MODELS[variant], *options],
        ready=r"play-model ready (\S+)",
        log=folder / f"{variant}.log",
    )


async def _run(liner: LinerClient, seen: _Seen) -> None:
    """Enrich every track and let the editor judge each answer as it comes."""
    options = enrichment_pb2.EnrichOptions(min_confidence=0.5)
    options.fields.paths.extend(("genre", "moods"))
    config = enrichment_pb2.BatchConfig(options=options)
    free = asyncio.Semaphore(_AT_ONCE)
    async with (
        asyncio.TaskGroup() as group,
        aclosing(liner.enrich_many(_items(), config=config)) as events,
    ):
        async for event in events:
            if not isinstance(event, enrichment_pb2.BatchResult):
                continue
            if not event.HasField("enriched"):
                continue
            seen.variants[event.enriched.processing.variant] += 1
            await free.acquire()
            judging = group.create_task(_judge(liner, event.item_id, event.enriched, seen))
            judging.add_done_callback(lambda _: free.release())


async def _items() -> AsyncGenerator[tuple[str, track_pb2.Track], None]:
    for number in range(_TRACKS):
        genre = _GENRES[number % len(_GENRES)]
        track = track_pb2.Track(
            track_id=f"demo-{number}",
            title=f"Quiet Summer {number}",
            album=f"{genre} Collection",
            artists=[track_pb2.Artist(name="The Demonstrators")],
        )
        yield track.track_id, track


async def _judge(
    liner: LinerClient,
    track: str,
    answer: enrichment_pb2.EnrichMetadataResponse,
    seen: _Seen,
) -> None:
    """Let the editor accept or reject the genre; always the same for a track."""
    if not any(one.field == "genre" and one.value for one in answer.fields):
        return
    # A number from 0 to 1 that looks drawn, but comes out alike in every run.
    drawn = int.from_bytes(hashlib.blake2b(track.encode(), digest_size=4).digest()) / 2**32
    accepts = drawn < _ACCEPTS[answer.processing.variant]
    said = enrichment_pb2.FieldReview(
        field="genre",
        verdict=enrichment_pb2.VERDICT_ACCEPT if accepts else enrichment_pb2.VERDICT_REJECT,
    )
    for _ in range(200):
        try:
            await liner.review(answer.processing.enrichment_id, [said], request_id=track)
        except NotFoundError:
            # Answers are stored a moment after they are given.
            await asyncio.sleep(0.05)
            continue
        seen.reviewed += 1
        return


async def _counted(liner: LinerClient) -> experiment_pb2.GetReportResponse:
    """Return the report once it has every review, or what it has after a while."""
    found = experiment_pb2.GetReportResponse()
    for _ in range(100):
        found = await liner.experiments.report(_NAME)
        if sum(one.reviewed_fields for one in found.variants) >= _TRACKS:
            break
        await asyncio.sleep(0.1)
    return found


def _write(out: Path, text: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


def _checks(seen: _Seen, out: Path) -> list[Check]:
    report = seen.report
    tracks = {one.variant: one.tracks for one in report.variants}
    share = seen.variants["experimental"] / max(1, sum(seen.variants.values()))
    verdict = experiment_pb2.ExperimentVerdict.Name(report.verdict)
    return [
        Check(
            name="drawn",
            expected=f"{_TRACKS} tracks, about half for the new model",
            found=f"{sum(seen.variants.values())}, {share:.1%}",
            good=sum(seen.variants.values()) == _TRACKS and abs(share - _SHARE) < 0.07,
        ),
        Check(
            name="rows",
            expected="as many tracks counted as were answered, every review too",
            found=f"{sum(tracks.values())} tracks, {seen.reviewed} reviews",
            good=tracks == dict(seen.variants) and seen.reviewed == _TRACKS,
        ),
        Check(
            name="verdict",
            expected="the new model is adopted",
            found=f"{verdict.removeprefix('EXPERIMENT_VERDICT_')}: {report.verdict_reason}",
            good=report.verdict == experiment_pb2.EXPERIMENT_VERDICT_ADOPT,
        ),
        Check(
            name="page",
            expected="written, and it needs nothing else",
            found=str(out),
            good=_is_whole(out),
        ),
    ]


def _is_whole(out: Path) -> bool:
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    return "<svg" in text and "http" not in text and "<script" not in text
