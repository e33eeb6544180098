"""The commands, from arguments to exit code, against a small real server."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2
from liner.v1 import enrichment_pb2
from liner_client import cli, commands, stopping, storage_commands
from liner_client.client import LinerClient
from liner_client.errors import (
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from liner_client.inputs import InputError, collect
from liner_client.output import OutputForm
from support.stub_server import StreamPlan, Stub, rich_status, running_stub
from typer.testing import CliRunner


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    """A server to talk to."""
    async with running_stub() as stub:
        yield stub


@pytest.fixture
async def liner(stub: Stub) -> AsyncIterator[LinerClient]:
    """A client of it."""
    async with LinerClient(stub.address) as liner:
        yield liner


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    """A list of four tracks: good, refused by the server, not on disk, good."""
    (tmp_path / "a.wav").write_bytes(b"a")
    (tmp_path / "d.wav").write_bytes(b"d")
    rows = [
        {"path": "a.wav", "title": "first"},
        {"item_id": "b", "title": "bad"},
        {"path": "c.wav", "title": "third"},
        {"path": "d.wav", "title": "fourth"},
    ]
    path = tmp_path / "delivery.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _run(delivery: Path, **more: Any) -> commands.EnrichRun:
    return commands.EnrichRun(
        entries=collect([str(delivery)], stdin=io.StringIO()),
        options=enrichment_pb2.EnrichOptions(),
        form=more.pop("form", OutputForm.JSONL),
        quiet=True,
        **more,
    )


async def test_there_is_one_line_an_input_failed_ones_included(
    liner: LinerClient, delivery: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A pipeline that joins results with inputs must find each exactly once, in order if asked."""
    code = await commands.enrich(liner, _run(delivery, ordered=True))

    records = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert code == commands.SOME_FAILED
    assert [r["track"]["title"] if "track" in r else r["error"]["reason"] for r in records] == [
        "FIRST", "AUDIO_UNSUPPORTED", "FILE_UNREADABLE", "FOURTH",
    ]  # fmt: skip
    assert records[2]["path"].endswith("c.wav")


async def test_audio_is_stored_and_named_in_the_item(
    stub: Stub, liner: LinerClient, delivery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes travel once, to the store; the batch carries names."""
    await commands.enrich(liner, _run(delivery))

    assert sorted(stub.storage.objects.values()) == [b"a", b"d"]
    assert capsys.readouterr().err == ""


async def test_a_resumed_run_does_only_what_is_left_and_prints_all(
    stub: Stub, liner: LinerClient, delivery: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """After a stop the output file is rewritten whole, and nothing good is paid for twice."""
    checkpoint = delivery.parent / "run.jsonl"
    await commands.enrich(liner, _run(delivery, checkpoint=checkpoint))
    capsysbinary.readouterr()

    await commands.enrich(liner, _run(delivery, checkpoint=checkpoint, resume=True))

    lines = capsysbinary.readouterr().out.splitlines()
    assert len(lines) == 4
    assert stub.enrichment.streams[1].items == ["b"]


async def test_what_failed_can_be_fed_in_again(
    stub: Stub, liner: LinerClient, delivery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list of failures is an input like any other."""
    failed = delivery.parent / "failed.jsonl"
    await commands.enrich(liner, _run(delivery, failed_out=failed))

    await commands.enrich(liner, _run(failed))

    assert [json.loads(line)["error"]["reason"] for line in failed.read_text().splitlines()] == [
        "FILE_UNREADABLE", "AUDIO_UNSUPPORTED",
    ]  # fmt: skip
    assert stub.enrichment.streams[1].items == ["b"]
    assert capsys.readouterr().err == ""


async def test_a_resumed_run_keeps_the_order_of_the_inputs(
    liner: LinerClient, delivery: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What is printed again and what is done now stand in one order, where it was asked for."""
    checkpoint = delivery.parent / "run.jsonl"
    await commands.enrich(liner, _run(delivery, ordered=True, checkpoint=checkpoint))
    first = capsysbinary.readouterr().out.splitlines()

    await commands.enrich(liner, _run(delivery, ordered=True, checkpoint=checkpoint, resume=True))

    again = capsysbinary.readouterr().out.splitlines()
    assert [json.loads(line)["item_id"] for line in again] == [
        json.loads(line)["item_id"] for line in first
    ]


async def test_a_list_of_failures_finds_its_audio_from_where_it_lies(
    liner: LinerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Paths of a list are relative to the list, and names are those of the first run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    Path("sub/list.csv").write_text("path,title\nmissing.wav,x\n")
    failed = Path("sub/failed.jsonl")

    await commands.enrich(liner, _run(Path("sub/list.csv"), failed_out=failed))
    [entry] = collect([str(failed)], stdin=io.StringIO())

    assert (entry.path, entry.item_id) == (Path("sub/missing.wav"), "sub/missing.wav")
    assert "FILE_UNREADABLE" in capsys.readouterr().out


async def test_json_is_one_document_with_a_summary(
    liner: LinerClient, delivery: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Tools that read one document get all of it, and the counts."""
    await commands.enrich(liner, _run(delivery, form=OutputForm.JSON))

    document = json.loads(capsysbinary.readouterr().out)
    assert len(document["tracks"]) == 4
    assert document["summary"]["failed_by_reason"] == {
        "FILE_UNREADABLE": 1,
        "AUDIO_UNSUPPORTED": 1,
    }


async def test_a_lost_server_does_not_show_in_the_output(
    stub: Stub, liner: LinerClient, delivery: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A deployment in the middle of a run changes nothing for who reads the lines."""
    stub.enrichment.plans.extend([StreamPlan(results=1), StreamPlan(results=1, drain=True)])

    await commands.enrich(liner, _run(delivery, ordered=True))

    lines = capsysbinary.readouterr().out.splitlines()
    assert len({json.loads(line)["item_id"] for line in lines}) == len(lines) == 4


async def test_validation_fails_what_has_errors(
    liner: LinerClient, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A delivery script stops on exit code 1, as with a linter."""
    path = tmp_path / "list.csv"
    path.write_text("title\nGood\nLOUD\n")

    code = await commands.validate(
        liner,
        collect([str(path)], stdin=io.StringIO()),
        profile=enrichment_pb2.DELIVERY_PROFILE_MINIMAL,
        form=OutputForm.JSONL,
        quiet=True,
    )

    records = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert code == commands.SOME_FAILED
    assert [[i["rule_id"] for i in r["issues"]] for r in records] == [[], ["TITLE_CAPS"]]


async def test_what_inputs_say_against_each_other_is_written_last_and_fails(
    stub: Stub, liner: LinerClient, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Each track may be in order and the delivery as a whole not."""
    path = tmp_path / "list.csv"
    path.write_text("title,item_id\nGood,a\nBetter,b\n")
    issue = enrichment_pb2.ValidationIssue(
        rule_id="BATCH_ISRC_REUSED",
        field="isrc",
        severity=enrichment_pb2.SEVERITY_ERROR,
        message="USRC17607839 also names a",
        source="ISO 3901",
    )
    stub.enrichment.batch_issues.append(enrichment_pb2.BatchIssue(item_id="b", issue=issue))
    told = {}

    for form in OutputForm:
        code = await commands.validate(
            liner,
            collect([str(path)], stdin=io.StringIO()),
            profile=enrichment_pb2.DELIVERY_PROFILE_MINIMAL,
            form=form,
            quiet=True,
        )
        assert code == commands.SOME_FAILED
        told[form] = capsysbinary.readouterr().out.decode()

    expected = {
        "item_id": "b",
        "rule_id": "BATCH_ISRC_REUSED",
        "field": "isrc",
        "severity": "ERROR",
        "message": "USRC17607839 also names a",
        "source": "ISO 3901",
    }
    lines = [json.loads(line) for line in told[OutputForm.JSONL].splitlines()]
    assert [line.get("item_id") for line in lines] == ["a", "b", None]
    assert lines[-1]["batch_issues"] == [expected]
    assert json.loads(told[OutputForm.JSON])["batch_issues"] == [expected]
    assert "b: BATCH_ISRC_REUSED (isrc): USRC17607839 also names a" in told[OutputForm.TABLE]


async def test_without_batch_processing_each_track_is_judged_alone(
    stub: Stub, liner: LinerClient, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """An operator's flag must not take validation away; one track's failure is its own."""
    path = tmp_path / "list.csv"
    path.write_text("title\nA song\nAnother\n")
    off = rich_status(code_pb2.FAILED_PRECONDITION, "BATCH_PROCESSING_OFF", "it is off")
    crashed = rich_status(code_pb2.UNAVAILABLE, "LISTENING_CRASHED", "the process died")
    stub.enrichment.refusals.extend([off, *[crashed] * 3])

    await commands.validate(
        liner,
        collect([str(path)], stdin=io.StringIO()),
        profile=enrichment_pb2.DELIVERY_PROFILE_MINIMAL,
        form=OutputForm.JSONL,
        quiet=True,
    )

    assert len(capsysbinary.readouterr().out.splitlines()) == 2


async def test_objects_go_there_and_back(
    stub: Stub, liner: LinerClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """cp, ls and rm are all an operator needs to look after the store."""
    (tmp_path / "a.wav").write_bytes(b"sound")

    await storage_commands.copy(liner, str(tmp_path / "a.wav"), "liner:masters/", content_type="")
    await storage_commands.copy(
        liner, "liner:masters/a.wav", str(tmp_path / "b.wav"), content_type=""
    )
    await storage_commands.list_objects(liner, "masters/", form=OutputForm.JSON)
    assert await storage_commands.remove(liner, ["liner:masters/a.wav"]) == commands.OK
    assert await storage_commands.remove(liner, ["masters/a.wav"]) == commands.SOME_FAILED

    assert (tmp_path / "b.wav").read_bytes() == b"sound"
    first, _, listed = capsys.readouterr().out.splitlines()
    assert first == "masters/a.wav"
    assert [o["object_name"] for o in json.loads(listed)["objects"]] == ["masters/a.wav"]
    with pytest.raises(InputError, match="liner:"):
        await storage_commands.copy(liner, "a", "b", content_type="")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("x"), commands.UNAVAILABLE),
        (UnauthenticatedError("x"), commands.AUTHENTICATION),
        (PermissionDeniedError("x"), commands.AUTHENTICATION),
        (InvalidRequestError("x"), commands.USAGE),
        (NotFoundError("x"), commands.SOME_FAILED),
        (InputError("x"), commands.USAGE),
        (FileNotFoundError(2, "no such file", "x"), commands.SOME_FAILED),
        (KeyboardInterrupt(), stopping.INTERRUPTED),
    ],
)
def test_each_end_has_its_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script tells a server that is down from a bad token and from a bad file."""

    async def work() -> int:
        raise error

    assert cli.execute(work) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("liner: ")


async def _closed_port() -> str:
    async with running_stub() as stub:
        return stub.address


def test_a_server_that_is_down_ends_with_three() -> None:
    """The whole way, from arguments to exit code."""
    address = asyncio.run(_closed_port())

    result = CliRunner().invoke(cli.app, ["models", "--server", address])

    assert result.exit_code == commands.UNAVAILABLE
    assert result.stdout == ""
    assert "UNAVAILABLE" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["enrich"],
        ["enrich", "no-such-file.wav"],
        ["enrich", ".", "--resume"],
        ["enrich", ".", "--output", "xml"],
        ["models", "--server", "liner.example:1", "--token", "secret"],
        ["cp", "a", "b"],
        ["nonsense"],
    ],
)
def test_wrong_usage_ends_with_two(arguments: list[str]) -> None:
    """A typing error is told from a failed run, and says what was wrong."""
    result = CliRunner().invoke(cli.app, arguments)

    assert result.exit_code == commands.USAGE
    assert result.stderr


def test_help_names_every_command() -> None:
    """What is not in the help does not exist for most people."""
    result = CliRunner().invoke(cli.app, ["--help"])

    assert result.exit_code == 0
    assert all(
        f" {name} " in result.stdout
        for name in ("enrich", "validate", "models", "health", "cp", "ls", "rm", "demo")
    )


async def test_a_refused_token_stops_the_run(
    stub: Stub, liner: LinerClient, delivery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would fail for each of ten thousand files is said once."""
    status = rich_status(code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED", "credentials are required")
    # More than once: a status that was lost with its stream is asked for again.
    stub.enrichment.refusals.extend([status] * 3)

    with pytest.raises(UnauthenticatedError):
        await commands.enrich(liner, _run(delivery))

    assert capsys.readouterr().out == ""
