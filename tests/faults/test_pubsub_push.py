"""Messages that Pub/Sub pushes: only with Google's word for it, and finished before the answer."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt
from liner.v1 import queue_admin_pb2
from liner_server.errors import UnavailableError
from liner_server.queues.pubsub import PubSubQueue
from liner_server.rpc.push import OidcVerifier, PushEndpoint, message_of
from liner_server.rpc.side_port import side_port
from prometheus_client import CollectorRegistry
from support.clock import ManualClock
from support.eventually import eventually
from support.pubsub_emulator import create, fresh_names, shared_emulator
from support.queue_backends import HIGH, job

AUDIENCE = "https://worker.example/pubsub/push"
ACCOUNT = "pusher@project.iam.gserviceaccount.com"
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Key:
    """A signing key and its certificate, as Google publishes them."""

    key_id: str
    private: bytes
    certificate: str

    @classmethod
    def make(cls, key_id: str) -> "Key":
        """Return a new key, certified by itself."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        return cls(
            key_id=key_id,
            private=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            ),
            certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        )

    def token(self, **changes: Any) -> str:
        """Return a token as Pub/Sub sends it, but for the changes; None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "email": ACCOUNT,
            "email_verified": True,
            "sub": "1",
            "iat": now,
            "exp": now + 3600,
            **changes,
        }
        signer = crypt.RSASigner.from_string(self.private, self.key_id)
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(signer, kept).decode()


@pytest.fixture(scope="module")
def google() -> Key:
    """The key that Google signs with."""
    return Key.make("google-1")


@pytest.fixture(scope="module")
def thief() -> Key:
    """Another key that says it is Google's."""
    return Key.make("google-1")


@dataclass
class Door:
    """A side port that takes pushed messages, and what was handed on."""

    session: aiohttp.ClientSession
    url: str = ""
    certs: dict[str, str] = field(default_factory=dict)
    certs_asked: int = 0
    clock: ManualClock = field(default_factory=ManualClock)
    taken: list[tuple[Any, str]] = field(default_factory=list)
    answer: Callable[[], Awaitable[bool]] | None = None
    is_open: bool = True

    async def push(self, token: str | None, body: bytes | None = None) -> int:
        """Push a message with this token; return the status."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        data = envelope() if body is None else body
        async with self.session.post(self.url, data=data, headers=headers) as answer:
            return answer.status

    async def deliver(self, message: Any, subscription: str) -> bool:
        """Note what is handed on."""
        self.taken.append((message, subscription))
        return await self.answer() if self.answer is not None else True


def envelope(**changes: Any) -> bytes:
    """Return what Pub/Sub posts."""
    message = {
        "data": base64.b64encode(b"job").decode(),
        "attributes": {"who": "ingest"},
        "messageId": "17",
        "message_id": "17",
        "publishTime": "2026-11-20T10:00:00.5Z",
        **changes,
    }
    return json.dumps(
        {
            "message": {name: value for name, value in message.items() if value is not None},
            "subscription": "projects/p/subscriptions/ai-processor-high",
            "deliveryAttempt": 2,
        }
    ).encode()


@pytest.fixture
async def door(google: Key) -> AsyncIterator[Door]:
    """A side port whose verifier knows Google's key."""
    async with AsyncExitStack() as stack:
        door = Door(await stack.enter_async_context(aiohttp.ClientSession()))
        door.certs = {google.key_id: google.certificate}

        async def certs(_: web.Request) -> web.Response:
            door.certs_asked += 1
            return web.json_response(door.certs)

        app = web.Application()
        app.router.add_get("/certs", certs)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        verifier = await stack.enter_async_context(
            OidcVerifier(
                audience=AUDIENCE,
                account=ACCOUNT,
                certs_url=f"http://127.0.0.1:{runner.addresses[0][1]}/certs",
                clock=door.clock,
            )
        )
        endpoint = PushEndpoint(
            verifier=verifier,
            deliver=door.deliver,
            open_now=lambda: door.is_open,
            timeout=timedelta(seconds=0.5),
        )
        port = await stack.enter_async_context(
            side_port(
                "127.0.0.1:0",
                registry=CollectorRegistry(),
                healthy=lambda: True,
                push=endpoint.answer,
            )
        )
        door.url = f"http://127.0.0.1:{port}/pubsub/push"
        yield door


async def test_a_message_with_googles_token_is_handed_on(door: Door, google: Key) -> None:
    """With all that it carries; the answer lets Pub/Sub forget it."""
    assert await door.push(google.token()) == 204

    [(message, subscription)] = door.taken
    assert (message.data, message.message_id) == (b"job", "17")
    assert dict(message.attributes) == {"who": "ingest"}
    assert message.publish_time.ToMilliseconds() == 1_795_168_800_500
    assert subscription.endswith("-high")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"aud": "https://elsewhere.example"}, 401),
        ({"aud": None}, 401),
        ({"iss": "https://accounts.example"}, 401),
        ({"exp": 1_600_003_600, "iat": 1_600_000_000}, 401),
        ({"exp": None}, 401),
        ({"email": "other@project.iam.gserviceaccount.com"}, 403),
        ({"email_verified": False}, 403),
        ({"email_verified": "true"}, 403),
        ({"email": None}, 403),
    ],
)
async def test_a_token_for_somebody_else_opens_nothing(
    door: Door, google: Key, changes: dict[str, Any], status: int
) -> None:
    """Google signs tokens for everybody: whose and for whom is what counts."""
    assert await door.push(google.token(**changes)) == status
    assert door.taken == []


async def test_a_token_that_google_did_not_sign_opens_nothing(
    door: Door, google: Key, thief: Key
) -> None:
    """Forged, cut, unsigned or missing: all are the same refusal."""
    head, claims, _ = google.token().split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg": "none", "kid": "google-1"}').decode().rstrip("=")

    for token in (thief.token(), f"{head}.{claims}.", f"{unsigned}.{claims}.", "x", "", None):
        assert await door.push(token) == 401, token
    assert door.taken == []


async def test_a_new_key_is_found_and_made_up_ones_are_not_asked_for_each(
    door: Door, google: Key, thief: Key
) -> None:
    """Google changes its keys; a flood of invented key ids must not become ours."""
    assert await door.push(google.token()) == 204
    assert door.certs_asked == 1
    fresh = Key.make("google-2")
    door.certs[fresh.key_id] = fresh.certificate

    for _ in range(3):
        assert await door.push(fresh.token()) == 401
    assert door.certs_asked == 1
    door.clock.advance(61)
    assert await door.push(fresh.token()) == 204
    assert door.certs_asked == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"message": 1, "subscription": "s"}',
        envelope(data="no base64"),
        envelope(messageId=None, message_id=None),
        envelope(attributes={"a": 1}),
        envelope(publishTime="yesterday"),
    ],
)
async def test_what_is_no_push_message_is_refused(door: Door, google: Key, body: bytes) -> None:
    """A wrong sender must not crash the handler, nor reach the queue."""
    assert await door.push(google.token(), body) == 400
    assert door.taken == []


async def test_what_is_not_finished_is_sent_again(door: Door, google: Key) -> None:
    """Given back, refused by the queue, or not finished in time: 503 makes Pub/Sub repeat it."""

    async def given_back() -> bool:
        return False

    async def refused() -> bool:
        raise UnavailableError("the disk is away", reason="QUEUE_DISK")

    async def endless() -> bool:
        return await asyncio.Event().wait()

    for answer in (given_back, refused, endless):
        door.answer = answer
        assert await door.push(google.token()) == 503
    door.is_open = False
    door.taken.clear()
    assert await door.push(google.token()) == 503
    assert door.taken == []


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[PubSubQueue]:
    """A queue that gets its jobs pushed."""
    emulator = shared_emulator()
    names = fresh_names()
    await create(emulator, names)
    async with PubSubQueue(
        tmp_path / "queue",
        names,
        emulator=emulator.address,
        pulls=False,
        pull_wait=timedelta(seconds=2),
    ) as queue:
        yield queue


@pytest.mark.parametrize("end", ["ack", "dead_letter"])
async def test_a_pushed_job_is_leased_like_any_other_and_answered_when_it_is_finished(
    queue: PubSubQueue, end: str
) -> None:
    """Also after an attempt that failed: Pub/Sub waits for the end, not for the first try."""
    given = job("pushed")
    given.job_id = "theirs"
    data = base64.b64encode(given.SerializeToString()).decode()

    async with asyncio.timeout(20):
        answer = asyncio.create_task(queue.take_pushed(*pushed(data)))
        again = asyncio.create_task(queue.take_pushed(*pushed(data)))
        [lease] = await queue.lease(limit=9, duration=MINUTE, wait=MINUTE)
        await queue.nack(lease, delay=timedelta(0))
        [lease] = await queue.lease(limit=9, duration=MINUTE, wait=MINUTE)
        assert not answer.done()
        if end == "ack":
            await queue.ack(lease)
        else:
            await queue.dead_letter(lease, cause=queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID)

        assert await answer
        assert await again
    assert (lease.message.message_id, lease.message.priority) == ("theirs", HIGH)
    assert lease.message.delivery_attempt == 2
    assert dict(lease.message.attributes) == {"traceparent": "00-1"}, "the trace goes on"
    assert await queue.take_pushed(*pushed(data)), "what is finished is finished"


async def test_a_pushed_job_whose_time_ran_out_is_anothers(queue: PubSubQueue) -> None:
    """Pub/Sub sends it again, perhaps elsewhere: the worker that still has it must not finish."""
    given = job("slow")
    data = base64.b64encode(given.SerializeToString()).decode()
    answer = asyncio.create_task(queue.take_pushed(*pushed(data)))
    async with asyncio.timeout(20):
        [lease] = await queue.lease(limit=1, duration=MINUTE, wait=MINUTE)
        answer.cancel()

        async def is_ready() -> bool:
            found = await queue.get(lease.message.message_id)
            return found.state == queue_admin_pb2.MESSAGE_STATE_READY

        await eventually(is_ready)
        assert await queue.lease(limit=1, duration=MINUTE) == []


def pushed(data: str) -> tuple[Any, str]:
    """Return a message as the endpoint hands it on."""
    return message_of(envelope(data=data, attributes={"traceparent": "00-1"}))
