"""What Liner adds to a model's answer, and what it saves: against a local endpoint that is quick.

    make bench MODELS=1

Prints one line a figure with its target, and judges none: these are measurements, not tests. The
way measured is the whole way of a track without audio, from the core's door (digest, answers kept,
joined work, evidence, rules, routing, breaker, budgets, prompt, checks of the answer) to the socket
and back. What it is compared with is one bare call of the same official client with the same
transport, prompt and schema, in turn with it and in the same process, so that other work on the
machine slows both. The endpoint has a process of its own, so its CPU is not counted.
"""

import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import openai
import uvloop
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.collector import settle_collector
from liner_server.context import Principal, RequestContext
from liner_server.core.answers import AnswerCache
from liner_server.core.breaker import BreakerState
from liner_server.core.calibration import Calibration
from liner_server.core.enricher import Enricher
from liner_server.core.router import Router
from liner_server.evaluation import catalogue
from liner_server.models.embedded import EmbeddedProvider
from liner_server.models.lanes import LanesFactory
from liner_server.settings import load
from liner_server.telemetry import Telemetry
from support.eventually import eventually
from support.swift_model import SwiftModel, swift_model

_QWEN2 = "Qwen/Qwen2-Audio-7B-Instruct"
_TITLE = "Blue Hour"
_numbers = itertools.count()

Work = Callable[[], Awaitable[object]]


class _Deaf:
    """A listener for tracks that have nothing to listen to."""

    async def _never(self, *_: object) -> NoReturn:
        raise AssertionError("no track has audio")

    listen = excerpts = digest = _never


@dataclass(frozen=True, kw_only=True)
class World:
    """The core with its models."""

    enricher: Enricher

    async def ask(
        self,
        track: track_pb2.Track | None = None,
        *,
        seconds: float = 30.0,
        operation: str = "enrich",
        **options: Any,
    ) -> enrichment_pb2.EnrichMetadataResponse:
        """Return the answer about a track, by default one that nobody has asked about."""
        return await self.enricher.enrich(
            track if track is not None else _track(f"{_TITLE} {next(_numbers)}"),
            enrichment_pb2.EnrichOptions(**options),
            RequestContext(
                request_id="bench",
                principal=Principal(name="bench", roles=frozenset({"enrich"})),
                deadline=asyncio.get_running_loop().time() + seconds,
            ),
            operation=operation,
        )

    def breaker(self, model: str) -> BreakerState:
        """Return how the breaker of a model stands."""
        return next(lane.state for lane in self.enricher.lanes if lane.name == model)


@asynccontextmanager
async def _world(
    primary: SwiftModel | None, fallback: SwiftModel | None = None, **settings: object
) -> AsyncIterator[World]:
    """Yield the core, its models made as the server makes them."""
    if primary is not None:
        settings["qwen2_endpoint"] = primary.base_url
    if fallback is not None:
        settings |= {"openai_endpoint": fallback.base_url, "openai_api_key": "bench"}
    telemetry, calibration = Telemetry(), Calibration.load()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stated = load(model_audio_windows=0, data_dir=folder, **settings)
        lanes = await LanesFactory(
            stated, calibration=calibration, observer=telemetry, used=telemetry.used
        ).open(stack)
        router = Router(
            primary=lanes.primary,
            fallback=lanes.fallback,
            flags=lambda: enrichment_pb2.FeatureFlags(use_openai_fallback=True),
            observer=telemetry,
        )
        stack.push_async_callback(router.close)
        yield World(
            enricher=Enricher(
                embedded=EmbeddedProvider(calibration),
                router=router,
                listener=_Deaf(),
                answers=AnswerCache(stated.answer_cache_entries),
                observer=telemetry,
            )
        )


class Direct:
    """The official client alone, asking what Liner asked."""

    def __init__(self, model: SwiftModel, body: dict[str, Any]) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=model.base_url,
            api_key="bench",
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),
        )
        self._system, self._user = body.pop("messages")
        self._body = body

    async def ask(self) -> object:
        """Ask about a track that nobody has asked about; read the answer's JSON."""
        text = self._user["content"].replace(_TITLE, f"{_TITLE} {next(_numbers)}", 1)
        reply = await self._client.chat.completions.create(
            messages=[self._system, {"role": "user", "content": text}], **self._body
        )
        return json.loads(reply.choices[0].message.content or "")

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


@asynccontextmanager
async def _both(model: SwiftModel) -> AsyncIterator[tuple[Direct, World]]:
    """Yield both ways to the same endpoint, asking the same."""
    await model.behave()
    async with _world(model) as world:
        answer = await world.ask(_track(_TITLE))
        assert answer.processing.model == "qwen2", answer.processing
        direct = Direct(model, json.loads((await model.seen()).last))
        try:
            yield direct, world
        finally:
            await direct.close()


def test_latency() -> None:
    """One caller, a model that needs no time."""

    async def measure() -> None:
        async with swift_model() as model, _both(model) as (direct, world):
            await _paired(direct.ask, world.ask, 100)
            rounds = [await _paired(direct.ask, world.ask, 120) for _ in range(5)]
        one, other = (statistics.median(r[i].wall for r in rounds) for i in (0, 1))
        added = statistics.median(r[1].wall - r[0].wall for r in rounds)
        _say("direct call, 0 ms model, 1 caller, p50", f"{one:.2f} ms")
        _say("the same routed, p50", f"{other:.2f} ms")
        _say("added by Liner, p50", f"{added:+.2f} ms", "<= 1.5 ms")
        cpu = [statistics.median(r[i].cpu for r in rounds) for i in (0, 1)]
        _say("CPU a call, direct and routed", f"{cpu[0]:.2f}, {cpu[1]:.2f} ms")

    _run(measure())


def test_rate_of_32_callers() -> None:
    """A model that needs no time, and callers who do not wait either."""

    async def measure() -> None:
        async with swift_model() as model, _both(model) as (direct, world):
            await _rate(direct.ask, 32, 100), await _rate(world.ask, 32, 100)
            rounds = [
                (await _rate(direct.ask, 32, 320), await _rate(world.ask, 32, 320))
                for _ in range(5)
            ]
        one, other = (statistics.median(r[i].wall for r in rounds) for i in (0, 1))
        _say("direct calls a second, 0 ms model, 32 callers", f"{one:.0f}")
        _say("the same routed", f"{other:.0f}")
        ratio = statistics.median(r[1].wall / r[0].wall for r in rounds)
        _say("routed of direct", f"{ratio:.2f}", ">= 0.8")
        cpu = [statistics.median(r[i].cpu for r in rounds) for i in (0, 1)]
        _say("CPU a call, direct and routed", f"{cpu[0]:.2f}, {cpu[1]:.2f} ms")

    _run(measure())


def test_rate_of_a_slow_model() -> None:
    """With 64 in flight and 300 ms Little's law allows 213 a second."""

    async def measure() -> None:
        async with swift_model() as model, _both(model) as (direct, world):
            await model.behave(delay=0.3)
            for callers in (16, 32, 64):
                one, other = [], []
                for _ in range(3):
                    one.append(await _steady(direct.ask, callers=callers))
                    other.append(await _steady(world.ask, callers=callers))
                best, ours = (
                    max(r.wall for r in rates) / (callers / 0.3) for rates in (one, other)
                )
                _say(f"300 ms model, {callers} in flight: direct, of Little's rate", f"{best:.0%}")
                _say("    the same routed", f"{ours:.0%}", ">= 95 %" if callers == 64 else "-")
                cpu = [statistics.median(r.cpu for r in rates) for rates in (one, other)]
                _say("    CPU a call, direct and routed", f"{cpu[0]:.2f}, {cpu[1]:.2f} ms")

    _run(measure())


def test_asking_once() -> None:
    """Nobody pays twice for the same recording."""

    async def measure() -> None:
        async with swift_model() as model, _world(model) as world:
            await model.behave(delay=0.05)
            await asyncio.gather(*(world.ask(_track(_TITLE)) for _ in range(100)))
            _say("calls for 100 identical questions at once", f"{(await model.seen()).requests}",
                 "1")  # fmt: skip
            await model.behave(delay=0.05)
            places = asyncio.Semaphore(16)

            async def item(number: int) -> None:
                async with places:
                    track = _track(f"Song {number % 600}")
                    track.track_id = str(number)
                    await world.ask(track, operation="batch")

            await asyncio.gather(*(item(number) for number in range(1000)))
            seen = await model.seen()
            _say("asked of a batch of 1,000 with 40 % twice", f"{seen.recordings}", "<= 600")
            _say("calls for them", f"{seen.requests}")

    _run(measure())


def test_outage() -> None:
    """The primary is gone for all of 1,000 requests."""

    async def measure() -> None:
        async with swift_model() as primary, swift_model() as fallback:
            for name, behaviour in _OUTAGES.items():
                await primary.behave(**behaviour)
                await fallback.behave()
                async with (
                    _world(primary, fallback, model_timeout_seconds=1) as world,
                    _world(None, fallback) as alone,
                ):
                    rate = await _rate(partial(world.ask, seconds=5), 32, 1000)
                    asked = (await primary.seen()).requests, (await fallback.seen()).requests
                    assert world.breaker("qwen2") is BreakerState.OPEN
                    pairs = await _paired(alone.ask, world.ask, 200)
                _say(f"outage ({name}): attempts a request", f"{sum(asked) / 1000:.3f}", "<= 1.1")
                _say("    of them at the primary", f"{asked[0]}")
                _say("    requests a second over the outage", f"{rate.wall:.0f}")
                added = pairs[1].wall - pairs[0].wall
                _say("    open breaker adds to the fallback, p50", f"{added:+.2f} ms", "<= 20 ms")

    _run(measure())


_OUTAGES: dict[str, dict[str, float]] = {
    "503": {"status": 503},
    "hangs up": {"status": 0},
    "hangs": {"delay": 60},
}


def test_deadlines() -> None:
    """Whatever both models take, the caller is answered in time, and nothing is left behind."""

    async def measure() -> None:
        async with swift_model() as primary, swift_model() as fallback:
            for seconds in (0.3, 1.0):
                overruns = []
                for delay in (0.05, 0.2, 0.5, 1, 2, 5):
                    await primary.behave(delay=delay)
                    await fallback.behave(delay=delay)
                    async with _world(primary, fallback) as world:
                        took = await asyncio.gather(*(_timed(world, seconds) for _ in range(8)))
                    overruns.append(max(took) - seconds)
                worst = max(overruns) * 1e3
                _say(
                    f"deadline {seconds} s, models at 0.05 to 5 s: latest end",
                    f"{worst:+.0f} ms",
                    "<= +100 ms",
                )
            await primary.behave(delay=60)
            async with _world(primary, fallback) as world:
                await asyncio.sleep(0.1)
                before = asyncio.all_tasks()
                calls = [
                    asyncio.ensure_future(world.ask(operation=operation))
                    for operation in ("enrich", "batch")
                    for _ in range(24)
                ]
                await eventually(_until_open(primary, 24 + 3))
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                await eventually(_until_open(primary, 0))
                left = asyncio.all_tasks() - before
            _say("tasks left after 48 cancelled callers", f"{len(left)}", "0")

    _run(measure())


def _until_open(model: SwiftModel, count: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return (await model.seen()).open == count

    return reached


async def _timed(world: World, seconds: float) -> float:
    began = time.perf_counter()
    await world.ask(seconds=seconds)
    return time.perf_counter() - began


def test_tokens_of_the_fallback() -> None:
    """Fifty tracks as labels deliver them; the primary cannot tell about a fifth of the fields.

    Tokens are a quarter of the characters of prompt and answer. What the fallback is asked, which
    is the weak fields of the tracks that have any, is compared with asking it anew, about all open
    fields, for those tracks and for the whole set.
    """

    async def measure() -> None:
        tracks = [_delivered(seed) for seed in range(50)]
        async with swift_model() as primary, swift_model() as fallback:
            for operation in ("enrich", "batch"):
                await primary.behave(unsure_every=5)

                async def asked(
                    world: World, tracks: Sequence[track_pb2.Track], operation: str, model: str = ""
                ) -> tuple[list[enrichment_pb2.EnrichMetadataResponse], float]:
                    await fallback.behave(unsure_every=10_007)
                    # Half sure is sure enough: nothing is fitted to these models.
                    calls = (
                        world.ask(
                            track,
                            operation=operation,
                            model=model,
                            min_confidence=0.5,
                            skip_cache=True,
                        )
                        for track in tracks
                    )
                    answers = await asyncio.gather(*calls)
                    seen = await fallback.seen()
                    return answers, (seen.prompt_characters + seen.completion_characters) / 4

                async with _world(primary, fallback) as world:
                    answers, few = await asked(world, tracks, operation)
                    weak = [
                        track
                        for track, answer in zip(tracks, answers, strict=True)
                        if answer.processing.fallback_used
                    ]
                    _, same = await asked(world, weak, operation, "openai")
                    _, whole = await asked(world, tracks, operation, "openai")
                name = "packed" if operation == "batch" else "one by one"
                _say(f"fallback, {name}: tracks asked about, of 50", f"{len(weak)}")
                _say("    tokens for their weak fields", f"{few:.0f}")
                _say("    of a whole re-ask of the 50", f"{few / whole:.0%}", "<= 50 %")
                _say("    of a whole re-ask of those tracks alone", f"{few / same:.0%}")

    _run(measure())


def test_calls_that_could_not_help() -> None:
    """The same tracks at the default `min_confidence`, which no unfitted score ever reaches."""

    async def measure() -> None:
        tracks = [_delivered(seed) for seed in range(50)]
        async with swift_model() as primary, swift_model() as fallback:
            await fallback.behave(unsure_every=10_007)
            for unsure_every, name in ((0, "tells all it is asked"), (5, "cannot tell a fifth")):
                await primary.behave(unsure_every=unsure_every or 10_007)
                await fallback.behave(unsure_every=10_007)
                async with _world(primary, fallback) as world:
                    answers = await asyncio.gather(*map(world.ask, tracks))
                seen = await fallback.seen()
                weak = sum(
                    any(r.source == track_pb2.SOURCE_MODEL and r.confidence < 0.8 for r in a.fields)
                    for a in answers
                )
                _say(f"primary {name}: tracks with fields under 0.8", f"{weak} of 50")
                _say("    the fallback was asked about", f"{seen.recordings}", f"< {weak}")

    _run(measure())


def _delivered(seed: int) -> track_pb2.Track:
    """Return a track as it is delivered: who, what and when, but not what it sounds like."""
    track = catalogue.clean(seed)
    for path in ("language", "genre", "subgenres", "moods", "instruments", "energy"):
        track.ClearField(path)
    for path in ("danceability", "parental_warning", "version_title", "properties", "audio"):
        track.ClearField(path)
    if seed % 3:
        track.ClearField("lyrics")
    return track


def _track(title: str) -> track_pb2.Track:
    """Return a track as a label delivers it."""
    return track_pb2.Track(
        title=title,
        artists=[
            track_pb2.Artist(name="Ada North", role=track_pb2.ARTIST_ROLE_MAIN),
            track_pb2.Artist(name="Ben West", role=track_pb2.ARTIST_ROLE_FEATURED),
        ],
        album="North Quay",
        label="Slow Tide",
        release_date="2024-05-17",
        isrc="GBAYE0601498",
        territories=["Worldwide"],
        p_line="2024 Slow Tide",
        c_line="2024 Slow Tide",
    )


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """What calls took: `wall` in ms a call or in calls a second, `cpu` in ms a call."""

    wall: float
    cpu: float


async def _paired(one: Work, other: Work, count: int) -> tuple[_Cost, _Cost]:
    """Return the p50 of both in ms, made in turn, and who is first in turn as well."""
    walls: tuple[list[float], list[float]] = ([], [])
    cpus = [0.0, 0.0]
    for number in range(count):
        for which in (0, 1) if number % 2 else (1, 0):
            began, cpu = time.perf_counter(), time.process_time()
            await (one, other)[which]()
            walls[which].append(time.perf_counter() - began)
            cpus[which] += time.process_time() - cpu
    first, second = (
        _Cost(wall=statistics.median(wall) * 1e3, cpu=cpu / count * 1e3)
        for wall, cpu in zip(walls, cpus, strict=True)
    )
    return first, second


async def _rate(work: Work, callers: int, calls: int) -> _Cost:
    """Return how many calls a second so many callers make, each asking again when answered."""
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await work()

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    wall = time.perf_counter() - began
    return _Cost(wall=calls / wall, cpu=(time.process_time() - cpu) / calls * 1e3)


async def _steady(work: Work, *, callers: int, seconds: float = 3.0) -> _Cost:
    """Return how many calls a second so many callers keep up, who did not all begin at once."""
    loop = asyncio.get_running_loop()
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        await asyncio.sleep(0.3 * number / callers)
        while True:
            await work()
            done += 1

    tasks = [asyncio.ensure_future(caller(number)) for number in range(callers)]
    await asyncio.sleep(1.0)
    before, began, cpu = done, loop.time(), time.process_time()
    await asyncio.sleep(seconds)
    calls, took = done - before, loop.time() - began
    spent = time.process_time() - cpu
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return _Cost(wall=calls / took, cpu=spent / calls * 1e3)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run on the loop that the server runs on, with the collector as the server sets it."""
    settle_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def _say(what: str, figure: str, target: str = "-") -> None:
    sys.stdout.write(f"{what:<58} {figure:>14}   target {target}\n")
