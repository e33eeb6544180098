"""Stored enrichments through the whole service: kept, listed, reviewed, known after a restart."""

import asyncio
import sqlite3
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.rpc.identity import new_token
from support.eventually import eventually
from support.grpc_errors import fails
from support.server import Stubs, connected, served, server_process

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
DONE = enrichment_pb2.ENRICHMENT_STATE_DONE
NEWEST_FIRST = enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST
ACCEPT, CORRECT, REJECT = (
    enrichment_pb2.VERDICT_ACCEPT,
    enrichment_pb2.VERDICT_CORRECT,
    enrichment_pb2.VERDICT_REJECT,
)
WRONG_ISRC = {"title": "Song", "isrc": "not an isrc"}
"""A track that needs review."""


async def enrich(
    stubs: Stubs, *, request_id: str = "", **track: object
) -> enrichment_pb2.EnrichMetadataResponse:
    """Enrich a track of these fields."""
    request = enrichment_pb2.EnrichMetadataRequest(
        track=track_pb2.Track(**track), request_id=request_id
    )
    return await stubs.enrichment.EnrichMetadata(request, timeout=30)


async def get(stubs: Stubs, name: str) -> enrichment_pb2.Enrichment:
    """Return a stored enrichment."""
    request = enrichment_pb2.GetEnrichmentRequest(enrichment_id=name)
    return (await stubs.enrichment.GetEnrichment(request)).enrichment


async def is_stored(stubs: Stubs, name: str) -> bool:
    """Whether an enrichment is there yet."""
    try:
        await get(stubs, name)
    except grpc.aio.AioRpcError as error:
        if error.code() is not NOT_FOUND:
            raise
        return False
    return True


async def stored(stubs: Stubs, **track: object) -> str:
    """Enrich a track and return its enrichment's id once it is stored."""
    name = (await enrich(stubs, **track)).processing.enrichment_id
    await eventually(lambda: is_stored(stubs, name))
    return name


async def listed(stubs: Stubs, **asked: object) -> list[str]:
    """Return the ids of all pages."""
    request = enrichment_pb2.ListEnrichmentsRequest(**asked)
    names: list[str] = []
    while True:
        page = await stubs.enrichment.ListEnrichments(request)
        names += [enrichment.enrichment_id for enrichment in page.enrichments]
        request.page_token = page.next_page_token
        if not request.page_token:
            return names


def judged(field: str, verdict: int, **more: str) -> enrichment_pb2.FieldReview:
    """Return a judgement on one field."""
    return enrichment_pb2.FieldReview(field=field, verdict=verdict, **more)


async def review(
    stubs: Stubs, name: str, *said: enrichment_pb2.FieldReview, request_id: str = ""
) -> enrichment_pb2.Enrichment:
    """Store a judgement."""
    request = enrichment_pb2.ReviewEnrichmentRequest(
        enrichment_id=name, reviews=said, request_id=request_id
    )
    return (await stubs.enrichment.ReviewEnrichment(request)).enrichment


async def test_every_answer_can_be_looked_up_by_its_id(stubs: Stubs):
    """An editor opens tomorrow what a service was told today."""
    answer = await enrich(stubs, title="Song", track_id="t1", request_id="ingest-7")
    name = answer.processing.enrichment_id
    await eventually(lambda: is_stored(stubs, name))

    found = await get(stubs, name)

    assert (found.enrichment_id, found.state, found.request_id) == (name, DONE, "ingest-7")
    assert found.answer.fields == answer.fields
    assert found.answer.track == answer.track
    assert found.create_time.seconds > 1_700_000_000


async def test_an_answer_given_again_is_stored_once(stubs: Stubs):
    """A hundred retries make one result."""
    first = await stored(stubs, title="Song")
    for _ in range(3):
        again = await enrich(stubs, title="Song")
        assert again.processing.enrichment_id == first
    other = await stored(stubs, title="Other")

    assert set(await listed(stubs)) == {first, other}


async def test_an_answer_known_to_others_is_still_the_askers_own(stubs: Stubs):
    """Two tracks with the same words share the work, and neither gets the other's id."""
    first = await enrich(stubs, title="Song", track_id="a")
    second = await enrich(stubs, title="Song", track_id="b")
    third = await enrich(stubs, title="Song")

    assert second.processing.enrichment_id == first.processing.enrichment_id
    assert (first.track.track_id, second.track.track_id) == ("a", "b")
    assert not third.track.HasField("track_id")


async def test_the_items_of_a_batch_are_stored_too(stubs: Stubs):
    """Overnight ingests are what editors look through in the morning."""
    items = [
        enrichment_pb2.BatchItem(item_id=f"{n}", track=track_pb2.Track(title=f"Song {n}"))
        for n in range(120)
    ]
    requests = [
        enrichment_pb2.BatchProcessRequest(config=enrichment_pb2.BatchConfig()),
        enrichment_pb2.BatchProcessRequest(items=enrichment_pb2.BatchItems(items=items)),
    ]
    results: dict[str, str] = {}
    async for response in stubs.enrichment.BatchProcess(iter(requests)):
        for result in response.results.results:
            results[result.item_id] = result.enriched.processing.enrichment_id

    async def all_there() -> bool:
        return set(await listed(stubs, page_size=50)) == set(results.values())

    await eventually(all_there)
    assert len(results) == len(set(results.values())) == 120


async def test_an_editors_list_begins_with_what_is_in_doubt(stubs: Stubs):
    """Needs review first; filters and pages as the contract says."""
    fine = await stored(stubs, title="Song", artists=[track_pb2.Artist(name="Ana North")])
    doubtful = await stored(stubs, **WRONG_ISRC)

    assert (await listed(stubs))[0] == doubtful
    assert await listed(stubs, page_size=1, order=NEWEST_FIRST) == [doubtful, fine]
    assert await listed(stubs, needs_review=True) == [doubtful]
    assert await listed(stubs, needs_review=False) == [fine]
    assert await listed(stubs, model="qwen2") == []
    assert set(await listed(stubs, model="embedded")) == {fine, doubtful}
    now = Timestamp()
    now.GetCurrentTime()
    now.seconds += 60
    assert await listed(stubs, create_time_from=now) == []


async def test_a_review_is_kept_beside_the_claims(stubs: Stubs):
    """What was answered stays; what the editor says stands behind it, in canonical form."""
    name = await stored(stubs, **WRONG_ISRC, key="C major")
    before = await get(stubs, name)

    after = await review(
        stubs,
        name,
        judged("isrc", REJECT, note="belongs to another recording"),
        judged("key", CORRECT, corrected_value="8A"),
        judged("title", ACCEPT),
        request_id="r1",
    )

    assert after.answer == before.answer
    [said] = after.reviews
    assert said.reviewer == "local"
    assert said.review_time.seconds >= before.create_time.seconds
    assert [(r.field, r.verdict, r.corrected_value) for r in said.reviews] == [
        ("isrc", REJECT, ""),
        ("key", CORRECT, "A minor"),
        ("title", ACCEPT, ""),
    ]
    assert await get(stubs, name) == after
    assert await listed(stubs, needs_review=True) == []


async def test_a_review_sent_twice_is_stored_once(stubs: Stubs):
    """A client whose connection broke sends it again; other content is another review."""
    name = await stored(stubs, title="Song")
    first = await review(stubs, name, judged("title", ACCEPT), request_id="r1")

    assert await review(stubs, name, judged("title", ACCEPT), request_id="r1") == first
    async with fails(grpc.StatusCode.ALREADY_EXISTS) as failure:
        await review(stubs, name, judged("title", REJECT), request_id="r1")
    assert failure.reason == "REQUEST_ID_REUSED"


BAD_REVIEWS = [
    ([], {"reviews": "REQUIRED"}),
    ([judged("", ACCEPT)], {"reviews[0].field": "FIELD_UNKNOWN"}),
    ([judged("tempo", ACCEPT)], {"reviews[0].field": "FIELD_UNKNOWN"}),
    ([judged("album", ACCEPT)], {"reviews[0].field": "FIELD_NOT_ANSWERED"}),
    (
        [judged("title", ACCEPT), judged("title", REJECT)],
        {"reviews[1].field": "FIELD_DUPLICATE"},
    ),
    ([judged("title", 0)], {"reviews[0].verdict": "REQUIRED"}),
    ([judged("title", 9)], {"reviews[0].verdict": "ENUM_UNKNOWN"}),
    ([judged("title", CORRECT)], {"reviews[0].corrected_value": "REQUIRED"}),
    ([judged("title", CORRECT, corrected_value=" ")], {"reviews[0].corrected_value": "REQUIRED"}),
    (
        [judged("isrc", CORRECT, corrected_value="USX")],
        {"reviews[0].corrected_value": "VALUE_FORMAT"},
    ),
    (
        [judged("title", ACCEPT, corrected_value="Other")],
        {"reviews[0].corrected_value": "VERDICT_CONTRADICTED"},
    ),
    ([judged("title", ACCEPT, note="é" * 513)], {"reviews[0].note": "TEXT_TOO_LONG"}),
    (
        [judged("title", CORRECT), judged("nothing", 0)],
        {
            "reviews[0].corrected_value": "REQUIRED",
            "reviews[1].field": "FIELD_UNKNOWN",
            "reviews[1].verdict": "REQUIRED",
        },
    ),
    ([judged("title", ACCEPT)] * 101, {"reviews": "LIST_TOO_LONG"}),
]


async def test_a_bad_review_is_refused_with_every_fault_named(stubs: Stubs):
    """And nothing of it is stored."""
    name = await stored(stubs, **WRONG_ISRC)
    for said, violations in BAD_REVIEWS:
        async with fails(INVALID) as failure:
            await review(stubs, name, *said)
        assert failure.violations == violations

    async with fails(INVALID) as failure:
        await review(stubs, name, judged("title", ACCEPT), request_id="x" * 129)
    assert failure.violations == {"request_id": "REQUEST_ID_FORMAT"}
    assert not (await get(stubs, name)).reviews


async def test_what_was_never_enriched_is_not_found(stubs: Stubs):
    """NOT_FOUND with the id; an id that cannot be one is the caller's mistake."""
    async with fails(NOT_FOUND) as failure:
        await get(stubs, "nothing")
    assert failure.reason == "ENRICHMENT_NOT_FOUND"
    async with fails(NOT_FOUND):
        await review(stubs, "nothing", judged("title", ACCEPT))
    for name, reason in (("", "REQUIRED"), ("x" * 257, "TEXT_TOO_LONG")):
        async with fails(INVALID) as failure:
            await get(stubs, name)
        assert failure.violations == {"enrichment_id": reason}


@pytest.mark.parametrize(
    ("asked", "violations"),
    [
        ({"page_size": -1}, {"page_size": "NUMBER_RANGE"}),
        ({"page_token": "x"}, {"page_token": "PAGE_TOKEN"}),
        ({"model": "m" * 65}, {"model": "TEXT_TOO_LONG"}),
        ({"order": 7}, {"order": "ENUM_UNKNOWN"}),
        (
            {"create_time_from": Timestamp(seconds=1 << 60)},
            {"create_time_from": "TIME_RANGE"},
        ),
    ],
)
async def test_a_bad_list_request_is_refused(stubs: Stubs, asked, violations):
    """An editor's program learns what is wrong in place of getting an empty list."""
    async with fails(INVALID) as failure:
        await listed(stubs, **asked)

    assert failure.violations == violations


async def test_a_review_names_who_was_authenticated(tmp_path: Path):
    """And takes the role for it: a service that enriches does not judge."""
    editor, editor_line = new_token("ana", ["review", "enrich"])
    service, service_line = new_token("ingest", ["enrich"])
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{editor_line}\n{service_line}\n")

    async with served(tmp_path / "data", tokens_file=tokens) as (_, stubs):
        as_editor, as_service = (
            (("authorization", f"Bearer {token}"),) for token in (editor, service)
        )
        answer = await stubs.enrichment.EnrichMetadata(
            enrichment_pb2.EnrichMetadataRequest(track=track_pb2.Track(title="Song")),
            metadata=as_service,
        )
        request = enrichment_pb2.ReviewEnrichmentRequest(
            enrichment_id=answer.processing.enrichment_id, reviews=[judged("title", ACCEPT)]
        )
        async with fails(grpc.StatusCode.PERMISSION_DENIED):
            await stubs.enrichment.ReviewEnrichment(request, metadata=as_service)

        reviewed: list[enrichment_pb2.Enrichment] = []

        async def accepted() -> bool:
            try:
                response = await stubs.enrichment.ReviewEnrichment(request, metadata=as_editor)
            except grpc.aio.AioRpcError as error:
                if error.code() is not NOT_FOUND:
                    raise
                return False
            reviewed.append(response.enrichment)
            return True

        await eventually(accepted)

    assert [said.reviewer for said in reviewed[0].reviews] == ["ana"]


@pytest.mark.parametrize("backend", ["sqlite", "objects"])
async def test_a_restart_forgets_nothing(tmp_path: Path, backend: str):
    """The same question is answered from what was known before, and results are still listed."""
    environment = {"LINER_RESULTS": backend}
    async with server_process(tmp_path, environment) as server:
        async with connected(server.grpc_address) as stubs:
            first = await enrich(stubs, title="Song", track_id="a")
            doubtful = await stored(stubs, **WRONG_ISRC)
            await review(stubs, doubtful, judged("isrc", REJECT))
        assert await server.terminate() == 0

    async with (
        server_process(tmp_path, environment) as server,
        connected(server.grpc_address) as stubs,
    ):
        again = await enrich(stubs, title="Song", track_id="b")
        other = await enrich(stubs, title="Song", album="Other")

        assert again.processing.from_cache
        assert again.processing.enrichment_id == first.processing.enrichment_id
        assert again.fields == first.fields
        assert again.track.track_id == "b"
        assert not other.processing.from_cache
        found = await get(stubs, doubtful)
        assert found.reviews[0].reviews == [judged("isrc", REJECT)]
        assert {first.processing.enrichment_id, doubtful} <= set(await listed(stubs))


async def test_what_is_stored_outlives_a_kill(tmp_path: Path):
    """Nobody says goodbye before a machine dies: what could be read once stays."""
    async with server_process(tmp_path) as server, connected(server.grpc_address) as stubs:
        name = await stored(stubs, title="Song")
        server.process.kill()
        await server.process.wait()

    async with server_process(tmp_path) as server, connected(server.grpc_address) as stubs:
        assert (await get(stubs, name)).state == DONE
        assert (await enrich(stubs, title="Song")).processing.enrichment_id == name


async def test_a_store_that_stands_still_delays_no_answer(tmp_path: Path):
    """Another program holds the file: answers come as ever, and are stored when it lets go."""
    async with served(tmp_path) as (_, stubs):
        await enrich(stubs, title="Warm")
        other = sqlite3.connect(tmp_path / "results.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        loop = asyncio.get_running_loop()
        started = loop.time()
        answers = [await enrich(stubs, title=f"Song {n}") for n in range(10)]
        elapsed = loop.time() - started
        held_up = await listed(stubs)
        other.execute("ROLLBACK")
        other.close()

        for answer in answers:
            name = answer.processing.enrichment_id
            assert name not in held_up
            await eventually(lambda name=name: is_stored(stubs, name))
    assert elapsed < 4


async def test_results_are_not_stored_where_that_is_off(tmp_path: Path):
    """Some labels want nothing kept; answers then come and go."""
    settings = {"store_results": False, "answer_cache_days": 0.0}
    async with served(tmp_path, **settings) as (_, stubs):
        answer = await enrich(stubs, title="Song")
        async with fails(NOT_FOUND):
            await get(stubs, answer.processing.enrichment_id)
    async with served(tmp_path, **settings) as (_, stubs):
        assert await listed(stubs) == []
        assert not (await enrich(stubs, title="Song")).processing.from_cache
