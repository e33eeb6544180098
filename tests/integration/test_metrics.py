"""What a live server exports is what alerts and dashboards stand on."""

from pathlib import Path

import pytest
from performance.bench_series import attacked
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from support.http import fetch
from support.monitoring import DASHBOARDS, metrics_in, panel_queries, rules
from support.scripted_model import refuses, scripted_model
from support.server import served

_PARTS = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gauge": ("",),
}
_OF_PROMETHEUS = {"up", "ALERTS"}


@pytest.fixture
async def exported(tmp_path: Path) -> set[str]:
    """Names of all series that a server with a model exports."""
    async with (
        scripted_model(refuses(500)) as model,
        served(tmp_path, qwen2_endpoint=model.base_url, daily_budget_usd=1) as (app, _),
    ):
        code, text = await fetch(f"http://{app.http_address}/metrics")
    assert code == 200
    return {
        family.name + part
        for family in text_string_to_metric_families(text)
        for part in _PARTS[family.type]
    }


async def test_every_series_that_is_asked_for_exists(exported: set[str]) -> None:
    """A renamed metric turns an alert into one that never fires."""
    asked = {name for rule in rules() for name in metrics_in(rule["expr"])}
    for path in DASHBOARDS:
        for query in panel_queries(path):
            asked |= metrics_in(query)
    recorded = {rule["record"] for rule in rules() if "record" in rule}

    assert "ai_confidence_score" in asked
    assert asked - recorded - _OF_PROMETHEUS - exported == set()


async def test_the_names_that_were_agreed_are_kept(exported: set[str]) -> None:
    """Others have dashboards and alerts of their own on these."""
    assert {
        "ai_processing_latency_seconds_bucket",
        "queue_size",
        "ai_confidence_score",
        "ai_requests_total",
        "ai_fallback_total",
        "ai_retry_attempts_total",
        "ai_tokens_total",
        "ai_cost_usd_total",
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_msg_received_total",
        "grpc_server_msg_sent_total",
        "grpc_server_handling_seconds_bucket",
    } <= exported


async def test_prometheus_gets_openmetrics_when_it_asks(tmp_path: Path) -> None:
    """Only that form carries exemplars; a strict parser reads the whole of it."""
    async with served(tmp_path) as (app, _):
        code, text = await fetch(
            f"http://{app.http_address}/metrics",
            accept="application/openmetrics-text; version=1.0.0",
        )

    assert code == 200
    assert text.endswith("# EOF\n")
    assert {"ai_requests", "queue_size"} <= {family.name for family in openmetrics_families(text)}


async def test_requests_make_no_series(tmp_path: Path) -> None:
    """A label that a caller fills is memory that a caller takes; the bench sends 100,000."""
    async with served(tmp_path) as (app, stubs):
        await attacked(stubs, 0, 200)
        before = await _series(app.http_address)
        await attacked(stubs, 200, 1_600)
        after = await _series(app.http_address)

    assert after == before


async def _series(address: str) -> list[tuple[str, dict[str, str]]]:
    _, text = await fetch(f"http://{address}/metrics")
    return [
        (sample.name, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
