"""The confidence gauge tells of answers that were given, and of nothing else."""

import pytest
from liner_server.recent_confidence import RecentConfidence
from prometheus_client import CollectorRegistry
from support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Time, as the test wants it."""
    return ManualClock()


@pytest.fixture
def confidence(clock: ManualClock) -> RecentConfidence:
    """The gauge under test."""
    return RecentConfidence(clock)


def _shown(confidence: RecentConfidence, model: str = "qwen2") -> float | None:
    registry = CollectorRegistry()
    registry.register(confidence)
    return registry.get_sample_value("ai_confidence_score", {"model": model})


def _answers(confidence: RecentConfidence, number: int, value: float, model: str = "qwen2") -> None:
    for _ in range(number):
        confidence.add(model, value)


def test_it_is_the_mean_of_the_last_minute(
    confidence: RecentConfidence, clock: ManualClock
) -> None:
    """Old answers must not hide that new ones are bad, nor new ones weigh by their order."""
    _answers(confidence, 100, 0.9)
    clock.advance(65)
    _answers(confidence, 3, 0.2)
    _answers(confidence, 1, 0.6)

    assert _shown(confidence) == pytest.approx(0.3)


def test_an_idle_model_has_no_series(confidence: RecentConfidence, clock: ManualClock) -> None:
    """A value that outlived its answers would keep an alert up for ever."""
    _answers(confidence, 100, 0.1)
    assert _shown(confidence) == pytest.approx(0.1)

    clock.advance(66)

    assert _shown(confidence) is None


def test_a_handful_of_answers_is_shown_for_less_than_two_scrapes(
    confidence: RecentConfidence, clock: ManualClock
) -> None:
    """Who asks once sees the answer's worth; in a quiet night it is no reason to wake anybody."""
    _answers(confidence, 9, 0.1)
    assert _shown(confidence) == pytest.approx(0.1)

    clock.advance(11)
    assert _shown(confidence) is None

    _answers(confidence, 1, 0.3)
    clock.advance(50)
    assert _shown(confidence) == pytest.approx(0.3), "ten in five minutes are shown for a minute"

    clock.advance(245)
    _answers(confidence, 1, 0.1)
    clock.advance(11)
    assert _shown(confidence) is None, "the first nine are older than five minutes"


def test_models_are_apart(confidence: RecentConfidence) -> None:
    """A good fallback must not hide a bad primary."""
    _answers(confidence, 10, 0.4, "qwen2")
    _answers(confidence, 10, 0.8, "openai")

    assert _shown(confidence, "qwen2") == pytest.approx(0.4)
    assert _shown(confidence, "openai") == pytest.approx(0.8)


def test_memory_does_not_grow_with_answers(
    confidence: RecentConfidence, clock: ManualClock
) -> None:
    """A server runs for months."""
    for _ in range(20_000):
        clock.advance(1)
        confidence.add("qwen2", 0.5)

    assert len(confidence._slots["qwen2"]) <= 61
