"""The gauge that the low-confidence alert stands on: what models' newest answers are worth."""

import threading
from collections import deque
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SLOT_SECONDS = 5.0
_MINUTE = 60.0
_ENOUGH = 10
_ENOUGH_WITHIN = 300.0
_FEW_SHOWN = 10.0
"""Less than the 15 s between two scrapes, so that a lone answer is seen once at most."""


class RecentConfidence(Collector):
    """Exports `ai_confidence_score{model}`: the mean confidence of the last minute's answers.

    A model has no series while it answers nothing, so a low value does not outlive the answers it
    came from: it goes a minute after the last of them. Where there were fewer than ten in five
    minutes it goes after ten seconds. An alert on the average of the gauge holds for five minutes
    after its last sample, so a single doubtful track that is scraped twice would raise it.
    The average of the gauge over five minutes is then what its name says, a minute with many
    answers counting as much as one with few. Times are kept to five seconds; the memory of a
    model is bounded. Threads may add and collect at the same time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take a monotonic clock, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: dict[str, deque[list[float]]] = {}
        """By model: begin of each slot, sum and number of its answers."""

    def add(self, model: str, confidence: float) -> None:
        """Count an answer."""
        begin = self._clock() // _SLOT_SECONDS * _SLOT_SECONDS
        with self._lock:
            slots = self._slots.setdefault(model, deque())
            if not slots or slots[-1][0] != begin:
                slots.append([begin, 0.0, 0])
                self._forget(slots)
            slots[-1][1] += confidence
            slots[-1][2] += 1

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauge as of now."""
        family = GaugeMetricFamily(
            "ai_confidence_score",
            "Mean confidence of a model's answers of the last minute; absent while there are none",
            labels=("model",),
        )
        now = self._clock()
        with self._lock:
            for model, slots in self._slots.items():
                self._forget(slots)
                newest = [slot for slot in slots if slot[0] > now - _MINUTE]
                enough = sum(slot[2] for slot in slots) >= _ENOUGH
                if newest and (enough or newest[-1][0] > now - _FEW_SHOWN):
                    mean = sum(slot[1] for slot in newest) / sum(slot[2] for slot in newest)
                    family.add_metric([model], mean)
        yield family

    def _forget(self, slots: deque[list[float]]) -> None:
        oldest = self._clock() - _ENOUGH_WITHIN
        while slots and slots[0][0] <= oldest:
            slots.popleft()
