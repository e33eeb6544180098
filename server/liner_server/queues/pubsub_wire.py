"""How jobs travel by Pub/Sub: names of topics and subscriptions, attributes, letters.

A message's data is the job (`EnrichmentJob`), so that other systems may publish one and read
one. What Liner knows beside it is in attributes that begin with `liner-queue-`; a message without
them is a job like any other.
"""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from google.pubsub_v1.types import pubsub
from liner.v1 import enrichment_pb2, queue_admin_pb2

from liner_server.core.enums import Priority
from liner_server.errors import InvalidRequestError
from liner_server.queues.rows import job_of

PubsubMessage = pubsub.PubsubMessage.pb()
"""The plain protobuf class: the wrapped one costs three times the CPU of the whole way."""

WORDS: Mapping[Priority, str] = {
    enrichment_pb2.PRIORITY_HIGH: "high",
    enrichment_pb2.PRIORITY_MEDIUM: "medium",
    enrichment_pb2.PRIORITY_LOW: "low",
}
"""How a priority's topic and subscription end."""

ID = "liner-queue-id"
ROUND = "liner-queue-round"
"""Counts up each time a message is put on the queue; older copies of it are late ones."""
PUBLISHED = "liner-queue-published"
DUE = "liner-queue-due"
ATTEMPTS = "liner-queue-attempts"
"""Deliveries counted before this copy was published."""
LETTER = "liner-queue-letter"
"""Marks a dead letter: the data is a `QueueMessage`."""
NATIVE = "CloudPubSubDeadLetterSourceSubscription"
"""The attribute by which Pub/Sub marks what its own dead-letter policy forwarded."""

_BODY = "liner-queue-body"
_OURS = ("liner-queue-", "googclient_", "CloudPubSubDeadLetter")
_MOST_ATTRIBUTES = 90
_MOST_KEY_BYTES = 256
_MOST_VALUE_BYTES = 1024
_MOST_ID_BYTES = 256
_MOST_LETTER_BYTES = 6 << 20
"""Bytes that are no job and go with its letter, in base64; those of larger ones stay behind."""

_LATEST = 253_402_300_799.0 - 1
"""The end of year 9999: later times cannot be told."""

_MOST_DELIVERED = 1_000_000
"""Deliveries that anybody may say a message has had: what is added must stay countable."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the topics and subscriptions of one queue are called."""

    project: str
    topic: str = "ai-processing"
    subscription: str = "ai-processor"

    def topic_of(self, priority: Priority) -> str:
        """Return the path of a priority's topic."""
        return self._topic(WORDS[priority])

    def subscription_of(self, priority: Priority) -> str:
        """Return the path of the subscription that a priority is pulled from."""
        return self._subscription(WORDS[priority])

    @property
    def dead_topic(self) -> str:
        """Path of the topic of dead letters."""
        return self._topic("dead-letter")

    @property
    def dead_subscription(self) -> str:
        """Path of the subscription that dead letters are taken in from."""
        return self._subscription("dead-letter")

    @property
    def results_topic(self) -> str:
        """Path of the topic that finished jobs are announced on."""
        return self._topic("results")

    @property
    def results_subscription(self) -> str:
        """Path of the subscription by which a host hears what others finished."""
        return self._subscription("results")

    @property
    def paused_topic(self) -> str:
        """Path of the topic that is there while the queue is paused."""
        return self._topic("paused")

    def _topic(self, word: str) -> str:
        return f"projects/{self.project}/topics/{self.topic}-{word}"

    def _subscription(self, word: str) -> str:
        return f"projects/{self.project}/subscriptions/{self.subscription}-{word}"


class Arrival(NamedTuple):
    """A message that Pub/Sub delivered, as the queue's file keeps it."""

    carrier: str
    """Pub/Sub's own id of this copy."""

    message_id: str
    round: int
    priority: Priority
    tenant: str
    track_id: str
    request_id: str
    due: float
    published: float
    delivered: int
    """Deliveries before this one, as far as the message and Pub/Sub tell."""

    attributes: str
    body: bytes


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Pass if Pub/Sub carries these attributes beside Liner's own.

    Raises:
        InvalidRequestError: there are too many, or one is too long or has a name of Liner's.

    """
    faults = []
    if len(attributes) > _MOST_ATTRIBUTES:
        faults.append(f"are more than {_MOST_ATTRIBUTES}")
    for key, value in attributes.items():
        if not key or key.startswith((*_OURS, "goog")):
            faults.append(f"may not be named {key[:40]!r}")
        if len(key.encode()) > _MOST_KEY_BYTES or len(value.encode()) > _MOST_VALUE_BYTES:
            faults.append(f"are too long at {key[:40]!r}")
    if faults:
        raise InvalidRequestError.of("attributes", "; ".join(faults), "ATTRIBUTES")


def message_of(
    *,
    message_id: str,
    body: bytes,
    attributes: str,
    published: float,
    due: float,
    number: int,
    delivered: int,
    ordering_key: str = "",
) -> Any:
    """Return what is published for a message that waits; `number` is its round."""
    own = {ID: message_id, ROUND: str(number), PUBLISHED: repr(published)}
    if due > published:
        own[DUE] = repr(due)
    if delivered:
        own[ATTEMPTS] = str(delivered)
    given = json.loads(attributes) if attributes else {}
    return PubsubMessage(data=body, attributes={**given, **own}, ordering_key=ordering_key)


def letter_of(message: queue_admin_pb2.QueueMessage, *, body: bytes, number: int) -> Any:
    """Return what is published for a dead letter; `number` is its round."""
    letter = queue_admin_pb2.QueueMessage()
    letter.CopyFrom(message)
    if not message.HasField("job") and len(body) <= _MOST_LETTER_BYTES:
        letter.attributes[_BODY] = base64.b64encode(body).decode()
    attributes = {
        ID: message.message_id,
        ROUND: str(number),
        LETTER: queue_admin_pb2.DeadLetterCause.Name(message.cause),
    }
    return PubsubMessage(data=letter.SerializeToString(), attributes=attributes)


def result_of(enrichment: enrichment_pb2.Enrichment, *, number: int) -> Any:
    """Return what is published when a job is finished: its result, as it is stored."""
    attributes = {
        ID: enrichment.enrichment_id,
        ROUND: str(number),
        "state": enrichment_pb2.EnrichmentState.Name(enrichment.state),
    }
    return PubsubMessage(data=enrichment.SerializeToString(), attributes=attributes)


def opened(data: bytes) -> tuple[queue_admin_pb2.QueueMessage, bytes]:
    """Return the dead letter that these bytes are, and the bytes of its job.

    Raises:
        google.protobuf.message.DecodeError: they are none.

    """
    letter = queue_admin_pb2.QueueMessage.FromString(data)
    raw = letter.attributes.pop(_BODY, "")
    return letter, base64.b64decode(raw) if raw else letter.job.SerializeToString()


def round_of(attributes: Mapping[str, str]) -> int:
    """Return the round that a message's attributes state.

    Raises:
        ValueError: they state none.

    """
    number = int(_number(attributes.get(ROUND), 0))
    if not number:
        raise ValueError(ROUND)
    return number


def arrival_of(message: Any, subscription: str, delivery_attempt: int, not_after: float) -> Arrival:
    """Return a message that this subscription delivered, whoever published it.

    `not_after` is the time of arrival: no message was published later than that.
    """
    ours = message.attributes
    job = job_of(message.data)
    stamped = min(message.publish_time.ToMicroseconds() / 1e6 or not_after, not_after)
    published = min(_number(ours.get(PUBLISHED), stamped), not_after)
    message_id = ours.get(ID) or (job.job_id if job is not None else "")
    body = message.data
    if not message_id:
        message_id = f"pubsub-{message.message_id or secrets.token_hex(8)}"
    elif len(message_id.encode()) > _MOST_ID_BYTES or not message_id.isprintable():
        # No store takes it and no operator could type it; copies of it still have one name.
        message_id = f"id-{blake2b(message_id.encode(), digest_size=16).hexdigest()}"
    if job is not None and job.job_id != message_id:
        job.job_id = message_id
        body = job.SerializeToString()
    given = {key: value for key, value in ours.items() if not key.startswith(_OURS)}
    return Arrival(
        carrier=message.message_id,
        message_id=message_id,
        round=int(_number(ours.get(ROUND), stamped * 1e6)),
        priority=_priority_of(subscription),
        tenant=job.tenant if job is not None else "",
        track_id=job.track.track_id if job is not None else "",
        request_id=job.request_id if job is not None else "",
        due=max(published, min(_number(ours.get(DUE), published), _LATEST)),
        published=published,
        delivered=min(int(_number(ours.get(ATTEMPTS), 0)), _MOST_DELIVERED)
        + max(0, delivery_attempt - 1),
        attributes=json.dumps(given) if given else "",
        body=body,
    )


@lru_cache(maxsize=64)
def _priority_of(subscription: str) -> Priority:
    for priority, word in WORDS.items():
        if subscription.endswith(f"-{word}"):
            return priority
    return enrichment_pb2.PRIORITY_MEDIUM


def _number(text: str | None, otherwise: float) -> float:
    """Return what an attribute says, if it is a time or a count: anybody may have written it."""
    try:
        found = float(text) if text else otherwise
    except ValueError:
        return otherwise
    return found if 0 <= found < 1e17 else otherwise


MOST_BYTES = 9 << 20
"""Data and attributes of one message; Pub/Sub refuses 10 MB."""

LONGEST_RETENTION = timedelta(days=7)
"""How long Pub/Sub keeps what nobody acknowledged, as `setup-cloud` asks for."""
