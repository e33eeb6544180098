"""`liner-server cleanup`: alone, beside a running server, with a token, on a bucket."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from liner.v1 import storage_pb2
from liner_server.objects.local import LocalObjectStore
from liner_server.ports import ObjectStore
from liner_server.rpc.identity import new_token
from support.fake_gcs import shared_gcs
from support.server import connected, server_process


async def put(store: ObjectStore, name: str, *, days: float, tier: str = "") -> None:
    """Store an object whose own time is so many days ago."""
    spec = storage_pb2.UploadSpec(object_name=name)
    if tier:
        spec.metadata["tier"] = tier
    spec.custom_time.FromSeconds(int(time.time() - days * 86_400))
    async with store.upload(spec) as upload:
        await upload.commit(storage_pb2.UploadFinish())


async def names(store: ObjectStore) -> list[str]:
    """All names but the server's own."""
    return [o.object_name for o in await store.list("") if not o.object_name.startswith(".liner/")]


async def cleanup(*options: str, **environment: str) -> tuple[int, str, str]:
    """Run the command; return its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "liner_server", "cleanup", *options),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


def row(out: str, kind: str) -> list[int]:
    """Return a kind's numbers: examined, due, deleted, noticed, held."""
    [line] = [line for line in out.splitlines() if line.startswith(kind + " ")]
    return [int(number) for number in line.split()[1:]]


async def test_alone_it_cleans_the_folder_and_writes_metrics(tmp_path: Path):
    """The table on standard output, each deletion in the log, metrics in a file."""
    data, metrics = tmp_path / "data", tmp_path / "liner.prom"
    async with LocalObjectStore(data / "objects") as store:
        await put(store, "temp/old", days=2)
        await put(store, "temp/new", days=0)

    code, out, errors = await cleanup("--metrics", str(metrics), LINER_DATA_DIR=str(data))

    assert (code, row(out, "temp")) == (0, [2, 1, 1, 0, 0]), errors
    assert '"object": "temp/old"' in errors
    assert 'retention_objects_total{outcome="deleted"} 1.0' in metrics.read_text()
    async with LocalObjectStore(data / "objects") as store:
        assert await names(store) == ["temp/new"]


async def test_too_much_is_refused_with_a_code_of_its_own(tmp_path: Path):
    """A CronJob fails loudly, and --force is the operator's word."""
    async with LocalObjectStore(tmp_path / "objects") as store:
        await put(store, "a", days=31, tier="free")
        await put(store, "b", days=1, tier="free")
    environment = {"LINER_DATA_DIR": str(tmp_path)}

    refused = await cleanup(**environment)
    dry = await cleanup("--dry-run", **environment)
    forced = await cleanup("--force", **environment)

    assert refused[0] == 3
    assert "1 of 2 objects" in refused[2]
    assert (dry[0], row(dry[1], "free")) == (0, [2, 1, 0, 0, 0])
    assert (forced[0], row(forced[1], "free")) == (0, [2, 1, 1, 0, 0])


@pytest.mark.parametrize("with_token", [False, True])
async def test_beside_a_server_the_server_does_it(tmp_path: Path, with_token: bool):
    """One process has the folder; the command asks it, and its metrics tell."""
    async with LocalObjectStore(tmp_path / "objects") as store:
        await put(store, "temp/old", days=2)
    environment = {"LINER_DATA_DIR": str(tmp_path)}
    server_environment = {}
    if with_token:
        token, line = new_token("cron", ["objects.admin"])
        (tmp_path / "tokens").write_text(line)
        environment["LINER_TOKEN"] = token
        server_environment["LINER_TOKENS_FILE"] = str(tmp_path / "tokens")

    async with server_process(tmp_path, server_environment) as server:
        environment["LINER_GRPC_ADDRESS"] = server.grpc_address
        code, out, errors = await cleanup(**environment)
        denied = await cleanup(**environment | {"LINER_TOKEN": "wrong-token-0000000000"})
        async with connected(server.grpc_address) as stubs:
            metadata = (("authorization", f"Bearer {environment.get('LINER_TOKEN', '')}"),)
            listed = await stubs.storage.RunCleanup(
                storage_pb2.RunCleanupRequest(validate_only=True), metadata=metadata
            )

    assert (code, row(out, "temp")) == (0, [1, 1, 1, 0, 0]), errors
    assert f"done by the server at {server.grpc_address}" in out
    assert denied[0] == (1 if with_token else 0)
    assert sum(count.examined for count in listed.counts) == 0


async def test_on_a_bucket_it_needs_no_server(tmp_path: Path):
    """As the CronJob runs it: nothing but the environment."""
    fake = shared_gcs()
    bucket = fake.new_bucket()
    async with fake.store(bucket, tmp_path / "scratch") as store:
        await put(store, "temp/old", days=2)
        await put(store, "pro/new", days=31, tier="pro")

        code, out, errors = await cleanup(
            LINER_OBJECTS="gcs",
            GCS_BUCKET=bucket,
            STORAGE_EMULATOR_HOST=fake.url,
            LINER_DATA_DIR=str(tmp_path),
        )

        assert (code, row(out, "temp"), row(out, "pro")) == (0, [1, 1, 1, 0, 0], [1, 0, 0, 0, 0])
        assert '"principal": "liner-server cleanup"' in errors
        assert await names(store) == ["pro/new"]


async def test_a_bucket_that_is_not_there_is_named(tmp_path: Path):
    """Exit code 2: setting up is wrong, and trying again will not help."""
    code, _, errors = await cleanup(
        LINER_OBJECTS="gcs",
        GCS_BUCKET="no-such-bucket",
        STORAGE_EMULATOR_HOST=shared_gcs().url,
        LINER_DATA_DIR=str(tmp_path),
    )

    assert code == 2
    assert "no-such-bucket" in errors
