"""Experiments through the whole service: drawn, counted, reviewed, reported, stopped, replayed."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from liner.v1 import analytics_pb2, enrichment_pb2, experiment_pb2, track_pb2
from liner_server.analytics.sqlite import SqliteSink
from liner_server.app import App
from liner_server.core.experiment import Experiment
from liner_server.experiments.service import Experiments
from liner_server.ports_analytics import Table, Tally, Window
from liner_server.telemetry import Telemetry
from support.asking import answering
from support.eventually import eventually
from support.grpc_errors import fails
from support.http import fetch
from support.scripted_model import Script, ScriptedModel, refuses, scripted_model
from support.server import Stubs, served

MODELS = ("Qwen/Qwen2-Audio-7B-Instruct", "tried")
KEEP = experiment_pb2.EXPERIMENT_VERDICT_KEEP_RUNNING
STOP = experiment_pb2.EXPERIMENT_VERDICT_STOP


@dataclass(frozen=True, kw_only=True)
class World:
    """A service with a primary model and one that is tried on half of the tracks."""

    app: App
    stubs: Stubs
    tried: ScriptedModel

    async def enrich(self, number: int, **options: object) -> enrichment_pb2.EnrichMetadataResponse:
        """Return the answer about a track of this number."""
        request = enrichment_pb2.EnrichMetadataRequest(
            track=track_pb2.Track(track_id=f"t{number}", title=f"Blue Hour {number}"),
            options=enrichment_pb2.EnrichOptions(min_confidence=0.5, **options),
        )
        request.options.fields.paths.append("genre")
        return await self.stubs.enrichment.EnrichMetadata(request, timeout=30)

    async def report(self) -> experiment_pb2.GetReportResponse:
        """Return the experiment's report."""
        return await self.stubs.experiment.GetReport(
            experiment_pb2.GetReportRequest(experiment_name="qwen3"), timeout=10
        )

    async def set_traffic(
        self, traffic: float, **more: object
    ) -> experiment_pb2.SetTrafficResponse:
        """Change the share of what is tried."""
        request = experiment_pb2.SetTrafficRequest(
            **{
                "experiment_name": "qwen3",
                "variant": "experimental",
                "traffic": traffic,
                "reason": "the test says so",
                **more,
            }
        )
        return await self.stubs.experiment.SetTraffic(request, timeout=10)

    async def metrics(self) -> str:
        """Return what Prometheus sees."""
        _, text = await fetch(f"http://{self.app.http_address}/metrics")
        return text


@asynccontextmanager
async def world(
    data_dir: Path, tried: Script | None = None, **overrides: object
) -> AsyncIterator[World]:
    """Yield the service; `tried` is what the tried model answers."""
    async with (
        scripted_model(answering(genre="Jazz"), models=MODELS) as usual,
        scripted_model(tried or answering(genre="Soul"), models=MODELS) as model,
        served(
            data_dir,
            **{
                "qwen2_endpoint": usual.base_url,
                "experimental_endpoint": model.base_url,
                "experimental_model": "tried",
                "experiment_name": "qwen3",
                "experiment_share": 0.5,
                "enable_experimental_model": True,
                "model_audio_windows": 0,
                "experiment_check_seconds": 1,
                "model_prices": {"tried": (10.0, 10.0)},
                **overrides,
            },
        ) as (app, stubs),
    ):
        yield World(app=app, stubs=stubs, tried=model)


async def reviewed(
    stubs: Stubs, answer: enrichment_pb2.EnrichMetadataResponse, *, accept: bool, name: str = ""
) -> None:
    """Let an editor judge an answer's genre, once it is stored."""
    request = enrichment_pb2.ReviewEnrichmentRequest(
        enrichment_id=answer.processing.enrichment_id, request_id=name
    )
    verdict = enrichment_pb2.VERDICT_ACCEPT if accept else enrichment_pb2.VERDICT_REJECT
    request.reviews.add(field="genre", verdict=verdict)

    async def stored() -> bool:
        try:
            await stubs.enrichment.ReviewEnrichment(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True

    await eventually(stored)


async def test_answers_and_reviews_become_a_report(tmp_path: Path) -> None:
    """What editors accepted of each variant is what decides which model is better."""
    async with world(tmp_path) as here:
        answers = [await here.enrich(number) for number in range(20)]
        await here.enrich(0)
        for answer in answers:
            is_tried = answer.processing.variant == "experimental"
            await reviewed(here.stubs, answer, accept=not is_tried, name="r")
            await reviewed(here.stubs, answer, accept=not is_tried, name="r")

        async def counted() -> bool:
            found = await here.report()
            fields = sum(one.reviewed_fields for one in found.variants)
            return fields == 20 and sum(one.tracks for one in found.variants) == 20

        await eventually(counted)
        report = await here.report()
        listed = await here.stubs.experiment.ListExperiments(
            experiment_pb2.ListExperimentsRequest(), timeout=10
        )
        metrics = await here.metrics()

    control, tried = report.variants
    drawn = sum(answer.processing.variant == "experimental" for answer in answers)
    assert (control.variant, tried.variant) == ("control", "experimental")
    assert (tried.tracks, tried.assigned_tracks, tried.reviewed_tracks) == (drawn,) * 3
    assert (control.accept_rate, tried.accept_rate) == (1.0, 0.0)
    assert (control.success_rate, tried.success_rate) == (1.0, 1.0)
    assert tried.cost_usd_per_track > control.cost_usd_per_track == 0
    assert tried.latency_p50.ToTimedelta().total_seconds() > 0
    assert sum(tried.confidence_histogram) == drawn
    assert report.deciding_metric == "accept_rate"
    # Twenty tracks prove nothing, however clear they look.
    assert report.verdict == KEEP
    assert "too few" in report.verdict_reason
    metric = {(d.variant, d.metric): d for d in report.differences}
    assert metric["experimental", "accept_rate"].estimate == -1.0
    [experiment] = listed.experiments
    assert experiment.running
    assert [v.traffic for v in experiment.variants] == [0.5, 0.5]
    assert f'{{experiment="qwen3",variant="experimental"}} {drawn}' in metrics.replace(".0", "")
    assert 'analytics_rows_total{outcome="dropped"} 0.0' in metrics


async def test_a_guardrail_stops_what_fails_and_keeps_it_stopped(tmp_path: Path) -> None:
    """Nobody looks at three in the morning; the variant that breaks answers must stop by itself."""
    async with world(tmp_path, refuses(400)) as here:
        for begin in range(0, 300, 20):
            await asyncio.gather(*(here.enrich(begin + n) for n in range(20)))

        async def stopped() -> bool:
            return not (await here.report()).experiment.running

        await eventually(stopped, within=30)
        report = await here.report()
        asked = len(here.tried.requests)
        after = [await here.enrich(1000 + number) for number in range(10)]
        metrics = await here.metrics()
        async with fails(grpc.StatusCode.FAILED_PRECONDITION) as refused:
            await here.set_traffic(0.1)

        assert report.experiment.stop_reason.startswith("(guardrail): ")
        assert "fewer answers succeed" in report.experiment.stop_reason
        assert report.verdict == STOP
        assert len(here.tried.requests) == asked
        assert {answer.processing.experiment for answer in after} == {""}
        assert (
            'experiment_guardrail_stopped{experiment="qwen3",variant="experimental"} 1' in metrics
        )
        assert refused.reason == "VARIANT_STOPPED"

    async with world(tmp_path) as again:
        assert not (await again.report()).experiment.running
        # Somebody has looked and leaves it off: the alert ends, and nothing else.
        await again.set_traffic(0, reason="seen")
        assert (
            'experiment_guardrail_stopped{experiment="qwen3",variant="experimental"} 0'
            in await again.metrics()
        )
        assert "fewer answers succeed" in (await again.report()).experiment.stop_reason
        async with fails(grpc.StatusCode.FAILED_PRECONDITION) as still:
            await again.set_traffic(0.2)
        assert still.reason == "VARIANT_STOPPED"
        answer = await again.set_traffic(0.2, force=True, reason="mended")
        assert answer.experiment.variants[1].traffic == 0.2
        # What stopped it is behind it: the guardrail must not stop it for the same tracks again.
        assert (await again.report()).verdict == KEEP


async def test_a_guardrail_stops_though_the_disk_takes_nothing(tmp_path: Path) -> None:
    """A full disk must not keep a variant that breaks answers running; it is written down later."""
    async with world(tmp_path, refuses(400)) as here:
        # Where the fresh file would be written nothing can be.
        in_the_way = tmp_path / f"experiments.json.{os.getpid()}.new"
        in_the_way.mkdir()
        for begin in range(0, 300, 20):
            await asyncio.gather(*(here.enrich(begin + n) for n in range(20)))

        async def stopped() -> bool:
            return not (await here.report()).experiment.running

        await eventually(stopped, within=30)
        async with fails(grpc.StatusCode.FAILED_PRECONDITION) as refused:
            await here.set_traffic(0.1, force=True)
        assert refused.reason == "DISK"
        assert "(guardrail)" not in (tmp_path / "experiments.json").read_text()
        in_the_way.rmdir()
        await eventually(lambda: "(guardrail)" in (tmp_path / "experiments.json").read_text())


async def test_a_process_without_guards_follows_and_stops_nothing(tmp_path: Path) -> None:
    """Of many workers on one BigQuery one look is enough; what is stopped is stopped for all."""
    async with world(tmp_path, refuses(400), experiment_guard=False) as here:
        for begin in range(0, 300, 20):
            await asyncio.gather(*(here.enrich(begin + n) for n in range(20)))

        async def judged() -> bool:
            return (await here.report()).verdict == STOP

        await eventually(judged)
        before = await here.metrics()
        # Another server's stop, as this one finds it in the analytics.
        stop = analytics_pb2.TrafficRow(
            row_id="another",
            time=time.time_ns() // 1000,
            experiment="qwen3",
            variant="experimental",
            principal="(guardrail)",
            reason="it fails",
            stopped=True,
        )
        analytics = SqliteSink(tmp_path / "analytics.sqlite")
        async with analytics as sink:
            assert (await here.report()).experiment.running
            await sink.insert(Table.TRAFFIC, [stop])

        async def stopped() -> bool:
            return not (await here.report()).experiment.running

        await eventually(stopped)

    assert 'experiment_guardrail_stopped{experiment="qwen3",variant="experimental"} 0' in before


class SlowSink(SqliteSink):
    """Counts as slowly as a file of millions of rows."""

    looks = 0

    async def tally(self, window: Window, *, bins: bool = True) -> Tally:
        """Count after a while."""
        self.looks += 1
        await asyncio.sleep(0.2)
        return await super().tally(window, bins=bins)


async def test_looks_at_many_tracks_leave_the_machine_to_others(tmp_path: Path) -> None:
    """A count that takes half a minute, once a minute, would take half a core for ever."""
    async with (
        SlowSink(tmp_path / "a.sqlite") as sink,
        Experiments(
            [Experiment(name="e")],
            sink=sink,
            rows=None,
            state=tmp_path / "experiments.json",
            observer=Telemetry(),
            check_every=timedelta(hours=1),
        ) as experiments,
    ):
        await eventually(lambda: sink.looks == 1)
        before = time.monotonic()
        await eventually(lambda: experiments._look_after > before)
        for _ in range(5):
            await experiments.check()

    assert sink.looks == 1 or time.monotonic() - before > 1.5


async def test_a_share_that_was_set_outlives_a_restart_and_the_settings(tmp_path: Path) -> None:
    """A ramp must not fall back because a server was started again."""
    async with world(tmp_path) as here:
        await here.set_traffic(0.25)
        answers = [await here.enrich(number) for number in range(12)]
    async with world(tmp_path, experiment_share=0.9) as again:
        report = await again.report()
        same = [await again.enrich(number, skip_cache=True) for number in range(12)]

    assert [v.traffic for v in report.experiment.variants] == [0.75, 0.25]
    assert [a.processing.variant for a in same] == [a.processing.variant for a in answers]


async def test_the_settings_move_a_share_that_nobody_set(tmp_path: Path) -> None:
    """Whoever works by settings alone changes them and starts again."""
    async with world(tmp_path):
        pass
    async with world(tmp_path, experiment_share=0.2) as again:
        report = await again.report()

    assert report.experiment.variants[1].traffic == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"traffic": 1.5}, "traffic"),
        ({"traffic": float("nan")}, "traffic"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 257}, "reason"),
        ({"experiment_name": ""}, "experiment_name"),
        ({"request_id": "a\nb"}, "request_id"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(
    tmp_path: Path, wrong: dict[str, object], field: str
) -> None:
    """Every field at fault is named."""
    async with world(tmp_path) as here:
        async with fails(grpc.StatusCode.INVALID_ARGUMENT) as failure:
            await here.set_traffic(**{"traffic": 0.5, **wrong})  # type: ignore[arg-type]

        assert list(failure.violations) == [field]


async def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """A typing error must not create or stop anything."""
    async with world(tmp_path) as here:
        async with fails(grpc.StatusCode.NOT_FOUND) as unknown:
            await here.set_traffic(0.1, experiment_name="other")
        async with fails(grpc.StatusCode.NOT_FOUND) as control:
            await here.set_traffic(0.1, variant="control")
        async with fails(grpc.StatusCode.NOT_FOUND):
            await here.stubs.experiment.GetReport(
                experiment_pb2.GetReportRequest(experiment_name="no"), timeout=10
            )

    assert (unknown.reason, control.reason) == ("EXPERIMENT_UNKNOWN", "VARIANT_UNKNOWN")


async def test_without_analytics_experiments_draw_but_report_nothing(tmp_path: Path) -> None:
    """OFF is said, not shown as an empty report that looks like no difference."""
    async with world(tmp_path, analytics="off") as here:
        answer = await here.enrich(1)
        async with fails(grpc.StatusCode.FAILED_PRECONDITION) as failure:
            await here.report()

    assert answer.processing.experiment == "qwen3"
    assert failure.reason == "ANALYTICS_OFF"
    assert not (tmp_path / "analytics").exists()


async def test_a_replay_asks_again_and_counts_nowhere(tmp_path: Path) -> None:
    """What a model would have said, in an hour, for a bounded price, with nobody's traffic."""
    async with world(tmp_path, experiment_share=0.0) as here:
        answers = [await here.enrich(number) for number in range(12)]
        for answer in answers:
            await reviewed(here.stubs, answer, accept=True)
        before = len(here.tried.requests)
        steps = [
            step
            async for step in here.stubs.experiment.ReplayEnrichments(
                experiment_pb2.ReplayEnrichmentsRequest(model="experimental", max_cost_usd=5.0),
                timeout=30,
            )
        ]
        stored = await here.stubs.enrichment.ListEnrichments(
            enrichment_pb2.ListEnrichmentsRequest(page_size=500), timeout=10
        )

    last = steps[-1]
    control, replayed = last.report.variants
    assert (last.replayed, last.skipped) == (12, 0)
    assert len(here.tried.requests) - before == 12
    assert last.cost_usd > 0
    assert len(stored.enrichments) == 12
    assert (control.variant, replayed.variant) == ("stored", "replay")
    # Editors accepted Jazz; the model that was replayed says Soul.
    assert (control.accept_rate, replayed.accept_rate) == (1.0, 0.0)
    assert replayed.cost_usd_per_track == pytest.approx(last.cost_usd / 12)


async def test_a_replay_ends_at_its_bounds(tmp_path: Path) -> None:
    """Money first: no question is begun once it is spent."""
    async with world(tmp_path, experiment_share=0.0) as here:
        for number in range(8):
            await here.enrich(number)

        async def all_stored() -> bool:
            found = await here.stubs.enrichment.ListEnrichments(
                enrichment_pb2.ListEnrichmentsRequest(), timeout=10
            )
            return len(found.enrichments) == 8

        await eventually(all_stored)

        async def replay(**asked: object) -> experiment_pb2.ReplayEnrichmentsResponse:
            request = experiment_pb2.ReplayEnrichmentsRequest(
                **{"model": "experimental", "max_cost_usd": 5.0, "max_in_flight": 1, **asked}
            )
            call = here.stubs.experiment.ReplayEnrichments(request, timeout=30)
            return [step async for step in call][-1]

        one = await replay(max_cost_usd=0.000001)
        three = await replay(max_tracks=3)
        async with fails(grpc.StatusCode.INVALID_ARGUMENT) as free:
            await replay(max_cost_usd=0)
        async with fails(grpc.StatusCode.INVALID_ARGUMENT) as unknown:
            await replay(model="none")

    assert (one.replayed, one.out_of_money) == (1, True)
    assert (three.replayed, three.out_of_money) == (3, False)
    assert list(free.violations) == ["max_cost_usd"]
    assert list(unknown.violations) == ["model"]
