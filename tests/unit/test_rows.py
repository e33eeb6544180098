"""What rows say of answers and reviews."""

import pytest
from liner.v1 import analytics_pb2, enrichment_pb2, track_pb2
from liner_server.core.rows import completed, model_agreed, outcome_rows, packed, track_hash

GIVEN, TAG, MEASURED, MODEL = (
    track_pb2.SOURCE_GIVEN,
    track_pb2.SOURCE_TAG,
    track_pb2.SOURCE_MEASURED,
    track_pb2.SOURCE_MODEL,
)


@pytest.mark.parametrize(
    ("source", "witnesses", "others", "agreed"),
    [
        (MODEL, [MEASURED], [], True),
        (MODEL, [], [MEASURED], False),
        (MODEL, [], [], None),
        (MODEL, [MODEL], [], None),
        (MODEL, [], [MODEL], None),
        (MEASURED, [MODEL], [], True),
        (GIVEN, [TAG], [MODEL], False),
        (GIVEN, [TAG], [MEASURED], None),
        (MEASURED, [], [], None),
    ],
)
def test_agreement_is_of_a_model_with_something_else(
    source: int, witnesses: list[int], others: list[int], agreed: bool | None
) -> None:
    """Two models that say the same prove less: they were trained on the same pages."""
    result = track_pb2.FieldResult(source=source, agreed_by=witnesses)  # type: ignore[arg-type]
    for other in others:
        result.alternatives.add(source=other)  # type: ignore[arg-type]

    assert model_agreed(result) is agreed


def test_a_row_counts_what_liner_said_and_not_what_it_was_told() -> None:
    """Given values and unknown ones have no confidence of Liner's."""
    answer = enrichment_pb2.EnrichMetadataResponse()
    answer.fields.add(field="title", source=GIVEN, confidence=1, decision=track_pb2.DECISION_KEPT)
    answer.fields.add(field="key", decision=track_pb2.DECISION_ABSTAINED)
    found = answer.fields.add(field="bpm", source=MEASURED, confidence=0.9, agreed_by=[MODEL])
    found.decision = track_pb2.DECISION_FILLED
    answer.processing.error.reason = "NO_MODEL"

    row = completed(analytics_pb2.ExperimentRow(), answer)

    assert [(one.field, one.confidence) for one in row.fields] == [("bpm", 0.9)]
    assert (row.checked_fields, row.agreed_fields) == (1, 1)
    assert (row.success, row.error_code) == (False, "NO_MODEL")


@pytest.mark.parametrize(
    "track",
    [
        track_pb2.Track(title="A"),
        track_pb2.Track(title="A", lyrics="la " * 20_000),
        track_pb2.Track(title="A", audio=track_pb2.Audio(object_name="a.flac")),
        track_pb2.Track(title="A", audio=track_pb2.Audio(inline=b"x" * (2 << 20))),
    ],
    ids=["short", "lyrics", "stored audio", "audio"],
)
def test_what_is_kept_of_an_answer_is_small_and_makes_the_same_row(
    track: track_pb2.Track,
) -> None:
    """Two megabytes of a caller's audio have no place in the journal."""
    answer = enrichment_pb2.EnrichMetadataResponse(track=track)
    answer.fields.add(field="bpm", source=MEASURED, confidence=0.9, agreed_by=[MODEL])
    answer.processing.model = "qwen2"

    kept = packed(answer)

    again = completed(
        analytics_pb2.ExperimentRow(), enrichment_pb2.EnrichMetadataResponse.FromString(kept)
    )
    assert len(kept) <= 16 << 10
    assert again == completed(analytics_pb2.ExperimentRow(), answer)
    assert again.model == "qwen2"


def reviewed(
    verdict: "enrichment_pb2.Verdict.ValueType", corrected: str = "", request_id: str = "r"
) -> analytics_pb2.OutcomeRow:
    """Return the row of a review of a genre that two models named otherwise."""
    record = enrichment_pb2.Enrichment(enrichment_id="e")
    record.answer.track.track_id = "t"
    found = record.answer.fields.add(field="genre", value="Jazz", confidence=0.7, source=MODEL)
    found.model_scores.add(model="qwen2:m", value="Jazz", score=0.6)
    found.model_scores.add(model="openai:m", value="Soul", score=0.4)
    review = enrichment_pb2.Review(reviewer="ana")
    review.reviews.add(field="genre", verdict=verdict, corrected_value=corrected)
    [row] = outcome_rows(record, review, request_id=request_id, track=track_hash)
    return row


@pytest.mark.parametrize(
    ("verdict", "corrected", "right"),
    [
        (enrichment_pb2.VERDICT_ACCEPT, "", {"qwen2:m": True, "openai:m": False}),
        (enrichment_pb2.VERDICT_CORRECT, "Soul", {"qwen2:m": False, "openai:m": True}),
        (enrichment_pb2.VERDICT_REJECT, "", {"qwen2:m": False}),
    ],
)
def test_a_judgement_tells_which_scores_were_right(
    verdict: "enrichment_pb2.Verdict.ValueType", corrected: str, right: dict[str, bool]
) -> None:
    """A rejected value says nothing of another model's: it may have been right."""
    row = reviewed(verdict, corrected)

    assert {score.model: score.right for score in row.scores} == right
    assert row.accepted is (verdict == enrichment_pb2.VERDICT_ACCEPT)
    assert (row.track, row.reviewer) == (track_hash("t"), "ana")


def test_the_same_review_makes_the_same_row() -> None:
    """Who asks again after a crash is one editor; who reviews again is heard again."""
    accept = enrichment_pb2.VERDICT_ACCEPT

    assert reviewed(accept).row_id == reviewed(accept).row_id
    assert reviewed(accept).row_id != reviewed(accept, request_id="other").row_id
    assert reviewed(accept, request_id="").row_id != reviewed(accept, request_id="").row_id
