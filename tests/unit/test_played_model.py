"""The stand-in of the models demo: its answers pass every check that a model's answers must."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from liner.v1 import track_pb2
from liner_server.core.calibration import Calibration
from liner_server.evaluation.played_model import answer
from liner_server.models import prompt
from liner_server.models.answer import parse
from liner_server.models.chat import ChatReply
from support.asking import question

_TRACKS = {
    "r1": track_pb2.Track(title="Night Ferry (Radio Edit)", album="Jazz for the Harbour"),
    "r2": track_pb2.Track(title="Der letzte Zug", album="Untitled", lyrics="und im Regen"),
}


def _asked() -> list[dict[str, Any]]:
    questions = {name: question(track) for name, track in _TRACKS.items()}
    return prompt.messages(questions, frozenset(prompt.ANSWERABLE), calibration=Calibration({}))


def _fields(content: str) -> Mapping[str, Mapping[str, object]]:
    return {
        entry["id"]: {path: said["value"] for path, said in entry["fields"].items()}
        for entry in json.loads(content)["answers"]
    }


async def test_its_answers_pass_the_checks_of_any_models() -> None:
    """A demo whose answers were refused would show the repair of answers and nothing else."""
    content = answer(_asked())

    found = parse(
        ChatReply(content=content),
        {name: question(track) for name, track in _TRACKS.items()},
        frozenset(prompt.ANSWERABLE),
    )

    assert set(found.by_id) == {"r1", "r2"}
    assert not found.faults


async def test_it_answers_from_the_words_of_the_data_and_says_when_there_are_none() -> None:
    """Whoever watches can see where an answer comes from."""
    found = _fields(answer(_asked()))

    assert found["r1"]["genre"] == "Jazz"
    assert found["r1"]["version_title"] == "Radio Edit"
    assert found["r1"]["moods"] == ["Dark"]
    assert found["r2"]["genre"] == "Unknown"
    assert found["r2"]["language"] == "de"


async def test_what_it_is_told_not_to_know_it_never_knows() -> None:
    """So that a fallback for one field can be shown."""
    found = _fields(answer(_asked(), unsure=["genre", "language"]))

    assert found["r1"]["genre"] == "Unknown"
    assert found["r2"]["language"] == ""
    assert found["r1"]["version_title"] == "Radio Edit"


def test_it_answers_nothing_but_liners_questions() -> None:
    """A stand-in that chats could be taken for a model."""
    with pytest.raises((KeyError, IndexError, TypeError, ValueError)):
        answer([{"role": "user", "content": "Say OK."}])
