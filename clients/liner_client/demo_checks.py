"""Whether the demo's answers are the right ones: each outcome against what is known of its file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from liner.v1 import enrichment_pb2, track_pb2

from liner_client.errors import from_item
from liner_client.records import Outcome, word

TEMPO_TOLERANCE = 0.04
"""Share by which a tempo may be off and still count as right: the usual 4 %."""

_OCTAVES = (1 / 3, 1 / 2, 2.0, 3.0)
_PITCHES = {
    name: number
    for number, names in enumerate(
        ("C B#", "C# Db", "D", "D# Eb", "E Fb", "F E#", "F# Gb", "G", "G# Ab", "A", "A# Bb", "B Cb")
    )
    for name in names.split()
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that had to hold, and whether it did."""

    name: str
    expected: str
    found: str
    good: bool


def check_answered(name: str, outcome: Outcome | None) -> Check:
    """Return whether a file of the user's got an answer or a precise error."""
    expected = "an answer, or why there is none"
    if outcome is None:
        return Check(name=name, expected=expected, found="nothing", good=False)
    if outcome.error is not None:
        error = from_item(outcome.error)
        good = error.reason not in ("", "INTERNAL", "UNKNOWN")
        found = f"{error.reason}: {error}"
        return Check(name=name, expected=expected, found=found, good=good)
    answer = outcome.answer or enrichment_pb2.EnrichMetadataResponse()
    known = {found.field: found.value for found in answer.fields if found.value}
    found = ", ".join(f"{part} {known[part]}" for part in ("bpm", "key", "genre") if part in known)
    return Check(name=name, expected=expected, found=found or "an answer", good=True)


def check_track(truth: Mapping[str, Any], outcome: Outcome | None) -> Check:
    """Return whether a made-up file was answered as what is known of it demands."""
    expect = truth["expect"]
    name = str(truth["path"])
    problem = str(truth["problem"])
    if outcome is None:
        return Check(name=name, expected=problem, found="no answer came", good=False)
    if "error" in expect:
        reason = from_item(outcome.error).reason if outcome.error is not None else "an answer"
        good = reason == expect["error"]
        return Check(name=name, expected=problem, found=f"refused: {reason}", good=good)
    if outcome.answer is None:
        error = from_item(outcome.error or track_pb2.Error())
        return Check(name=name, expected=problem, found=f"failed: {error.reason}", good=False)
    lines = list(_judged(truth, outcome.answer))
    return Check(
        name=name,
        expected=problem,
        found="; ".join(text if good else f"WRONG: {text}" for good, text in lines),
        good=all(good for good, _ in lines),
    )


def _judged(
    truth: Mapping[str, Any], answer: enrichment_pb2.EnrichMetadataResponse
) -> Iterator[tuple[bool, str]]:
    expect = truth["expect"]
    results = {found.field: found for found in answer.fields}
    if expect.get("truncated"):
        issue = any(issue.rule_id == "AUDIO_TRUNCATED" for issue in answer.issues)
        yield (
            issue or answer.processing.needs_review,
            "answered all the same, " + ("AUDIO_TRUNCATED" if issue else "needs review"),
        )
    else:
        yield _tempo(float(truth["bpm"]), results.get("bpm"))
        yield _key(str(truth["key"]), results.get("key"))
    if expect.get("clean"):
        faults = [i.rule_id for i in answer.issues if i.severity != enrichment_pb2.SEVERITY_INFO]
        yield not faults, ", ".join(faults) or "no fault found"
    for field, decision in expect.get("decision", {}).items():
        found = results.get(field)
        made = word(track_pb2.Decision.Name(found.decision), "DECISION_") if found else "NO ANSWER"
        yield made == decision, f"{field} {made.lower()}"
    for field, part in expect.get("issue", {}).items():
        rules = [issue.rule_id for issue in answer.issues if issue.field.startswith(field)]
        found_rule = next((rule for rule in rules if part in rule), None)
        yield found_rule is not None, found_rule or f"no {part} issue of {field}"


def _tempo(truth: float, found: track_pb2.FieldResult | None) -> tuple[bool, str]:
    """A value a multiple off counts where the right one is among the alternatives."""
    value = _number(found.value) if found else None
    if found is None or value is None:
        return False, "no tempo"
    if _near(value, truth):
        return True, f"tempo {value:g}"
    ambiguous = any(_near(value, truth * factor) for factor in _OCTAVES)
    others = [_number(other.value) for other in found.alternatives]
    if ambiguous and any(other is not None and _near(other, truth) for other in others):
        return True, f"tempo {value:g}, with {truth:g} as alternative"
    return False, f"tempo {value:g}, not {truth:g}"


def _key(truth: str, found: track_pb2.FieldResult | None) -> tuple[bool, str]:
    if found is None or not found.value:
        return False, "no key"
    good = _pitch(found.value) == _pitch(truth)
    return good, f"key {found.value}" if good else f"key {found.value}, not {truth}"


def _pitch(key: str) -> tuple[int | None, str]:
    """Return a key so that F# and Gb are the same."""
    tonic, _, mode = key.partition(" ")
    return _PITCHES.get(tonic), mode


def _near(value: float, truth: float) -> bool:
    return abs(value / truth - 1) <= TEMPO_TOLERANCE


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
