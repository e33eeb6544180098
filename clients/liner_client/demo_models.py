"""`liner demo --models`: two stand-ins for models, one of which is taken down half-way.

What answers are stand-ins (`liner-server play-model`), and the screen says so: what is shown is
how Liner routes, falls back and counts, not how well a model knows music.
"""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from liner.v1 import enrichment_pb2, track_pb2
from rich.console import Console
from rich.text import Text

from liner_client import render
from liner_client.client import LinerClient
from liner_client.demo_checks import Check
from liner_client.demo_experiment import run_experiment
from liner_client.demo_server import Started, check_stop, serving, started, step, verdict

_QWEN2, _OPENAI = "Qwen/Qwen2-Audio-7B-Instruct", "gpt-4.1-mini"
_PRICES = {_QWEN2: (0.05, 0.10), _OPENAI: (0.40, 1.60)}
"""US dollars a million tokens, prompt and completion: examples."""

_FIELDS = ("genre", "moods", "language", "version_title")
_UNSURE = "language"
"""What the primary's stand-in never can tell, so that the fallback is asked for this alone."""

_ALBUMS = (
    ("Ola Vance", "Jazz for Rainy Stations",
     ("Rain on the Roof", "Last Train Home", "Quiet Carriage", "Signal at Night")),
    ("Nadia Brandt", "House by the Harbour",
     ("Slow Tide", "Night Ferry (Night Shift Remix)", "Salt and Summer", "Crane Song (Live)")),
    ("The Lamplighters", "Folk Songs of the Coast",
     ("Paper Boats", "Love in the Lighthouse", "Fire on the Sand", "Gulls")),
    ("Mira Solberg", "Ambient Rooms",
     ("Slow Corridor", "Quiet Kitchen", "Attic", "Stairs (Radio Edit)")),
    ("Lea Winter", "Techno im Regen",
     ("Licht und Schatten", "Die letzte Bahn", "Regen im Juli", "Das kleine Licht")),
    ("Camille Roux", "Soul et Lumi\N{LATIN SMALL LETTER E WITH GRAVE}re",
     ("La ville et la mer", "Dans le jardin", "Les heures", "Le vent")),
    ("Los Faroles", "Latin Corner",
     ("El mar", "Una tarde", "Summer Party", "Los domingos")),
    ("Iron Orchard", "Metal and Glass",
     ("Fire at the Mill", "Furnace (Live)", "Rust", "Night of Sparks")),
    ("June Parade", "Indie Postcards",
     ("Summer Hats", "Love and Bicycles", "Rain Check", "Slow Applause (Acoustic)")),
    ("Deltaline", "Blues for the Valley",
     ("Dry River", "Night Porter", "Slow Freight", "Mill Pond")),
    ("Paper Crowns", "Untitled",
     ("One", "Two", "Three", "Four")),
    ("The Copper Boys", "Reggae by the River",
     ("Summer Bridge", "Love of Boats", "Quiet Weir", "Party in the Reeds")),
)  # fmt: skip
_BEFORE = 16
"""Tracks answered before the primary is taken down."""

_FAULTY = {3: "GB-SLT-24-OOO3", 29: "GBSLT24"}
"""By track, an ISRC that is none."""


async def run_models_demo(*, keep: Path | None) -> int:
    """Run the demo and return 0 only if everything held."""
    began = time.monotonic()
    screen = render.console()
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="liner-demo-")))
        else:
            folder = await asyncio.to_thread(keep.resolve)
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        tracks = _tracks()
        async with (
            _played(folder, "qwen2", _QWEN2, "--unsure", _UNSURE) as primary,
            _played(folder, "openai", _OPENAI) as fallback,
        ):
            for name, one in (("qwen2", primary), ("openai", fallback)):
                step(screen, name, f"a stand-in, no model: {one.address}")
            async with serving(folder, screen, _environment(primary, fallback)) as server:
                screen.print()
                async with LinerClient(server.address) as liner:
                    run = _Run(screen, tracks, primary)
                    await run.enrich(liner)
                    models = await liner.list_models()
                screen.print(run.cost_line())
                screen.print()
                screen.print(render.models_table(models))
        # Beside the data of a server that was started by hand, where git looks away.
        out = (keep or Path(".liner")) / "experiment.html"
        checks = [
            *run.checks(),
            _check_models(models),
            check_stop(server),
            *await run_experiment(folder, screen, out),
        ]
        verdict(screen, checks, time.monotonic() - began, what="what")
        return 0 if all(check.good for check in checks) else 1


def _played(
    folder: Path, name: str, model: str, *options: str
) -> contextlib.AbstractAsyncContextManager[Started]:
    """Return a stand-in that answers after a moment, as a model would."""
    return started(
        f"stand-in for {name}",
        ["play-model", "--model", model, "--delay", "0.2", *options],
        ready=r"play-model ready (\S+)",
        log=folder / f"{name}.log",
    )


def _environment(primary: Started, fallback: Started) -> dict[str, str]:
    return {
        "QWEN2_ENDPOINT": primary.address,
        "LINER_OPENAI_ENDPOINT": fallback.address,
        "OPENAI_API_KEY": "none",
        "LINER_MODEL_AUDIO_WINDOWS": "0",
        "LINER_MODEL_PACK": "4",
        "LINER_MODEL_PRICES": json.dumps(_PRICES),
    }


def _tracks() -> list[track_pb2.Track]:
    tracks = [
        track_pb2.Track(title=title, artists=[track_pb2.Artist(name=artist)], album=album)
        for artist, album, titles in _ALBUMS
        for title in titles
    ]
    for number, track in enumerate(tracks):
        track.isrc = _FAULTY.get(number, f"GBSLT24{number:05}")
    return tracks


class _Run:
    """One batch, and what came of it."""

    def __init__(
        self, screen: Console, tracks: Sequence[track_pb2.Track], primary: Started
    ) -> None:
        self._screen = screen
        self._tracks = tracks
        self._primary = primary
        self._half = asyncio.Event()
        self._answers: dict[int, enrichment_pb2.EnrichMetadataResponse] = {}
        self._failed: list[str] = []
        self._summary = enrichment_pb2.BatchSummary()

    async def enrich(self, liner: LinerClient) -> None:
        """Send the tracks as one stream, and take the primary down when a part is answered."""
        # Nothing is fitted to a stand-in, so half sure is as sure as it gets.
        options = enrichment_pb2.EnrichOptions(min_confidence=0.5)
        options.fields.paths.extend(_FIELDS)
        config = enrichment_pb2.BatchConfig(options=options, ordered=True)
        self._screen.print(_row("title", "genre", "lang", "mood", "answered by"), style="dim")
        async with aclosing(liner.enrich_many(self._items(), config=config)) as events:
            async for event in events:
                if isinstance(event, enrichment_pb2.BatchResult):
                    self._take(event)
                    if len(self._answers) + len(self._failed) == _BEFORE:
                        await self._take_down()
                elif isinstance(event, enrichment_pb2.BatchSummary):
                    self._summary = event
        self._screen.print()

    async def _items(self) -> AsyncGenerator[tuple[str, track_pb2.Track], None]:
        for number, track in enumerate(self._tracks):
            if number == _BEFORE:
                await self._half.wait()
            yield str(number), track

    async def _take_down(self) -> None:
        await self._primary.kill()
        told = f"qwen2 is taken down: process {self._primary.process.pid} killed"
        self._screen.print(Text(f"--- {told} ---", "bold red"))
        self._half.set()

    def _take(self, result: enrichment_pb2.BatchResult) -> None:
        title = self._tracks[int(result.item_id)].title
        if not result.HasField("enriched"):
            self._failed.append(result.error.reason)
            self._screen.print(_row(title, "", "", "", f"failed: {result.error.reason}"))
            return
        answer = result.enriched
        self._answers[int(result.item_id)] = answer
        found = {one.field: one.value for one in answer.fields}
        genre, language, mood = (found.get(f) or "-" for f in ("genre", "language", "moods"))
        line = _row(title, genre, language, mood, _who(answer))
        style = "green" if answer.processing.model == "qwen2" else "yellow"
        shown = Text(line, style)
        if answer.processing.needs_review:
            shown.append("  needs review", "bold")
        self._screen.print(shown)

    def cost_line(self) -> Text:
        """Return what the batch used, and what that costs at the example prices."""
        usage = self._summary.usage
        return Text(
            f"{len(self._answers)} tracks: {usage.prompt_tokens:,} prompt and "
            f"{usage.completion_tokens:,} completion tokens, ${usage.cost_usd:.5f} at example "
            "prices; a stand-in costs nothing",
            "bold",
        )

    def checks(self) -> list[Check]:
        """Return what had to hold of the answers."""
        before = [a.processing.model for n, a in self._answers.items() if n < _BEFORE]
        after = [a.processing.model for n, a in self._answers.items() if n >= _BEFORE]
        rest = len(self._tracks) - _BEFORE
        helped = sum(_who(a) == f"qwen2; {_UNSURE} openai" for a in self._answers.values())
        reviewed = {n for n, a in self._answers.items() if a.processing.needs_review}
        usage = self._summary.usage
        spent = sum(answer.processing.usage.cost_usd for answer in self._answers.values())
        return [
            _check("before", f"{_BEFORE} answered by qwen2", before, "qwen2", _BEFORE),
            Check(
                name="weak field",
                expected=f"openai asked for {_UNSURE} alone where qwen2 cannot tell",
                found=f"for {helped} tracks",
                good=helped > 0,
            ),
            _check("outage", f"{rest} answered by openai", after, "openai", rest),
            Check(
                name="failures",
                expected="none",
                found=", ".join(self._failed) or "none",
                good=not self._failed and self._summary.failed == 0,
            ),
            Check(
                name="review",
                expected=f"the {len(_FAULTY)} tracks whose ISRC is none, and why",
                found="; ".join(
                    self._answers[n].processing.review_reasons[0] for n in sorted(reviewed)
                )
                or "no track",
                good=reviewed == set(_FAULTY),
            ),
            Check(
                name="cost",
                expected="more than nothing, and the tracks' sum",
                found=f"${usage.cost_usd:.5f}, tracks ${spent:.5f}",
                good=usage.cost_usd > 0 and abs(usage.cost_usd - spent) < 1e-6,
            ),
        ]


def _who(answer: enrichment_pb2.EnrichMetadataResponse) -> str:
    """Return the model that answered, and behind it who else gave which field."""
    main = answer.processing.model
    others: dict[str, list[str]] = {}
    for found in answer.fields:
        if found.model and found.model != main:
            others.setdefault(found.model, []).append(found.field)
    return "; ".join([main, *(f"{', '.join(fields)} {name}" for name, fields in others.items())])


def _check(name: str, expected: str, models: Sequence[str], model: str, count: int) -> Check:
    right = models.count(model)
    return Check(
        name=name,
        expected=expected,
        found=f"{right} of {count}",
        good=right == len(models) == count,
    )


def _check_models(listed: enrichment_pb2.ListModelsResponse) -> Check:
    """Return whether ListModels tells the operator what happened."""
    models = {model.name: model for model in listed.models}
    states = {
        name: enrichment_pb2.BreakerState.Name(model.breaker_state)
        .removeprefix("BREAKER_STATE_")
        .lower()
        for name, model in models.items()
        if model.role != "measurement"
    }
    # The rest may be over already on a slow machine: then one call at a time would try it again.
    resting = states.get("qwen2") in ("open", "half_open")
    return Check(
        name="ListModels",
        expected="qwen2's breaker open, openai's closed and ready",
        found=", ".join(f"{name} {state}" for name, state in states.items()),
        good=resting and states.get("openai") == "closed" and models["openai"].ready,
    )


def _row(title: str, genre: str, language: str, mood: str, who: str) -> str:
    cells = f"{render.plain(title, longest=32):<33}{genre:<11}{language:<6}{mood:<20}"
    return cells + who
