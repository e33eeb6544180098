"""What a job on Pub/Sub costs this process, beside a bare loop that pulls and acknowledges.

`make bench`, or `pytest tests/performance/bench_pubsub.py -o python_files='bench_*.py' -s`. CPU of
this process a message, on the real emulator, which is a process of its own.
"""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.pubsub_v1.types import pubsub
from liner_server.queues.pubsub import PubSubQueue
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_wire import PubsubMessage
from support.pubsub_emulator import create, fresh_names, shared_emulator
from support.queue_backends import MEDIUM, job

COUNT = 3000
ROUNDS = 3
AT_ONCE = 100


@pytest.mark.timeout(600)
async def test_cpu_a_message(tmp_path: Path):
    """The same messages, a hundred at a time: bare stubs, the queue's client alone, the queue.

    The client acknowledges each message by itself, as they are finished; what the queue adds is
    its file: attempts counted, leases fenced, lists exact.
    """
    emulator = shared_emulator()
    bare: list[float] = []
    client: list[float] = []
    ours: list[float] = []
    for round_ in range(ROUNDS):
        async with grpc.aio.insecure_channel(emulator.address) as channel:
            names = fresh_names()
            await create(emulator, names)
            await _publish(channel, names.topic_of(MEDIUM))
            began = time.process_time()
            await _bare(channel, names.subscription_of(MEDIUM))
            bare.append((time.process_time() - began) / COUNT)
            await _publish(channel, names.topic_of(MEDIUM))
            async with Gateway(emulator=emulator.address) as gateway:
                began = time.process_time()
                await _through(gateway, names.subscription_of(MEDIUM))
                client.append((time.process_time() - began) / COUNT)
            await _publish(channel, names.topic_of(MEDIUM))
        async with PubSubQueue(
            tmp_path / f"{round_}.sqlite", names, emulator=emulator.address, ahead=AT_ONCE
        ) as queue:
            began = time.process_time()
            await _leased(queue)
            ours.append((time.process_time() - began) / COUNT)
    print(  # noqa: T201 - what it is for
        f"\nPub/Sub, CPU a message: bare {min(bare) * 1e6:.0f} us, client {_beside(client, bare)}, "
        f"queue {_beside(ours, bare)}"
    )
    assert ours


def _beside(mine: list[float], bare: list[float]) -> str:
    ratios = sorted(one / other for one, other in zip(mine, bare, strict=True))
    return (
        f"{min(mine) * 1e6:.0f} us, {ratios[ROUNDS // 2]:.1f} x "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f})"
    )


async def _publish(channel: grpc.aio.Channel, topic: str) -> None:
    publish = channel.unary_unary(
        "/google.pubsub.v1.Publisher/Publish",
        request_serializer=pubsub.PublishRequest.pb().SerializeToString,
    )
    for start in range(0, COUNT, 500):
        messages = [
            PubsubMessage(data=job(str(n)).SerializeToString()) for n in range(start, start + 500)
        ]
        await publish(pubsub.PublishRequest.pb()(topic=topic, messages=messages))


async def _bare(channel: grpc.aio.Channel, subscription: str) -> None:
    pull = channel.unary_unary(
        "/google.pubsub.v1.Subscriber/Pull",
        request_serializer=pubsub.PullRequest.pb().SerializeToString,
        response_deserializer=pubsub.PullResponse.pb().FromString,
    )
    acknowledge = channel.unary_unary(
        "/google.pubsub.v1.Subscriber/Acknowledge",
        request_serializer=pubsub.AcknowledgeRequest.pb().SerializeToString,
    )
    left = COUNT
    while left > 0:
        request = pubsub.PullRequest.pb()(subscription=subscription, max_messages=AT_ONCE)
        received = (await pull(request, timeout=10)).received_messages
        if received:
            ids = [one.ack_id for one in received]
            await acknowledge(
                pubsub.AcknowledgeRequest.pb()(subscription=subscription, ack_ids=ids)
            )
        left -= len(received)


async def _through(gateway: Gateway, subscription: str) -> None:
    left = COUNT
    while left > 0:
        received = await gateway.pull(subscription, limit=AT_ONCE, wait=timedelta(seconds=10))
        await asyncio.gather(*(gateway.acknowledge(subscription, one.ack_id) for one in received))
        left -= len(received)


async def _leased(queue: PubSubQueue) -> None:
    left = COUNT
    while left > 0:
        leases = await queue.lease(
            limit=AT_ONCE, duration=timedelta(minutes=1), wait=timedelta(seconds=10)
        )
        await asyncio.gather(*map(queue.ack, leases))
        left -= len(leases)
