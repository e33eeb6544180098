"""The calls to Pub/Sub, over the channels of Google's async clients.

Pull, acknowledge, publish and the lease's end go as plain protobuf: the clients' wrapped messages
cost three to four times the CPU of the whole way. No call retries by itself, so an outage is
seen at once and by whoever can decide. Calls that can be joined are: while one is under way, the
next ones wait and go together.

    not found                  FailedPreconditionError (PUBSUB_MISSING), names `setup-cloud`
    denied                     FailedPreconditionError (PUBSUB_DENIED)
    an acknowledgement's id    ConflictError (LEASE_LOST): the message is another's by now
    bad message                InvalidRequestError
    anything else              UnavailableError
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio
from google.auth.exceptions import GoogleAuthError
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport
from google.pubsub_v1.types import pubsub

from liner_server.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    LinerError,
    UnavailableError,
)

_T = TypeVar("_T")
_R = TypeVar("_R")

PullRequest = pubsub.PullRequest.pb()
PullResponse = pubsub.PullResponse.pb()
_PublishRequest = pubsub.PublishRequest.pb()
_PublishResponse = pubsub.PublishResponse.pb()
_Acknowledge = pubsub.AcknowledgeRequest.pb()
_ModifyAckDeadline = pubsub.ModifyAckDeadlineRequest.pb()

MOST_PULLED = 100
_MOST_PUBLISHED = 500
_MOST_PUBLISHED_BYTES = 8 << 20
_MOST_ACK_IDS = 1000
_CALL_SECONDS = 10.0


class Grouped(Generic[_T, _R]):
    """Sends one by one what comes alone, and together what came while a call was under way."""

    def __init__(
        self,
        send: Callable[[Sequence[_T]], Awaitable[Sequence[_R]]],
        *,
        most: int,
        most_bytes: int = 0,
        size: Callable[[_T], int] = lambda _: 0,
    ) -> None:
        self._send = send
        self._most = most
        self._most_bytes = most_bytes
        self._size = size
        self._waiting: list[tuple[_T, asyncio.Future[_R]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def do(self, item: _T) -> _R:
        """Return the answer for this item.

        Raises:
            LinerError: the call failed, or this item was refused.

        """
        future: asyncio.Future[_R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return await future

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await self._send_group(self._next())
        finally:
            self._sender = None

    def _next(self) -> list[tuple[_T, "asyncio.Future[_R]"]]:
        size, count = 0, 0
        for item, _ in self._waiting[: self._most]:
            size += self._size(item)
            if count and self._most_bytes and size > self._most_bytes:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _send_group(self, group: list[tuple[_T, "asyncio.Future[_R]"]]) -> None:
        try:
            answers = await self._send([item for item, _ in group])
        except LinerError as error:
            if len(group) > 1 and not error.retryable:
                # One of them spoils it for the others.
                for one in group:
                    await self._send_group([one])
                return
            _fail(group, error)
        except BaseException as error:
            # Nobody may wait for ever, whatever it was.
            _fail(group, error if isinstance(error, Exception) else None)
            raise
        else:
            for (_, future), answer in zip(group, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _fail(group: Sequence[tuple[Any, "asyncio.Future[Any]"]], error: Exception | None) -> None:
    for _, future in group:
        if not future.done():
            if error is None:
                future.cancel()
            else:
                future.set_exception(error)


@dataclass(frozen=True)
class _Calls:
    pull: Any
    acknowledge: Any
    modify: Any
    publish: Any


class Gateway:
    """Pub/Sub, open for this event loop: `async with Gateway(emulator=...) as gateway`."""

    def __init__(self, *, emulator: str | None = None) -> None:
        self._emulator = emulator
        self.publisher: PublisherAsyncClient
        """Google's own client, for what is not done every second."""
        self.subscriber: SubscriberAsyncClient
        """Google's own client, for what is not done every second."""
        self._transports: tuple[Any, Any] = (None, None)
        self._calls: _Calls
        self._publishing: dict[str, Grouped[Any, str]] = {}
        self._acking: dict[str, Grouped[str, None]] = {}

    async def __aenter__(self) -> Self:
        if self._emulator:
            publishing, subscribing = (
                PublisherGrpcAsyncIOTransport(channel=_insecure(self._emulator)),
                SubscriberGrpcAsyncIOTransport(channel=_insecure(self._emulator)),
            )
        else:
            try:
                publishing, subscribing = (
                    PublisherGrpcAsyncIOTransport(),
                    SubscriberGrpcAsyncIOTransport(),
                )
            except GoogleAuthError as error:
                raise FailedPreconditionError(
                    f"Google Cloud's credentials cannot be used: {error}",
                    reason="PUBSUB_CREDENTIALS",
                ) from error
        self._transports = publishing, subscribing
        self.publisher = PublisherAsyncClient(transport=publishing)
        self.subscriber = SubscriberAsyncClient(transport=subscribing)
        subscriber = subscribing.grpc_channel
        self._calls = _Calls(
            _call(subscriber, "Subscriber/Pull", PullRequest, PullResponse),
            _call(subscriber, "Subscriber/Acknowledge", _Acknowledge, None),
            _call(subscriber, "Subscriber/ModifyAckDeadline", _ModifyAckDeadline, None),
            _call(
                publishing.grpc_channel,
                "Publisher/Publish",
                _PublishRequest,
                _PublishResponse,
            ),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self._transports:
            await transport.close()

    async def publish(self, topic: str, message: Any) -> str:
        """Return the id that Pub/Sub gave a message once it keeps it.

        Raises:
            LinerError: as the module says; after UnavailableError it may be kept nevertheless.

        """
        group = self._publishing.get(topic)
        if group is None:
            group = self._publishing[topic] = Grouped(
                lambda messages: self._publish(topic, messages),
                most=_MOST_PUBLISHED,
                most_bytes=_MOST_PUBLISHED_BYTES,
                size=lambda message: message.ByteSize(),
            )
        return await group.do(message)

    async def pull(self, subscription: str, *, limit: int, wait: timedelta) -> Sequence[Any]:
        """Return up to `limit` received messages; none when `wait` is over.

        Let it end: a cancelled pull may swallow messages until their lease ends.
        """
        request = PullRequest(subscription=subscription, max_messages=min(limit, MOST_PULLED))
        try:
            answer = await self._calls.pull(
                request, timeout=wait.total_seconds(), metadata=_routed(subscription)
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return []
            raise translated(error, subscription) from error
        found: Sequence[Any] = answer.received_messages
        return found

    async def acknowledge(self, subscription: str, ack_id: str) -> None:
        """Take a message off Pub/Sub.

        Raises:
            ConflictError: the message was delivered to another meanwhile.

        """
        group = self._acking.get(subscription)
        if group is None:
            group = self._acking[subscription] = Grouped(
                lambda ack_ids: self._acknowledge(subscription, ack_ids), most=_MOST_ACK_IDS
            )
        await group.do(ack_id)

    async def keep(
        self, subscription: str, ack_ids: Sequence[str], *, seconds: int
    ) -> Sequence[str]:
        """Let these leases end in so many seconds, 0 gives them back; return those that are lost.

        Raises:
            UnavailableError: Pub/Sub cannot be reached.

        """
        lost: list[str] = []
        for start in range(0, len(ack_ids), _MOST_ACK_IDS):
            part = list(ack_ids[start : start + _MOST_ACK_IDS])
            try:
                await self._modify(subscription, part, seconds)
            except ConflictError:
                lost += [one for one in part if await self._is_lost(subscription, one, seconds)]
        return lost

    async def _is_lost(self, subscription: str, ack_id: str, seconds: int) -> bool:
        try:
            await self._modify(subscription, [ack_id], seconds)
        except ConflictError:
            return True
        return False

    async def _publish(self, topic: str, messages: Sequence[Any]) -> Sequence[str]:
        request = _PublishRequest(topic=topic, messages=messages)
        try:
            answer = await self._calls.publish(
                request, timeout=_CALL_SECONDS, metadata=_routed(topic, "topic")
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise InvalidRequestError.of(
                    "job", f"is refused by Pub/Sub: {error.details()}", "PUBSUB_REFUSED"
                ) from error
            raise translated(error, topic) from error
        ids: Sequence[str] = answer.message_ids
        return ids

    async def _acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> Sequence[None]:
        request = _Acknowledge(subscription=subscription, ack_ids=ack_ids)
        await self._answered(self._calls.acknowledge, request, subscription)
        return [None] * len(ack_ids)

    async def _modify(self, subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        request = _ModifyAckDeadline(
            subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds
        )
        await self._answered(self._calls.modify, request, subscription)

    async def _answered(self, call: Any, request: Any, subscription: str) -> None:
        try:
            await call(request, timeout=_CALL_SECONDS, metadata=_routed(subscription))
        except grpc.aio.AioRpcError as error:
            if error.code() in (
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.FAILED_PRECONDITION,
            ):
                raise ConflictError(
                    "the message was delivered to another", reason="LEASE_LOST"
                ) from error
            raise translated(error, subscription) from error


def translated(error: grpc.aio.AioRpcError, what: str) -> LinerError:
    """Return what a failed call means to whoever uses the queue."""
    name = what.rpartition("/")[2]
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return FailedPreconditionError(
            f"Pub/Sub has no {name}; `liner-server setup-cloud` creates it",
            reason="PUBSUB_MISSING",
            resource=what,
        )
    if error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return FailedPreconditionError(
            f"this account may not use Pub/Sub's {name}: {error.details()}",
            reason="PUBSUB_DENIED",
            resource=what,
        )
    return UnavailableError(
        f"Pub/Sub's {name}: {error.code().name} {error.details()}",
        reason="PUBSUB",
        retry_after=timedelta(seconds=1),
    )


def _insecure(address: str) -> grpc.aio.Channel:
    # As Google's transports have it: a hundred jobs with lyrics are more than gRPC's usual 4 MiB.
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return grpc.aio.insecure_channel(address, options=unlimited)


def _call(channel: grpc.aio.Channel, method: str, request: Any, response: Any) -> Any:
    return channel.unary_unary(
        f"/google.pubsub.v1.{method}",
        request_serializer=request.SerializeToString,
        # Where nothing is answered there is nothing to parse.
        response_deserializer=response.FromString if response is not None else None,
    )


def _routed(path: str, field: str = "subscription") -> tuple[tuple[str, str], ...]:
    return (("x-goog-request-params", f"{field}={quote(path, safe='')}"),)
