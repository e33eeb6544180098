"""How jobs are worked on, and what a failure says of the job and of the models."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from google.rpc import code_pb2
from liner.v1 import queue_admin_pb2

from liner_server.core.enums import Cause
from liner_server.errors import (
    InvalidAudioError,
    InvalidRequestError,
    LinerError,
    NotFoundError,
    PermissionDeniedError,
)


@dataclass(frozen=True, kw_only=True)
class ConsumerPolicy:
    """How jobs are worked on."""

    workers: int = 16
    """Most jobs worked on at once; no more are leased than can be worked on."""

    workers_least: int = 1
    """Jobs worked on at once however slow the models are; see `concurrency`."""

    lease: timedelta = timedelta(seconds=30)
    """How long a job stays with a worker that says nothing; a heartbeat comes three times as
    often."""

    job_timeout: timedelta = timedelta(seconds=120)
    """Longest time that one attempt may take."""

    max_attempts: int = 5
    """Attempts before a job is a dead letter, those included whose worker died."""

    delays: Sequence[timedelta] = tuple(timedelta(seconds=s) for s in (1, 5, 15, 30, 60))
    """Wait after the first failure, the second, and so on; the last one from then on."""

    pull_wait: timedelta = timedelta(seconds=1)
    """How long the queue may hold a pull open while it has nothing."""

    suspect_delay: timedelta = timedelta(seconds=1)
    """Wait of a job that lost its worker while another such job runs."""

    store_delay: timedelta = timedelta(seconds=5)
    """Wait of a job whose result could not be stored, and of the consumer while the queue fails."""

    def delay(
        self, attempt: int, *, retry_after: timedelta | None = None, rng: random.Random
    ) -> timedelta:
        """Return the wait after the attempt with this number failed.

        Drawn within a fifth of the table's, so that jobs that failed together do not come back
        together. A provider's Retry-After is a floor, up to the longest delay.
        """
        wait = self.delays[min(attempt, len(self.delays)) - 1] * rng.uniform(0.8, 1.2)
        return max(wait, min(retry_after, max(self.delays))) if retry_after else wait


def is_overload(code: int) -> bool:
    """Whether this tells of a model that has more to do than it can."""
    return code in (
        code_pb2.RESOURCE_EXHAUSTED,
        code_pb2.UNAVAILABLE,
        code_pb2.DEADLINE_EXCEEDED,
    )


def hopeless(error: LinerError | None) -> Cause | None:
    """Return why no further attempt can succeed, or None if one may."""
    match error:
        case InvalidAudioError():
            return queue_admin_pb2.DEAD_LETTER_CAUSE_BAD_AUDIO
        case InvalidRequestError() | PermissionDeniedError():
            return queue_admin_pb2.DEAD_LETTER_CAUSE_INVALID
        case NotFoundError():
            return queue_admin_pb2.DEAD_LETTER_CAUSE_MISSING_OBJECT
        case _:
            return None
