"""The topics and subscriptions that the queue needs: made once, checked at every start.

TOPIC-high, -medium, -low    SUBSCRIPTION-high, -medium, -low   jobs
TOPIC-dead-letter            SUBSCRIPTION-dead-letter           dead letters of all hosts
TOPIC-results                (subscribe as you like)            what is finished
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import Any

from google.api_core import exceptions
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1.types import pubsub

from liner_server.cloud_parts import Part
from liner_server.errors import FailedPreconditionError, LinerError, UnavailableError
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_wire import LONGEST_RETENTION, WORDS, Names

_CALL_SECONDS = 10.0
MOST_DELIVERIES = 100
"""Deliveries after which Pub/Sub itself makes a message a dead letter. The consumer counts
attempts and is stricter; this is for messages that no consumer lives to count."""


async def set_up(
    gateway: Gateway,
    names: Names,
    *,
    dry_run: bool = False,
    ordered: bool = False,
    hold: timedelta = timedelta(seconds=30),
) -> AsyncIterator[Part]:
    """Create what is missing, mend what differs, and yield each part; run it as often as you like.

    `hold` is how soon Pub/Sub gives a message to another when whoever pulled it has died.

    Raises:
        FailedPreconditionError: this account may not.
        UnavailableError: Pub/Sub cannot be reached.

    """
    for path in _topics(names):
        yield await _topic(gateway, path, dry_run)
    for wanted in _subscriptions(names, ordered=ordered, hold=hold):
        yield await _subscription(gateway, wanted, dry_run)


async def check(gateway: Gateway, names: Names) -> None:
    """Pass if everything is there.

    Raises:
        FailedPreconditionError: something is missing; the text names it and the command.
        UnavailableError: Pub/Sub cannot be reached.

    """
    asked: list[tuple[str, str, Any]] = [
        ("topic", path, gateway.publisher.get_topic) for path in _topics(names)
    ]
    asked += [
        ("subscription", wanted.name, gateway.subscriber.get_subscription)
        for wanted in _subscriptions(names)
    ]
    found = await asyncio.gather(*(_found(get, {kind: path}, path) for kind, path, get in asked))
    missing = [path for (_, path, _), part in zip(asked, found, strict=True) if part is None]
    if missing:
        raise FailedPreconditionError(
            f"Pub/Sub lacks {', '.join(missing)}; `liner-server setup-cloud` creates them",
            reason="PUBSUB_MISSING",
        )


async def set_paused(gateway: Gateway, names: Names, *, paused: bool) -> None:
    """Tell all hosts whether to hand out.

    Raises:
        FailedPreconditionError: this account may not.
        UnavailableError: Pub/Sub cannot be reached.

    """
    path = names.paused_topic
    if paused:
        await _created(gateway.publisher.create_topic, {"name": path}, path)
    else:
        await _found(gateway.publisher.delete_topic, {"topic": path}, path)


async def is_paused(gateway: Gateway, names: Names) -> bool:
    """Return whether all hosts are to hand out nothing.

    Raises:
        UnavailableError: Pub/Sub cannot be reached.

    """
    path = names.paused_topic
    return await _found(gateway.publisher.get_topic, {"topic": path}, path) is not None


def _topics(names: Names) -> list[str]:
    return [*map(names.topic_of, WORDS), names.dead_topic, names.results_topic]


def _subscriptions(
    names: Names, *, ordered: bool = False, hold: timedelta = timedelta(seconds=30)
) -> list[Any]:
    seconds = max(10, round(hold.total_seconds()))
    jobs = [
        pubsub.Subscription(
            name=names.subscription_of(priority),
            topic=names.topic_of(priority),
            ack_deadline_seconds=seconds,
            message_retention_duration=LONGEST_RETENTION,
            # Without one an idle subscription is deleted after 31 days.
            expiration_policy=pubsub.ExpirationPolicy(),
            # A late acknowledgement is refused, where it would be silently ignored otherwise.
            enable_exactly_once_delivery=True,
            enable_message_ordering=ordered,
            dead_letter_policy=pubsub.DeadLetterPolicy(
                dead_letter_topic=names.dead_topic, max_delivery_attempts=MOST_DELIVERIES
            ),
        )
        for priority in WORDS
    ]
    others = [
        pubsub.Subscription(
            name=subscription,
            topic=topic,
            ack_deadline_seconds=seconds,
            message_retention_duration=LONGEST_RETENTION,
            expiration_policy=pubsub.ExpirationPolicy(),
        )
        for subscription, topic in (
            (names.dead_subscription, names.dead_topic),
            (names.results_subscription, names.results_topic),
        )
    ]
    return [*jobs, *others]


async def _topic(gateway: Gateway, path: str, dry_run: bool) -> Part:
    if await _found(gateway.publisher.get_topic, {"topic": path}, path) is not None:
        return Part(kind="topic", path=path, state="exists")
    if dry_run:
        return Part(kind="topic", path=path, state="missing")
    request = {"name": path}
    created = await _created(gateway.publisher.create_topic, request, path)
    return Part(kind="topic", path=path, state="created" if created else "exists")


async def _subscription(gateway: Gateway, wanted: Any, dry_run: bool) -> Part:
    path = wanted.name
    get = gateway.subscriber.get_subscription
    found = await _found(get, {"subscription": path}, path)
    if found is None:
        if dry_run:
            return Part(kind="subscription", path=path, state="missing")
        created = await _created(gateway.subscriber.create_subscription, wanted, path)
        return Part(kind="subscription", path=path, state="created" if created else "exists")
    if found.topic != wanted.topic:
        raise FailedPreconditionError(
            f"{path} belongs to {found.topic}, not to {wanted.topic}; delete it or set "
            "PUBSUB_SUBSCRIPTION to another name",
            reason="PUBSUB_SUBSCRIPTION",
            resource=path,
        )
    note = ""
    if found.enable_message_ordering != wanted.enable_message_ordering:
        note = "ordering is fixed when a subscription is made"
    differs = _differences(found, wanted)
    if not differs:
        return Part(kind="subscription", path=path, state="exists", note=note)
    note = "; ".join(filter(None, [", ".join(differs), note]))
    if dry_run:
        return Part(kind="subscription", path=path, state="differs", note=note)
    request = {"subscription": wanted, "update_mask": FieldMask(paths=differs)}
    await _told(gateway.subscriber.update_subscription(request, **_OPTIONS), path)
    return Part(kind="subscription", path=path, state="changed", note=note)


def _differences(found: Any, wanted: Any) -> list[str]:
    """Return the fields to change; where the found one is kinder than wanted, it is left so."""
    differs = []
    if found.ack_deadline_seconds < wanted.ack_deadline_seconds:
        differs.append("ack_deadline_seconds")
    if found.message_retention_duration < wanted.message_retention_duration:
        differs.append("message_retention_duration")
    if found.expiration_policy.ttl:
        differs.append("expiration_policy")
    # A subscription that pushes cannot have it.
    if (
        wanted.enable_exactly_once_delivery
        and not found.enable_exactly_once_delivery
        and not found.push_config.push_endpoint
    ):
        differs.append("enable_exactly_once_delivery")
    if found.dead_letter_policy.dead_letter_topic != wanted.dead_letter_policy.dead_letter_topic:
        differs.append("dead_letter_policy")
    return differs


_OPTIONS: dict[str, Any] = {"retry": None, "timeout": _CALL_SECONDS}
"""The clients' own retries hide an outage for minutes."""


async def _found(get: Any, request: dict[str, str], path: str) -> Any:
    try:
        return await _told(get(request, **_OPTIONS), path)
    except _MissingError:
        return None


async def _created(create: Any, request: Any, path: str) -> bool:
    try:
        await _told(create(request, **_OPTIONS), path)
    except _ThereError:
        return False
    return True


class _MissingError(Exception):
    """It is not there."""


class _ThereError(Exception):
    """Somebody else was faster."""


async def _told(call: Awaitable[Any], path: str) -> Any:
    """Return the answer of a call, or let its error leave as the port's."""
    try:
        return await call
    except exceptions.NotFound as error:
        raise _MissingError from error
    except exceptions.AlreadyExists as error:
        raise _ThereError from error
    except (exceptions.PermissionDenied, exceptions.Unauthenticated) as error:
        raise FailedPreconditionError(
            f"this account may not see or change {path}: {error.message}; it needs the role "
            "roles/pubsub.editor (to set up) or pubsub.publisher, subscriber and viewer (to run)",
            reason="PUBSUB_DENIED",
            resource=path,
        ) from error
    except exceptions.GoogleAPICallError as error:
        raise _unavailable(path, error.message) from error
    except exceptions.RetryError as error:
        raise _unavailable(path, str(error)) from error


def _unavailable(path: str, text: str) -> LinerError:
    return UnavailableError(
        f"Pub/Sub cannot be asked for {path}: {text}",
        reason="PUBSUB",
        retry_after=timedelta(seconds=1),
    )
