"""Secrets leave the process nowhere: canaries wherever one is held, and a look everywhere."""

import asyncio
import hashlib
import subprocess
from pathlib import Path

import grpc
import pytest
from liner.v1 import enrichment_pb2, queue_admin_pb2, storage_pb2, track_pb2
from support.http import fetch
from support.scripted_model import Reply, json_reply, scripted_model
from support.server import connected, server_process

CANARIES = {
    "OPENAI_API_KEY": "sk-canary-openai-1f3a",
    "LINER_QWEN2_API_KEY": "canary-qwen2-77b0",
    "LINER_EXPERIMENTAL_API_KEY": "canary-experimental-9c2e",
}
CALLER = "canary-token-of-a-caller-5d41"
WRONG = "canary-wrong-token-0e6f"


def _echo(_: object) -> Reply:
    """Answer like a careless proxy: the error quotes every key there is."""
    quoted = {"error": {"message": " ".join([*CANARIES.values(), "Bearer"]), "type": "auth"}}
    return json_reply(quoted, 401)


async def test_no_canary_is_seen_anywhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Logs at DEBUG, metrics, errors, trailers, listings and process titles are all looked at."""
    tokens = tmp_path / "tokens"
    digest = hashlib.sha256(CALLER.encode()).hexdigest()
    tokens.write_text(f"{digest} ops admin\n")
    seen: list[str] = []
    async with scripted_model(_echo) as model:
        environment = {
            **CANARIES,
            "QWEN2_ENDPOINT": model.base_url,
            "LINER_OPENAI_ENDPOINT": model.base_url,
            "LINER_EXPERIMENTAL_ENDPOINT": model.base_url,
            "LINER_EXPERIMENTAL_MODEL": "tried",
            "ENABLE_EXPERIMENTAL_MODEL": "true",
            "LINER_EXPERIMENT_SHARE": "1",
            "LINER_TOKENS_FILE": str(tokens),
            "LINER_LOG_LEVEL": "DEBUG",
            "LINER_LOG_TRACK_IDS": "true",
        }
        async with server_process(tmp_path / "data", environment) as server:
            async with connected(server.grpc_address) as stubs:
                for token in (CALLER, WRONG):
                    bearer = (("authorization", f"Bearer {token}"),)
                    for model_name in ("", "qwen2", "openai"):
                        request = enrichment_pb2.EnrichMetadataRequest(
                            track=track_pb2.Track(title="x", track_id="t"),
                            options=enrichment_pb2.EnrichOptions(
                                model=model_name, require_model=True, skip_cache=True
                            ),
                        )
                        seen += await _told(stubs.enrichment.EnrichMetadata, request, bearer)
                    seen += await _told(
                        stubs.enrichment.ListModels, enrichment_pb2.ListModelsRequest(), bearer
                    )
                    seen += await _told(
                        stubs.queue.GetStats, queue_admin_pb2.GetStatsRequest(), bearer
                    )
                    seen += await _told(
                        stubs.storage.StatObject,
                        storage_pb2.StatObjectRequest(object_name="none"),
                        bearer,
                    )
            _, metrics = await fetch(f"http://{server.http_address}/metrics")
            seen += [metrics, await _process_titles(server.process.pid)]
            await server.terminate()
        asked = [headers.get("Authorization", "") for headers in model.headers]
    shown = capfd.readouterr()
    kept = [
        path.read_bytes().decode("latin-1")
        for path in (tmp_path / "data").rglob("*")
        if path.is_file()
    ]

    for secret in CANARIES.values():
        assert f"Bearer {secret}" in asked, "the key was in use"
    for secret in (*CANARIES.values(), CALLER, WRONG):
        for text in (shown.out, shown.err, *seen, *kept):
            assert secret not in text
    assert "MODEL" in "".join(seen), "failures of the models were told"


async def _told(call, request, metadata) -> list[str]:
    """Return everything that the caller is told."""
    try:
        return [str(await call(request, metadata=metadata, timeout=20))]
    except grpc.aio.AioRpcError as error:
        return [str(error), repr(error.trailing_metadata()), error.details() or ""]


async def _process_titles(pid: int) -> str:
    process = await asyncio.create_subprocess_exec(
        "ps", "-e", "-o", "pid,args", stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert str(pid) in out.decode()
    return out.decode()
