"""Dead letters of all hosts: each is published once it is in its host's file, and taken in here.

Pub/Sub cannot list what lies on a topic, nor delete one message of many, so letters are taken off
their subscription at once and kept in the file, where they can be listed, replayed and purged.
One process of a project does so; two would each have a part.
"""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_server.core.enums import Cause
from liner_server.errors import ConflictError, InvalidRequestError, LinerError
from liner_server.ports import ResultStore
from liner_server.ports_queue import Lease
from liner_server.queues import leasing, pubsub_file, pubsub_held, pubsub_wire
from liner_server.queues.pubsub_gateway import Gateway
from liner_server.queues.pubsub_wire import WORDS, Arrival, Names, arrival_of
from liner_server.queues.rows import MOST_ATTEMPTS, Times, error_text
from liner_server.sqlite_file import SqliteFile

_log = structlog.get_logger()
_LONGEST_BACKOFF = 5.0

_Take = Callable[[Any, int], Awaitable[None]]


class Letters:
    """Takes dead letters off their subscription and into the file; `run` must run."""

    def __init__(
        self,
        *,
        file: SqliteFile,
        gateway: Gateway,
        names: Names,
        me: str,
        times: Callable[[], Times],
        pull_wait: timedelta,
        changed: Callable[[], None],
        results: ResultStore | None,
    ) -> None:
        """Take where to keep letters, and results of other hosts if they are wanted here."""
        self._file = file
        self._gateway = gateway
        self._names = names
        self._me = me
        self._times = times
        self._pull_wait = pull_wait
        self._changed = changed
        self._results = results

    async def run(self) -> None:
        """Take letters in, and what other hosts finished, until cancelled."""
        await asyncio.gather(
            self._follow(self._names.dead_subscription, self._take),
            self._follow(self._names.results_subscription, self._note),
        )

    async def _follow(self, subscription: str, take: _Take) -> None:
        failures = 0
        while True:
            try:
                received = await self._gateway.pull(subscription, limit=100, wait=self._pull_wait)
                fault = await self._take_each(subscription, received, take)
            except LinerError as error:
                fault = error
            if fault is None:
                failures = 0
                continue
            failures += 1
            if failures == 1 or not isinstance(fault, LinerError):
                _log.warning("cannot take in", subscription=subscription, error=str(fault))
            await asyncio.sleep(min(_LONGEST_BACKOFF, 0.1 * 2 ** min(failures, 10)))

    async def _take_each(
        self, subscription: str, received: Sequence[Any], take: _Take
    ) -> BaseException | None:
        """Take in each by itself; return why one could not be, which comes again then.

        What the stores refuse for what it is will not come again.
        """
        told = await asyncio.gather(
            *(take(one.message, one.delivery_attempt) for one in received), return_exceptions=True
        )
        for one, error in zip(received, told, strict=True):
            if error is None or isinstance(error, InvalidRequestError):
                with suppress(ConflictError):
                    await self._gateway.acknowledge(subscription, one.ack_id)
        return next((error for error in told if error is not None), None)

    async def _note(self, message: Any, _: int) -> None:
        """Another host may have finished what this one published: keep its result here too."""
        message_id = message.attributes.get(pubsub_wire.ID, "")
        try:
            number = pubsub_wire.round_of(message.attributes)
        except ValueError:
            # No result of Liner's.
            return
        if await self._file.read(lambda db: pubsub_file.is_finished(db, message_id, number)):
            return
        if self._results is not None and message.data:
            with suppress(DecodeError):
                await self._results.put(enrichment_pb2.Enrichment.FromString(message.data))
        await self._file.write(
            lambda db: pubsub_held.finished_elsewhere(db, message_id, number, self._times()),
            reclaims=True,
        )

    async def _take(self, message: Any, delivery_attempt: int) -> None:
        if pubsub_wire.LETTER in message.attributes:
            with suppress(DecodeError, ValueError):
                letter, body = pubsub_wire.opened(message.data)
                number = pubsub_wire.round_of(message.attributes)
                is_new = await self._file.write(
                    lambda db: take_in(db, letter, body, number, self._times())
                )
                if is_new and self._results is not None:
                    await self._results.update_state(
                        letter.message_id,
                        enrichment_pb2.ENRICHMENT_STATE_FAILED,
                        error=letter.attempts[-1].error if letter.attempts else None,
                    )
                return
        source = message.attributes.get(pubsub_wire.NATIVE, "")
        arrival = arrival_of(message, source, delivery_attempt, self._times().wall)
        lives_on = await self._file.write(lambda db: give_up(db, arrival, self._times(), self._me))
        _log.warning("Pub/Sub gave a message up", message_id=arrival.message_id, kept=lives_on)
        self._changed()


def bury(
    db: sqlite3.Connection,
    lease: Lease,
    times: Times,
    me: str,
    *,
    cause: Cause,
    error: track_pb2.Error | None,
    model: str,
) -> None:
    """Make a message a dead letter that is to be sent; its copy goes when that has been done."""
    leasing.dead_letter(db, lease, times, cause, error, model)
    message_id = lease.message.message_id
    db.execute("UPDATE transit SET sent = 0, holder = ? WHERE message_id = ?", (me, message_id))
    (number,) = db.execute(
        "SELECT round FROM transit WHERE message_id = ?", (message_id,)
    ).fetchone()
    pubsub_file.set_finished(db, message_id, number, times)


def take_in(
    db: sqlite3.Connection,
    letter: queue_admin_pb2.QueueMessage,
    body: bytes,
    number: int,
    times: Times,
) -> bool:
    """Keep a dead letter that another host published, once; return whether it is new."""
    if pubsub_file.is_finished(db, letter.message_id, number):
        return False
    job = letter.job
    died = _seconds(letter.dead_letter_time, times)
    last = letter.attempts[-1].error if letter.attempts else None
    db.execute(
        "INSERT INTO messages(message_id, priority, tenant, state, due, published, delivery, "
        "track_id, request_id, attributes, body, error, cause, died) "
        "VALUES (?, ?, ?, 4, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(message_id) DO UPDATE SET "
        "state = 4, token = NULL, lease_until = NULL, delivery = excluded.delivery, "
        "error = excluded.error, cause = excluded.cause, died = excluded.died",
        (
            letter.message_id,
            letter.priority if letter.priority in WORDS else 2,
            job.tenant,
            died,
            _seconds(letter.publish_time, times),
            letter.delivery_attempt,
            job.track.track_id,
            job.request_id,
            json.dumps(dict(letter.attributes)) if letter.attributes else "",
            body,
            error_text(last),
            letter.cause,
            died,
        ),
    )
    (row,) = db.execute(
        "SELECT id FROM messages WHERE message_id = ?", (letter.message_id,)
    ).fetchone()
    db.execute("DELETE FROM attempts WHERE message = ?", (row,))
    for attempt in letter.attempts[-MOST_ATTEMPTS:]:
        leasing.remember(
            db,
            row,
            attempt.number,
            _seconds(attempt.start_time, times),
            ended=_seconds(attempt.end_time, times) if attempt.HasField("end_time") else None,
            error=attempt.error if attempt.HasField("error") else None,
            model=attempt.model,
        )
    db.execute(
        "INSERT OR REPLACE INTO transit(message_id, round, sent) VALUES (?, ?, 1)",
        (letter.message_id, number),
    )
    pubsub_file.set_finished(db, letter.message_id, number, times)
    return True


def _seconds(time: Timestamp, times: Times) -> float:
    """Return a time that has passed; the clock of whoever stated it may be wrong."""
    return min(max(0.0, time.ToMicroseconds() / 1e6), times.wall)


def give_up(db: sqlite3.Connection, found: Arrival, times: Times, me: str) -> bool:
    """Take in what Pub/Sub's own policy made a dead letter; return whether it lives on.

    Pub/Sub counts deliveries only. A message that waits for its time is delivered many times
    until then and is put back; any other was never finished by the workers that had it.
    """
    db.execute(
        "UPDATE transit SET holder = '' WHERE message_id = ? AND round = ?",
        (found.message_id, found.round),
    )
    if not pubsub_held.arrive(db, [found], times, "")[0]:
        return False
    if found.due > times.wall:
        pubsub_file.put_back(db, [found.message_id], times, me)
        return True
    db.execute(
        "UPDATE messages SET state = 4, died = ?, cause = ?, token = NULL, lease_until = NULL "
        "WHERE message_id = ?",
        (times.wall, queue_admin_pb2.DEAD_LETTER_CAUSE_WORKER_LOST, found.message_id),
    )
    pubsub_file.set_finished(db, found.message_id, found.round, times)
    return False
