"""The router: who is asked, for what, in which order, and what happens when nobody answers."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from liner.v1 import enrichment_pb2, track_pb2
from liner_server.context import Principal, RequestContext
from liner_server.core.breaker import Breaker, BreakerState
from liner_server.core.claims import Claim
from liner_server.core.costs import DailyBudget
from liner_server.core.experiment import TREATMENT, Experiment
from liner_server.core.lane import Guard, Lane
from liner_server.core.openings import Ceiling
from liner_server.core.rates import Places, RateLimit
from liner_server.core.retry import Backoff, RetryBudget
from liner_server.core.router import Plan, Routed, Router
from liner_server.errors import InvalidRequestError, ProviderError
from liner_server.ports import Question
from support.acting_model import ActingModel, says
from support.eventually import eventually

WANTED = frozenset({"genre", "language"})
NO_WAIT = Backoff(initial=timedelta(0), maximum=timedelta(0))


class Counts:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.retries: Counter[str] = Counter()
        self.fallbacks: list[tuple[str, str, str]] = []

    def retried(self, model: str) -> None:
        """Count a retry."""
        self.retries[model] += 1

    def fell_back(self, primary: str, fallback: str, reason: str) -> None:
        """Keep a fallback."""
        self.fallbacks.append((primary, fallback, reason))


class Clock:
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the seconds it was set to."""
        return self.now


def lane(
    model: ActingModel,
    role: str = "primary",
    *,
    clock: Callable[[], float] | None = None,
    observer: Counts | None = None,
    backoff: Backoff = NO_WAIT,
    retries: float = 1000.0,
    requests_a_minute: int | None = None,
    places: int = 100,
    budget: Decimal | DailyBudget | None = None,
    timeout: timedelta = timedelta(seconds=5),
    pack: int = 1,
) -> Lane:
    """Return a lane to a model, guarded loosely unless the test says otherwise."""
    clock = clock or Clock()
    guard = Guard(
        breaker=Breaker(clock=clock),
        rates=RateLimit(requests_a_minute=requests_a_minute, tokens_a_minute=None, clock=clock),
        places=Places(places),
        backoff=backoff,
        retries=RetryBudget(reserve=retries),
        budget=budget if isinstance(budget, DailyBudget) else DailyBudget(budget),
        timeout=timeout,
        pack=pack,
    )
    return Lane(model, guard, role=role, observer=observer or Counts(), rng=random.Random(1))


def router(
    *lanes: Lane | None,
    observer: Counts | None = None,
    experiment: Experiment | None = None,
    use_fallback: bool = True,
    use_experimental: bool = False,
) -> Router:
    """Return a router over primary, fallback and experimental lanes."""
    primary, fallback, experimental = (*lanes, None, None, None)[:3]
    flags = enrichment_pb2.FeatureFlags(
        use_openai_fallback=use_fallback, enable_experimental_model=use_experimental
    )
    return Router(
        primary=primary,
        fallback=fallback,
        experimental=experimental,
        assign=experiment.assign if experiment else lambda unit: None,
        flags=lambda: flags,
        observer=observer or Counts(),
    )


def question(seconds: float = 5.0, title: str = "A", caller: str = "test") -> Question:
    """Return a question whose caller has so much time."""
    return Question(
        track=track_pb2.Track(title=title),
        fields=WANTED,
        listening=None,
        context=RequestContext(
            request_id="r",
            principal=Principal(name=caller, roles=frozenset()),
            deadline=asyncio.get_running_loop().time() + seconds,
        ),
    )


class Unsettled:
    """Fields that no claim of at least 0.8 was made about; any model may help them."""

    def weak(self, said: Sequence[Claim]) -> frozenset[str]:
        """Return them."""
        return WANTED - {claim.field for claim in said if claim.confidence >= 0.8}

    def worth_another(self, said: Sequence[Claim], ceiling: Ceiling) -> frozenset[str]:
        """Return them."""
        assert ceiling("genre").probability > 0.8
        return self.weak(said)


async def routed(over: Router, asked: Question | None = None, **options: str) -> Routed:
    """Return what the models of a router say."""
    plan = over.plan(model=options.get("model", ""), unit=options.get("unit", "t"))
    return await over.answer(
        asked or question(), plan, fields=Unsettled(), excerpts=None, packed=False
    )


def failing(*, retryable: bool = False, retry_after: timedelta | None = None) -> ProviderError:
    """Return an error of a provider."""
    return ProviderError("down", reason="MODEL_DOWN", retryable=retryable, retry_after=retry_after)


async def test_a_primary_that_settles_everything_is_asked_alone() -> None:
    """The fallback costs money."""
    first = ActingModel("qwen2", lambda _: says("qwen2", genre="Jazz", language="en"))
    second = ActingModel("openai", lambda _: says("openai", genre="Rock"))

    found = await routed(router(lane(first), lane(second, "fallback")))

    assert found.answered == ["qwen2"]
    assert not found.fallback_used
    assert second.asked == []
    assert first.asked[0].fields == WANTED


async def test_the_fallback_is_asked_for_weak_fields_only() -> None:
    """Asking again for what is settled would double the bill and settle nothing."""
    counts = Counts()
    first = ActingModel(
        "qwen2",
        lambda _: says("qwen2", genre="Jazz"),
    )
    second = ActingModel("openai", lambda _: says("openai", language="en"))

    found = await routed(router(lane(first), lane(second, "fallback"), observer=counts))

    assert second.asked[0].fields == {"language"}
    assert {claim.field: claim.model for claim in found.claims} == {
        "genre": "qwen2",
        "language": "openai",
    }
    assert found.fallback_used
    assert counts.fallbacks == [("qwen2", "openai", "LOW_CONFIDENCE")]
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (200, 20)


async def test_calls_made_again_inside_a_provider_are_counted_once() -> None:
    """A repaired answer took one call more, not two."""
    answer = replace(says("qwen2", genre="Jazz", language="en"), retry_count=1)

    found = await routed(router(lane(ActingModel("qwen2", lambda _: answer))))

    assert found.retries == 1


async def test_the_fallback_answers_when_the_primary_fails() -> None:
    """One provider's outage must not reach the caller."""
    counts = Counts()
    first = ActingModel("qwen2", lambda _: failing())
    second = ActingModel("openai", lambda _: says("openai", genre="Jazz", language="en"))

    found = await routed(router(lane(first), lane(second, "fallback"), observer=counts))

    assert found.answered == ["openai"]
    assert [(model, error.reason) for model, error in found.failures] == [("qwen2", "MODEL_DOWN")]
    assert counts.fallbacks == [("qwen2", "openai", "MODEL_DOWN")]


async def test_with_the_flag_off_no_fallback_is_asked() -> None:
    """The operator's switch holds whatever fails."""
    second = ActingModel("openai", lambda _: says("openai", genre="Jazz"))

    found = await routed(
        router(
            lane(ActingModel("qwen2", lambda _: failing())),
            lane(second, "fallback"),
            use_fallback=False,
        )
    )

    assert found.answered == second.asked == []


async def test_a_fallback_without_a_primary_is_the_model() -> None:
    """Whoever configures one model only means it to be asked, whatever its role is called."""
    only = ActingModel("openai", lambda _: says("openai", genre="Jazz", language="en"))

    found = await routed(router(None, lane(only, "fallback"), use_fallback=False))

    assert found.answered == ["openai"]
    assert not found.fallback_used


async def test_a_named_model_is_asked_alone() -> None:
    """Whoever compares models must know which one answered."""
    first = ActingModel("qwen2", lambda _: says("qwen2", genre="Jazz"))
    second = ActingModel("openai", lambda _: failing())

    found = await routed(router(lane(first), lane(second, "fallback")), model="openai")

    assert found.answered == first.asked == []
    with pytest.raises(InvalidRequestError, match="embedded, qwen2, openai"):
        await routed(router(lane(first), lane(second, "fallback")), model="gpt")


async def test_a_hanging_primary_leaves_time_for_the_fallback() -> None:
    """One deadline is shared: half of two seconds is enough for a model that works."""
    first = ActingModel("qwen2", lambda _: says("qwen2"), seconds=60)
    second = ActingModel("openai", lambda _: says("openai", genre="Jazz", language="en"))
    loop = asyncio.get_running_loop()
    began = loop.time()

    found = await routed(router(lane(first), lane(second, "fallback")), question(1.0))

    assert found.answered == ["openai"]
    assert found.failures[0][1].reason == "MODEL_TIMEOUT"
    assert loop.time() - began < 1.0
    assert first.open == 0


async def test_when_all_hang_the_router_ends_before_the_deadline() -> None:
    """What was measured is still to be sent in time."""
    models = [ActingModel(name, lambda _: says("x"), seconds=60) for name in ("qwen2", "openai")]
    loop = asyncio.get_running_loop()
    asked = question(0.8)

    found = await routed(router(lane(models[0]), lane(models[1], "fallback")), asked)

    assert loop.time() < asked.context.deadline
    assert [error.reason for _, error in found.failures] == ["MODEL_TIMEOUT"] * 2


async def test_retries_are_counted_and_end_with_the_third_attempt() -> None:
    """retry_count must be true, or nobody can tell what an outage costs."""
    counts = Counts()
    replies = iter([failing(retryable=True), failing(retryable=True)])
    model = ActingModel(
        "qwen2", lambda _: next(replies, None) or says("qwen2", genre="Jazz", language="en")
    )
    dead = ActingModel("qwen2", lambda _: failing(retryable=True))

    lucky = await routed(router(lane(model, observer=counts)))
    unlucky = await routed(router(lane(dead, observer=counts)))

    assert (lucky.retries, lucky.answered) == (2, ["qwen2"])
    assert (unlucky.retries, len(dead.asked)) == (2, 3)
    assert counts.retries["qwen2"] == 4


async def test_what_retrying_cannot_mend_is_not_retried() -> None:
    """A refused key is refused again."""
    model = ActingModel("qwen2", lambda _: failing(retryable=False))

    await routed(router(lane(model)))

    assert len(model.asked) == 1


async def test_in_an_outage_retries_stay_a_tenth_of_the_calls() -> None:
    """Retries multiply an outage exactly when it hurts most."""
    clock = Clock()
    model = ActingModel("qwen2", lambda _: failing(retryable=True))
    guarded = lane(model, clock=clock, retries=1.0)

    for _ in range(200):
        await routed(router(guarded))
        # Past the breaker's window: this is about the budget alone.
        clock.now += 100

    assert 200 <= len(model.asked) <= 200 * 1.1 + 2


async def test_a_retry_after_that_does_not_fit_goes_to_the_fallback_at_once() -> None:
    """Waiting for a provider that said "in a minute" wastes the caller's time."""
    first = ActingModel(
        "qwen2", lambda _: failing(retryable=True, retry_after=timedelta(minutes=1))
    )
    second = ActingModel("openai", lambda _: says("openai", genre="Jazz", language="en"))
    loop = asyncio.get_running_loop()
    began = loop.time()

    found = await routed(router(lane(first), lane(second, "fallback")))
    again = await routed(router(lane(first), lane(second, "fallback")))

    assert found.answered == again.answered == ["openai"]
    assert loop.time() - began < 1
    assert len(first.asked) == 2


async def test_a_pause_that_a_provider_wants_is_told_to_the_operator() -> None:
    """Ten minutes without a call must not look like a model that is well."""
    clock = Clock()
    model = ActingModel(
        "qwen2", lambda _: failing(retryable=True, retry_after=timedelta(seconds=10**9))
    )
    paused = lane(model, clock=clock)

    await routed(router(paused))
    told = paused.trouble
    clock.now += 600

    assert "asked again in 600 s" in told
    assert (paused.silent, paused.trouble) == (False, "")


async def test_a_model_that_no_time_was_left_for_is_a_failure_that_is_told() -> None:
    """An answer without a model must not pass for a whole one, be kept, or satisfy who needs it."""
    model = ActingModel("qwen2", lambda _: says("qwen2", genre="Jazz", language="en"))

    found = await routed(router(lane(model)), question(seconds=0.06))

    assert model.asked == []
    assert [(name, error.reason) for name, error in found.failures] == [("qwen2", "MODEL_TIMEOUT")]


async def test_an_open_breaker_costs_no_call_and_no_time() -> None:
    """After an outage began, every caller gets the fallback's answer at the fallback's speed."""
    clock = Clock()
    first = ActingModel("qwen2", lambda _: failing())
    second = ActingModel("openai", lambda _: says("openai", genre="Jazz", language="en"))
    guarded = lane(first, clock=clock)
    over = router(guarded, lane(second, "fallback"))

    for _ in range(30):
        await routed(over)
    calls = len(first.asked)
    clock.now += 31
    await routed(over)

    assert calls == 10
    assert len(first.asked) == 11
    assert guarded.state is BreakerState.OPEN


async def test_questions_that_a_provider_refuses_do_not_open_the_breaker() -> None:
    """Ten poisoned tracks must not cost ten thousand others their model."""
    refusal = ProviderError("no", reason="REFUSED", retryable=False, of_question=True)
    guarded = lane(ActingModel("qwen2", lambda _: refusal))

    for _ in range(20):
        await routed(router(guarded))

    assert guarded.state is BreakerState.CLOSED


async def test_a_pack_that_fails_as_a_whole_is_asked_again_as_a_whole() -> None:
    """A server that was restarted between two packs costs one retry, not eight answers."""
    replies = iter([failing(retryable=True)] * 4)
    model = ActingModel(
        "qwen2", lambda _: next(replies, None) or says("qwen2", genre="x", language="y")
    )
    over = router(lane(model, pack=4))
    plan = over.plan(model="", unit="t")

    results = await asyncio.gather(
        *(
            over.answer(question(), plan, fields=Unsettled(), excerpts=None, packed=True)
            for _ in range(4)
        )
    )

    assert model.packs == [4, 4]
    assert [found.retries for found in results] == [1] * 4


async def test_impatient_callers_do_not_open_the_breaker() -> None:
    """A provider is not down because its callers gave it a tenth of a second."""
    model = ActingModel("qwen2", lambda _: says("qwen2"), seconds=60)
    guarded = lane(model)

    await asyncio.gather(*(routed(router(guarded), question(0.2)) for _ in range(15)))

    assert guarded.state is BreakerState.CLOSED


async def test_a_spent_budget_stops_the_calls() -> None:
    """A day's limit is a limit."""
    model = ActingModel("openai", lambda _: says("openai", genre="Jazz"), price=Decimal(1))

    found = await routed(router(lane(model, budget=Decimal("0.5"))))

    assert model.asked == []
    error = found.failures[0][1]
    assert error.reason == "BUDGET_SPENT"
    assert error.retry_after is not None
    assert timedelta(0) < error.retry_after <= timedelta(days=1)


async def test_a_rate_limit_that_outlasts_the_deadline_is_told_at_once() -> None:
    """Queueing for a minute to answer in two seconds helps nobody."""
    model = ActingModel("qwen2", lambda _: says("qwen2"))
    guarded = lane(model, requests_a_minute=1)
    over = router(guarded)

    await routed(over)
    found = await routed(over)

    assert len(model.asked) == 1
    assert found.failures[0][1].reason == "RATE_LIMITED"
    assert found.failures[0][1].retry_after is not None


async def test_calls_at_once_are_bounded_and_all_are_answered() -> None:
    """A model server that is flooded answers nobody."""
    model = ActingModel("qwen2", lambda _: says("qwen2", genre="Jazz", language="en"), seconds=0.01)
    over = router(lane(model, places=3))

    results = await asyncio.gather(*(routed(over) for _ in range(20)))

    assert model.most_open == 3
    assert all(found.answered for found in results)


async def test_a_batchs_questions_share_prompts() -> None:
    """Eight tracks in one prompt cost little more than one."""
    model = ActingModel("qwen2", lambda q: says("qwen2", genre=q.track.title, language="en"))
    over = router(lane(model, pack=8))
    plan = over.plan(model="", unit="t")

    results = await asyncio.gather(
        *(
            over.answer(
                question(title=f"T{n}"), plan, fields=Unsettled(), excerpts=None, packed=True
            )
            for n in range(20)
        )
    )

    assert [found.claims[0].value for found in results] == [f"T{n}" for n in range(20)]
    assert model.packs == [8, 8, 4]


async def test_tracks_of_different_callers_share_no_prompt() -> None:
    """What one caller writes into a title must not sway the answers that another gets."""
    model = ActingModel("qwen2", lambda q: says("qwen2", genre=q.track.title, language="en"))
    over = router(lane(model, pack=8))
    plan = over.plan(model="", unit="t")

    await asyncio.gather(
        *(
            over.answer(
                question(title=f"T{n}", caller="ab"[n % 2]),
                plan,
                fields=Unsettled(),
                excerpts=None,
                packed=True,
            )
            for n in range(8)
        )
    )

    callers = [asked.context.principal.name for asked in model.asked]
    assert model.packs == [4, 4]
    assert sorted({"".join(callers[:4]), "".join(callers[4:])}) == ["aaaa", "bbbb"]


async def test_one_bad_question_of_a_pack_spoils_no_other() -> None:
    """A poisoned track costs itself its answer."""
    model = ActingModel(
        "qwen2",
        lambda q: failing() if q.track.title == "T3" else says("qwen2", genre="x", language="y"),
    )
    over = router(lane(model, pack=8))
    plan = over.plan(model="", unit="t")

    results = await asyncio.gather(
        *(
            over.answer(
                question(title=f"T{n}"), plan, fields=Unsettled(), excerpts=None, packed=True
            )
            for n in range(8)
        )
    )

    assert [bool(found.answered) for found in results] == [n != 3 for n in range(8)]


async def test_a_caller_who_leaves_stops_the_call_and_the_rest_of_a_pack_goes_on() -> None:
    """Cancelled work must not be paid for; others' work must not be lost."""
    model = ActingModel("qwen2", lambda _: says("qwen2", genre="x", language="y"), seconds=0.1)
    over = router(lane(model, pack=2))
    plan = over.plan(model="", unit="t")

    def ask() -> "asyncio.Task[Routed]":
        return asyncio.create_task(
            over.answer(question(), plan, fields=Unsettled(), excerpts=None, packed=True)
        )

    leaving, staying = ask(), ask()
    await eventually(lambda: model.open == 1)
    leaving.cancel()
    found = await staying
    gone = [ask(), ask()]
    await eventually(lambda: model.open == 1)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await eventually(lambda: model.open == 0)

    assert found.answered == ["qwen2"]


def in_arm(experiment: Experiment, variant: str) -> str:
    """Return a track that an experiment draws into an arm."""
    return next(f"t{n}" for n in range(1000) if experiment.variant(f"t{n}") == variant)


async def test_the_experimental_model_takes_its_share_and_the_fallback_stays_behind_it() -> None:
    """An experiment must not cost its tracks the safety net."""
    experiment = Experiment(name="e")
    first = ActingModel("qwen2", lambda _: says("qwen2", genre="x", language="y"))
    second = ActingModel("openai", lambda _: says("openai", genre="x", language="y"))
    tried = ActingModel("experimental", lambda _: failing())
    over = router(
        lane(first),
        lane(second, "fallback"),
        lane(tried, "experimental"),
        experiment=experiment,
        use_experimental=True,
    )

    plans = [over.plan(model="", unit=f"t{n}") for n in range(2000)]
    found = await routed(over, unit=in_arm(experiment, TREATMENT))

    share = sum(plan.is_experimental for plan in plans) / len(plans)
    assert 0.07 < share < 0.13
    assert {plan.experiment for plan in plans} == {"e"}
    assert [over.plan(model="", unit=f"t{n}").variant for n in range(50)] == [
        plan.variant for plan in plans[:50]
    ]
    assert found.answered == ["openai"]
    assert first.asked == []


async def test_a_shadow_is_asked_and_never_heard() -> None:
    """Trying a model on real traffic must not change one answer."""
    experiment = Experiment(name="e", shadow=True)
    first = ActingModel("qwen2", lambda _: says("qwen2", genre="x", language="y"))
    tried = ActingModel("experimental", lambda _: says("experimental", genre="z"))
    over = router(
        lane(first), None, lane(tried, "experimental"), experiment=experiment, use_experimental=True
    )

    found = await routed(over, unit=in_arm(experiment, TREATMENT))
    await eventually(lambda: len(tried.asked) == 1)
    await over.close()

    assert found.answered == ["qwen2"]
    assert not over.plan(model="", unit=in_arm(experiment, TREATMENT)).is_experimental


async def test_few_are_asked_in_the_shadow_at_once() -> None:
    """A slow model that nobody waits for must not gather a task for every track."""
    experiment = Experiment(name="e", shadow=True)
    first = ActingModel("qwen2", lambda _: says("qwen2", genre="x", language="y"))
    tried = ActingModel("experimental", lambda _: says("experimental", genre="z"), seconds=60)
    over = router(
        lane(first), None, lane(tried, "experimental"), experiment=experiment, use_experimental=True
    )
    before = asyncio.all_tasks()

    found = [await routed(over, unit=in_arm(experiment, TREATMENT)) for _ in range(10)]
    await eventually(lambda: tried.open == 4)
    left = asyncio.all_tasks() - before
    await over.close()

    assert {tuple(one.answered) for one in found} == {("qwen2",)}
    assert len(tried.asked) == len(left) == 4
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(("spent", "asked"), [("0.49", 1), ("0.50", 0)])
async def test_a_shadow_leaves_half_of_the_days_money_alone(spent: str, asked: int) -> None:
    """Nobody reads what it says: it must not cost an answer that somebody waits for."""
    experiment = Experiment(name="e", shadow=True)
    purse = DailyBudget(Decimal(1))
    purse.spend(Decimal(spent))
    first = ActingModel("qwen2", lambda _: says("qwen2", genre="x", language="y"))
    tried = ActingModel("experimental", lambda _: says("experimental", genre="z"))
    over = router(
        lane(first, budget=purse),
        None,
        lane(tried, "experimental", budget=purse),
        experiment=experiment,
        use_experimental=True,
    )

    found = await routed(over, unit=in_arm(experiment, TREATMENT))
    # Whoever was asked has been by the time that everybody waiting had a turn.
    for _ in range(20):
        await asyncio.sleep(0)
    await over.close()

    assert found.answered == ["qwen2"]
    assert len(tried.asked) == asked


async def test_without_models_nothing_is_asked() -> None:
    """The embedded server has no lanes at all."""
    over = router()

    found = await routed(over)

    assert over.plan(model="", unit="t") == Plan(lanes=())
    assert found.answered == []
    assert found.failures == []
