"""The server killed with SIGKILL while it takes and works on jobs: nothing lost, nothing doubled.

What was acknowledged is written down outside the server. Clients do as clients do: whatever was
not acknowledged they submit again under the same request id.
"""

import asyncio
import json
import os
import random
import signal
import sqlite3
from pathlib import Path

import grpc
import pytest
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2
from support.eventually import eventually
from support.queue_ledger import Ledger, judge
from support.scripted_model import Reply, says, scripted_model
from support.server import ServerProcess, Stubs, connected, server_process

JOBS = 100
KILLS = 3
ENVIRONMENT = {"LINER_LOG_LEVEL": "ERROR", "LINER_LISTENING_PROCESSES": "1"}
PRIORITIES = (
    enrichment_pb2.PRIORITY_HIGH,
    enrichment_pb2.PRIORITY_MEDIUM,
    enrichment_pb2.PRIORITY_LOW,
)


async def submit(stubs: Stubs, ledger: Ledger, number: int) -> bool:
    """Submit one job; return whether it was acknowledged."""
    request = enrichment_pb2.SubmitEnrichmentRequest(
        track=track_pb2.Track(title=f"Track {number}"),
        priority=PRIORITIES[number % 3],
        request_id=f"r{number}",
    )
    try:
        answer = await stubs.enrichment.SubmitEnrichment(request, timeout=20)
    except grpc.aio.AioRpcError:
        return False
    ledger.acknowledged(request.request_id, answer.job_id)
    return True


async def attended(stubs: Stubs) -> bool:
    """Return whether nothing is left to do."""
    stats = (await stubs.queue.GetStats(queue_admin_pb2.GetStatsRequest())).stats
    return not any(entry.ready + entry.delayed + entry.leased for entry in stats.priorities)


@pytest.mark.timeout(300)
async def test_no_acknowledged_job_is_lost_or_done_twice_by_kills(tmp_path: Path):
    """kill -9 in the middle of submissions and work, restart, again; then count."""
    rng = random.Random(5)
    missing = list(range(JOBS))
    data = tmp_path / "data"
    with Ledger(tmp_path / "ledger") as ledger:
        for round_ in range(KILLS):
            async with (
                server_process(data, ENVIRONMENT) as server,
                connected(server.grpc_address) as stubs,
            ):
                wave = missing[: JOBS // KILLS + 1 + round_ * 10]
                calls = [asyncio.create_task(submit(stubs, ledger, n)) for n in wave]
                enough = rng.randrange(5, len(wave))
                await eventually(lambda: sum(map(_acknowledged, calls)) >= enough, within=60)  # noqa: B023
                server.process.kill()
                await server.process.wait()
                done = await asyncio.gather(*calls)
            taken = {n for n, ok in zip(wave, done, strict=True) if ok}
            missing = [n for n in missing if n not in taken]
        async with (
            server_process(data, ENVIRONMENT) as server,
            connected(server.grpc_address) as stubs,
        ):
            for n in [*missing, *range(0, JOBS, 7)]:
                assert await submit(stubs, ledger, n)
            await eventually(lambda: attended(stubs), within=120)
            assert await server.terminate() == 0

        verdict = judge(ledger, data)

    assert verdict.broken == []
    assert verdict.lost == []
    assert verdict.doubled == []
    assert (verdict.done, verdict.waiting) == (JOBS, 0)


def _acknowledged(call: "asyncio.Task[bool]") -> bool:
    return call.done() and call.result()


@pytest.mark.timeout(120)
async def test_the_harness_sees_a_lost_and_a_doubled_job(tmp_path: Path):
    """A check that finds nothing proves nothing until it was seen to find something."""
    data = tmp_path / "data"
    with Ledger(tmp_path / "ledger") as ledger:
        async with (
            server_process(data, {**ENVIRONMENT, "LINER_WORKERS": "0"}) as server,
            connected(server.grpc_address) as stubs,
        ):
            for n in range(4):
                assert await submit(stubs, ledger, n)
            await server.terminate()
        before = judge(ledger, data)
        with sqlite3.connect(data / "queue.sqlite") as db:
            # As if the acknowledgement had come before the commit, and the commit not at all.
            db.execute("DELETE FROM messages WHERE request_id = 'r1'")
            # As if the request id had not been looked for.
            db.execute(
                "INSERT INTO messages(message_id, priority, tenant, state, due, published, "
                "track_id, request_id, attributes, body) SELECT 'other', priority, tenant, state, "
                "due, published, track_id, request_id, attributes, body FROM messages "
                "WHERE request_id = 'r2'"
            )
        db.close()
        after = judge(ledger, data)

    assert (before.lost, before.doubled, before.waiting) == ([], [], 4)
    assert (after.lost, after.doubled) == (["r1"], ["r2"])


@pytest.mark.timeout(120)
async def test_a_stopping_server_gives_back_what_it_cannot_finish(tmp_path: Path):
    """SIGTERM with fifty jobs at a model that hangs: out in time, and nothing counts an attempt."""
    data = tmp_path / "data"
    async with scripted_model(Reply(first_byte_after=60.0)) as model:
        environment = {
            **ENVIRONMENT,
            "QWEN2_ENDPOINT": model.base_url,
            "LINER_QWEN2_MODEL": "scripted",
            "LINER_MODEL_TIMEOUT_SECONDS": "60",
            "LINER_WORKERS": "50",
            "LINER_WORKERS_LEAST": "50",
        }
        with Ledger(tmp_path / "ledger") as ledger:
            async with (
                server_process(data, environment) as server,
                connected(server.grpc_address) as stubs,
            ):
                for n in range(60):
                    assert await submit(stubs, ledger, n)
                await eventually(lambda: model.open >= 50, within=30)
                code = await server.terminate(within=9.5)
            verdict = judge(ledger, data)
    with sqlite3.connect(data / "queue.sqlite") as db:
        rows = db.execute("SELECT state, delivery FROM messages").fetchall()
    db.close()

    assert code == 0
    assert (verdict.lost, verdict.doubled, verdict.waiting) == ([], [], 60)
    assert set(rows) == {(queue_admin_pb2.MESSAGE_STATE_READY, 0)}


@pytest.mark.timeout(240)
async def test_a_job_that_kills_its_server_takes_no_other_with_it(tmp_path: Path):
    """Three servers die of it; then it is a dead letter, and all that lay beside it is done."""
    data, pid = tmp_path / "data", 0

    def script(request: dict[str, object]) -> Reply:
        if "Track 3" in json.dumps(request):
            os.kill(pid, signal.SIGKILL)
        return says("no answer")

    async with scripted_model(script) as model:
        environment = {
            **ENVIRONMENT,
            "QWEN2_ENDPOINT": model.base_url,
            "LINER_QWEN2_MODEL": "scripted",
            "LINER_QUEUE_MAX_ATTEMPTS": "3",
        }
        with Ledger(tmp_path / "ledger") as ledger:
            deaths = 0
            while True:
                async with (
                    server_process(data, environment) as server,
                    connected(server.grpc_address) as stubs,
                ):
                    pid = server.process.pid
                    if not deaths:
                        await stubs.queue.PauseQueue(queue_admin_pb2.PauseQueueRequest())
                        for n in range(8):
                            assert await submit(stubs, ledger, n)
                        await stubs.queue.ResumeQueue(queue_admin_pb2.ResumeQueueRequest())
                    if await _outlives(server, stubs):
                        listed = await stubs.queue.ListDeadLetters(
                            queue_admin_pb2.ListDeadLettersRequest()
                        )
                        await server.terminate()
                        break
                deaths += 1
                assert deaths <= 3
            verdict = judge(ledger, data)

    [letter] = listed.messages
    assert deaths == 3
    assert letter.job.track.title == "Track 3"
    assert letter.cause == queue_admin_pb2.DEAD_LETTER_CAUSE_WORKER_LOST
    assert [attempt.HasField("end_time") for attempt in letter.attempts] == [False] * 3 + [True]
    assert (verdict.lost, verdict.doubled, verdict.done) == ([], [], 7)


async def _outlives(server: ServerProcess, stubs: Stubs) -> bool:
    """Return whether the server works off its queue; False when it dies before."""
    done = False

    async def ended() -> bool:
        nonlocal done
        try:
            done = await attended(stubs)
        except grpc.aio.AioRpcError:
            return server.process.returncode is not None
        return done

    await eventually(ended, within=60)
    return done
