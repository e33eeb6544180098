"""What a long run leaves on disk, and how the next one goes on with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from liner_client.checkpoint import Checkpoint
from liner_client.inputs import Entry, InputError

_OPTIONS = {"model": "embedded"}


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """A file of four bytes."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    return Entry(item_id="a.wav", path=path, row={"path": "a.wav"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the checkpoint lies."""
    return tmp_path / "run.jsonl"


def _record(**more: Any) -> dict[str, Any]:
    return {"item_id": "a.wav", "path": "a.wav", **more}


def test_what_was_done_is_known_after_a_stop(path: Path, entry: Entry) -> None:
    """That is what the checkpoint is for."""
    with Checkpoint(path, _OPTIONS, resume=False) as checkpoint:
        checkpoint.add(entry, _record(fields={}))

    with Checkpoint(path, _OPTIONS, resume=True) as checkpoint:
        assert checkpoint.record_of(entry) == _record(fields={})


def test_what_failed_is_tried_again(path: Path, entry: Entry) -> None:
    """Most failures of a long run are of its moment."""
    with Checkpoint(path, _OPTIONS, resume=False) as checkpoint:
        checkpoint.add(entry, _record(error={"reason": "UNAVAILABLE"}))

    with Checkpoint(path, _OPTIONS, resume=True) as checkpoint:
        assert checkpoint.record_of(entry) is None


def test_a_file_that_changed_is_done_again(path: Path, entry: Entry) -> None:
    """An answer about other bytes is a wrong answer."""
    with Checkpoint(path, _OPTIONS, resume=False) as checkpoint:
        checkpoint.add(entry, _record())
    assert entry.path is not None
    entry.path.write_bytes(b"RIFF and more")

    with Checkpoint(path, _OPTIONS, resume=True) as checkpoint:
        assert checkpoint.record_of(entry) is None


def test_a_line_torn_by_a_crash_costs_only_itself(path: Path, entry: Entry) -> None:
    """Power fails in the middle of a write; the lines before it are good."""
    with Checkpoint(path, _OPTIONS, resume=False) as checkpoint:
        checkpoint.add(entry, _record())
    with path.open("ab") as file:
        file.write(b'{"made_of": [{"pa')

    for _ in range(2):
        with Checkpoint(path, _OPTIONS, resume=True) as checkpoint:
            assert checkpoint.record_of(entry) == _record()
            checkpoint.add(entry, _record())

    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_crash_in_the_first_line_begins_anew(path: Path, entry: Entry) -> None:
    """A run that died before it had done anything left nothing to keep."""
    path.write_bytes(b'{"liner_check')

    with Checkpoint(path, _OPTIONS, resume=True) as checkpoint:
        checkpoint.add(entry, _record())

    with Checkpoint(path, _OPTIONS, resume=True) as checkpoint:
        assert checkpoint.record_of(entry) == _record()


def test_other_options_are_another_question(path: Path) -> None:
    """Half the answers of one model and half of another would look like one run."""
    Checkpoint(path, _OPTIONS, resume=False).__exit__()

    with pytest.raises(InputError, match="same options"):
        Checkpoint(path, {"model": "qwen2"}, resume=True)


def test_a_checkpoint_is_not_overwritten_by_accident(path: Path) -> None:
    """A forgotten --resume must not cost a night's work."""
    Checkpoint(path, _OPTIONS, resume=False).__exit__()

    with pytest.raises(InputError, match="--resume"):
        Checkpoint(path, _OPTIONS, resume=False)


@pytest.mark.parametrize("text", ["hello\n", "hello", '[1]\n{"a": 1}\n', '{"title": "x"}\n'])
def test_another_file_is_left_alone(path: Path, text: str) -> None:
    """A mistyped name must not append to someone's data."""
    path.write_text(text)

    with pytest.raises(InputError):
        Checkpoint(path, _OPTIONS, resume=True)

    assert path.read_text() == text
