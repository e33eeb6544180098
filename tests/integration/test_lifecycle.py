"""The server as a process: starting, refusing to start, being watched, stopping."""

import asyncio
import sys
from pathlib import Path

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from liner.v1 import enrichment_pb2, queue_admin_pb2, storage_pb2, track_pb2
from liner_server.rpc.identity import new_token
from support.grpc_errors import fails
from support.http import fetch
from support.server import connected, served, server_process

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def request_for(**track: object) -> enrichment_pb2.EnrichMetadataRequest:
    """Return a request for a track with these fields."""
    return enrichment_pb2.EnrichMetadataRequest(track=track_pb2.Track(**track))


async def test_a_process_serves_answers_and_stops_on_sigterm(tmp_path: Path):
    """The whole life of a container: ready line, calls, SIGTERM, exit code 0 in time."""
    async with server_process(tmp_path) as server:
        async with connected(server.grpc_address) as stubs:
            health = health_pb2_grpc.HealthStub(stubs.channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            enriched = await stubs.enrichment.EnrichMetadata(request_for(title="x"), timeout=5)
        exit_code = await server.terminate()

    assert answer.status == SERVING
    assert enriched.track.title == "x"
    assert exit_code == 0


async def test_work_in_flight_is_finished_when_the_process_is_told_to_stop(tmp_path: Path):
    """A deployment in the middle of the night loses no call that was taken."""
    from liner_server.evaluation.encode import write
    from liner_server.evaluation.synth import Piece, render

    song = tmp_path / "song.ogg"
    write(song, render(Piece(bpm=100.0, key="C major", seconds=20.0)), 44_100)
    # Longer than three songs take on a busy machine.
    patient = {"LINER_DRAIN_SECONDS": "40"}
    async with (
        server_process(tmp_path / "data", patient) as server,
        connected(server.grpc_address) as stubs,
    ):
        calls = [
            asyncio.ensure_future(
                stubs.enrichment.EnrichMetadata(
                    request_for(title=f"t{n}", audio=track_pb2.Audio(inline=song.read_bytes())),
                    timeout=50,
                )
            )
            for n in range(3)
        ]
        text = ""
        while "liner_in_flight 3.0" not in text:
            _, text = await fetch(f"http://{server.http_address}/metrics")
        exit_code = await server.terminate(within=45)
        answers = await asyncio.gather(*calls)

    assert exit_code == 0
    assert [a.track.title for a in answers] == ["t0", "t1", "t2"]
    assert all(a.track.properties.container == "ogg" for a in answers)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"LINER_GRPC_ADDRESS": "0.0.0.0:0"}, "LINER_TOKENS_FILE"),
        ({"LINER_GRPC_ADDRESS": "nonsense"}, "LINER_GRPC_ADDRESS"),
        ({"LINER_TOKENS_FILE": "does-not-exist"}, "LINER_TOKENS_FILE"),
    ],
)
async def test_a_server_that_must_not_start_says_why_in_a_line(environment, says):
    """Exit code 2, the variable's name, no traceback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "liner_server",
        "serve",
        env={"PATH": "/usr/bin:/bin", "LINER_HTTP_ADDRESS": "127.0.0.1:0", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()

    assert process.returncode == 2
    assert says in err.decode()
    assert "Traceback" not in err.decode()
    assert out == b""


async def test_health_is_told_a_service_at_a_time(tmp_path: Path):
    """A load balancer may ask for the one service it routes to."""
    async with served(tmp_path) as (_, stubs):
        health = health_pb2_grpc.HealthStub(stubs.channel)

        async def status(service: str) -> int:
            request = health_pb2.HealthCheckRequest(service=service)
            return int((await health.Check(request)).status)

        assert await status("") == SERVING
        assert await status("liner.v1.EnrichmentService") == SERVING
        assert await status("liner.v1.StorageService") == SERVING
        assert await status("liner.v1.QueueAdmin") == SERVING
        assert await status("liner.v1.ExperimentAdmin") == SERVING
        async with fails(grpc.StatusCode.NOT_FOUND):
            await status("liner.v1.Nothing")


async def test_stopping_turns_health_before_it_ends_anything(tmp_path: Path):
    """New work goes elsewhere while the old is finished."""
    async with served(tmp_path) as (app, stubs):
        watch = health_pb2_grpc.HealthStub(stubs.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING

        stopping = asyncio.create_task(app.stop())
        assert (await watch.read()).status == NOT_SERVING
        code, _ = await fetch(f"http://{app.http_address}/healthz")
        watch.cancel()
        await stopping

    assert code == 503


async def test_whoever_only_watches_does_not_hold_up_stopping(tmp_path: Path):
    """Watches of health and reflection never end by themselves; every deployment would wait."""
    async with served(tmp_path, drain_seconds=30.0) as (app, stubs):
        watch = health_pb2_grpc.HealthStub(stubs.channel).Watch(health_pb2.HealthCheckRequest())
        reflect = reflection_pb2_grpc.ServerReflectionStub(stubs.channel).ServerReflectionInfo()
        await watch.read()
        await reflect.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await reflect.read()

        async with asyncio.timeout(10):
            await app.stop()

        assert (await watch.read()).status == NOT_SERVING


async def test_grpcurl_can_ask_for_the_contract_and_the_sockets(tmp_path: Path):
    """Reflection and channelz are what an operator has without the protos at hand."""
    async with served(tmp_path) as (_, stubs):
        reflect = reflection_pb2_grpc.ServerReflectionStub(stubs.channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        listed = {service.name for service in (await reflect.read()).list_services_response.service}
        servers = await channelz_pb2_grpc.ChannelzStub(stubs.channel).GetServers(
            channelz_pb2.GetServersRequest()
        )

    assert {
        "liner.v1.EnrichmentService",
        "liner.v1.ExperimentAdmin",
        "liner.v1.QueueAdmin",
        "liner.v1.StorageService",
        "grpc.health.v1.Health",
    } <= listed
    assert len(servers.server) >= 1


async def test_calls_are_counted_under_known_names_only(tmp_path: Path):
    """The series an alert stands on exist; what callers type makes none."""
    async with served(tmp_path) as (app, stubs):
        for _ in range(10):
            await stubs.enrichment.EnrichMetadata(request_for(title="x"))
        for n in range(20):
            method = stubs.channel.unary_unary(f"/made.up.Service{n}/Method")
            async with fails(grpc.StatusCode.UNIMPLEMENTED):
                await method(b"")
            async with fails(grpc.StatusCode.INVALID_ARGUMENT):
                await stubs.enrichment.EnrichMetadata(
                    request_for(title="x"), metadata=(("liner-model", f"typed-{n}"),)
                )
        code, text = await fetch(f"http://{app.http_address}/metrics")

    assert code == 200
    assert 'ai_requests_total{model="embedded",operation="enrich",outcome="ok"} 10.0' in text
    assert 'ai_confidence_score{model="embedded"}' in text
    assert 'ai_processing_latency_seconds_bucket{le="0.1",model="embedded"' in text
    ok = 'grpc_method="EnrichMetadata",grpc_service="liner.v1.EnrichmentService"'
    assert f'grpc_server_handled_total{{grpc_code="OK",{ok},grpc_type="UNARY"}} 10.0' in text
    assert "made.up" not in text
    assert "typed-" not in text


async def test_a_stream_is_counted_message_by_message(tmp_path: Path):
    """py-grpc-prometheus leaves these gaps for streams; ours does not."""
    async with served(tmp_path) as (app, stubs):
        stream = stubs.enrichment.BatchProcess(
            iter(
                [
                    enrichment_pb2.BatchProcessRequest(config=enrichment_pb2.BatchConfig()),
                    enrichment_pb2.BatchProcessRequest(
                        items=enrichment_pb2.BatchItems(
                            items=[
                                enrichment_pb2.BatchItem(
                                    item_id="a", track=track_pb2.Track(title="x")
                                )
                            ]
                        )
                    ),
                ]
            )
        )
        received = [response async for response in stream]
        _, text = await fetch(f"http://{app.http_address}/metrics")

    labels = (
        'grpc_method="BatchProcess",grpc_service="liner.v1.EnrichmentService",'
        'grpc_type="BIDI_STREAMING"'
    )
    assert f"grpc_server_msg_received_total{{{labels}}} 2.0" in text
    assert f"grpc_server_msg_sent_total{{{labels}}} {len(received)}.0" in text
    assert f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 1.0' in text


async def test_with_tokens_every_method_is_closed_to_strangers(tmp_path: Path):
    """All four kinds of stream are refused alike; only health stays open."""
    token, line = new_token("ingest", ["enrich"])
    tokens = tmp_path / "tokens"
    tokens.write_text(line + "\n")
    async with served(tmp_path / "data", tokens_file=tokens) as (_, stubs):
        upload = [storage_pb2.UploadRequest(spec=storage_pb2.UploadSpec(object_name="a"))]
        batch = [enrichment_pb2.BatchProcessRequest(config=enrichment_pb2.BatchConfig())]

        async with fails(grpc.StatusCode.UNAUTHENTICATED) as failure:
            await stubs.enrichment.EnrichMetadata(request_for(title="x"))
        async with fails(grpc.StatusCode.UNAUTHENTICATED):
            await stubs.storage.Upload(iter(upload))
        async with fails(grpc.StatusCode.UNAUTHENTICATED):
            async for _ in stubs.storage.Download(storage_pb2.DownloadRequest(object_name="a")):
                pass
        async with fails(grpc.StatusCode.UNAUTHENTICATED):
            async for _ in stubs.enrichment.BatchProcess(iter(batch)):
                pass
        bearer = (("authorization", f"Bearer {token}"),)
        await stubs.enrichment.EnrichMetadata(request_for(title="x"), metadata=bearer)
        async with fails(grpc.StatusCode.PERMISSION_DENIED) as denied:
            await stubs.queue.GetStats(queue_admin_pb2.GetStatsRequest(), metadata=bearer)
        health = health_pb2_grpc.HealthStub(stubs.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING

    assert failure.message == "valid credentials are required"
    assert denied.reason == "ROLE_MISSING"
    assert token not in line


@pytest.mark.parametrize(
    "metadata",
    [
        (("liner-request-id", "x" * 200),),
        (("liner-request-id", "a"), ("liner-request-id", "b")),
        (("liner-model", "a b"),),
    ],
)
async def test_metadata_that_cannot_be_used_is_refused(tmp_path: Path, metadata):
    """It would end up in logs and stored results."""
    async with (
        served(tmp_path) as (_, stubs),
        fails(grpc.StatusCode.INVALID_ARGUMENT) as failure,
    ):
        await stubs.enrichment.EnrichMetadata(request_for(title="x"), metadata=metadata)

    assert failure.violations == {f"metadata.{metadata[0][0]}": "METADATA_FORMAT"}


async def test_overload_is_refused_fast_with_a_time_to_come_back(tmp_path: Path):
    """RESOURCE_EXHAUSTED with RetryInfo and pushback; what runs is not disturbed."""
    broken = track_pb2.Audio(inline=b"fLaC" + bytes(1 << 20))
    async with served(tmp_path, max_in_flight=1) as (_, stubs):
        calls = [
            asyncio.ensure_future(
                stubs.enrichment.EnrichMetadata(request_for(audio=broken), timeout=20)
            )
            for _ in range(3)
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        codes = sorted(o.code().name for o in outcomes if isinstance(o, grpc.aio.AioRpcError))
        refused = next(
            o
            for o in outcomes
            if isinstance(o, grpc.aio.AioRpcError)
            and o.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        )

    assert codes == ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
    assert ("grpc-retry-pushback-ms", "1000") in list(refused.trailing_metadata() or ())
