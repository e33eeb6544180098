"""The queue over a real channel: submit, watch, mend, and the worker process."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2
from structlog.testing import capture_logs
from support.eventually import eventually
from support.grpc_errors import fails
from support.http import fetch
from support.server import Stubs, served

DONE = enrichment_pb2.ENRICHMENT_STATE_DONE
QUEUED = enrichment_pb2.ENRICHMENT_STATE_QUEUED
FAILED = enrichment_pb2.ENRICHMENT_STATE_FAILED
NAME = queue_admin_pb2.DeadLetterCause.Name


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[Stubs]:
    """Stubs of a service that takes jobs and works on none."""
    async with served(tmp_path, workers=0) as (_, stubs):
        yield stubs


def submission(title: str = "x", **fields: object) -> enrichment_pb2.SubmitEnrichmentRequest:
    """Return a request to submit a track of this title."""
    return enrichment_pb2.SubmitEnrichmentRequest(track=track_pb2.Track(title=title), **fields)


async def submit(stubs: Stubs, title: str = "x", **fields: object) -> str:
    """Submit a track and return the job's id."""
    return (await stubs.enrichment.SubmitEnrichment(submission(title, **fields))).job_id


async def state_of(stubs: Stubs, job_id: str) -> int:
    """Return where a job stands."""
    request = enrichment_pb2.GetEnrichmentRequest(enrichment_id=job_id)
    return (await stubs.enrichment.GetEnrichment(request)).enrichment.state


async def bury(stubs: Stubs, folder: Path) -> str:
    """Make one dead letter: a job whose audio is deleted before it is worked on."""
    from liner.v1 import storage_pb2

    async def frames():
        yield storage_pb2.UploadRequest(spec=storage_pb2.UploadSpec(object_name="a.wav"))
        yield storage_pb2.UploadRequest(chunk=storage_pb2.Chunk(data=b"x"))
        yield storage_pb2.UploadRequest(finish=storage_pb2.UploadFinish())

    await stubs.storage.Upload(frames())
    await stubs.queue.PauseQueue(queue_admin_pb2.PauseQueueRequest(reason="test"))
    track = track_pb2.Track(audio=track_pb2.Audio(object_name="a.wav"))
    submitted = await stubs.enrichment.SubmitEnrichment(
        enrichment_pb2.SubmitEnrichmentRequest(track=track)
    )
    await stubs.storage.Delete(storage_pb2.DeleteRequest(object_name="a.wav"))
    await stubs.queue.ResumeQueue(queue_admin_pb2.ResumeQueueRequest())

    async def is_dead() -> bool:
        return await state_of(stubs, submitted.job_id) == FAILED

    await eventually(is_dead)
    return str(submitted.job_id)


async def test_a_submitted_track_is_answered_under_its_job_id(tmp_path: Path):
    """The same answer as over EnrichMetadata, whenever the caller asks for it."""
    async with served(tmp_path) as (_, stubs):
        job_id = await submit(stubs, "Blue Hour", priority=enrichment_pb2.PRIORITY_HIGH)

        async def done() -> bool:
            return await state_of(stubs, job_id) == DONE

        await eventually(done)
        found = await stubs.enrichment.GetEnrichment(
            enrichment_pb2.GetEnrichmentRequest(enrichment_id=job_id)
        )
    # Closed and opened again: whatever is stored behind an answer's back is there by now.
    async with served(tmp_path) as (_, stubs):
        listed = await stubs.enrichment.ListEnrichments(enrichment_pb2.ListEnrichmentsRequest())

    assert [enrichment.enrichment_id for enrichment in listed.enrichments] == [job_id]
    assert found.enrichment.answer.track.title == "Blue Hour"
    assert found.enrichment.answer.processing.enrichment_id == job_id


async def test_a_job_waits_with_all_that_was_said_of_it(idle: Stubs):
    """Priority, options, tenant and request id; the metadata's model holds for the job too."""
    request = submission("a", request_id="r", options={"min_confidence": 0.5})
    submitted = await idle.enrichment.SubmitEnrichment(
        request, metadata=(("liner-model", "embedded"), ("liner-request-id", "call-1"))
    )

    got = await idle.queue.GetMessage(
        queue_admin_pb2.GetMessageRequest(message_id=submitted.job_id)
    )

    message = got.message
    assert message.state == queue_admin_pb2.MESSAGE_STATE_READY
    assert message.priority == enrichment_pb2.PRIORITY_MEDIUM
    assert (message.job.tenant, message.job.request_id) == ("local", "r")
    assert (message.job.options.model, message.job.options.min_confidence) == ("embedded", 0.5)
    assert dict(message.attributes) == {"liner-request-id": "call-1"}
    assert await state_of(idle, submitted.job_id) == QUEUED


async def test_submitting_again_makes_no_second_job(idle: Stubs):
    """And other content under the same id is refused, with the first job's name."""
    first = await submit(idle, "a", request_id="r")
    again = await submit(idle, "a", request_id="r")
    async with fails(grpc.StatusCode.ALREADY_EXISTS) as failure:
        await submit(idle, "b", request_id="r")

    assert first == again
    assert failure.reason == "REQUEST_ID_REUSED"
    stats = await idle.queue.GetStats(queue_admin_pb2.GetStatsRequest())
    assert sum(entry.ready for entry in stats.stats.priorities) == 1


@pytest.mark.parametrize(
    ("request_", "violations"),
    [
        (enrichment_pb2.SubmitEnrichmentRequest(), {"track": "REQUIRED"}),
        (submission(""), {"track": "TITLE_OR_AUDIO_REQUIRED"}),
        (
            enrichment_pb2.SubmitEnrichmentRequest(
                track=track_pb2.Track(audio=track_pb2.Audio(inline=b"x"))
            ),
            {"track.audio.inline": "AUDIO_INLINE_QUEUED"},
        ),
        (submission(priority=9), {"priority": "ENUM_UNKNOWN"}),
        (submission(request_id="x" * 129), {"request_id": "REQUEST_ID_FORMAT"}),
        (submission(options={"model": "none"}), {"options.model": "MODEL_UNKNOWN"}),
        (submission(options={"min_confidence": 2.0}), {"options.min_confidence": "NUMBER_RANGE"}),
        (submission(not_before={"seconds": -1}), {"not_before": "TIME_RANGE"}),
        (
            submission(not_before={"seconds": 253_402_300_799, "nanos": 999_999_999}),
            {"not_before": "TIME_RANGE"},
        ),
        (submission(request_id="x\n"), {"request_id": "REQUEST_ID_FORMAT"}),
        (
            submission(options={"fields": {"paths": ["title"] * 101}}),
            {"options.fields": "LIST_TOO_LONG"},
        ),
        (
            enrichment_pb2.SubmitEnrichmentRequest(
                track={"title": "x", "properties": {"duration": {"seconds": 10**18}}}
            ),
            {"track.properties.duration": "DURATION_RANGE"},
        ),
    ],
)
async def test_work_that_cannot_succeed_never_enters(idle: Stubs, request_, violations):
    """The caller hears of it now, not an operator tomorrow."""
    async with fails(grpc.StatusCode.INVALID_ARGUMENT) as failure:
        await idle.enrichment.SubmitEnrichment(request_)

    assert failure.violations == violations
    stats = await idle.queue.GetStats(queue_admin_pb2.GetStatsRequest())
    assert not any(entry.ready for entry in stats.stats.priorities)


async def test_audio_that_is_not_there_is_not_found(idle: Stubs):
    """As in EnrichMetadata."""
    track = track_pb2.Track(audio=track_pb2.Audio(object_name="none.flac"))
    async with fails(grpc.StatusCode.NOT_FOUND) as failure:
        await idle.enrichment.SubmitEnrichment(enrichment_pb2.SubmitEnrichmentRequest(track=track))

    assert failure.reason == "OBJECT_NOT_FOUND"


async def test_an_operator_finds_mends_and_replays_what_failed(tmp_path: Path):
    """The walk at three in the morning: stats, list, look, edit, replay; then it is done."""
    async with served(tmp_path) as (_, stubs):
        job_id = await bury(stubs, tmp_path)
        listed = await stubs.queue.ListDeadLetters(
            queue_admin_pb2.ListDeadLettersRequest(
                filter={"causes": [queue_admin_pb2.DEAD_LETTER_CAUSE_MISSING_OBJECT]}
            )
        )
        tried = await stubs.queue.ReplayDeadLetters(
            queue_admin_pb2.ReplayDeadLettersRequest(all=True, validate_only=True)
        )
        edited = queue_admin_pb2.EnrichmentJob(track=track_pb2.Track(title="without audio"))
        with capture_logs() as logs:
            await stubs.queue.ReplayDeadLetters(
                queue_admin_pb2.ReplayDeadLettersRequest(message_ids=[job_id], edited_job=edited)
            )

        async def done() -> bool:
            return await state_of(stubs, job_id) == DONE

        await eventually(done)

    assert [m.message_id for m in listed.messages] == [job_id]
    assert listed.messages[0].attempts[0].error.reason == "OBJECT_NOT_FOUND"
    assert (tried.replayed_count, list(tried.message_ids)) == (1, [job_id])
    [logged] = [entry for entry in logs if entry["event"] == "queue changed"]
    assert (logged["what"], logged["principal"], logged["count"]) == ("replay", "local", 1)


async def test_a_job_is_told_as_it_stands_and_not_as_it_stood(tmp_path: Path):
    """FAILED with its error while it is a dead letter; QUEUED as soon as it is put back."""
    async with served(tmp_path) as (_, stubs):
        job_id = await bury(stubs, tmp_path)
        request = enrichment_pb2.GetEnrichmentRequest(enrichment_id=job_id)
        failed = (await stubs.enrichment.GetEnrichment(request)).enrichment
        await stubs.queue.PauseQueue(queue_admin_pb2.PauseQueueRequest())
        await stubs.queue.ReplayDeadLetters(
            queue_admin_pb2.ReplayDeadLettersRequest(message_ids=[job_id])
        )
        replayed = (await stubs.enrichment.GetEnrichment(request)).enrichment

    assert (failed.state, failed.error.reason) == (FAILED, "OBJECT_NOT_FOUND")
    assert (replayed.state, replayed.HasField("error")) == (QUEUED, False)


async def test_what_is_purged_is_gone_and_it_is_said_who_did_it(tmp_path: Path):
    """Deletion is for good, so it is tried first and always logged."""
    async with served(tmp_path) as (_, stubs):
        job_id = await bury(stubs, tmp_path)
        tried = await stubs.queue.PurgeDeadLetters(
            queue_admin_pb2.PurgeDeadLettersRequest(all=True, validate_only=True)
        )
        kept = await stubs.queue.GetMessage(queue_admin_pb2.GetMessageRequest(message_id=job_id))
        with capture_logs() as logs:
            purged = await stubs.queue.PurgeDeadLetters(
                queue_admin_pb2.PurgeDeadLettersRequest(message_ids=[job_id], request_id="p1")
            )
        async with fails(grpc.StatusCode.NOT_FOUND) as failure:
            await stubs.queue.GetMessage(queue_admin_pb2.GetMessageRequest(message_id=job_id))

    assert tried.purged_count == purged.purged_count == 1
    assert NAME(kept.message.cause) == "DEAD_LETTER_CAUSE_MISSING_OBJECT"
    assert failure.reason == "MESSAGE_NOT_FOUND"
    [logged] = [entry for entry in logs if entry["event"] == "queue changed"]
    assert (logged["what"], logged["request_id"]) == ("purge", "p1")


async def test_a_paused_queue_says_who_and_why_and_hands_out_nothing(tmp_path: Path):
    """Others on duty must know; resuming sets the work going at once."""
    async with served(tmp_path) as (_, stubs):
        paused = await stubs.queue.PauseQueue(
            queue_admin_pb2.PauseQueueRequest(reason="model is down")
        )
        job_id = await submit(stubs)
        watch = stubs.queue.WatchStats(
            queue_admin_pb2.WatchStatsRequest(interval={"nanos": 500_000_000})
        )
        watched = [(await watch.read()).stats for _ in range(2)]
        watch.cancel()
        assert await state_of(stubs, job_id) == QUEUED
        await stubs.queue.ResumeQueue(queue_admin_pb2.ResumeQueueRequest())

        async def done() -> bool:
            return await state_of(stubs, job_id) == DONE

        await eventually(done)

    assert (paused.stats.paused, paused.stats.paused_by) == (True, "local")
    assert watched[1].pause_reason == "model is down"
    assert sum(entry.ready for entry in watched[1].priorities) == 1
    assert watched[1].read_time.ToMilliseconds() - watched[0].read_time.ToMilliseconds() >= 450


async def test_a_delayed_job_is_made_due(tmp_path: Path):
    """And only a waiting one: what is not there cannot be retried."""
    async with served(tmp_path) as (_, stubs):
        job_id = await submit(stubs, not_before={"seconds": 4_000_000_000})
        listed = await stubs.queue.ListMessages(
            queue_admin_pb2.ListMessagesRequest(
                filter={"state": queue_admin_pb2.MESSAGE_STATE_DELAYED}
            )
        )
        await stubs.queue.RetryMessage(queue_admin_pb2.RetryMessageRequest(message_id=job_id))

        async def done() -> bool:
            return await state_of(stubs, job_id) == DONE

        await eventually(done)
        async with fails(grpc.StatusCode.NOT_FOUND):
            await stubs.queue.RetryMessage(queue_admin_pb2.RetryMessageRequest(message_id=job_id))

    assert [m.message_id for m in listed.messages] == [job_id]


REPLAY = queue_admin_pb2.ReplayDeadLettersRequest
PURGE = queue_admin_pb2.PurgeDeadLettersRequest
LIST = queue_admin_pb2.ListMessagesRequest


@pytest.mark.parametrize(
    ("name", "request_", "violations"),
    [
        ("ReplayDeadLetters", REPLAY(), {"filter": "CHOICE_REQUIRED"}),
        ("PurgeDeadLetters", PURGE(), {"filter": "CHOICE_REQUIRED"}),
        ("PurgeDeadLetters", PURGE(all=True, message_ids=["a"]), {"all": "CHOICE_AMBIGUOUS"}),
        ("PurgeDeadLetters", PURGE(filter={"state": 1}), {"filter.state": "STATE_NOT_DEAD"}),
        ("PurgeDeadLetters", PURGE(message_ids=[""]), {"message_ids": "REQUIRED"}),
        ("ReplayDeadLetters", REPLAY(all=True, max_per_second=-1), {
            "max_per_second": "NUMBER_RANGE"}),
        ("ReplayDeadLetters", REPLAY(all=True, max_per_second=1e-300), {
            "max_per_second": "NUMBER_RANGE"}),
        ("ReplayDeadLetters", REPLAY(message_ids=["a"], edited_job={
            "track": {"title": "x"}, "options": {"model": "none"}
        }), {"edited_job.options.model": "MODEL_UNKNOWN"}),
        ("ReplayDeadLetters", REPLAY(
            message_ids=["a", "b"], edited_job={"track": {"title": "x"}}
        ), {"edited_job": "EDIT_NEEDS_ONE_ID"}),
        ("ReplayDeadLetters", REPLAY(message_ids=["a"], edited_job={}), {
            "edited_job.track": "REQUIRED"}),
        ("ListMessages", LIST(page_size=-1), {"page_size": "NUMBER_RANGE"}),
        ("ListMessages", LIST(filter={"causes": [77]}), {"filter.causes": "ENUM_UNKNOWN"}),
        ("ListMessages", LIST(filter={"older_than": {"seconds": -5}}), {
            "filter.older_than": "DURATION_RANGE"}),
        *(
            ("ListMessages", LIST(page_token=token), {"page_token": "PAGE_TOKEN"})
            for token in ("m-x", "m-1-1", "m-" + "9" * 26, "m-0x1p2000", "m-0x1p100")
        ),
        *(
            ("ListDeadLetters", queue_admin_pb2.ListDeadLettersRequest(page_token=token), {
                "page_token": "PAGE_TOKEN"})
            for token in ("m-1", "d-0x1p2000-1", "d-1-0x1p200", "d-1-" + "9" * 26)
        ),
        ("GetMessage", queue_admin_pb2.GetMessageRequest(), {"message_id": "REQUIRED"}),
        ("PauseQueue", queue_admin_pb2.PauseQueueRequest(reason="x" * 257), {
            "reason": "TEXT_TOO_LONG"}),
    ],
)  # fmt: skip
async def test_requests_that_say_nothing_sensible_are_refused(
    idle: Stubs, name, request_, violations
):
    """Above all, an empty request never means everything."""
    async with fails(grpc.StatusCode.INVALID_ARGUMENT) as failure:
        await getattr(idle.queue, name)(request_)

    assert failure.violations == violations


async def test_an_edited_job_whose_audio_is_not_there_is_not_put_back(tmp_path: Path):
    """It would only die again, and the operator would hear of it later or never."""
    async with served(tmp_path) as (_, stubs):
        job_id = await bury(stubs, tmp_path)
        track = track_pb2.Track(audio=track_pb2.Audio(object_name="b.wav"))
        async with fails(grpc.StatusCode.NOT_FOUND) as failure:
            await stubs.queue.ReplayDeadLetters(
                REPLAY(message_ids=[job_id], edited_job={"track": track})
            )
        state = await state_of(stubs, job_id)

    assert failure.reason == "OBJECT_NOT_FOUND"
    assert state == FAILED


async def test_a_watch_that_would_be_too_busy_is_refused(idle: Stubs):
    """Half a second is the shortest."""
    async with fails(grpc.StatusCode.INVALID_ARGUMENT):
        async for _ in idle.queue.WatchStats(
            queue_admin_pb2.WatchStatsRequest(interval={"nanos": 1000})
        ):
            pass


async def test_a_stopping_server_ends_watches_at_once(tmp_path: Path):
    """A dashboard that is open all night must not hold up a deployment."""
    async with served(tmp_path, drain_seconds=20.0) as (app, stubs):
        watch = stubs.queue.WatchStats(queue_admin_pb2.WatchStatsRequest())
        await watch.read()
        stopping = asyncio.create_task(app.stop())
        async with asyncio.timeout(10), fails(grpc.StatusCode.UNAVAILABLE) as failure:
            await watch.read()
        await stopping

    assert failure.reason == "SERVER_STOPPING"


async def test_the_queue_is_counted_by_priority_and_status(tmp_path: Path):
    """The series that dashboards and alerts stand on, all of them from the start."""
    async with served(tmp_path, workers=0) as (app, stubs):
        await submit(stubs, priority=enrichment_pb2.PRIORITY_LOW)
        text = ""

        async def counted() -> bool:
            nonlocal text
            _, text = await fetch(f"http://{app.http_address}/metrics")
            return 'queue_size{priority="low",status="ready"} 1.0' in text

        await eventually(counted)

    for priority in ("high", "medium", "low"):
        for status in ("ready", "delayed", "leased", "dead"):
            assert f'queue_size{{priority="{priority}",status="{status}"}}' in text
    assert "liner_queue_paused 0.0" in text


async def test_a_worker_finishes_what_a_server_took(tmp_path: Path):
    """The queue, the objects and the results are one folder's: who works on it is no matter."""
    async with served(tmp_path, workers=0) as (_, stubs):
        job_id = await submit(stubs, "Blue Hour")
        refused, why = await _worker(tmp_path, until_ready=False)
    worked, _ = await _worker(tmp_path, until_ready=True)
    async with served(tmp_path, workers=0) as (_, stubs):
        assert await state_of(stubs, job_id) == DONE

    assert refused == 2
    assert "LINER_WORKERS" in why
    assert "Traceback" not in why
    assert worked == 0


async def _worker(folder: Path, *, until_ready: bool) -> tuple[int, str]:
    """Run `liner-server worker`, stop it when it has nothing left to do; return how it ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "liner_server", "worker"),
        env={
            "PATH": "/usr/bin:/bin",
            "LINER_DATA_DIR": str(folder),
            "LINER_HTTP_ADDRESS": "127.0.0.1:0",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    if until_ready:
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        address = line.rpartition("http=")[2].strip()

        async def idle() -> bool:
            _, text = await fetch(f"http://{address}/metrics")
            return 'liner_queue_jobs_total{outcome="done",priority="medium"} 1.0' in text

        await eventually(idle)
        process.terminate()
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()
