"""Producers, workers and servers killed at random and at failpoints, as `make chaos` at length."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from liner_server.failpoints import Point, arm, parsed, reach
from support.chaos import ON_THE_QUEUE, Chaos
from support.pubsub_emulator import create, fresh_names, shared_emulator

BROKEN = ("-m", "support.broken_server")


@pytest.mark.timeout(300)
async def test_whoever_is_killed_nothing_is_lost_or_stored_twice(tmp_path: Path):
    """A night of deaths in a minute; the outside ledger is the judge."""
    chaos = Chaos(messages=1000, kills=12, seed=11)

    await chaos.run(tmp_path)

    assert chaos.verdict.broken == chaos.verdict.lost == []
    assert chaos.verdict.doubled == chaos.verdict.both == []
    assert (chaos.acknowledged, chaos.verdict.done) == (1000, 1000)
    assert set(chaos.killed) == {"producer", "server", "worker"}


@pytest.mark.timeout(300)
async def test_each_failpoint_kills_where_it_says_and_costs_nothing(tmp_path: Path):
    """A place that no process comes by would prove nothing."""
    chaos = Chaos(messages=600, kills=0, seed=3)

    # As long as there is something to publish.
    first = [Point.AFTER_PUBLISH]
    await chaos.run(tmp_path, through=first + [p for p in ON_THE_QUEUE if p not in first])

    assert chaos.verdict.broken == chaos.verdict.lost == []
    assert chaos.verdict.doubled == chaos.verdict.both == []
    assert chaos.verdict.done == 600
    assert sorted(chaos.at) == sorted(ON_THE_QUEUE)


@pytest.mark.timeout(300)
async def test_the_same_holds_on_pubsub(tmp_path: Path):
    """What a dead server held comes back; what it had sent and not noted is one job."""
    emulator, names = shared_emulator(), fresh_names()
    await create(emulator, names)
    chaos = Chaos(
        messages=150,
        kills=0,
        queue_file="pubsub",
        environment={
            "LINER_QUEUE": "pubsub",
            "GOOGLE_CLOUD_PROJECT": names.project,
            "PUBSUB_TOPIC": names.topic,
            "PUBSUB_SUBSCRIPTION": names.subscription,
            "PUBSUB_EMULATOR_HOST": emulator.address,
        },
    )

    await chaos.run(
        tmp_path,
        through=[Point.AFTER_SEND, Point.AFTER_PUBLISH, Point.BEFORE_STORE, Point.BEFORE_ACK],
    )

    assert chaos.verdict.broken == chaos.verdict.lost == []
    assert chaos.verdict.doubled == chaos.verdict.both == []
    assert chaos.verdict.done == 150


@pytest.mark.timeout(300)
async def test_the_harness_sees_jobs_that_are_acknowledged_before_they_are_stored(tmp_path: Path):
    """With the order of store and ack turned round, a kill must show lost jobs."""
    chaos = Chaos(messages=600, kills=0, program=(*BROKEN, "ack-first"))

    await chaos.run(tmp_path, through=[Point.BEFORE_STORE, Point.BEFORE_STORE])

    assert chaos.verdict.lost


@pytest.mark.timeout(300)
async def test_the_harness_sees_requests_that_make_two_jobs(tmp_path: Path):
    """With request ids forgotten, what was submitted again after a kill must show doubled."""
    chaos = Chaos(messages=600, kills=0, program=(*BROKEN, "forget-request-ids"))

    await chaos.run(tmp_path, through=[Point.AFTER_PUBLISH, Point.AFTER_COMMIT])

    assert chaos.verdict.doubled
    assert not chaos.verdict.lost


@pytest.mark.parametrize("text", ["nowhere:1", "before-ack:soon"])
def test_an_unknown_place_or_time_is_refused(text: str):
    """A fault test whose fault never comes would pass for the wrong reason."""
    with pytest.raises(ValueError, match="before-ack"):
        parsed(text)


async def test_an_armed_place_kills_at_its_time(tmp_path: Path):
    """Not earlier, and as nothing but kill -9 does."""
    script = (
        "from liner_server.failpoints import *; arm('before-ack:3')\n"
        "for n in range(5): print(n, flush=True); reach(Point.AFTER_STORE); reach(Point.BEFORE_ACK)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )

    said, _ = await process.communicate()

    assert said.split() == [b"0", b"1", b"2"]
    assert process.returncode == -signal.SIGKILL


def test_nothing_is_armed_here():
    """The process that runs the tests must outlive them."""
    arm("")

    for point in Point:
        reach(point)
