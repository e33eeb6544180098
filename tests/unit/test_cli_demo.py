"""The demo's material: eight files whose faults are really there."""

import json
from pathlib import Path
from typing import Any

import pytest
from liner_client.inputs import collect
from liner_server.audio.sniff import sniff
from liner_server.evaluation.demo_tracks import make_demo_tracks
from stdnum import isrc


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight files; made once, for rendering takes seconds."""
    folder = tmp_path_factory.mktemp("demo")
    make_demo_tracks(folder)
    return folder


@pytest.fixture(scope="module")
def sent(folder: Path) -> dict[str, dict[str, Any]]:
    """What the label sends, by the number that begins a file's name."""
    lines = (folder / "delivery.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["path"][0]: row for row in map(json.loads, lines)}


def test_there_are_all_formats_and_one_that_is_none(folder: Path) -> None:
    """A demo of one format would say little about a label's inbox."""
    suffixes = [path.suffix for path in sorted(folder.glob("[1-8]-*"))]

    assert suffixes == [".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aiff", ".flac", ".mp3"]
    for path in sorted(folder.glob("[1-7]-*")):
        with path.open("rb") as file:
            assert sniff(file).container.value == path.suffix[1:]
    assert (folder / "8-liner-notes.mp3").read_text(encoding="utf-8").startswith("Liner notes")


def test_the_faults_are_really_there(folder: Path, sent: dict[str, dict[str, Any]]) -> None:
    """A fault that is only in the description would be found by nobody."""
    truth = {row["path"][0]: row for row in json.loads((folder / "truth.json").read_text())}

    assert sent["1"]["bpm"] == truth["1"]["bpm"]
    assert sent["1"]["key"] == truth["1"]["key"]
    assert sent["2"]["title"].isupper()
    assert not isrc.is_valid(sent["3"]["isrc"])
    assert sent["4"]["bpm"] * 2 == truth["4"]["bpm"]
    assert "key" not in sent["5"]
    assert set(sent["6"]) == {"path"}
    assert all(isrc.is_valid(sent[n]["isrc"]) for n in "124578")


def test_the_delivery_is_an_input_of_the_command_line(folder: Path) -> None:
    """The demo sends it as any label would send a list."""
    with (folder / "delivery.jsonl").open() as unused:
        entries = collect([str(folder / "delivery.jsonl")], stdin=unused)

    assert [entry.path for entry in entries] == sorted(folder.glob("[1-8]-*"))
