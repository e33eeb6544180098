"""Models behind the whole service: real sockets to scripted endpoints, real channels in front."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import grpc
import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.app import App
from liner_server.evaluation import calibrate
from liner_server.evaluation.encode import write
from liner_server.evaluation.synth import Piece, render
from support.asking import answering, recordings
from support.eventually import eventually
from support.grpc_errors import fails
from support.obeying_model import SYSTEM_MARK, Obeying, payloads
from support.scripted_model import Reply, Script, ScriptedModel, refuses, says, scripted_model
from support.server import Stubs, served

MODELS = ("Qwen/Qwen2-Audio-7B-Instruct", "gpt-4.1-mini", "tried")
HANGS = Reply(first_byte_after=60)


@dataclass(frozen=True, kw_only=True)
class World:
    """A service with its models."""

    app: App
    stubs: Stubs
    qwen2: ScriptedModel
    openai: ScriptedModel


@asynccontextmanager
async def world(
    data_dir: Path, qwen2: Script, openai: Script, **overrides: object
) -> AsyncIterator[World]:
    """Yield a service whose primary and fallback answer as these scripts say."""
    async with (
        scripted_model(qwen2, models=MODELS) as first,
        scripted_model(openai, models=MODELS) as second,
        served(
            data_dir,
            qwen2_endpoint=first.base_url,
            openai_endpoint=second.base_url,
            openai_api_key="test",
            model_audio_windows=0,
            **overrides,
        ) as (app, stubs),
    ):
        yield World(app=app, stubs=stubs, qwen2=first, openai=second)


def request_for(
    *fields: str, track: track_pb2.Track | None = None, **options: object
) -> enrichment_pb2.EnrichMetadataRequest:
    """Return a request for these fields of a track; half sure is sure enough."""
    options = {"min_confidence": 0.5, **options}
    request = enrichment_pb2.EnrichMetadataRequest(
        track=track or track_pb2.Track(title="Blue Hour", artists=[{"name": "Ada North"}]),
        options=enrichment_pb2.EnrichOptions(**options),
    )
    request.options.fields.paths.extend(fields)
    return request


def by_field(
    answer: enrichment_pb2.EnrichMetadataResponse,
) -> dict[str, track_pb2.FieldResult]:
    """Return an answer's results by field."""
    return {result.field: result for result in answer.fields}


async def metrics(app: App) -> str:
    """Return what the service exports now."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{app.http_address}/metrics") as response,
    ):
        return await response.text()


async def test_the_primarys_answer_is_a_claim_like_any_other(tmp_path: Path) -> None:
    """What a model says is named as its word, marked as unfitted, and capped."""
    async with world(
        tmp_path, answering(genre="Jazz", language="en"), answering(genre="Rock")
    ) as here:
        answer = await here.stubs.enrichment.EnrichMetadata(request_for("genre", "language"))

    genre = by_field(answer)["genre"]
    assert (genre.value, genre.model, genre.source) == ("Jazz", "qwen2", track_pb2.SOURCE_MODEL)
    assert genre.confidence <= 0.6
    assert genre.confidence_basis == track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
    assert answer.processing.model == "qwen2"
    assert answer.processing.prompt_version
    assert answer.processing.usage.prompt_tokens == 100
    assert not answer.processing.fallback_used
    assert here.openai.requests == []


async def test_fields_that_stay_weak_are_asked_of_the_fallback_and_no_others(
    tmp_path: Path,
) -> None:
    """The merged answer says which model gave which field."""
    async with world(tmp_path, answering(genre="Jazz"), answering(language="en")) as here:
        answer = await here.stubs.enrichment.EnrichMetadata(request_for("genre", "language"))
        exported = await metrics(here.app)

    fields = by_field(answer)
    assert (fields["genre"].model, fields["language"].model) == ("qwen2", "openai")
    assert list(here.openai.requests[0]["response_format"]["json_schema"]["schema"]["properties"])
    assert answer.processing.fallback_used
    assert answer.processing.model == "qwen2"
    assert (
        'ai_fallback_total{fallback="openai",primary="qwen2",reason="LOW_CONFIDENCE"} 1' in exported
    )


async def test_what_models_scored_is_stored_so_that_reviews_can_calibrate_them(
    tmp_path: Path,
) -> None:
    """Reviews say which answers were right, the stored scores say how sure the models were of
    them: together they are all that `liner-server calibrate` asks for.
    """
    async with world(tmp_path, answering(genre="Jazz"), answering(genre="Rock")) as here:
        stubs = here.stubs.enrichment
        answer = await stubs.EnrichMetadata(request_for("genre", min_confidence=0.55))
        name = answer.processing.enrichment_id

        async def stored() -> bool:
            listed = await stubs.ListEnrichments(enrichment_pb2.ListEnrichmentsRequest())
            return [one.enrichment_id for one in listed.enrichments] == [name]

        await eventually(stored)
        reply = await stubs.GetEnrichment(enrichment_pb2.GetEnrichmentRequest(enrichment_id=name))

    kept = by_field(reply.enrichment.answer)["genre"].model_scores
    assert kept == by_field(answer)["genre"].model_scores
    assert [(one.model, one.value) for one in kept] == [
        ("qwen2:Qwen/Qwen2-Audio-7B-Instruct", "Jazz"),
        ("openai:gpt-4.1-mini", "Rock"),
    ]
    table = tmp_path / "judged.csv"
    rows = [f"genre,{s.model},{s.prompt_version},{s.score},{int(s.value == 'Rock')}" for s in kept]
    table.write_text("\n".join(["field,model,prompt_version,score,right", *rows]))
    assert [row.right for row in calibrate.read(table.read_bytes())] == [False, True]


async def test_what_no_model_can_tell_of_a_track_is_asked_of_none(tmp_path: Path) -> None:
    """Nobody hears instruments in a title: that they stay open is no reason to fall back."""
    script = answering(
        genre="Jazz", subgenres=["Soul"], moods=["Calm"], language="en", version_title="Hour"
    )
    async with world(tmp_path, script, answering(genre="Rock")) as here:
        answer = await here.stubs.enrichment.EnrichMetadata(request_for())
        exported = await metrics(here.app)

    assert len(here.qwen2.requests) == 1
    assert here.openai.requests == []
    assert not answer.processing.fallback_used
    assert "ai_fallback_total{" not in exported


async def test_a_failing_primary_is_retried_then_replaced(tmp_path: Path) -> None:
    """Three attempts, then the fallback; the answer counts the retries."""
    async with world(tmp_path, refuses(503), answering(genre="Jazz", language="en")) as here:
        answer = await here.stubs.enrichment.EnrichMetadata(request_for("genre", "language"))
        exported = await metrics(here.app)

    assert len(here.qwen2.requests) == 3
    assert answer.processing.retry_count == 2
    assert answer.processing.model == "openai"
    assert answer.processing.fallback_used
    assert not answer.processing.HasField("error")
    assert 'ai_retry_attempts_total{model="qwen2"} 2' in exported


async def test_what_a_model_took_without_an_answer_is_on_the_bill(tmp_path: Path) -> None:
    """Two useless answers and one cut off were paid for, whoever answered at last."""
    replies = iter(
        (
            says("Jazz!", tokens=(50, 5)),
            says("Rock!", tokens=(60, 10)),
            says("{", finish="length", tokens=(70, 20)),
        )
    )
    async with world(
        tmp_path,
        lambda _: next(replies),
        answering(genre="Jazz"),
        model_prices={MODELS[0]: (1000.0, 0.0)},
    ) as here:
        repaired = await here.stubs.enrichment.EnrichMetadata(request_for("genre"))
        cut = await here.stubs.enrichment.EnrichMetadata(
            request_for("genre", track=track_pb2.Track(title="Two"))
        )

    for answer, sent, received, retries in ((repaired, 110, 15, 1), (cut, 70, 20, 0)):
        processing = answer.processing
        assert processing.model == "openai"
        assert processing.retry_count == retries
        assert processing.usage.prompt_tokens == 100 + sent
        assert processing.usage.completion_tokens == 20 + received
        assert processing.usage.cost_usd == pytest.approx(sent / 1000)


async def test_when_no_model_answers_what_is_known_comes_back_with_the_reason(
    tmp_path: Path,
) -> None:
    """An outage of models costs their fields and nothing else."""
    async with world(tmp_path, refuses(500), refuses(401)) as here:
        answer = await here.stubs.enrichment.EnrichMetadata(request_for("title", "genre"))
        again = await here.stubs.enrichment.EnrichMetadata(request_for("title", "genre"))

    assert by_field(answer)["title"].decision == track_pb2.DECISION_KEPT
    assert by_field(answer)["genre"].decision == track_pb2.DECISION_ABSTAINED
    assert answer.processing.needs_review
    assert "no model could answer (qwen2: MODEL_SERVER_ERROR" in answer.processing.review_reasons[0]
    assert answer.processing.error.reason
    assert not again.processing.from_cache, "a poorer answer must not outlive the outage"


async def test_who_requires_a_model_gets_an_error_in_place_of_less(tmp_path: Path) -> None:
    """With RetryInfo, so that the caller knows when to come back."""
    async with (
        world(tmp_path, refuses(500), refuses(500)) as here,
        fails(grpc.StatusCode.UNAVAILABLE) as failure,
    ):
        await here.stubs.enrichment.EnrichMetadata(request_for("genre", require_model=True))

    assert failure.reason == "NO_MODEL_ANSWERED"
    assert failure.retry_after is not None


async def test_an_absurd_retry_after_keeps_no_caller_away_for_longer_than_the_model(
    tmp_path: Path,
) -> None:
    """In ten minutes the model is asked again, so that is when to come back."""
    absurd = refuses(429, retry_after="1e9")
    async with (
        world(tmp_path, absurd, absurd) as here,
        fails(grpc.StatusCode.UNAVAILABLE) as failure,
    ):
        await here.stubs.enrichment.EnrichMetadata(request_for("genre", require_model=True))

    assert failure.retry_after == 600


async def test_who_requires_a_model_is_told_when_to_try_again_after_a_timeout(
    tmp_path: Path,
) -> None:
    """The server's own word arrives before the caller's time is over."""
    async with (
        world(tmp_path, HANGS, HANGS) as here,
        fails(grpc.StatusCode.DEADLINE_EXCEEDED) as failure,
    ):
        await here.stubs.enrichment.EnrichMetadata(
            request_for("genre", require_model=True), timeout=2
        )

    assert failure.reason == "NO_MODEL_IN_TIME"
    assert failure.retry_after is not None


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
async def test_the_answer_comes_before_the_deadline_whoever_hangs(
    seconds: float, tmp_path: Path
) -> None:
    """A service team's budget is its budget; measured and stated fields arrive inside it."""
    async with world(tmp_path, HANGS, HANGS) as here:
        began = time.monotonic()
        answer = await here.stubs.enrichment.EnrichMetadata(
            request_for("title", "genre"), timeout=seconds
        )
        took = time.monotonic() - began
        await eventually(lambda: here.qwen2.open == here.openai.open == 0)

    assert took < seconds
    assert answer.processing.needs_review
    assert "MODEL_TIMEOUT" in " ".join(answer.processing.review_reasons)


async def test_a_caller_who_leaves_stops_the_upstream_call(tmp_path: Path) -> None:
    """Nobody pays for an answer that nobody waits for."""
    async with world(tmp_path, HANGS, HANGS) as here:
        call = here.stubs.enrichment.EnrichMetadata(request_for("genre"), timeout=30)
        await eventually(lambda: here.qwen2.open == 1)
        call.cancel()
        await eventually(lambda: here.qwen2.open == 0)

    assert here.openai.requests == []


async def test_a_hundred_identical_questions_at_once_are_asked_once(tmp_path: Path) -> None:
    """A new release arrives from five services in the same second."""
    async with world(tmp_path, answering(genre="Jazz"), refuses(500), max_in_flight=100) as here:
        results = await asyncio.gather(
            *(here.stubs.enrichment.EnrichMetadata(request_for("genre")) for _ in range(100))
        )

    assert len(here.qwen2.requests) == 1
    assert Counter(answer.processing.from_cache for answer in results) == {True: 99, False: 1}
    assert sum(answer.processing.usage.prompt_tokens for answer in results) == 100
    assert {by_field(answer)["genre"].value for answer in results} == {"Jazz"}


async def test_duplicates_with_other_track_ids_are_one_question(tmp_path: Path) -> None:
    """The caller's own name for a track says nothing about the music."""
    tracks = [track_pb2.Track(title="Blue Hour", track_id=name) for name in ("a", "b")]
    async with world(tmp_path, answering(genre="Jazz"), refuses(500)) as here:
        answers = [
            await here.stubs.enrichment.EnrichMetadata(request_for("genre", track=track))
            for track in tracks
        ]

    assert len(here.qwen2.requests) == 1
    assert [answer.track.track_id for answer in answers] == ["a", "b"]


async def batch(
    stubs: Stubs, tracks: Sequence[track_pb2.Track], *fields: str
) -> tuple[list[enrichment_pb2.BatchResult], enrichment_pb2.BatchSummary]:
    """Return the results and the summary of a batch."""
    call = stubs.enrichment.BatchProcess()
    config = enrichment_pb2.BatchConfig(options=request_for(*fields).options)
    await call.write(enrichment_pb2.BatchProcessRequest(config=config))

    async def send() -> None:
        for start in range(0, len(tracks), 50):
            items = [
                enrichment_pb2.BatchItem(item_id=str(start + n), track=track)
                for n, track in enumerate(tracks[start : start + 50])
            ]
            await call.write(
                enrichment_pb2.BatchProcessRequest(items=enrichment_pb2.BatchItems(items=items))
            )
        await call.done_writing()

    sending = asyncio.create_task(send())
    results: list[enrichment_pb2.BatchResult] = []
    summary = enrichment_pb2.BatchSummary()
    async for response in call:
        results += response.results.results
        if response.HasField("summary"):
            summary = response.summary
    await sending
    return results, summary


async def test_a_batch_asks_for_each_recording_once_and_in_packs(tmp_path: Path) -> None:
    """1,000 tracks, two fifths of them duplicates: 600 are asked about, several in a prompt."""
    tracks = [track_pb2.Track(title=f"Song {n % 600}") for n in range(1000)]
    script = answering(genre=lambda r: "Jazz" if r["stated"]["title"].endswith("7") else "Rock")
    async with world(tmp_path, script, refuses(500)) as here:
        results, summary = await batch(here.stubs, tracks, "genre")

    asked = [row for request in here.qwen2.requests for row in recordings(request)]
    assert len(asked) == 600
    assert len(here.qwen2.requests) < 300
    assert (summary.succeeded, summary.from_cache) == (1000, 400)
    assert summary.usage.prompt_tokens == 100 * len(here.qwen2.requests)
    for result in results:
        expected = "Jazz" if (int(result.item_id) % 600) % 10 == 7 else "Rock"
        assert by_field(result.enriched)["genre"].value == expected


async def test_the_flags_file_switches_the_fallback_while_the_server_runs(tmp_path: Path) -> None:
    """At 3 a.m. the fallback costs too much: no restart."""
    flags = tmp_path / "flags.json"
    flags.write_text(json.dumps({"USE_OPENAI_FALLBACK": True}))
    async with world(
        tmp_path / "data", refuses(400), answering(genre="Jazz"), flags_file=flags
    ) as here:
        stubs = here.stubs
        before = await stubs.enrichment.EnrichMetadata(request_for("genre"))
        flags.write_text(json.dumps({"USE_OPENAI_FALLBACK": False}))

        async def off() -> bool:
            listed = await stubs.enrichment.ListModels(enrichment_pb2.ListModelsRequest())
            return not listed.flags.use_openai_fallback

        await eventually(off)
        after = await stubs.enrichment.EnrichMetadata(request_for("genre", skip_cache=True))
        flags.write_text('{"USE_OPENAI_FALLBACK": tru')

        async def told() -> bool:
            listed = await stubs.enrichment.ListModels(enrichment_pb2.ListModelsRequest())
            assert not listed.flags.use_openai_fallback, "the last good file stays in force"
            return "not JSON" in listed.flags_problem

        await eventually(told)

    assert before.processing.fallback_used
    assert not after.processing.fallback_used
    assert len(here.openai.requests) == 1


async def test_list_models_tells_roles_breakers_and_what_is_wrong(tmp_path: Path) -> None:
    """An operator sees in one call why answers are poor."""
    async with world(tmp_path, refuses(500), answering(genre="Jazz")) as here:
        stubs = here.stubs
        for number in range(12):
            await stubs.enrichment.EnrichMetadata(
                request_for("genre", track=track_pb2.Track(title=f"T{number}"))
            )
        calls = len(here.qwen2.requests)
        await stubs.enrichment.EnrichMetadata(
            request_for("genre", track=track_pb2.Track(title="later"))
        )
        listed = await stubs.enrichment.ListModels(enrichment_pb2.ListModelsRequest())

    models = {model.name: model for model in listed.models}
    assert [model.role for model in listed.models] == ["primary", "fallback", "measurement"]
    assert models["qwen2"].breaker_state == enrichment_pb2.BREAKER_STATE_OPEN
    assert not models["qwen2"].ready
    assert "failed too often" in models["qwen2"].status
    assert models["openai"].breaker_state == enrichment_pb2.BREAKER_STATE_CLOSED
    assert models["openai"].ready
    assert "genre" in models["openai"].fields
    assert len(here.qwen2.requests) == calls


async def test_what_a_model_cost_today_is_told_and_outlives_a_restart(tmp_path: Path) -> None:
    """Per reply, per model and per day: the three sums are of the same calls."""
    prices = {"Qwen/Qwen2-Audio-7B-Instruct": (1.0, 10.0)}
    listed = []
    for title in ("A", "B"):
        async with world(
            tmp_path, answering(genre="Jazz"), refuses(500), model_prices=prices
        ) as here:
            answer = await here.stubs.enrichment.EnrichMetadata(
                request_for("genre", track=track_pb2.Track(title=title))
            )
            models = await here.stubs.enrichment.ListModels(enrichment_pb2.ListModelsRequest())
            listed.append(models.models[0].usage_today)

    assert answer.processing.usage.cost_usd > 0
    assert listed[0] == answer.processing.usage
    assert listed[1].prompt_tokens == 2 * listed[0].prompt_tokens
    assert listed[1].cost_usd == pytest.approx(2 * listed[0].cost_usd)
    assert not models.models[-1].HasField("usage_today"), "measuring costs nothing"


async def test_a_named_model_answers_alone(tmp_path: Path) -> None:
    """By option, by metadata, and not at all when there is no such model."""
    async with world(tmp_path, answering(genre="Jazz"), answering(genre="Rock")) as here:
        enrich = here.stubs.enrichment.EnrichMetadata
        by_option = await enrich(request_for("genre", model="openai"))
        by_metadata = await enrich(request_for("genre"), metadata=(("liner-model", "openai"),))
        embedded = await enrich(request_for("genre", model="embedded"))
        async with fails(grpc.StatusCode.INVALID_ARGUMENT) as failure:
            await enrich(request_for("genre", model="gpt"))

    assert failure.violations == {"options.model": "MODEL_UNKNOWN"}
    assert by_option.processing.model == by_metadata.processing.model == "openai"
    assert embedded.processing.model == "embedded"
    assert here.qwen2.requests == []


async def test_a_model_that_hears_is_sent_excerpts(tmp_path: Path) -> None:
    """Base64 WAV beside the text, cut in the listening process."""
    path = tmp_path / "song.ogg"
    write(path, render(Piece(bpm=120.0, key="A minor", seconds=8.0, seed=3)), 44_100)
    track = track_pb2.Track(title="A", audio=track_pb2.Audio(inline=path.read_bytes()))
    async with (
        scripted_model(answering(genre="Jazz"), models=MODELS) as model,
        served(tmp_path / "data", qwen2_endpoint=model.base_url) as (_, stubs),
    ):
        answer = await stubs.enrichment.EnrichMetadata(
            request_for("genre", track=track), timeout=50
        )

    # Besides the question there is the probe, which sends half a second of silence.
    parts = [
        part["input_audio"]["data"]
        for request in model.requests
        for message in request["messages"][1:]
        for part in message["content"]
        if part["type"] == "input_audio"
    ]
    assert len(parts[0]) == pytest.approx(8 * 32_000 * 4 / 3, rel=0.05)
    sources = {by_field(answer)["genre"].source, *by_field(answer)["genre"].agreed_by}
    sources |= {other.source for other in by_field(answer)["genre"].alternatives}
    assert sources >= {track_pb2.SOURCE_MODEL, track_pb2.SOURCE_MEASURED}


async def test_the_experimental_model_is_named_in_its_answers(tmp_path: Path) -> None:
    """A tenth of the tracks, always the same, as the request for a track tells."""
    async with (
        scripted_model(answering(genre="Soul"), models=MODELS) as tried,
        world(
            tmp_path,
            answering(genre="Jazz"),
            refuses(500),
            experimental_endpoint=tried.base_url,
            experimental_model="tried",
            experiment_name="qwen3",
            experiment_share=0.5,
            enable_experimental_model=True,
        ) as here,
    ):
        enrich = here.stubs.enrichment.EnrichMetadata
        answers = {}
        for number in range(12):
            track = track_pb2.Track(track_id=f"t{number}", title="Blue Hour")
            answers[number] = await enrich(request_for("genre", track=track))
            again = await enrich(request_for("genre", track=track))
            assert again.processing.variant == answers[number].processing.variant

    variants = {answer.processing.variant for answer in answers.values()}
    assert variants == {"control", "experimental"}
    for answer in answers.values():
        is_tried = answer.processing.variant == "experimental"
        assert answer.processing.experiment == "qwen3"
        assert answer.processing.is_experimental == is_tried
        assert by_field(answer)["genre"].value == ("Soul" if is_tried else "Jazz")


async def test_a_model_in_the_shadow_is_paid_and_neither_waited_for_nor_heard(
    tmp_path: Path,
) -> None:
    """Its calls and costs show in ListModels; what the caller gets is as if it were not there."""
    hidden = answering(genre="Soul")

    def late(request: dict[str, object]) -> Reply:
        return replace(hidden(request), first_byte_after=3)

    async with (
        scripted_model(late, models=MODELS) as tried,
        world(
            tmp_path,
            answering(genre="Jazz"),
            refuses(500),
            experimental_endpoint=tried.base_url,
            experimental_model="tried",
            experiment_name="qwen3",
            experiment_share=1.0,
            experiment_shadow=True,
            enable_experimental_model=True,
            model_prices={"tried": (1.0, 10.0)},
        ) as here,
    ):

        async def is_paid() -> bool:
            models = await here.stubs.enrichment.ListModels(enrichment_pb2.ListModelsRequest())
            return any(m.name == "experimental" and m.usage_today.cost_usd for m in models.models)

        began = time.monotonic()
        answer = await here.stubs.enrichment.EnrichMetadata(request_for("genre"))
        took = time.monotonic() - began
        await eventually(is_paid, within=20)

    assert took < 3
    assert by_field(answer)["genre"].value == "Jazz"
    assert {score.model.partition(":")[0] for score in by_field(answer)["genre"].model_scores} == {
        "qwen2"
    }
    assert answer.processing.usage.cost_usd == 0
    assert (answer.processing.variant, answer.processing.is_experimental) == ("experimental", False)


async def test_injected_orders_change_nothing_that_identifies_the_track(tmp_path: Path) -> None:
    """Through the whole service, to a model that obeys: no code, name or title but the caller's."""
    tried = [payload.track for payload in list(payloads())[::29]]
    async with world(tmp_path, Obeying(keeps_schema=True), refuses(500)) as here:
        answers = await asyncio.gather(
            *(
                here.stubs.enrichment.EnrichMetadata(
                    enrichment_pb2.EnrichMetadataRequest(track=track), timeout=30
                )
                for track in tried
            ),
            return_exceptions=True,
        )

    answered = 0
    for track, answer in zip(tried, answers, strict=True):
        if isinstance(answer, grpc.aio.AioRpcError):
            assert answer.code() == grpc.StatusCode.INVALID_ARGUMENT
            continue
        assert isinstance(answer, enrichment_pb2.EnrichMetadataResponse)
        answered += 1
        assert (answer.track.title, list(answer.track.artists), answer.track.isrc) == (
            track.title,
            list(track.artists),
            track.isrc,
        )
        assert SYSTEM_MARK not in str(answer)
        said = [r for r in answer.fields if r.source == track_pb2.SOURCE_MODEL]
        assert all(result.confidence <= 0.6 for result in said)
    assert answered >= len(tried) // 2
