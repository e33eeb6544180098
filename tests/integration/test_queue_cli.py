"""`liner submit` and `liner queue` against a whole server: what an operator types at night."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from liner_client import cli
from structlog.testing import capture_logs
from support.eventually import eventually
from support.server import served
from typer.testing import CliRunner, Result


class Shell:
    """Runs `liner` against one server."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __call__(self, *words: str) -> Result:
        """Run a command and return how it ended."""
        command = [*words, "--server", self._address]
        return await asyncio.to_thread(CliRunner().invoke, cli.app, command)

    async def json(self, *words: str) -> dict:
        """Run a command and return its one line of JSON."""
        result = await self(*words, "-o", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    """A shell beside a running server, in a folder with a list of two tracks."""
    Path("tracks.jsonl").write_text('{"title": "Blue Hour"}\n{"title": "Red Hour"}\n')
    # The server is in this process: its log must not stand between the lines of a command.
    with capture_logs():
        async with served(tmp_path / "data") as (app, _):
            yield Shell(app.grpc_address)


def ready(stats: dict) -> int:
    """Return how many are due."""
    return sum(int(entry["ready"]) for entry in stats["priorities"])


async def test_tracks_are_submitted_and_their_answers_found(shell: Shell):
    """One line a track, with the id to ask for; the same run twice makes no second job."""
    first = await shell("submit", "tracks.jsonl", "--run", "night", "-o", "jsonl")
    again = await shell("submit", "tracks.jsonl", "--run", "night", "-o", "jsonl")

    assert first.exit_code == 0, first.output
    jobs = [json.loads(line)["job_id"] for line in first.stdout.splitlines()]
    assert first.stdout == again.stdout
    assert len(set(jobs)) == 2

    async def done() -> bool:
        shown = await shell.json("results", "show", jobs[0])
        return shown["state"] == "DONE"

    await eventually(done)


async def test_names_that_no_request_id_can_hold_enter_once_a_run_too(shell: Shell):
    """Umlauts and long folders; the end of two names alone says nothing of their beginnings."""
    long = "x" * 150
    for folder in ("für", "a" + long, "b" + long):
        Path(folder).mkdir()
        (Path(folder) / f"{long}.jsonl").write_text('{"title": "One"}\n')
    lists = [str(path) for path in sorted(Path().glob("*/*.jsonl"))]

    first = await shell("submit", *lists, "--run", "night", "-o", "jsonl")
    again = await shell("submit", *lists, "--run", "night", "-o", "jsonl")
    other = await shell("submit", *lists, "--run", "morning", "-o", "jsonl")

    assert first.exit_code == 0, first.output
    jobs = [json.loads(line)["job_id"] for line in (first.stdout + other.stdout).splitlines()]
    assert first.stdout == again.stdout
    assert len(set(jobs)) == 6


async def test_one_bad_input_does_not_keep_the_others_out(shell: Shell):
    """A night's list is not left after its first line without a title."""
    Path("mixed.jsonl").write_text('{"title": "A"}\n{"album": "no title"}\n{"title": "B"}\n')

    found = await shell("submit", "mixed.jsonl", "-o", "jsonl")
    shown = await shell("submit", "mixed.jsonl")

    assert (found.exit_code, shown.exit_code) == (1, 1)
    first, bad, last = [json.loads(line) for line in found.stdout.splitlines()]
    assert "job_id" in first
    assert "job_id" in last
    assert bad["error"]["reason"] == "INVALID_REQUEST"
    assert "needs a title or audio" in shown.output


async def test_a_paused_queue_is_looked_into_and_set_going(shell: Shell):
    """Who paused it and why, what waits, one message in full."""
    await shell("queue", "pause", "--reason", "model down")
    await shell("submit", "tracks.jsonl", "--priority", "high")
    stats = await shell.json("queue", "stats")
    table = await shell("queue", "stats")
    listed = await shell.json("queue", "list", "--priority", "high", "--state", "ready")
    none = await shell.json("queue", "list", "--priority", "low")
    shown = await shell("queue", "show", listed["messages"][0]["message_id"])
    watched = await shell("queue", "watch", "--every", "0.5", "--count", "2", "-o", "jsonl")
    await shell("queue", "resume")

    async def empty() -> bool:
        return ready(await shell.json("queue", "stats")) == 0

    await eventually(empty)
    assert (stats["paused"], stats["pause_reason"], ready(stats)) == (True, "model down", 2)
    assert "paused by local: model down" in table.output
    assert [m["job"]["track"]["title"] for m in listed["messages"]] == ["Blue Hour", "Red Hour"]
    assert none == {"messages": []}
    assert json.loads(shown.stdout)["job"]["track"]["title"] == "Blue Hour"
    assert len(watched.stdout.splitlines()) == 2


async def test_a_dead_letter_is_found_mended_and_replayed(shell: Shell, tmp_path: Path):
    """The walk: what died and why, its job in a file, mended, replayed; the rest is purged."""
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no music")
    submitted = await shell("submit", str(broken), "-o", "jsonl")
    job_id = json.loads(submitted.stdout)["job_id"]

    async def dead() -> bool:
        return bool((await shell.json("queue", "dead-letters"))["messages"])

    await eventually(dead)
    listed = await shell("queue", "dead-letters", "--cause", "bad-audio")
    tried = await shell("queue", "replay", job_id, "--dry-run")
    shown = json.loads((await shell("queue", "show", job_id)).stdout)
    edited = tmp_path / "job.json"
    edited.write_text(json.dumps({"track": {"title": "Without audio"}}))
    replayed = await shell("queue", "replay", job_id, "--edited", str(edited))

    async def done() -> bool:
        return (await shell.json("results", "show", job_id))["state"] == "DONE"

    await eventually(done)
    assert job_id in listed.output
    assert "bad_audio" in listed.output
    assert tried.stdout == "1 would be replayed\n"
    assert shown["attempts"][0]["error"]["reason"]
    assert replayed.stdout == "1 replayed\n"


async def test_purging_needs_a_choice(shell: Shell):
    """A forgotten argument must not empty the queue: the server refuses, exit code 2."""
    refused = await shell("queue", "purge")
    tried = await shell("queue", "purge", "--all", "--dry-run")
    missing = await shell("queue", "retry", "none")

    assert refused.exit_code == 2
    assert "all" in refused.output
    assert tried.stdout == "0 would be deleted\n"
    assert missing.exit_code == 1
