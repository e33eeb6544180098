"""`liner results` against the real server: an editor's morning, from list to review."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_client import LinerClient, NotFoundError, cli
from support.eventually import eventually
from support.server import served
from typer.testing import CliRunner, Result


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """Where a server holds two results, one of which needs review."""
    async with served(tmp_path) as (app, _), LinerClient(app.grpc_address) as liner:
        for track in (
            track_pb2.Track(title="Clean Song", artists=[track_pb2.Artist(name="Ana North")]),
            track_pb2.Track(title="Doubtful \x1b[31mSong", isrc="not an isrc"),
        ):
            name = (await liner.enrich(track)).processing.enrichment_id
            await eventually(lambda name=name: _is_there(liner, name))
        yield app.grpc_address


async def _is_there(liner: LinerClient, name: str) -> bool:
    try:
        await liner.get_enrichment(name)
    except NotFoundError:
        return False
    return True


async def run(address: str, *arguments: str) -> Result:
    """Run a command as a shell would."""
    command = ["results", *arguments, "--server", address]
    return await asyncio.to_thread(CliRunner().invoke, cli.app, command)


async def lines(address: str, *arguments: str) -> list[dict[str, object]]:
    """Return what a command writes as JSON lines."""
    found = await run(address, *arguments, "--output", "jsonl")
    assert found.exit_code == 0, found.output
    return [json.loads(line) for line in found.stdout.splitlines()]


async def test_a_list_begins_with_what_is_in_doubt(address: str):
    """The first line is the first thing to do, and no title paints the screen."""
    table = (await run(address, "list")).stdout.splitlines()

    assert "review" in table[0]
    assert "Doubtful" in table[0]
    assert "\x1b" not in "".join(table)
    assert "Ana North - Clean Song" in table[1]
    assert len(await lines(address, "list", "--limit", "1")) == 1
    assert [r["needs_review"] for r in await lines(address, "list", "--needs-review")] == [True]
    assert [r["needs_review"] for r in await lines(address, "list", "--settled")] == [False]
    assert await lines(address, "list", "--model", "qwen2") == []
    document = json.loads((await run(address, "list", "--newest", "-o", "json")).stdout)
    assert [r["needs_review"] for r in document["enrichments"]] == [True, False]


async def test_a_review_is_shown_with_what_was_answered(address: str):
    """Right, wrong, or what is right instead; the list then has one thing less to do."""
    [doubtful] = await lines(address, "list", "--needs-review")
    name = str(doubtful["enrichment_id"])

    said = await run(
        address,
        *("review", name, "--accept", "title", "--correct", "isrc=US-RC1-76-07839"),
        *("--note", "looked it up"),
    )
    [shown] = await lines(address, "show", name)
    table = await run(address, "show", name)

    assert said.exit_code == 0
    assert "correct isrc = USRC17607839" in said.stdout
    assert shown["state"] == "DONE"
    [review] = shown["reviews"]
    assert review["reviewer"] == "local"
    assert review["fields"]["isrc"] == {
        "verdict": "CORRECT",
        "corrected_value": "USRC17607839",
        "note": "looked it up",
    }
    assert shown["fields"]["isrc"]["value"] == "not an isrc"
    assert "accept title" in table.stdout
    assert await lines(address, "list", "--needs-review") == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "nothing"], 1),
        (["review", "nothing", "--accept", "title"], 1),
        (["review", "nothing"], 2),
        (["review", "nothing", "--correct", "title"], 2),
        (["review", "nothing", "--accept", "tempo"], 2),
        (["list", "--limit", "0"], 2),
    ],
)
async def test_what_cannot_be_done_has_its_exit_code(address: str, arguments, code):
    """A script tells a typing error from a result that is not there."""
    found = await run(address, *arguments)

    assert found.exit_code == code
    assert found.stderr
    assert not found.stdout


async def test_a_program_pages_through_everything(address: str):
    """The client's own way to what the command shows."""
    asked = enrichment_pb2.ListEnrichmentsRequest(page_size=1)
    async with LinerClient(address) as liner:
        paged = [found.enrichment_id async for found in liner.list_enrichments(asked)]
        whole = [found.enrichment_id async for found in liner.list_enrichments()]

    assert paged == whole
    assert len(set(whole)) == 2
