"""One trace from the caller to the model, through the queue as well; on a real collector."""

import re
import time
from pathlib import Path

import grpc
import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.settings import SettingsError, load
from support.collector import attributes_of, collector
from support.eventually import eventually
from support.grpc_errors import fails
from support.http import fetch
from support.pubsub_emulator import create, fresh_names, settings_on, shared_emulator
from support.scripted_model import refuses, scripted_model
from support.server import served

_TRACE, _PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{_TRACE}-{_PARENT}-01"
MODEL = "Qwen/Qwen2-Audio-7B-Instruct"
ENRICH = "liner.v1.EnrichmentService/EnrichMetadata"
SUBMIT = "liner.v1.EnrichmentService/SubmitEnrichment"


def _request(title: str) -> enrichment_pb2.EnrichMetadataRequest:
    return enrichment_pb2.EnrichMetadataRequest(track=track_pb2.Track(title=title))


async def test_a_call_goes_on_with_its_callers_trace_down_to_the_model(tmp_path: Path) -> None:
    """Whoever looks at a slow call sees what it waited for, and what the model's fault was."""
    async with collector() as spans:
        async with (
            scripted_model(refuses(400), models=(MODEL,)) as model,
            served(
                tmp_path,
                qwen2_endpoint=model.base_url,
                otlp_endpoint=spans.endpoint,
                model_audio_windows=0,
            ) as (_, stubs),
        ):
            await stubs.enrichment.EnrichMetadata(
                _request("secret title"), metadata=(("traceparent", TRACEPARENT),)
            )
        # Stopping the service has sent what was left.
        [call], [chat] = spans.named(ENRICH), spans.named(f"chat {MODEL}")

    assert call.trace_id.hex() == chat.trace_id.hex() == _TRACE
    assert call.parent_span_id.hex() == _PARENT
    assert call.kind == call.SPAN_KIND_SERVER
    assert attributes_of(call)["rpc.grpc.status_code"] == 0
    assert chat.kind == chat.SPAN_KIND_CLIENT
    assert chat.status.code == chat.status.STATUS_CODE_ERROR
    assert chat.status.message == "MODEL_REQUEST_REFUSED"
    assert spans.services == {"liner-server"}
    assert b"secret title" not in b"".join(span.SerializeToString() for span in spans.spans)


async def _on_pubsub() -> dict[str, str]:
    """Return the settings of a service on topics of its own."""
    names = fresh_names()
    await create(shared_emulator(), names)
    return settings_on(names)


@pytest.mark.parametrize("queue", ["sqlite", "pubsub"])
async def test_a_job_is_in_the_trace_of_who_submitted_it(tmp_path: Path, queue: str) -> None:
    """The hop through the queue must not cut the trace."""
    settings = await _on_pubsub() if queue == "pubsub" else {}
    async with collector() as spans:
        async with served(tmp_path, otlp_endpoint=spans.endpoint, **settings) as (_, stubs):
            submitted = await stubs.enrichment.SubmitEnrichment(
                enrichment_pb2.SubmitEnrichmentRequest(track=track_pb2.Track(title="x")),
                metadata=(("traceparent", TRACEPARENT),),
            )

            async def done() -> bool:
                found = await stubs.enrichment.GetEnrichment(
                    enrichment_pb2.GetEnrichmentRequest(enrichment_id=submitted.job_id)
                )
                return bool(found.enrichment.state == enrichment_pb2.ENRICHMENT_STATE_DONE)

            await eventually(done)
        [call], [publish], [process] = (
            spans.named(name) for name in (SUBMIT, "publish job", "process job")
        )

    assert {span.trace_id.hex() for span in (call, publish, process)} == {_TRACE}
    assert publish.parent_span_id == call.span_id
    assert process.parent_span_id == publish.span_id
    assert process.kind == process.SPAN_KIND_CONSUMER
    assert attributes_of(process)["messaging.message.id"] == submitted.job_id


async def test_failures_of_all_kinds_of_calls_end_their_spans(tmp_path: Path) -> None:
    """A span that is never ended is never sent."""
    async with collector() as spans:
        async with served(tmp_path, otlp_endpoint=spans.endpoint) as (_, stubs):
            async with fails(grpc.StatusCode.INVALID_ARGUMENT):
                await stubs.enrichment.EnrichMetadata(enrichment_pb2.EnrichMetadataRequest())
            async with fails(grpc.StatusCode.INVALID_ARGUMENT):
                async for _ in stubs.enrichment.BatchProcess(iter([])):
                    pass
        ended = [*spans.named(ENRICH), *spans.named("liner.v1.EnrichmentService/BatchProcess")]

    assert [span.status.message for span in ended] == ["INVALID_ARGUMENT"] * 2


async def test_a_garbled_context_begins_a_trace_of_its_own(tmp_path: Path) -> None:
    """It comes from outside: no call may fail for it."""
    async with collector() as spans:
        async with served(tmp_path, otlp_endpoint=spans.endpoint) as (_, stubs):
            for garbled in ("00-zz-zz-01", "x" * 2000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
                await stubs.enrichment.EnrichMetadata(
                    _request("x"), metadata=(("traceparent", garbled),)
                )
        calls = spans.named(ENRICH)

    assert len({span.trace_id for span in calls}) == 3
    assert not any(span.parent_span_id for span in calls)


async def test_what_is_not_sampled_is_not_sent_and_shown_nowhere(tmp_path: Path) -> None:
    """A share of 0 leaves only the traces that callers ask for; exemplars point to nothing else."""
    async with collector() as spans:
        async with served(tmp_path, otlp_endpoint=spans.endpoint, traces_share=0) as (app, stubs):
            await stubs.enrichment.EnrichMetadata(_request("x"))
            _, without = await _openmetrics(app.http_address)
            await stubs.enrichment.EnrichMetadata(
                _request("y"), metadata=(("traceparent", TRACEPARENT),)
            )
            _, text = await _openmetrics(app.http_address)
        calls = spans.named(ENRICH)

    assert [span.trace_id.hex() for span in calls] == [_TRACE]
    assert "trace_id" not in without
    for name in ("ai_processing_latency_seconds_bucket", "grpc_server_handling_seconds_bucket"):
        assert re.search(rf'^{name}.* # {{trace_id="{_TRACE}"}} ', text, re.MULTILINE)


async def test_a_collector_that_is_gone_holds_nothing_up(tmp_path: Path) -> None:
    """Tracing is a help and no dependency."""
    async with served(tmp_path, otlp_endpoint="http://127.0.0.1:1") as (app, stubs):
        for _ in range(5):
            await stubs.enrichment.EnrichMetadata(_request("x"))
        await app.stop()
        began = time.monotonic()

    assert time.monotonic() - began < 5


def test_an_endpoint_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in an address would be logged by whoever prints addresses."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:key@collector:4317")

    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        load()


async def _openmetrics(address: str) -> tuple[int, str]:
    return await fetch(f"http://{address}/metrics", accept="application/openmetrics-text")
