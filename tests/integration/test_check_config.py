"""`liner-server check-config`: each part tried for real, nothing disturbed, nothing given away."""

import asyncio
import json
import os
import sys
from pathlib import Path

from liner_server.analytics.bigquery import Place
from liner_server.analytics.bigquery_setup import set_up
from support.bigquery_fake import fake_bigquery
from support.fake_gcs import shared_gcs
from support.pubsub_emulator import create, fresh_names, shared_emulator
from support.scripted_model import Reply, refuses, scripted_model
from support.server import served

MODEL = "Qwen/Qwen2-Audio-7B-Instruct"


async def check(folder: Path, **environment: str) -> tuple[int, dict[str, dict[str, str]], str]:
    """Run the command; return its exit code, the findings by part, and all it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "liner_server", "check-config", "--output", "json"),
        *("--timeout", "15"),
        env={
            **os.environ,
            "LINER_DATA_DIR": str(folder),
            "LINER_MODEL_AUDIO_WINDOWS": "0",
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(45):
        out, err = await process.communicate()
    text = out.decode() + err.decode()
    assert "Traceback" not in text
    found = [json.loads(line) for line in out.decode().splitlines()]
    assert process.returncode is not None
    return process.returncode, {finding["part"]: finding for finding in found}, text


async def test_with_nothing_configured_all_is_well_and_nothing_is_made(tmp_path: Path) -> None:
    """Looking must not begin a data folder, perhaps as another user than the server's."""
    code, found, _ = await check(tmp_path / "data")

    assert code == 0
    assert {finding["works"] for finding in found.values()} == {"works", "off"}
    assert {p for p, finding in found.items() if finding["works"] == "off"} >= {"qwen2", "openai"}
    assert list(tmp_path.iterdir()) == []


async def test_a_server_that_runs_is_not_disturbed(tmp_path: Path) -> None:
    """An operator asks while something is wrong, which is while it runs."""
    async with served(tmp_path) as _:
        code, found, _ = await check(tmp_path)

    assert code == 0
    assert "open in another process" in found["queue"]["detail"]
    assert "open in another process" in found["objects"]["detail"]


async def test_looking_at_a_folder_at_rest_leaves_nothing_in_it(tmp_path: Path) -> None:
    """A log that root's look left behind would lock the server's user out."""
    async with served(tmp_path) as _:
        pass
    before = sorted(tmp_path.rglob("*"))

    code, found, _ = await check(tmp_path)

    assert code == 0
    assert found["results"]["works"] == "works"
    assert sorted(tmp_path.rglob("*")) == before


async def test_a_damaged_file_is_found_and_kept(tmp_path: Path) -> None:
    """The server would refuse to write it; better to know before."""
    (tmp_path / "queue.sqlite").write_bytes(b"SQLite format 3\x00" + b"garbage " * 1000)
    before = (tmp_path / "queue.sqlite").read_bytes()

    code, found, _ = await check(tmp_path)

    assert code == 1
    assert found["queue"]["works"] == "FAILS"
    assert "queue.sqlite" in found["queue"]["detail"]
    assert (tmp_path / "queue.sqlite").read_bytes() == before


async def test_models_are_asked_and_their_faults_named(tmp_path: Path) -> None:
    """A wrong key, a wrong name and an endpoint that is not there are three different things."""
    key = "sk-canary-check-config"
    async with (
        scripted_model(Reply(), models=(MODEL,)) as good,
        scripted_model(refuses(401, message=f"bad key {key}"), models=("another",)) as bad,
    ):
        code, found, text = await check(
            tmp_path,
            QWEN2_ENDPOINT=good.base_url,
            OPENAI_API_KEY=key,
            LINER_OPENAI_ENDPOINT=bad.base_url,
            LINER_EXPERIMENTAL_ENDPOINT="http://127.0.0.1:1",
            LINER_EXPERIMENTAL_MODEL="tried",
        )
        asked = len(good.requests)

    assert code == 1
    assert (found["qwen2"]["works"], asked) == ("works", 0)
    assert found["openai"]["works"] == "FAILS"
    assert "gpt-4.1-mini" in found["openai"]["detail"]
    assert found["experimental"]["works"] == "FAILS"
    assert found["experimental"]["todo"]
    assert key not in text


async def test_pubsub_is_looked_through(tmp_path: Path) -> None:
    """What is missing is named with the command that makes it."""
    names = fresh_names()
    settings = {
        "LINER_QUEUE": "pubsub",
        "GOOGLE_CLOUD_PROJECT": names.project,
        "PUBSUB_TOPIC": names.topic,
        "PUBSUB_SUBSCRIPTION": names.subscription,
        "PUBSUB_EMULATOR_HOST": shared_emulator().address,
    }

    before, missing, _ = await check(tmp_path, **settings)
    await create(shared_emulator(), names)
    after, there, _ = await check(tmp_path, **settings)

    assert (before, missing["queue"]["works"]) == (1, "FAILS")
    assert "setup-cloud" in missing["queue"]["detail"]
    assert (after, there["queue"]["works"]) == (0, "works")


async def test_a_bucket_is_looked_at_and_nothing_cleared(tmp_path: Path) -> None:
    """A running server has its excerpts in the scratch folder."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "object-of-a-running-server").touch()
    fake = shared_gcs()
    settings = {
        "LINER_OBJECTS": "gcs",
        "LINER_RESULTS": "objects",
        "GCS_BUCKET": fake.new_bucket(),
        "STORAGE_EMULATOR_HOST": fake.url,
        "GOOGLE_CLOUD_PROJECT": "p",
    }

    there, found, _ = await check(tmp_path, **settings)
    gone, missing, _ = await check(tmp_path, **{**settings, "GCS_BUCKET": "not-there"})

    assert (there, found["objects"]["works"]) == (0, "works")
    assert (gone, missing["objects"]["works"]) == (1, "FAILS")
    assert "not-there" in missing["objects"]["detail"]
    assert (tmp_path / "scratch" / "object-of-a-running-server").exists()


async def test_tables_in_bigquery_are_looked_for(tmp_path: Path) -> None:
    """Rows of a table that is not there would wait on the disk for ever."""
    with fake_bigquery() as (_, address):
        settings = {
            "LINER_ANALYTICS": "bigquery",
            "GOOGLE_CLOUD_PROJECT": "p",
            "BIGQUERY_DATASET": "ai_metrics",
            "BIGQUERY_EMULATOR_HOST": address,
        }
        before, missing, _ = await check(tmp_path, **settings)
        async for _ in set_up(Place(project="p", dataset="ai_metrics", emulator=address)):
            pass
        after, there, _ = await check(tmp_path, **settings)

    assert (before, missing["analytics"]["works"]) == (1, "FAILS")
    assert missing["analytics"]["todo"] == "liner-server setup-cloud"
    assert (after, there["analytics"]["works"]) == (0, "works")


async def test_files_that_are_wrong_are_named(tmp_path: Path) -> None:
    """Each is optional, so the server may start without what was meant."""
    (tmp_path / "flags.json").write_text('{"USE_OPENAI_FALBACK": false}')
    (tmp_path / "calibration.json").write_text("[]")

    code, found, _ = await check(
        tmp_path,
        LINER_FLAGS_FILE=str(tmp_path / "flags.json"),
        LINER_CALIBRATION_FILE=str(tmp_path / "calibration.json"),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )

    assert code == 1
    assert "USE_OPENAI_FALBACK" in found["flags"]["detail"]
    assert "calibrate" in found["calibration"]["todo"]
    assert found["traces"]["works"] == "FAILS"


async def test_an_experiment_whose_model_is_not_configured_is_found(tmp_path: Path) -> None:
    """The server would refuse to start; so it does over shares that it cannot read."""
    file = tmp_path / "ab.json"
    variants = [{"name": "b", "model": "openai", "traffic": 0.2}]
    file.write_text(json.dumps({"experiments": [{"name": "ab", "variants": variants}]}))
    environment = {"LINER_EXPERIMENTS_FILE": str(file)}

    without, lacking, _ = await check(tmp_path / "data", **environment)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "experiments.json").write_text("{")
    _, unreadable, _ = await check(tmp_path / "data")

    assert without == 1
    assert "tries the model 'openai'" in lacking["experiments"]["detail"]
    assert unreadable["experiments"]["works"] == "FAILS"
    assert "experiments.json" in unreadable["experiments"]["detail"]


async def test_settings_that_cannot_be_used_end_with_2(tmp_path: Path) -> None:
    """They are no finding: nothing can be tried with them."""
    code, found, text = await check(tmp_path, LINER_GRPC_ADDRESS="0.0.0.0:50051")

    assert (code, found) == (2, {})
    assert "LINER_TOKENS_FILE" in text
