"""LINER_EXPERIMENTS_FILE: what it may say, and that a mistake in it stops the start."""

import json
from pathlib import Path

import pytest
from liner_server.experiments.file import ExperimentsFileError, read

ONE = {"name": "a", "variants": [{"name": "b", "model": "openai", "traffic": 0.2}]}


def written(folder: Path, *experiments: object) -> Path:
    """Return a file that says this."""
    path = folder / "experiments.json"
    path.write_text(json.dumps({"experiments": experiments}))
    return path


def test_all_that_can_be_said_is_read(tmp_path: Path) -> None:
    """Two experiments beside each other, one of them with tracks left out."""
    (tmp_path / "vip.txt").write_text("T-2\n\n T-3 \n")
    one = {
        **ONE,
        "salt": "s",
        "population": [0, 0.5],
        "shadow": True,
        "exclude_tracks": ["T-1"],
        "exclude_file": "vip.txt",
    }

    first, second = read(written(tmp_path, one, {**ONE, "name": "c", "population": [0.5, 1]}))

    assert (first.name, first.salt, first.population, first.shadow) == ("a", "s", (0, 0.5), True)
    assert first.excluded == {"T-1", "T-2", "T-3"}
    assert [(v.name, v.model, v.traffic) for v in first.variants] == [("b", "openai", 0.2)]
    assert second.population == (0.5, 1)


@pytest.mark.parametrize(
    ("experiments", "told"),
    [
        ([], "1 to 32"),
        ([ONE, ONE], "same name"),
        ([ONE, {**ONE, "name": "c"}], "same track"),
        ([{**ONE, "colour": 1}], "keys"),
        ([{**ONE, "name": "a b"}], "name"),
        ([{**ONE, "population": [0.5, 0.5]}], "less than"),
        ([{**ONE, "population": [0, 2]}], "from 0 to 1"),
        ([{**ONE, "variants": []}], "1 to 8"),
        ([{**ONE, "variants": [{"name": "control", "traffic": 0.1}]}], "control"),
        ([{**ONE, "variants": [{"name": "b", "traffic": True}]}], "number"),
        ([{**ONE, "variants": [{"name": n, "traffic": 0.6} for n in "bc"]}], "more than 1"),
        ([{**ONE, "exclude_file": "none.txt"}], "exclude_file"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, experiments: list[object], told: str) -> None:
    """An experiment that runs otherwise than was meant costs more than a start that fails."""
    with pytest.raises(ExperimentsFileError, match=told):
        read(written(tmp_path, *experiments))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"experiments": {}}'])
def test_what_is_no_list_of_experiments_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever the editor left in the file."""
    path = tmp_path / "experiments.json"
    path.write_text(text)

    with pytest.raises(ExperimentsFileError):
        read(path)
