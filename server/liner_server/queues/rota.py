"""Whose turn it is: priorities by weight, and within each the tenants one after the other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from liner.v1 import enrichment_pb2

from liner_server.core.enums import Priority

WEIGHTS: Mapping[Priority, int] = {
    enrichment_pb2.PRIORITY_HIGH: 8,
    enrichment_pb2.PRIORITY_MEDIUM: 3,
    enrichment_pb2.PRIORITY_LOW: 1,
}
"""How often each priority is served while all have work: strict order would starve the low."""

_T = TypeVar("_T")


class Rota:
    """Smooth weighted round robin: over any twelve turns each priority gets its weight."""

    def __init__(self) -> None:
        self._credit = dict.fromkeys(WEIGHTS, 0)

    def next_of(self, ready: Iterable[Priority]) -> Priority:
        """Return the priority to serve, of those that have work; others do not save up turns."""
        waiting = list(ready)
        for priority in waiting:
            self._credit[priority] += WEIGHTS[priority]
        chosen = max(waiting, key=lambda priority: (self._credit[priority], -priority))
        self._credit[chosen] -= sum(WEIGHTS[priority] for priority in waiting)
        return chosen

    def share(
        self, found: Mapping[Priority, Sequence[_T]], limit: int
    ) -> list[tuple[Priority, _T]]:
        """Return up to `limit` of what was found, in the order of the turns."""
        left = {priority: list(reversed(items)) for priority, items in found.items() if items}
        turns: list[tuple[Priority, _T]] = []
        while left and len(turns) < limit:
            priority = self.next_of(left)
            turns.append((priority, left[priority].pop()))
            if not left[priority]:
                del left[priority]
        return turns
