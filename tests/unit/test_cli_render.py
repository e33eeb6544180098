"""What people see, and what programs read, of an answer."""

import io
import json
from pathlib import Path

import pytest
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import enrichment_pb2, track_pb2
from liner_client import render
from liner_client.demo_checks import check_answered, check_track
from liner_client.inputs import Entry
from liner_client.records import Outcome, outcome_record
from rich.console import Console, RenderableType


def _entry(name: str = "a.wav") -> Entry:
    return Entry(item_id=name, path=Path(name), row={"path": name})


def _answer() -> enrichment_pb2.EnrichMetadataResponse:
    answer = enrichment_pb2.EnrichMetadataResponse()
    answer.track.title = "Slow Lane"
    answer.track.bpm = 63
    answer.track.audio.object_name = "audio/1"
    answer.track.properties.container = "ogg"
    answer.track.properties.duration.seconds = 20
    answer.track.properties.size_bytes = 1 << 40
    tempo = answer.fields.add(
        field="bpm",
        value="126",
        confidence=0.93,
        decision=track_pb2.DECISION_PROPOSED,
        source=track_pb2.SOURCE_MEASURED,
        given_value="63",
        reason="listening finds twice the tempo",
    )
    tempo.alternatives.add(value="63", confidence=0.05, source=track_pb2.SOURCE_GIVEN)
    answer.fields.add(
        field="key", value="D minor", confidence=0.9, decision=track_pb2.DECISION_FILLED
    )
    answer.fields.add(field="title", value="Slow Lane", decision=track_pb2.DECISION_KEPT)
    answer.fields.add(field="genre", decision=track_pb2.DECISION_ABSTAINED)
    answer.issues.add(
        rule_id="BPM_OCTAVE",
        field="bpm",
        severity=enrichment_pb2.SEVERITY_WARNING,
        message="stated 63",
    )
    answer.processing.needs_review = True
    answer.processing.review_reasons.append("bpm disagrees")
    return answer


def _print(block: RenderableType, *, width: int = 100, colours: bool = False) -> str:
    screen = io.StringIO()
    Console(
        file=screen,
        width=width,
        force_terminal=colours,
        color_system="truecolor" if colours else None,
    ).print(block)
    return screen.getvalue()


def test_a_block_says_what_changed_and_why() -> None:
    """An editor decides on before, after, how sure, from where and why."""
    text = _print(render.outcome_block(Outcome(entry=_entry(), answer=_answer())))

    [row] = [line for line in text.splitlines() if "bpm" in line and "126" in line]
    assert [word for word in ("63", "126", "0.93", "measured", "listening") if word in row] == [
        "63", "126", "0.93", "measured", "listening",
    ]  # fmt: skip
    assert "= kept: title" in text
    assert "- not known: genre" in text
    assert "BPM_OCTAVE (bpm): stated 63" in text
    assert "bpm disagrees" in text


def test_a_failed_input_says_its_reason() -> None:
    """A failure without a reason sends people to the logs."""
    error = track_pb2.Error(
        code=code_pb2.INVALID_ARGUMENT, reason="AUDIO_UNSUPPORTED", message="it is text"
    )

    text = _print(render.outcome_block(Outcome(entry=_entry("n.mp3"), error=error)))

    assert "n.mp3" in text
    assert "AUDIO_UNSUPPORTED: it is text" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """A table that wraps at random cannot be read."""
    text = _print(render.outcome_block(Outcome(entry=_entry(), answer=_answer())), width=width)

    assert max(len(line) for line in text.splitlines()) <= width


@given(text=st.text(st.characters(), max_size=300))
def test_what_comes_from_outside_cannot_steer_the_terminal(text: str) -> None:
    """A title may hold escape codes that move the cursor or rewrite what was printed."""
    shown = render.plain(text)

    assert len(shown) <= 160
    assert not any(c != " " and (c < " " or "\x7f" <= c <= "\x9f") for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b")


def test_markup_in_a_title_is_text() -> None:
    """`[red]` in a title is part of the title."""
    answer = _answer()
    answer.track.title = "[bold red]x[/]"

    text = _print(render.outcome_block(Outcome(entry=_entry("[b]a"), answer=answer)))

    assert "[bold red]x[/]" in text
    assert "[b]a" in text


def test_colours_are_only_for_terminals() -> None:
    """A log file full of escape codes is no use."""
    block = render.outcome_block(Outcome(entry=_entry(), answer=_answer()))

    assert "\x1b[" not in _print(block)
    assert "\x1b[" in _print(block, colours=True)


def test_a_record_has_the_promised_keys() -> None:
    """Scripts are written against these names; changing one breaks them."""
    record = json.loads(json.dumps(outcome_record(Outcome(entry=_entry(), answer=_answer()))))

    assert list(record) == [
        "path", "item_id", "fields", "properties", "track",
        "needs_review", "review_reasons", "issues", "processing",
    ]  # fmt: skip
    assert record["fields"]["bpm"] == {
        "value": 126.0,
        "confidence": 0.93,
        "confidence_basis": "UNSPECIFIED",
        "source": "MEASURED",
        "decision": "PROPOSED",
        "given": 63.0,
        "model": None,
        "agreed_by": [],
        "alternatives": [{"value": 63.0, "confidence": 0.05, "source": "GIVEN"}],
        "reason": "listening finds twice the tempo",
    }
    assert record["fields"]["genre"]["value"] is None
    assert record["properties"] == {
        "container": "ogg",
        "duration_seconds": 20.0,
        "size_bytes": 1 << 40,
    }
    assert "audio" not in record["track"]


def test_a_failed_record_has_the_promised_keys() -> None:
    """One line an input holds for failures too."""
    error = track_pb2.Error(code=code_pb2.NOT_FOUND, reason="FILE_UNREADABLE", message="gone")

    record = outcome_record(Outcome(entry=_entry(), error=error))

    assert record == {
        "path": "a.wav",
        "item_id": "a.wav",
        "error": {
            "code": "NOT_FOUND",
            "reason": "FILE_UNREADABLE",
            "message": "gone",
            "retryable": False,
            "violations": [],
        },
    }


_TRUTH = {
    "path": "a.wav",
    "bpm": 126,
    "key": "D minor",
    "problem": "tempo an octave low",
    "expect": {"decision": {"bpm": "PROPOSED"}, "issue": {"bpm": "OCTAVE"}},
}


def test_the_demo_accepts_right_answers() -> None:
    """A check that never passes checks nothing."""
    check = check_track(_TRUTH, Outcome(entry=_entry(), answer=_answer()))

    assert check.good, check.found


@pytest.mark.parametrize(
    "change",
    [
        {"bpm": 140},
        {"key": "F major"},
        {"expect": {"decision": {"bpm": "KEPT"}}},
        {"expect": {"issue": {"isrc": "ISRC"}}},
        {"expect": {"error": "AUDIO_UNSUPPORTED"}},
        {"expect": {"clean": True}},
    ],
)
def test_the_demo_refuses_wrong_answers(change: dict[str, object]) -> None:
    """A demo that always passes shows nothing."""
    check = check_track({**_TRUTH, **change}, Outcome(entry=_entry(), answer=_answer()))

    assert not check.good


def test_the_demo_counts_an_octave_only_with_the_right_alternative() -> None:
    """Half the tempo is a wrong answer, unless the right one is offered beside it."""
    answer = _answer()
    answer.fields[0].value = "63"
    answer.fields[0].alternatives[0].value = "126"
    outcome = Outcome(entry=_entry(), answer=answer)

    assert check_track(_TRUTH, outcome).good
    answer.fields[0].alternatives[0].value = "95"
    assert not check_track(_TRUTH, outcome).good


def test_a_key_may_be_spelt_either_way() -> None:
    """F# and Gb are one key on every keyboard."""
    answer = _answer()
    answer.fields[1].value = "Gb major"

    assert check_track({**_TRUTH, "key": "F# major"}, Outcome(entry=_entry(), answer=answer)).good


def test_with_own_audio_an_unexplained_failure_is_no_answer() -> None:
    """INTERNAL is what a server says that does not know why."""
    bad = track_pb2.Error(code=code_pb2.INTERNAL, reason="INTERNAL", message="?")
    precise = track_pb2.Error(code=code_pb2.INVALID_ARGUMENT, reason="AUDIO_EMPTY")

    assert not check_answered("a.wav", Outcome(entry=_entry(), error=bad)).good
    assert check_answered("a.wav", Outcome(entry=_entry(), error=precise)).good
    assert not check_answered("a.wav", None).good
