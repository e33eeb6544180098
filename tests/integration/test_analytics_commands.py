"""BigQuery set up and analytics exported, as an operator does it: by the commands themselves."""

import asyncio
import csv
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.cloud import bigquery
from liner.v1 import analytics_pb2, enrichment_pb2, track_pb2
from liner_server.analytics.bigquery import Place
from liner_server.analytics.sqlite import SqliteSink
from liner_server.ports_analytics import Table
from support.bigquery_fake import FakeBigQuery, fake_bigquery
from support.bigquery_write_fake import bigquery_write_fake
from support.eventually import eventually
from support.server import served


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Return how `liner-server` ended with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", "liner_server", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


def set_up(address: str, *arguments: str, **environment: str) -> dict[str, str]:
    """Return what `setup-cloud` says became of each table, by its name."""
    ended = run(
        "setup-cloud",
        *arguments,
        LINER_ANALYTICS="bigquery",
        GOOGLE_CLOUD_PROJECT="liner-test",
        BIGQUERY_EMULATOR_HOST=address,
        **environment,
    )
    assert ended.returncode in (0, 1), ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    return {path.rpartition(".")[2]: state for _, state, path, *_ in lines}


def test_setup_makes_tables_once_and_a_dry_run_makes_none() -> None:
    """Run it as often as you like."""
    names = ("ai_metrics", "ai_experiments", "enrichment_outcomes", "experiment_traffic")
    with fake_bigquery() as (kept, address):
        dry = set_up(address, "--dry-run")
        nothing = dict(kept.tables)
        made = set_up(address)
        again = set_up(address)

    assert dry == dict.fromkeys(names, "missing")
    assert nothing == {}
    assert made == dict.fromkeys(names, "created")
    assert again == dict.fromkeys(names, "exists")
    table = kept.tables["ai_experiments"]
    assert table["timePartitioning"] == {
        "type": "DAY",
        "field": "time",
        "expirationMs": str(400 * 86_400_000),
    }
    assert table["clustering"] == {"fields": ["experiment", "variant"]}
    assert "expirationMs" not in kept.tables["experiment_traffic"]["timePartitioning"]


def older(kept: FakeBigQuery, address: str) -> None:
    """Make the table of an older release: two columns are missing, one is of another type."""
    client = Place(project="liner-test", dataset="ai_metrics", emulator=address).client()
    client.create_dataset("ai_metrics")
    field = bigquery.SchemaField
    made = bigquery.Table(
        "liner-test.ai_metrics.experiment_traffic",
        schema=[
            field("row_id", "STRING", "REQUIRED"),
            field("time", "TIMESTAMP", "REQUIRED"),
            field("experiment", "STRING"),
            field("variant", "STRING"),
            field("traffic", "FLOAT"),
            field("principal", "STRING"),
            field("reason", "STRING"),
        ],
    )
    made.time_partitioning = bigquery.TimePartitioning(field="time")
    client.create_table(made)
    client.close()  # type: ignore[no-untyped-call]
    assert "experiment_traffic" in kept.tables


def test_setup_adds_columns_that_are_new_and_touches_no_other() -> None:
    """An upgrade must not need a new table, or lose an old one."""
    with fake_bigquery() as (kept, address):
        older(kept, address)
        dry = set_up(address, "--dry-run")
        before = json.dumps(kept.tables["experiment_traffic"])
        made = set_up(address)
        again = set_up(address)

    names = [one["name"] for one in kept.tables["experiment_traffic"]["schema"]["fields"]]
    assert "stopped" not in before
    assert dry["experiment_traffic"] == "differs"
    assert made["experiment_traffic"] == "changed"
    assert again["experiment_traffic"] == "exists"
    assert names[-2:] == ["request_id", "stopped"]


@pytest.mark.parametrize("command", ["serve", "setup-cloud"])
def test_bigquery_without_a_project_is_a_wrong_setting(command: str) -> None:
    """Exit code 2 and the name of what is missing."""
    ended = run(command, LINER_ANALYTICS="bigquery")

    assert ended.returncode == 2
    assert "GOOGLE_CLOUD_PROJECT" in ended.stderr


async def test_judged_scores_are_exported_as_calibrate_reads_them(tmp_path: Path) -> None:
    """What editors say becomes what a model's score means."""
    rows = [
        analytics_pb2.OutcomeRow(
            row_id=f"r{number}",
            time=int(datetime.now(UTC).timestamp() * 1e6),
            enrichment_id=f"e{number}",
            track=f"t{number}",
            field="genre",
            scores=[
                analytics_pb2.JudgedScore(
                    model="qwen2:m",
                    prompt_version="p",
                    score=0.05 + 0.9 * (number % 10) / 10,
                    right=number % 10 > number % 4,
                    stated=0.25 if number else 0,
                )
            ],
        )
        for number in range(400)
    ]
    async with SqliteSink(tmp_path / "analytics.sqlite") as sink:
        await sink.insert(Table.OUTCOMES, rows)
    out, table = tmp_path / "scores.csv", tmp_path / "table.json"

    exported = await asyncio.to_thread(
        run, "export-reviews", "--out", str(out), LINER_DATA_DIR=str(tmp_path)
    )
    fitted = await asyncio.to_thread(run, "calibrate", "--results", str(out), "--out", str(table))

    assert "400 judged scores" in exported.stdout
    with out.open(newline="") as file:
        exported_rows = list(csv.DictReader(file))
    assert {row["model"] for row in exported_rows} == {"qwen2:m"}
    assert sorted(row["stated"] for row in exported_rows)[:2] == ["", "0.250000"]
    assert fitted.returncode == 0, fitted.stderr
    [curve] = json.loads(table.read_text())["curves"]
    assert (curve["field"], curve["source"]) == ("genre", "qwen2:m:p")


async def test_a_server_writes_its_rows_by_the_storage_write_api(tmp_path: Path) -> None:
    """From an answer to a row that a report would count."""
    with fake_bigquery() as (kept, address):
        await asyncio.to_thread(set_up, address)
        async with (
            bigquery_write_fake(kept) as write,
            served(
                tmp_path,
                analytics="bigquery",
                google_cloud_project="liner-test",
                bigquery_emulator_host=address,
                bigquery_writes="storage",
                bigquery_write_emulator_host=write,
            ) as (_, stubs),
        ):
            await stubs.enrichment.EnrichMetadata(
                enrichment_pb2.EnrichMetadataRequest(track=track_pb2.Track(title="x"))
            )
            await eventually(lambda: kept.count("ai_experiments") == 1)
        appended = "POST /bigquery/v2/projects/p/datasets/d/tables/ai_experiments/insertAll"
        inserted = [call for call in kept.calls if call.endswith("/insertAll")]

    assert inserted == [appended], "the fake's own call, and none by REST"
    # Nothing is asked of it where no experiment runs: each question is billed.
    assert not [call for call in kept.calls if call.endswith("/queries")]
