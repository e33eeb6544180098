"""What was changed in the shares of experiments, by whom, and what follows from it. Pure."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from liner.v1 import analytics_pb2

from liner_server.core.experiment import Experiment

SETTINGS, GUARDRAIL = "(settings)", "(guardrail)"
"""Principals that no token can carry."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TrafficHistory:
    """Every change that is known, of this server and of others, in any order."""

    def __init__(self) -> None:
        self._changes: dict[str, analytics_pb2.TrafficRow] = {}

    @property
    def rows(self) -> Sequence[analytics_pb2.TrafficRow]:
        """All changes, as they came to be known."""
        return list(self._changes.values())

    def learn(self, rows: Iterable[analytics_pb2.TrafficRow]) -> bool:
        """Add changes; True if one of them was not known."""
        known = len(self._changes)
        for row in rows:
            self._changes.setdefault(row.row_id, row)
        return len(self._changes) > known

    def add(
        self,
        name: str,
        variant: str,
        traffic: float,
        *,
        principal: str,
        reason: str,
        request_id: str = "",
        stopped: bool = False,
    ) -> analytics_pb2.TrafficRow:
        """Add a change that is made now, behind the one in force whatever the clock says."""
        last = self.last(name, variant)
        row = analytics_pb2.TrafficRow(
            row_id=uuid4().hex,
            time=max(time.time_ns() // 1000, last.time + 1 if last is not None else 0),
            experiment=name,
            variant=variant,
            traffic=traffic,
            principal=principal,
            reason=reason,
            request_id=request_id,
            stopped=stopped,
        )
        self._changes[row.row_id] = row
        return row

    def discard(self, row: analytics_pb2.TrafficRow) -> None:
        """Forget a change that could not be kept."""
        del self._changes[row.row_id]

    def last(self, name: str, variant: str) -> analytics_pb2.TrafficRow | None:
        """Return the change in force: the newest, but one of the settings only without others."""
        return max(self._of(name, variant), key=_rank, default=None)

    def began(self, name: str) -> datetime | None:
        """Return when an experiment was first heard of; None before that."""
        mine = (row.time for row in self._changes.values() if row.experiment == name)
        first = min(mine, default=None)
        return _time(first) if first is not None else None

    def stop(self, name: str, variant: str) -> analytics_pb2.TrafficRow | None:
        """Return the guardrail's stop that nobody has undone."""
        return self._story(name, variant)[0]

    def resumed(self, experiment: Experiment) -> datetime | None:
        """Return when a variant was started again after a guardrail, if one was: what made the
        guardrail fire is then no news any more.
        """
        stories = (self._story(experiment.name, one.name) for one in experiment.variants)
        last = max((undone for _, undone in stories if undone is not None), default=None)
        return _time(last) if last is not None else None

    def why_stopped(self, experiment: Experiment) -> str:
        """Return who stopped an experiment that draws no track, and why; empty if nobody did."""
        names = [one.name for one in experiment.variants]
        stops = [stop for one in names if (stop := self.stop(experiment.name, one))]
        lasts = [last for one in names if (last := self.last(experiment.name, one))]
        why = max(stops or lasts, key=lambda row: row.time, default=None)
        return f"{why.principal}: {why.reason}" if why else ""

    def _of(self, name: str, variant: str) -> Iterator[analytics_pb2.TrafficRow]:
        return (
            row
            for row in self._changes.values()
            if row.experiment == name and row.variant == variant
        )

    def _story(self, name: str, variant: str) -> tuple[analytics_pb2.TrafficRow | None, int | None]:
        """Return the guardrail's stop that nobody has undone, and when one was undone last."""
        stop, undone = None, None
        for row in sorted(self._of(name, variant), key=_rank):
            if row.stopped:
                stop = row
            elif stop is not None and row.traffic > 0:
                stop, undone = None, row.time
        return stop, undone


def _rank(row: analytics_pb2.TrafficRow) -> tuple[bool, int, str]:
    # A server on a fresh disk brings its settings along: they must not undo what was decided.
    return row.principal != SETTINGS, row.time, row.row_id


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
