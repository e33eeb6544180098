"""The whole service on Pub/Sub: set up, submit, mend."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2
from liner_server.errors import FailedPreconditionError
from liner_server.queues.pubsub_wire import Names, PubsubMessage
from support.eventually import eventually
from support.pubsub_emulator import create, fresh_names, gateway, settings_on, shared_emulator
from support.queue_backends import LOW
from support.server import Stubs, served

DONE = enrichment_pb2.ENRICHMENT_STATE_DONE


async def set_up(names: Names, *options: str) -> tuple[int, list[str]]:
    """Run `liner-server setup-cloud`; return its exit code and the state of each part."""
    variables = {
        "GOOGLE_CLOUD_PROJECT": names.project,
        "PUBSUB_TOPIC": names.topic,
        "PUBSUB_SUBSCRIPTION": names.subscription,
        "PUBSUB_EMULATOR_HOST": shared_emulator().address,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "liner_server", "setup-cloud", *options],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [line.split()[1] for line in done.stdout.splitlines()]


async def test_setup_cloud_creates_what_is_missing_once_and_a_dry_run_nothing(
    tmp_path: Path,
) -> None:
    """An operator runs it again after every release; the exit code tells a pipeline."""
    names = fresh_names()

    assert await set_up(names, "--dry-run") == (1, ["missing"] * 10)
    with pytest.raises(FailedPreconditionError, match="setup-cloud"):
        async with served(tmp_path, **settings_on(names)):
            pytest.fail("it serves without its topics")
    assert await set_up(names) == (0, ["created"] * 10)
    assert await set_up(names) == (0, ["exists"] * 10)


async def test_setup_cloud_mends_a_subscription_that_somebody_made_by_hand() -> None:
    """Without a dead-letter policy or exactly-once delivery the queue would be weaker unseen."""
    names = fresh_names()
    await set_up(names)
    path = names.subscription_of(LOW)
    async with gateway(shared_emulator()) as raw:
        await raw.subscriber.delete_subscription({"subscription": path}, retry=None, timeout=10)
        await raw.subscriber.create_subscription(
            {"name": path, "topic": names.topic_of(LOW)}, retry=None, timeout=10
        )

        code, states = await set_up(names, "--dry-run")
        assert (code, states.count("differs")) == (1, 1)
        code, states = await set_up(names)

        assert (code, states.count("changed")) == (0, 1)
        found = await raw.subscriber.get_subscription(
            {"subscription": path}, retry=None, timeout=10
        )
        assert found.dead_letter_policy.dead_letter_topic == names.dead_topic
    assert (await set_up(names))[1] == ["exists"] * 10


async def submit(stubs: Stubs, title: str) -> str:
    """Submit a track and return the job's id."""
    request = enrichment_pb2.SubmitEnrichmentRequest(track=track_pb2.Track(title=title))
    return (await stubs.enrichment.SubmitEnrichment(request)).job_id


async def test_an_operator_mends_poisoned_jobs_while_the_others_are_done(tmp_path: Path) -> None:
    """Submit, see the dead letters, replay one with an edited payload, purge the rest."""
    names = fresh_names()
    await create(shared_emulator(), names)
    async with served(tmp_path, **settings_on(names)) as (_, stubs):
        jobs = await asyncio.gather(*(submit(stubs, f"Blue Hour {n}") for n in range(10)))
        async with gateway(shared_emulator()) as raw:
            for _ in range(3):
                await raw.publish(names.topic_of(LOW), PubsubMessage(data=b"\xff\xff"))

        async def has(ready: int, dead: int) -> bool:
            answer = await stubs.queue.GetStats(queue_admin_pb2.GetStatsRequest())
            found = answer.stats.priorities
            alive = sum(p.ready + p.delayed + p.leased for p in found)
            return (alive, sum(p.dead for p in found)) == (ready, dead)

        async def all_done() -> bool:
            return await has(0, 3)

        await eventually(all_done, within=30)
        for job_id in jobs:
            answer = await stubs.enrichment.GetEnrichment(
                enrichment_pb2.GetEnrichmentRequest(enrichment_id=job_id)
            )
            assert answer.enrichment.state == DONE
        letters = await stubs.queue.ListDeadLetters(queue_admin_pb2.ListDeadLettersRequest())
        ids = [letter.message_id for letter in letters.messages]
        assert {letter.cause for letter in letters.messages} == {
            queue_admin_pb2.DEAD_LETTER_CAUSE_UNDECODABLE
        }
        edited = queue_admin_pb2.EnrichmentJob(track=track_pb2.Track(title="Mended"))
        await stubs.queue.ReplayDeadLetters(
            queue_admin_pb2.ReplayDeadLettersRequest(message_ids=ids[:1], edited_job=edited)
        )

        async def mended() -> bool:
            return await has(0, 2)

        await eventually(mended, within=30)
        tried = await stubs.queue.PurgeDeadLetters(
            queue_admin_pb2.PurgeDeadLettersRequest(all=True, validate_only=True)
        )
        assert tried.purged_count == 2
        assert await has(0, 2)
        purged = await stubs.queue.PurgeDeadLetters(
            queue_admin_pb2.PurgeDeadLettersRequest(all=True)
        )
        assert sorted(purged.message_ids) == sorted(ids[1:])
        assert await has(0, 0)
