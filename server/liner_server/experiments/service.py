"""The experiments of this server: who is drawn, whose share was changed, what must be stopped.

Shares begin as the settings say. A change is kept in a file here before it is acknowledged, and
written as a row of `experiment_traffic`, by which the other servers of the same analytics learn of
it. The newest change wins; a share that the settings say anew wins over older ones of the settings
only, never over a person's or a guardrail's.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, Self

import structlog
from liner.v1 import analytics_pb2, experiment_pb2

from liner_server.core import report, verdict
from liner_server.core.experiment import Assignment, Experiment, assign
from liner_server.core.traffic import GUARDRAIL, SETTINGS, TrafficHistory
from liner_server.errors import FailedPreconditionError, LinerError, NotFoundError
from liner_server.experiments import kept
from liner_server.ports_analytics import AnalyticsSink, Table, Window

_log = structlog.get_logger()
_LEARN_SECONDS = 3.0
"""How long a start waits to hear what other servers changed."""

_LOOK_REST = 10
"""Times a look's length between the beginnings of two: counting many tracks takes its time."""

_PERIODS = 48


class Rows(Protocol):
    """Who delivers a row of a change; the analytics buffer in the running service."""

    def put(self, table: Table, row: analytics_pb2.TrafficRow) -> bool:
        """Keep a row; False if there is no room for it."""


class ExperimentsObserver(Protocol):
    """Who is told of experiments; the telemetry in the running service."""

    def assigned(self, experiment: str, variant: str) -> None:
        """A track was drawn for a variant."""

    def guarded(self, experiment: str, variant: str, stopped: bool) -> None:
        """Whether a guardrail has stopped a variant."""


class Experiments:
    """Draws tracks, changes shares, and stops what fails: `async with Experiments(...)`."""

    def __init__(
        self,
        configured: Sequence[Experiment],
        *,
        sink: AnalyticsSink | None,
        rows: Rows | None,
        state: Path,
        observer: ExperimentsObserver,
        check_every: timedelta,
        guards: bool = True,
        guardrails: verdict.Guardrails | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take the experiments, where their rows are (None: nowhere, then nothing is reported or
        stopped), the file of changes, and how often guardrails are looked at, if `guards`, and
        others' changes.
        """
        self._configured = {one.name: one for one in configured}
        self._sink = sink
        self._rows = rows
        self._state = state
        self._observer = observer
        self._check_every = check_every
        self._guards = guards
        self._guardrails = guardrails or verdict.Guardrails()
        self._now = now
        self._history = TrafficHistory()
        self._current: tuple[Experiment, ...] = ()
        self._look_after = -math.inf
        """When guardrails may be looked at again, in `time.monotonic`."""
        self._unkept = False
        """Whether the file, which could not be written, lacks a change that is followed."""
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._history.learn(await asyncio.to_thread(kept.read, self._state))
        # On a fresh disk only the backend knows that a variant was stopped. A backend that is down
        # holds no start up for long; then the first look learns of it.
        try:
            async with asyncio.timeout(_LEARN_SECONDS):
                await self._learn()
        except (LinerError, TimeoutError) as error:
            _log.warning("changes of experiments are not known yet", error=str(error))
        await self._take_settings()
        self._apply()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None  # noqa: S101 - set on entering
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def current(self) -> Sequence[Experiment]:
        """The experiments with the shares in force."""
        return self._current

    def assign(self, unit: str) -> Assignment | None:
        """Draw a track; see `core.experiment`."""
        found = assign(self._current, unit)
        if found is not None:
            self._observer.assigned(found.experiment, found.variant)
        return found

    def described(self) -> Sequence[experiment_pb2.Experiment]:
        """Return every experiment, running ones first, each group the newest first."""
        said = [self._described(one) for one in self._current]
        said.sort(key=lambda one: (not one.running, -one.start_time.ToMicroseconds()))
        return said

    async def report(
        self, name: str, *, start: datetime | None = None, end: datetime | None = None
    ) -> experiment_pb2.GetReportResponse:
        """Return how an experiment stands.

        Raises:
            NotFoundError: there is none of this name.
            FailedPreconditionError: nothing is counted here.
            LinerError: the counts cannot be had.

        """
        experiment, now = self._named(name), self._now()
        window = self._window(experiment, now, start=start, end=end)
        tally = await self._counting().tally(window)
        response = report.report(experiment, tally, window, now=now, guardrails=self._guardrails)
        response.experiment.CopyFrom(self._described(experiment))
        return response

    async def set_traffic(
        self,
        name: str,
        variant: str,
        traffic: float,
        *,
        principal: str,
        reason: str,
        request_id: str = "",
        force: bool = False,
    ) -> experiment_pb2.Experiment:
        """Change a variant's share; durable here when it returns.

        Raises:
            NotFoundError: there is no such experiment or variant.
            FailedPreconditionError: a guardrail stopped it and `force` is not set, the shares
                would sum to more than 1, or the change cannot be kept.

        """
        async with self._changing:
            experiment = self._named(name)
            shares = {one.name: one.traffic for one in experiment.variants}
            if variant not in shares:
                raise NotFoundError(
                    f"experiment {name} tries {', '.join(shares)}; the control has the rest",
                    reason="VARIANT_UNKNOWN",
                    resource=variant,
                )
            stop = self._history.stop(name, variant)
            if stop is not None and traffic > 0 and not force:
                raise FailedPreconditionError(
                    f"a guardrail stopped {variant}: {stop.reason}; `force` starts it again",
                    reason="VARIANT_STOPPED",
                )
            if sum({**shares, variant: traffic}.values()) > 1 + 1e-9:
                raise FailedPreconditionError(
                    f"the shares of {name} would sum to more than 1", reason="TRAFFIC_OVER_ONE"
                )
            await self._change(
                self._history.add(
                    name,
                    variant,
                    traffic,
                    principal=principal,
                    reason=reason,
                    request_id=request_id,
                )
            )
            _log.warning(
                "experiment changed",
                experiment=name,
                variant=variant,
                traffic=traffic,
                before=shares[variant],
                principal=principal,
                reason=reason,
                request_id=request_id,
            )
            return self._described(self._named(name))

    async def check(self) -> None:
        """Learn of others' changes, and stop every variant that passed a guardrail.

        Raises:
            LinerError: the counts cannot be had.

        """
        # Without experiments there is nothing to learn, and BigQuery bills each question.
        if self._sink is None or not self._configured:
            return
        await self._learn()
        if self._unkept:
            async with self._changing:
                await self._keep_if_possible()
        began = time.monotonic()
        if not self._guards or began < self._look_after:
            return
        for experiment in self._current:
            if experiment.running:
                await self._look_at(experiment)
        self._look_after = began + _LOOK_REST * (time.monotonic() - began)

    async def _learn(self) -> None:
        """Take over the changes that other servers made."""
        if self._sink is None or not self._configured:
            return
        rows = await self._sink.traffic()
        async with self._changing:
            if self._history.learn(rows):
                self._apply()
                await self._keep_if_possible()

    async def _stop(self, name: str, breach: verdict.Breach) -> None:
        async with self._changing:
            shares = {one.name: one.traffic for one in self._named(name).variants}
            if not shares.get(breach.variant):
                return
            row = self._history.add(
                name, breach.variant, 0.0, principal=GUARDRAIL, reason=breach.why, stopped=True
            )
            # A full disk must not keep what does harm running.
            self._follow(row)
            await self._keep_if_possible()
        _log.error(
            "guardrail stopped a variant", experiment=name, variant=breach.variant, why=breach.why
        )

    async def _look_at(self, experiment: Experiment) -> None:
        window = self._window(experiment, self._now())
        tally = await self._counting().tally(window, bins=False)
        judged = verdict.judge(experiment, tally, guardrails=self._guardrails)
        for breach in judged.breaches:
            await self._stop(experiment.name, breach)

    def _counting(self) -> AnalyticsSink:
        if self._sink is None:
            raise FailedPreconditionError(
                "LINER_ANALYTICS=off: nothing is counted", reason="ANALYTICS_OFF"
            )
        return self._sink

    def _window(
        self,
        experiment: Experiment,
        now: datetime,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Window:
        history = self._history
        began = history.resumed(experiment) or history.began(experiment.name) or now
        return spread(experiment.name, start or began, end or now)

    async def _watch(self) -> None:
        while True:
            try:
                await self.check()
            except LinerError as error:
                _log.warning("experiments cannot be checked", error=error.message)
            except Exception as error:
                # A fault of ours in one look must not be the last look.
                _log.error("experiments cannot be checked", exc_info=error)
            await asyncio.sleep(self._check_every.total_seconds())

    async def _take_settings(self) -> None:
        for experiment in self._configured.values():
            for variant in experiment.variants:
                last = self._history.last(experiment.name, variant.name)
                if last is None or (last.principal == SETTINGS and last.traffic != variant.traffic):
                    await self._change(
                        self._history.add(
                            experiment.name,
                            variant.name,
                            variant.traffic,
                            principal=SETTINGS,
                            reason="as configured",
                        )
                    )
                elif last.traffic != variant.traffic:
                    _log.warning(
                        "a share that was set stays, whatever is configured",
                        experiment=experiment.name,
                        variant=variant.name,
                        traffic=last.traffic,
                        configured=variant.traffic,
                        principal=last.principal,
                        reason=last.reason,
                    )

    async def _change(self, row: analytics_pb2.TrafficRow) -> None:
        """Keep a change that the history has, then follow it; one that cannot be kept is none."""
        try:
            await self._keep()
        except OSError as error:
            self._history.discard(row)
            raise FailedPreconditionError(
                f"{self._state} cannot be written: {error.strerror}", reason="DISK"
            ) from error
        self._follow(row)

    def _follow(self, row: analytics_pb2.TrafficRow) -> None:
        if self._rows is not None:
            self._rows.put(Table.TRAFFIC, row)
        self._apply()

    async def _keep(self) -> None:
        await asyncio.to_thread(kept.write, self._state, self._history.rows)
        self._unkept = False

    async def _keep_if_possible(self) -> None:
        try:
            await self._keep()
        except OSError as error:
            self._unkept = True
            _log.error("changes of experiments are not kept", error=str(error))

    def _apply(self) -> None:
        changed = []
        for experiment in self._configured.values():
            lasts = {
                variant.name: last
                for variant in experiment.variants
                if (last := self._history.last(experiment.name, variant.name)) is not None
            }
            for name, last in lasts.items():
                self._observer.guarded(experiment.name, name, last.stopped)
            shares = _fitting({name: last.traffic for name, last in lasts.items()})
            changed.append(experiment.with_traffic(shares))
        self._current = tuple(changed)

    def _named(self, name: str) -> Experiment:
        for experiment in self._current:
            if experiment.name == name:
                return experiment
        raise NotFoundError(
            f"no experiment {name[:64]!r}; there are: {', '.join(self._configured) or 'none'}",
            reason="EXPERIMENT_UNKNOWN",
            resource=name[:64],
        )

    def _described(self, experiment: Experiment) -> experiment_pb2.Experiment:
        said = report.described(experiment)
        said.start_time.FromDatetime(self._history.began(experiment.name) or self._now())
        if not said.running:
            said.stop_reason = self._history.why_stopped(experiment)
        return said


def spread(name: str, start: datetime, end: datetime) -> Window:
    """Return a window of at most `_PERIODS` periods."""
    span = max(end - start, timedelta(seconds=1))
    return Window(
        experiment=name, start=start, end=start + span, width=span / _PERIODS + timedelta.resolution
    )


def _fitting(shares: Mapping[str, float]) -> Mapping[str, float]:
    """Return shares that sum to at most 1: two servers may have raised two at the same moment."""
    total = sum(shares.values())
    return shares if total <= 1 else {name: share / total for name, share in shares.items()}
