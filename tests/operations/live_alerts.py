"""`make monitoring`: a real Prometheus scrapes live servers, faults are induced, alerts fire.

The rules are those of monitoring/prometheus with one change, so that it takes a minute and not a
quarter of an hour: a copy in which every `for` and every window is shorter. That the real times do
what they should is `rules_test.yml`'s to show, on the same expressions.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from liner.v1 import enrichment_pb2, track_pb2
from support.eventually import eventually
from support.external import program
from support.monitoring import PROMETHEUS
from support.ports import free_port
from support.scripted_model import Reply, refuses, says, scripted_model
from support.server import Stubs, connected, server_process

MODEL = "Qwen/Qwen2-Audio-7B-Instruct"
TIMES_SHORTER = 30


def shortened(rules: str) -> str:
    """Return the rules with shorter times; the hours and days of the objective stay."""
    text = re.sub(
        r"(?<=\[)(5|10|15)m(?=\])|(?<=for: )(\d+)m$",
        lambda minutes: f"{int(minutes[1] or minutes[2]) * 60 // TIMES_SHORTER}s",
        rules,
        flags=re.MULTILINE,
    )
    assert text != rules
    return text


class Prometheus:
    """A Prometheus that runs, and what its API says."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer."""
        async with self._session.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def alerts(self, state: str) -> dict[str, dict[str, str]]:
        """Return the alerts in this state, by name: their labels."""
        found = (await self.ask("alerts"))["alerts"]
        return {a["labels"]["alertname"]: a["labels"] for a in found if a["state"] == state}

    async def fires(self, name: str) -> None:
        """Wait until an alert fires and print it as the API tells it."""

        async def firing() -> bool:
            return name in await self.alerts("firing")

        await eventually(firing, within=60)
        for alert in (await self.ask("alerts"))["alerts"]:
            if alert["labels"]["alertname"] == name and alert["state"] == "firing":
                print(json.dumps(alert, indent=2))  # noqa: T201 - what it is run for


@asynccontextmanager
async def prometheus(folder: Path, targets: list[str]) -> AsyncIterator[Prometheus]:
    """Yield a Prometheus that scrapes these every second, with the shortened rules."""
    path = program("prometheus", install="make tools, or put prometheus on the PATH")
    (folder / "rules.yml").write_text(shortened((PROMETHEUS / "rules.yml").read_text()))
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            path,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--enable-feature=exemplar-storage",
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as session:
            running = Prometheus(f"http://{address}", session)

            async def ready() -> bool:
                try:
                    async with session.get(f"{running.url}/-/ready") as response:
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(ready, within=30)
            yield running
    finally:
        process.terminate()
        await process.wait()


async def answered(stubs: Stubs, number: int, *paths: str, model: str) -> float:
    """Enrich so many tracks and return the mean confidence of the answers."""
    total = 0.0
    for n in range(number):
        request = enrichment_pb2.EnrichMetadataRequest(
            track=track_pb2.Track(title=f"Blue Hour {n}"),
            options=enrichment_pb2.EnrichOptions(model=model, skip_cache=True),
        )
        request.options.fields.paths.extend(paths)
        answer = await stubs.enrichment.EnrichMetadata(request)
        total += answer.processing.confidence
    return total / number


@pytest.mark.timeout(240)
async def test_induced_faults_fire_their_alerts(tmp_path: Path) -> None:
    """Confidence falls, a model goes down, a process dies: each is told, and nothing before it."""
    down = False

    def act(_: object) -> Reply:
        content = {"genre": {"value": "Jazz", "confidence": 0.4}}
        return refuses(503) if down else says(json.dumps({"fields": content}))

    async with (
        scripted_model(act, models=(MODEL,)) as model,
        server_process(
            tmp_path / "a",
            {"QWEN2_ENDPOINT": model.base_url, "LINER_MODEL_AUDIO_WINDOWS": "0"},
        ) as first,
        server_process(tmp_path / "b") as second,
        connected(first.grpc_address) as stubs,
        prometheus(tmp_path, [first.http_address, second.http_address]) as prom,
    ):

        async def both_up() -> bool:
            up = await prom.ask("query", query='sum(up{job="liner"})')
            return bool(up["result"]) and up["result"][0]["value"][1] == "2"

        await eventually(both_up, within=30)
        good = await answered(stubs, 15, "title", model="embedded")
        print(f"healthy: mean confidence {good:.2f}")  # noqa: T201

        async def seen() -> bool:
            found = await prom.ask("query", query='ai_confidence_score{model="embedded"}')
            return bool(found["result"])

        await eventually(seen, within=30)
        assert good > 0.7
        groups = (await prom.ask("rules"))["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
        assert await prom.alerts("firing") == {}

        bad = await answered(stubs, 60, "genre", model="embedded")
        print(f"fault: mean confidence {bad:.2f}")  # noqa: T201
        assert bad < 0.7
        await prom.fires("LowConfidenceScore")
        assert "LinerDown" not in await prom.alerts("firing")

        down = True
        await answered(stubs, 15, "genre", model="")
        await prom.fires("ModelBreakerOpen")

        second.process.kill()
        await second.process.wait()
        await prom.fires("LinerDown")
        fired = await prom.alerts("firing")

    assert fired["LinerDown"]["instance"] == second.http_address
    assert fired["LowConfidenceScore"]["instance"] == first.http_address
    assert fired["ModelBreakerOpen"]["model"] == "qwen2"
