"""Which model answers, for which fields, and what happens when it cannot.

The primary is asked for the fields that evidence leaves open. The fallback is asked when the
primary fails, rests or has no time, and for the fields that are still weak after it, those only.
All of them share one deadline: a model that others stand behind gets part of what is left.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from liner.v1 import enrichment_pb2, track_pb2

from liner_server.core.claims import Claim, Lost, add_usage
from liner_server.core.experiment import CONTROL, Assignment
from liner_server.core.lane import Lane, LaneObserver
from liner_server.core.openings import Ceiling
from liner_server.errors import DeadlineError, InvalidRequestError, LinerError
from liner_server.ports import Question

_SHARE = 0.6
"""Part of the time left that a model gets when another stands behind it."""

_LEAST_SECONDS = 0.05
"""With less than this left no model is asked: the answer could not come in time."""

MARGIN_SECONDS = 0.05
"""Kept of the caller's time to settle and send what is known."""


class Open(Protocol):
    """Which fields are open, given the claims of models so far."""

    def weak(self, said: Sequence[Claim]) -> frozenset[str]:
        """Return those whose settled confidence is too low."""

    def worth_another(self, said: Sequence[Claim], ceiling: Ceiling) -> frozenset[str]:
        """Return those that one more model could help, as sure as its claims can be."""


Assign = Callable[[str], Assignment | None]
"""Draws a track for an experiment; None: it takes part in none."""

_SHADOWS_SHARE = 0.5
"""Part of the day's budget, spent by whomever, after which nobody is asked in the shadow."""

Excerpts = Callable[[], Awaitable[Sequence[bytes]]]
"""Makes the audio that a model which hears is sent."""


class RouterObserver(LaneObserver, Protocol):
    """Who is told of fallbacks, besides retries."""

    def fell_back(self, primary: str, fallback: str, reason: str) -> None:
        """Another model was asked; `reason` is an error's or LOW_CONFIDENCE."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who is asked about one track, in order, and as part of which experiment."""

    lanes: tuple[Lane, ...]
    experiment: str = ""
    variant: str = ""
    shadow: Lane | None = None
    """Asked besides, its answer never used."""
    unit: str = field(default="", compare=False)
    """What names the track to experiments."""
    allocation: str = ""
    """The experiment's shares in force when the track was drawn."""

    @property
    def is_experimental(self) -> bool:
        """Whether a model that is tried answers."""
        return self.variant not in ("", CONTROL) and self.shadow is None

    def key(self) -> bytes:
        """Return what of the plan decides the answer, for the cache."""
        models = [f"{lane.name}={lane.provider.version}" for lane in self.lanes]
        return "\0".join([*models, self.experiment, self.variant]).encode()


@dataclass(kw_only=True)
class Routed:
    """What the models said, and what it took."""

    claims: list[Claim] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    """Models that answered, in the order they were asked."""

    versions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By model: its version and its prompt's."""

    failures: list[tuple[str, LinerError]] = field(default_factory=list)
    retries: int = 0
    fallback_used: bool = False
    usage: track_pb2.Usage = field(default_factory=track_pb2.Usage)


@dataclass(frozen=True)
class Lanes:
    """The configured lanes; None where there is no such model."""

    primary: Lane | None = None
    fallback: Lane | None = None
    experimental: Lane | None = None


class Router:
    """Chooses among the configured models. With none, every plan is empty."""

    def __init__(
        self,
        *,
        primary: Lane | None,
        fallback: Lane | None,
        experimental: Lane | None = None,
        assign: Assign = lambda unit: None,
        flags: Callable[[], enrichment_pb2.FeatureFlags],
        observer: RouterObserver,
        shadows: int = 4,
    ) -> None:
        lanes = [lane for lane in (primary, fallback, experimental) if lane is not None]
        self._lanes: Mapping[str, Lane] = {lane.name: lane for lane in lanes}
        self._primary, self._fallback = primary, fallback
        self._assign = assign
        self._flags = flags
        self._observer = observer
        self._most_shadows = shadows
        self._shadows: set[asyncio.Task[object]] = set()

    @property
    def lanes(self) -> Sequence[Lane]:
        """Every configured lane: primary, fallback, experimental."""
        return tuple(self._lanes.values())

    def plan(self, *, model: str, unit: str) -> Plan:
        """Return who is asked; `unit` names the track to the experiment.

        A model that the caller names is asked alone: whoever compares models must know which one
        answered.

        Raises:
            InvalidRequestError: there is no such model.

        """
        if model:
            if model not in self._lanes:
                raise InvalidRequestError.of(
                    "options.model",
                    f"no such model; configured: {', '.join(('embedded', *self._lanes))}",
                    "MODEL_UNKNOWN",
                )
            return Plan(lanes=(self._lanes[model],), unit=unit)
        flags = self._flags()
        usual = [self._primary]
        if flags.use_openai_fallback or self._primary is None:
            usual.append(self._fallback)
        lanes = tuple(lane for lane in usual if lane is not None)
        drawn = self._assign(unit) if flags.enable_experimental_model else None
        if drawn is None:
            return Plan(lanes=lanes, unit=unit)
        plan = Plan(
            lanes=lanes,
            unit=unit,
            experiment=drawn.experiment,
            variant=drawn.variant,
            allocation=drawn.allocation,
        )
        if not drawn.model:
            return plan
        tried = self._lanes[drawn.model]
        if drawn.shadow:
            return replace(plan, shadow=tried)
        # The model that is tried takes the primary's place; the fallback stays behind it.
        rest = tuple(lane for lane in lanes if lane not in (self._primary, tried))
        return replace(plan, lanes=(tried, *rest))

    async def answer(
        self,
        question: Question,
        plan: Plan,
        *,
        fields: Open,
        excerpts: Excerpts | None,
        packed: bool,
    ) -> Routed:
        """Return what the plan's models say, in time for the caller's deadline.

        Never raises for a model that fails: what others said is worth returning, and `failures`
        tells the rest. `excerpts` is None for a track without audio.
        """
        loop = asyncio.get_running_loop()
        end = question.context.deadline - MARGIN_SECONDS
        routed = Routed()
        if plan.shadow is not None:
            self._ask_in_the_shadow(plan.shadow, question, fields.weak(()))
        for position, lane in enumerate(plan.lanes):
            heard = excerpts is not None and lane.provider.hears_audio
            # Behind a model that answered, only what one more opinion can change is asked.
            ceiling = partial(lane.provider.ceiling, heard=heard)
            said = routed.claims
            wanted = fields.worth_another(said, ceiling) if routed.answered else fields.weak(said)
            wanted = _answerable(lane, question, wanted)
            if not wanted:
                continue
            left = end - loop.time()
            if left < _LEAST_SECONDS:
                if not routed.answered:
                    # Said, or an answer without any model would pass for a whole one.
                    error = DeadlineError(
                        f"no time was left to ask {lane.name}", reason="MODEL_TIMEOUT"
                    )
                    routed.failures.append((lane.name, error))
                break
            if position:
                reason = routed.failures[-1][1].reason if not routed.answered else "LOW_CONFIDENCE"
                self._observer.fell_back(plan.lanes[0].name, lane.name, reason)
            last = position == len(plan.lanes) - 1
            until = end if last else loop.time() + _SHARE * left
            asked = replace(question, fields=wanted)
            if excerpts is not None and heard:
                asked = replace(asked, audio_wav=await excerpts())
            outcome = await lane.ask(asked, until=until, packed=packed)
            routed.retries += outcome.retries
            if outcome.answer is None:
                if outcome.error is not None:
                    routed.failures.append((lane.name, outcome.error))
                continue
            answer = outcome.answer
            routed.retries += answer.retry_count
            routed.claims += answer.claims
            routed.answered.append(lane.name)
            routed.versions[lane.name] = (answer.model_version, answer.prompt_version)
            routed.fallback_used |= position > 0
            add_usage(routed.usage, answer.usage)
        routed.retries += question.lost.retries
        add_usage(routed.usage, question.lost.usage)
        return routed

    async def close(self) -> None:
        """Stop what is asked in the shadow."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)

    def _ask_in_the_shadow(self, lane: Lane, question: Question, fields: frozenset[str]) -> None:
        """Ask besides; when as many as allowed are asked already, this track is left out.

        So it is when half of the day's money is gone: what is left is for answers that are used.
        """
        wanted = _answerable(lane, question, fields)
        if not wanted or len(self._shadows) >= self._most_shadows:
            return
        if lane.spent or lane.spent_share >= _SHADOWS_SHARE:
            return
        # Its own time: the caller's may be too short, and nobody waits for it.
        until = asyncio.get_running_loop().time() + 60
        task: asyncio.Task[object] = asyncio.create_task(
            lane.ask(
                replace(
                    question,
                    fields=wanted,
                    context=replace(question.context, deadline=until),
                    lost=Lost(),
                ),
                until=until,
                packed=False,
            )
        )
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)


def _answerable(lane: Lane, question: Question, fields: frozenset[str]) -> frozenset[str]:
    """Return those of the fields that a lane can say anything about for this track."""
    # No fields at all would mean all of them.
    return lane.provider.answerable(replace(question, fields=fields)) if fields else fields
