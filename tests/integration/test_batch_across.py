"""What the items of a batch say against each other, over a real channel."""

import asyncio
from collections.abc import AsyncIterator

import grpc
from liner.v1 import enrichment_pb2, track_pb2
from support.audio_files import encode, piece
from support.grpc_errors import fails
from support.server import Stubs

Request = enrichment_pb2.BatchProcessRequest
DDEX = enrichment_pb2.DELIVERY_PROFILE_DDEX


def _item(item_id: str, **track: object) -> enrichment_pb2.BatchItem:
    return enrichment_pb2.BatchItem(item_id=item_id, track=track_pb2.Track(**track))  # type: ignore[arg-type]


def _requests(
    *items: enrichment_pb2.BatchItem, **config: object
) -> list[enrichment_pb2.BatchProcessRequest]:
    return [
        Request(config=enrichment_pb2.BatchConfig(**config)),  # type: ignore[arg-type]
        Request(items=enrichment_pb2.BatchItems(items=items)),
    ]


async def _run(
    stubs: Stubs, requests: list[Request]
) -> tuple[list[enrichment_pb2.BatchResult], enrichment_pb2.BatchSummary]:
    results: list[enrichment_pb2.BatchResult] = []
    summary = None
    async for response in stubs.enrichment.BatchProcess(iter(requests)):
        results.extend(response.results.results)
        if response.HasField("summary"):
            summary = response.summary
    assert summary is not None
    return results, summary


def _told(summary: enrichment_pb2.BatchSummary) -> list[tuple[str, str]]:
    return [(found.item_id, found.issue.rule_id) for found in summary.batch_issues]


async def test_a_batch_can_be_judged_and_not_enriched(stubs: Stubs) -> None:
    """A delivery is checked as a whole: every track by the rules, then all against each other."""
    results, summary = await _run(
        stubs,
        _requests(
            _item("a", title="Golden River", isrc="USRC17607839"),
            _item("b", title="GOLDEN RIVER", isrc="USRC17607839"),
            _item("c", title="Paper Crown", isrc="USRC17607839"),
            _item("d"),
            validate_profile=DDEX,
        ),
    )

    answers = {result.item_id: result for result in results}
    assert {name: answers[name].WhichOneof("outcome") for name in "abcd"} == {
        **dict.fromkeys("abc", "validated"),
        "d": "error",
    }
    assert "TITLE_ALL_CAPS" in {issue.rule_id for issue in answers["b"].validated.issues}
    assert _told(summary) == [("c", "BATCH_ISRC_REUSED")]
    assert (summary.compared, summary.succeeded, summary.failed) == (3, 3, 1)
    # Without label, territories ... a DDEX delivery would be refused.
    assert summary.needs_review == 3


async def test_the_same_recording_in_two_codecs_is_found_by_its_sound(stubs: Stubs) -> None:
    """Neither name nor bytes are the same: only listening tells."""
    music = piece(12, seed=5)
    flac, mp3 = encode(music, "flac"), encode(music, "mp3")
    other = encode(piece(12, seed=6, bpm=90), "flac")

    results, summary = await _run(
        stubs,
        _requests(
            _item("x", title="One", isrc="USRC17607839", audio=track_pb2.Audio(inline=flac)),
            _item("y", title="Two", isrc="USRC17607840", audio=track_pb2.Audio(inline=other)),
            _item("z", title="Three", isrc="USRC17607841", audio=track_pb2.Audio(inline=mp3)),
        ),
    )

    assert _told(summary) == [("z", "BATCH_AUDIO_REUSED")]
    assert all(len(r.enriched.audio_identity.fingerprint) > 40 for r in results)


async def test_what_was_answered_before_a_break_is_compared_too(stubs: Stubs) -> None:
    """A lost connection in the night must not hide a contradiction."""
    first = _item("first", title="Golden River", isrc="USRC17607839")
    second = _item("second", title="Paper Crown", isrc="USRC17607839")

    async def unfinished() -> AsyncIterator[Request]:
        for request in _requests(first, batch_id="broken", validate_profile=DDEX):
            yield request
        await asyncio.Event().wait()

    call = stubs.enrichment.BatchProcess(unfinished())
    response = await call.read()
    while not response.HasField("results"):
        response = await call.read()
    call.cancel()

    summary = None
    while summary is None:
        try:
            _, summary = await _run(
                stubs,
                _requests(first, second, batch_id="broken", resume_after=1, validate_profile=DDEX),
            )
        except grpc.aio.AioRpcError as error:
            # The server has not yet noticed that the first stream is gone.
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise

    assert _told(summary) == [("second", "BATCH_ISRC_REUSED")]


async def test_a_profile_that_does_not_exist_is_refused(stubs: Stubs) -> None:
    """Judging by another one would pass what should have failed."""
    async with fails(grpc.StatusCode.INVALID_ARGUMENT):
        await _run(stubs, [Request(config=enrichment_pb2.BatchConfig(validate_profile=77))])  # type: ignore[arg-type]


async def test_a_long_list_of_contradictions_is_cut(stubs: Stubs) -> None:
    """A summary is one message; who sends one ISRC for everything needs no list of all."""
    items = [_item(f"t{i}", title=f"Song {i:04}", isrc="USRC17607839") for i in range(1_006)]
    messages = [
        Request(items=enrichment_pb2.BatchItems(items=items[i : i + 200]))
        for i in range(0, len(items), 200)
    ]

    _, summary = await _run(
        stubs,
        [Request(config=enrichment_pb2.BatchConfig(validate_profile=DDEX)), *messages],
    )

    assert len(summary.batch_issues) == 1_000
    assert summary.batch_issues_omitted == 5
