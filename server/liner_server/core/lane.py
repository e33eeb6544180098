"""One provider and everything that guards it: breaker, rates, places, retries, money.

A lane turns "ask this model by then" into as few calls as possible. It gives up as soon as it is
known that no answer will come in time, so that the router can go elsewhere while there is time.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Protocol

from liner.v1 import track_pb2

from liner_server.core.breaker import Breaker, BreakerState
from liner_server.core.claims import ProviderAnswer
from liner_server.core.costs import DailyBudget
from liner_server.core.packer import Packer
from liner_server.core.rates import BusyError, Places, RateLimit
from liner_server.core.retry import Backoff, RetryBudget
from liner_server.errors import DeadlineError, LinerError, ProviderError
from liner_server.ports import ModelProvider, Question

_FAIR_SECONDS = 0.5
"""A provider that had less than this to answer is not blamed for being late."""

_TOKENS_A_QUESTION = 800
"""What a question is taken to use of a tokens-a-minute limit until its real usage is known."""


class LaneObserver(Protocol):
    """Who is told of retries; the telemetry in the running service."""

    def retried(self, model: str) -> None:
        """A call is made again after a failure."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What protects a provider and the purse."""

    breaker: Breaker
    rates: RateLimit
    places: Places
    backoff: Backoff
    retries: RetryBudget
    """Keeps repeated calls to a tenth of the first ones, repairs of bad answers included."""

    budget: DailyBudget
    """Shared by all lanes that are paid from it; the provider's meter spends from it."""

    timeout: timedelta = timedelta(seconds=20)
    """Longest time one attempt may take, however far away the deadline is."""

    pack: int = 8
    """Most tracks of a batch in one prompt; 1 packs none."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How asking one provider about one track ended: an answer, or why there is none."""

    answer: ProviderAnswer | None = None
    error: LinerError | None = None
    retries: int = 0
    """Calls made beyond the first."""


class Lane:
    """The way to one provider."""

    def __init__(
        self,
        provider: ModelProvider,
        guard: Guard,
        *,
        role: str,
        observer: LaneObserver,
        today: Callable[[], track_pb2.Usage] = track_pb2.Usage,
        rng: random.Random | None = None,
    ) -> None:
        """Take what tells the provider's usage of the day."""
        self.provider = provider
        self.role = role
        """"primary", "fallback" or "experimental"."""
        self.ready = True
        """Whether its endpoint was found able to answer when it was last looked at."""
        self.status = ""
        """Why it is not ready, or what it cannot do; for an operator."""
        self.today = today
        """Returns what calls to it consumed since midnight UTC."""
        self._guard = guard
        self._observer = observer
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._packer: Packer[Outcome] = Packer(self._ask_all, most=guard.pack)

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.provider.name

    @property
    def state(self) -> BreakerState:
        """The breaker's state now."""
        return self._guard.breaker.state

    @property
    def spent(self) -> bool:
        """Whether today's money is gone."""
        return not self._guard.budget.allows(Decimal(0))

    @property
    def spent_share(self) -> float:
        """Part of today's money that is gone; 0 without a budget."""
        return self._guard.budget.spent_share

    @property
    def silent(self) -> bool:
        """Whether it is not asked now because its endpoint wants a pause."""
        return self._guard.rates.silence > timedelta(0)

    @property
    def trouble(self) -> str:
        """Why it is not asked now, or what it cannot do; empty when all is well."""
        if self.spent:
            return "today's budget is spent"
        if self.state is BreakerState.OPEN:
            left = math.ceil(self._guard.breaker.retry_after.total_seconds())
            return f"failed too often; asked again in {left} s"
        if self.silent:
            left = math.ceil(self._guard.rates.silence.total_seconds())
            return f"wants a pause (Retry-After); asked again in {left} s"
        return self.status

    async def ask(self, question: Question, *, until: float, packed: bool) -> Outcome:
        """Return what the provider says by `until`, in the loop's time.

        Packed questions share a prompt with others asked at the same moment. Errors are
        BREAKER_OPEN, BUDGET_SPENT, RATE_LIMITED, MODEL_BUSY, MODEL_TIMEOUT, or what the provider
        raised at last.
        """
        if packed and self._guard.pack > 1 and not question.audio_wav:
            return await self._packer.ask(question, until)
        [outcome] = await self._ask_all([question], until)
        return outcome

    async def _ask_all(self, questions: Sequence[Question], until: float) -> list[Outcome]:
        """Ask in one prompt, as often as it takes and is worth."""
        loop = asyncio.get_running_loop()
        attempt = 1
        self._guard.retries.deposit()
        while True:
            try:
                answers = await self._attempt(questions, until)
            except LinerError as error:
                wait = self._guard.backoff.delay(
                    attempt,
                    retry_after=error.retry_after,
                    remaining=timedelta(seconds=min(max(0.0, until - loop.time()), 86_400.0)),
                    rng=self._rng,
                )
                if not error.retryable or wait is None or not self._guard.retries.withdraw():
                    return [Outcome(error=error, retries=attempt - 1)] * len(questions)
                self._observer.retried(self.name)
                await asyncio.sleep(wait.total_seconds())
                attempt += 1
                continue
            return [
                Outcome(error=answer, retries=attempt - 1)
                if isinstance(answer, LinerError)
                else Outcome(answer=answer, retries=attempt - 1)
                for answer in answers
            ]

    async def _attempt(
        self, questions: Sequence[Question], until: float
    ) -> Sequence[ProviderAnswer | LinerError]:
        guard, loop = self._guard, asyncio.get_running_loop()
        self._refuse_what_is_known()
        await self._wait_for_rate(len(questions), until)
        try:
            async with guard.places.held(until):
                answers = await self._guarded_call(
                    questions, min(until, loop.time() + guard.timeout.total_seconds())
                )
        except LinerError:
            # What it used is not known; most failures use nothing.
            self._settle_rate(len(questions), ())
            raise
        except BusyError as error:
            self._settle_rate(len(questions), ())
            raise ProviderError(
                f"too many calls to {self.name} are open", reason="MODEL_BUSY", retryable=False
            ) from error
        self._settle_rate(len(questions), answers)
        return answers

    async def _guarded_call(
        self, questions: Sequence[Question], end: float
    ) -> Sequence[ProviderAnswer | LinerError]:
        """Call, if money and breaker let it through, and tell the breaker how it went."""
        guard, loop = self._guard, asyncio.get_running_loop()
        estimate = Decimal(0)
        if guard.budget.limited:
            estimate = sum(map(self.provider.estimate, questions), estimate)
        if not guard.budget.allows(estimate):
            raise self._out_of_money()
        permit = guard.breaker.admit()
        if permit is None:
            raise self._resting()
        began = loop.time()
        try:
            with guard.budget.holding(estimate):
                async with asyncio.timeout_at(end):
                    answers = await self._call(
                        [
                            replace(
                                q,
                                context=replace(
                                    q.context, deadline=end, retry_budget=guard.retries
                                ),
                            )
                            for q in questions
                        ]
                    )
            permit.succeeded()
        except (TimeoutError, DeadlineError) as error:
            if loop.time() - began >= _FAIR_SECONDS:
                permit.failed()
            raise DeadlineError(
                f"{self.name} did not answer in time", reason="MODEL_TIMEOUT"
            ) from error
        except LinerError as error:
            if isinstance(error, ProviderError) and error.of_question:
                permit.succeeded()
            permit.failed()
            if error.retry_after is not None:
                guard.rates.penalise(error.retry_after)
            raise
        finally:
            permit.abandoned()
        return answers

    async def _call(self, questions: Sequence[Question]) -> Sequence[ProviderAnswer | LinerError]:
        if len(questions) == 1:
            return [await self.provider.propose(questions[0])]
        answers = await self.provider.propose_many(questions)
        errors = [answer for answer in answers if isinstance(answer, LinerError)]
        if len(errors) == len(answers):
            # The call failed, not its questions: it counts, and may be made again, as one.
            raise errors[0]
        return answers

    def _refuse_what_is_known(self) -> None:
        """Refuse at once what waiting for a place could not change."""
        if self.spent:
            raise self._out_of_money()
        if self.state is BreakerState.OPEN:
            raise self._resting()

    def _out_of_money(self) -> ProviderError:
        return ProviderError(
            "today's budget is spent",
            reason="BUDGET_SPENT",
            retryable=False,
            retry_after=self._guard.budget.renewed_in,
        )

    def _resting(self) -> ProviderError:
        return ProviderError(
            f"{self.name} failed too often and rests",
            reason="BREAKER_OPEN",
            retryable=False,
            retry_after=self._guard.breaker.retry_after,
        )

    async def _wait_for_rate(self, count: int, until: float) -> None:
        rates, loop = self._guard.rates, asyncio.get_running_loop()
        tokens = count * _TOKENS_A_QUESTION
        while not rates.take(tokens):
            wait = rates.wait_for(tokens)
            if loop.time() + wait.total_seconds() >= until:
                raise ProviderError(
                    f"{self.name} may not be asked again so soon",
                    reason="RATE_LIMITED",
                    retryable=False,
                    retry_after=wait,
                )
            await asyncio.sleep(wait.total_seconds())

    def _settle_rate(self, questions: int, answers: Sequence[ProviderAnswer | LinerError]) -> None:
        used = sum(
            answer.usage.prompt_tokens + answer.usage.completion_tokens
            for answer in answers
            if isinstance(answer, ProviderAnswer)
        )
        self._guard.rates.settle(questions * _TOKENS_A_QUESTION, used)
