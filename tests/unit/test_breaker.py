from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from liner.v1 import enrichment_pb2
from liner_server.core.breaker import Breaker, BreakerState, Permit
from support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Time that the test moves."""
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    """A breaker as the service has it."""
    return Breaker(clock=clock)


def admitted(breaker: Breaker) -> Permit:
    """Return a permit that must be given."""
    permit = breaker.admit()
    assert permit is not None
    return permit


def fail(breaker: Breaker, times: int = 1) -> None:
    """Let calls fail."""
    for _ in range(times):
        admitted(breaker).failed()


def succeed(breaker: Breaker, times: int = 1) -> None:
    """Let calls succeed."""
    for _ in range(times):
        admitted(breaker).succeeded()


def half_opened(breaker: Breaker, clock: ManualClock) -> None:
    """Open the breaker and let its rest pass."""
    fail(breaker, 10)
    clock.advance(30)


def test_a_provider_that_is_all_there_is_gets_ten_calls(breaker: Breaker) -> None:
    """Nine failures may be chance; the tenth opens, with no sibling to compare with."""
    fail(breaker, 9)
    before = breaker.state

    fail(breaker)

    assert (before, breaker.state) == (BreakerState.CLOSED, BreakerState.OPEN)
    assert breaker.admit() is None


@pytest.mark.parametrize(("failures", "state"), [(5, BreakerState.CLOSED), (6, BreakerState.OPEN)])
def test_six_of_ten_failures_open(breaker: Breaker, failures: int, state: BreakerState) -> None:
    """Exactly 60 % is enough; less is a provider that mostly answers."""
    succeed(breaker, 10 - failures)
    fail(breaker, failures)

    assert breaker.state is state


def test_the_share_counts_whatever_the_last_outcome_was(breaker: Breaker) -> None:
    """The tenth call makes the share known, also when that one happened to succeed."""
    fail(breaker, 9)
    succeed(breaker)

    assert breaker.state is BreakerState.OPEN


def test_old_failures_are_forgotten(breaker: Breaker, clock: ManualClock) -> None:
    """A failure an hour ago says nothing of now."""
    fail(breaker, 9)
    clock.advance(60)
    fail(breaker, 9)

    assert breaker.state is BreakerState.CLOSED


def test_failures_of_the_last_minute_add_up(breaker: Breaker, clock: ManualClock) -> None:
    """A provider that is asked every five seconds is guarded as well as a busy one."""
    for _ in range(10):
        fail(breaker)
        clock.advance(5)

    assert breaker.state is BreakerState.OPEN


def test_a_refused_caller_learns_when_to_come_back(breaker: Breaker, clock: ManualClock) -> None:
    """RetryInfo and the router tell it on; earlier would be refused again."""
    fail(breaker, 10)
    clock.advance(12.5)
    wait = breaker.retry_after

    clock.advance(wait)

    assert wait == pytest.approx(timedelta(seconds=17.5), abs=timedelta(milliseconds=1))
    assert breaker.admit() is not None


def test_after_the_rest_one_trial_passes(breaker: Breaker, clock: ManualClock) -> None:
    """A provider that just came back must not be met by everyone at once."""
    half_opened(breaker, clock)

    admitted(breaker)

    assert breaker.state is BreakerState.HALF_OPEN
    assert [breaker.admit() for _ in range(5)] == [None] * 5
    assert breaker.retry_after > timedelta(0)


def test_a_trial_that_succeeds_closes_and_forgets(breaker: Breaker, clock: ManualClock) -> None:
    """Failures from before the outage ended must not open it again."""
    half_opened(breaker, clock)

    succeed(breaker)
    fail(breaker, 9)

    assert breaker.state is BreakerState.CLOSED
    assert breaker.retry_after == timedelta(0)


def test_a_trial_that_fails_opens_for_another_rest(breaker: Breaker, clock: ManualClock) -> None:
    """One call in thirty seconds is what an outage costs."""
    half_opened(breaker, clock)

    fail(breaker)
    clock.advance(29)
    still = breaker.state
    clock.advance(1)

    assert (still, breaker.state) == (BreakerState.OPEN, BreakerState.HALF_OPEN)


def test_a_trial_that_was_abandoned_frees_its_place(breaker: Breaker, clock: ManualClock) -> None:
    """A cancelled call proves nothing, and must not lock the provider out for good."""
    half_opened(breaker, clock)

    admitted(breaker).abandoned()

    assert breaker.state is BreakerState.HALF_OPEN
    succeed(breaker)
    assert breaker.state is BreakerState.CLOSED


def test_only_the_first_word_of_a_permit_counts(breaker: Breaker, clock: ManualClock) -> None:
    """`abandoned` in a finally must not undo what was said, nor free another trial's place."""
    half_opened(breaker, clock)
    first = admitted(breaker)
    first.abandoned()
    second = admitted(breaker)

    first.abandoned()
    first.failed()

    assert breaker.admit() is None
    second.succeeded()
    second.failed()
    assert breaker.state is BreakerState.CLOSED


def test_a_late_outcome_from_before_the_change_is_not_counted(
    breaker: Breaker, clock: ManualClock
) -> None:
    """Calls that hung through the outage fail after it, and would open the breaker anew."""
    hanging = [admitted(breaker) for _ in range(30)]
    half_opened(breaker, clock)
    hanging.pop().succeeded()
    not_closed_by_it = breaker.state
    succeed(breaker)

    for permit in hanging:
        permit.failed()

    assert (not_closed_by_it, breaker.state) == (BreakerState.HALF_OPEN, BreakerState.CLOSED)


def test_memory_does_not_grow_with_calls(breaker: Breaker, clock: ManualClock) -> None:
    """A breaker lives as long as the server."""
    for _ in range(5000):
        succeed(breaker)
        clock.advance(0.7)

    assert len(breaker._buckets) <= 13


def test_every_state_has_a_name_in_the_contract() -> None:
    """ListModels shows the state under its name."""
    for state in BreakerState:
        value = enrichment_pb2.BreakerState.Value(f"BREAKER_STATE_{state.name}")

        assert value != enrichment_pb2.BREAKER_STATE_UNSPECIFIED


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls, outcomes and time, against a model that keeps every outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(0.0)
        self.permits: list[tuple[Permit, int, bool]] = []
        self.outcomes: list[tuple[float, bool]] = []
        self.opened: float | None = None
        self.trial = False
        self.age = 0

    @initialize(minimum=st.integers(1, 4), share=st.sampled_from([0.25, 0.6, 1.0]))
    def begin(self, minimum: int, share: float) -> None:
        """Small numbers reach every state soon."""
        self.minimum, self.share = minimum, share
        self.breaker = Breaker(clock=self.clock, minimum=minimum, share=share)

    def expected(self) -> BreakerState:
        """Return the model's state."""
        if self.opened is None:
            return BreakerState.CLOSED
        over = self.clock.now - self.opened >= 30
        return BreakerState.HALF_OPEN if over else BreakerState.OPEN

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        """Whole seconds, so that the model's sums are exact."""
        self.clock.advance(float(seconds))

    @rule()
    def ask(self) -> None:
        """Ask for a permit."""
        state = self.expected()
        permit = self.breaker.admit()
        passes = state is BreakerState.CLOSED or (
            state is BreakerState.HALF_OPEN and not self.trial
        )
        assert (permit is not None) == passes
        if permit is not None:
            trial = state is BreakerState.HALF_OPEN
            self.trial |= trial
            self.permits.append((permit, self.age, trial))

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "failed", "abandoned"]))
    def settle(self, data: st.DataObject, outcome: str) -> None:
        """Say how one of the calls went, twice."""
        index = data.draw(st.integers(0, len(self.permits) - 1))
        permit, age, trial = self.permits.pop(index)
        getattr(permit, outcome)()
        permit.failed()
        if age != self.age:
            return
        if trial:
            self.trial = False
            if outcome != "abandoned":
                self.change(opened=outcome == "failed")
        elif outcome != "abandoned":
            self.outcomes.append((self.clock.now // 5, outcome == "failed"))
            recent = [bad for when, bad in self.outcomes if when > self.clock.now // 5 - 12]
            if len(recent) >= self.minimum and sum(recent) / len(recent) >= self.share:
                self.change(opened=True)

    def change(self, *, opened: bool) -> None:
        """Open or close the model."""
        self.opened = self.clock.now if opened else None
        self.outcomes.clear()
        self.age += 1

    @invariant()
    def the_state_is_the_models(self) -> None:
        """What ListModels shows, and what a caller is told to wait."""
        if not hasattr(self, "breaker"):
            return
        assert self.breaker.state is self.expected()
        waits = self.breaker.retry_after > timedelta(0)
        assert waits == (self.expected() is BreakerState.OPEN or self.trial)


TestBreakerMachine = BreakerMachine.TestCase
