"""What an editor is sent to look at: the worst first, in words that claim no more than is known."""

from dataclasses import replace

from liner.v1 import enrichment_pb2, track_pb2
from liner_server.audio.measurements import Content
from liner_server.core.ledger import Policy
from liner_server.core.review import review_reasons
from liner_server.errors import UnavailableError
from liner_server.evaluation import catalogue

_POLICY = Policy(
    overwrite=enrichment_pb2.OVERWRITE_POLICY_NEVER, min_confidence=0.8, fields=frozenset()
)
_CALIBRATED = track_pb2.CONFIDENCE_BASIS_CALIBRATED
_UNCALIBRATED = track_pb2.CONFIDENCE_BASIS_UNCALIBRATED
_PROPOSED, _KEPT = track_pb2.DECISION_PROPOSED, track_pb2.DECISION_KEPT


def _result(field: str, value: str, **more: object) -> track_pb2.FieldResult:
    told = {"confidence": 0.7, "confidence_basis": _CALIBRATED, "decision": _PROPOSED, **more}
    return track_pb2.FieldResult(field=field, value=value, **told)  # type: ignore[arg-type]


def _issue(rule_id: str, severity: int) -> enrichment_pb2.ValidationIssue:
    return enrichment_pb2.ValidationIssue(rule_id=rule_id, severity=severity, message="no code")  # type: ignore[arg-type]


def test_the_worst_comes_first() -> None:
    """Silent audio, then what is refused, contradicted, doubtful; last what a failure left open."""
    silent = replace(catalogue.heard(catalogue.clean(1)), content=Content.SILENCE)
    results = [
        _result("genre", "Jazz"),
        _result("label", "Foo", decision=_KEPT, given_value="Foo", confidence=0.4),
        _result("bpm", "140", given_value="70"),
    ]
    results[1].alternatives.add(value="Bar", confidence=0.3)
    issues = [
        _issue("ISRC_FORMAT", enrichment_pb2.SEVERITY_ERROR),
        _issue("TITLE_ALL_CAPS", enrichment_pb2.SEVERITY_WARNING),
    ]
    failures = [("qwen2", UnavailableError("no", reason="PROVIDER_DOWN"))]

    reasons = review_reasons(results, issues, silent, _POLICY, failures)

    assert reasons == [
        "the audio is silent",
        "ISRC_FORMAT: no code",
        "bpm: 140 is more likely (70% sure) than 70, which was given",
        "genre: Jazz is only 70% sure",
        "label: Foo is doubtful",
        "no model could answer (qwen2: PROVIDER_DOWN); this is what was measured",
    ]


def test_a_score_that_was_fitted_to_nothing_is_not_called_sure() -> None:
    """60 % sure would be a promise; nobody asked for it, it is not even told."""
    told = {"confidence": 0.6, "confidence_basis": _UNCALIBRATED}
    guess, rival = _result("energy", "0.5", **told), _result("genre", "Jazz", **told)
    rival.given_value = "Soul"
    asked = replace(_POLICY, fields=frozenset(["energy"]))

    assert review_reasons([guess], [], None, _POLICY) == []
    assert review_reasons([guess], [], None, asked) == [
        "energy: 0.5 is only a guess: its score of 0.60 was fitted to nothing"
    ]
    [compared] = review_reasons([rival], [], None, _POLICY)
    assert compared == (
        "genre: Jazz is more likely (a guess: its score of 0.60 was fitted to nothing) than Soul, "
        "which was given"
    )


def test_a_long_value_is_quoted_in_short() -> None:
    """Lyrics have up to 64 KiB, and a reason is one line of a list."""
    words = "la " * 20_000

    [reason] = review_reasons([_result("lyrics", words, given_value=words)], [], None, _POLICY)

    assert len(reason) < 250
