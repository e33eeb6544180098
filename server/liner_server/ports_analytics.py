"""The boundary to analytics: rows in, counts out. The docstrings are the spec.

Tables and their columns are the messages of `liner/v1/analytics.proto`. The backends pass one
contract suite, `tests/contracts/test_analytics_sink.py`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeAlias

from liner.v1 import analytics_pb2

CONFIDENCE_BINS = 20
"""Ranges of confidence that are counted apart, each 0.05 wide."""

RELIABILITY_BINS = 10
"""Ranges of confidence of reviewed fields, each 0.1 wide."""


class Table(StrEnum):
    """Where a row belongs."""

    EXPERIMENTS = "ai_experiments"
    OUTCOMES = "enrichment_outcomes"
    TRAFFIC = "experiment_traffic"


AnyRow: TypeAlias = (
    analytics_pb2.ExperimentRow | analytics_pb2.OutcomeRow | analytics_pb2.TrafficRow
)

MESSAGES: Mapping[Table, type[AnyRow]] = {
    Table.EXPERIMENTS: analytics_pb2.ExperimentRow,
    Table.OUTCOMES: analytics_pb2.OutcomeRow,
    Table.TRAFFIC: analytics_pb2.TrafficRow,
}
"""The message whose fields are a table's columns."""


@dataclass(frozen=True)
class Refused:
    """A row that the backend will never take, and why."""

    index: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Sums:
    """How often, and the sum and sum of squares, of a number that each track has once."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            count=self.count + other.count,
            total=self.total + other.total,
            squares=self.squares + other.squares,
        )


NONE = Sums()


@dataclass(frozen=True, kw_only=True)
class Period:
    """What one variant did in one period. A track counts once, in the period of its first row."""

    variant: str
    period: int
    success: Sums = NONE
    """1 for a track whose answer is a success, 0 for the others."""
    confidence: Sums = NONE
    """Of successes."""
    seconds: Sums = NONE
    cost: Sums = NONE
    agreement: Sums = NONE
    """Share of a track's checked fields that agree, of tracks with such fields."""
    fallbacks: int = 0


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """What editors said of one variant in one period."""

    variant: str
    period: int
    accepted: Sums = NONE
    """Share of a track's reviewed fields that were accepted, of tracks with such fields; in the
    period of the track's last review."""
    fields: int = 0
    accepted_fields: int = 0


@dataclass(frozen=True, kw_only=True)
class Bin:
    """How often something fell into one range."""

    variant: str
    bin: int
    count: int
    accepted: int = 0
    total: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """Tracks drawn for a variant while these shares were in force."""

    allocation: str
    variant: str
    tracks: int


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The counts that a report is made of."""

    periods: Sequence[Period] = ()
    reviewed: Sequence[Reviewed] = ()
    assigned: Sequence[Assigned] = ()
    """Distinct tracks, by the first row of each, known answers and failures included."""
    seconds: Sequence[Bin] = ()
    """Tracks by time of an answer: bin b is from 1.02 ** b to 1.02 ** (b + 1) seconds."""
    confidence: Sequence[Bin] = ()
    """Successes by confidence, in `CONFIDENCE_BINS`."""
    reliability: Sequence[Bin] = ()
    """Reviewed fields by confidence, in `RELIABILITY_BINS`; `total` is the sum of confidences."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which rows a tally is of, and how they are cut into periods."""

    experiment: str
    start: datetime
    end: datetime
    """Rows at or after `start` and before `end`."""
    width: timedelta = field(default=timedelta(hours=1))
    """Length of a period; period 0 begins at `start`."""


class AnalyticsSink(Protocol):
    """Keeps rows and counts them.

    A row is known by its `row_id`: rows are delivered at least once, and however often one is,
    and by whichever process, it is counted once. Confidences, times and shares are numbers that
    Liner made; what callers typed is stored as text and never part of a statement.

    Every method may also raise:
        UnavailableError, ResourceExhaustedError: not now; the same call may succeed later.
        FailedPreconditionError: tables are missing or this account may not; for an operator.
        DataLossError: what is stored is corrupt.
    """

    async def insert(self, table: Table, rows: Sequence[AnyRow]) -> Sequence[Refused]:
        """Store rows, each the table's message; durable when it returns.

        Returns the rows that it will never take; all others are stored. Raises: nothing is known
        of any row, and all may be delivered again.
        """

    async def tally(self, window: Window, *, bins: bool = True) -> Tally:
        """Return the counts of an experiment; without `bins` only what a judgement needs, in half
        the time.

        A track counts once, by its first row that is no known answer. The newest judgement of a
        field of an enrichment is the one that counts. Rows without a variant count nowhere.
        """

    async def traffic(self) -> Sequence[analytics_pb2.TrafficRow]:
        """Return the changes of shares, the oldest first; at most the newest 10,000."""

    def outcomes(self, *, start: datetime) -> AsyncIterator[analytics_pb2.OutcomeRow]:
        """Yield the judgements at or after `start` that count, the oldest first."""

    async def delete_before(self, time: datetime) -> int:
        """Delete rows of answers and judgements before `time`; return how many. A backend that
        drops old days by itself does nothing and returns 0.
        """
