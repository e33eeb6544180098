"""How many jobs are worked on at once: as many as the models take without letting them queue.

TCP Vegas' rule. A model that keeps up answers as fast as it does at best; one that does not lets
jobs wait, and how much longer they take tells how many of them wait:

    waiting = limit x (1 - best time / time now)

Under 2 the limit rises by one, over 4 it falls by one, after every round of as many jobs as the
limit says. A model that says it has too much (a quota, an outage, no answer in time) halves it, as
a lost packet does. Times are compared among jobs of a kind: one with audio takes longer than one
without at any load. What is best is found anew now and then, under half the limit, as BBR does: a
best time from long ago may be another model's, and one from under load would let the limit drift.
"""

import statistics

_FEW_WAIT = 2.0
_MANY_WAIT = 4.0
_ROUNDS_BETWEEN_PROBES = 50
_FEWEST_IN_A_ROUND = 4
_BEGINNING = 4


class Concurrency:
    """The limit, between two bounds: told of each job's end, it finds its place."""

    def __init__(self, *, least: int, most: int) -> None:
        """Begin at 4, or the bound that is next to it."""
        self._least = min(least, most)
        self._most = most
        self.limit = max(self._least, min(_BEGINNING, most))
        """Jobs that may be worked on now."""
        self._round: dict[str, list[float]] = {}
        self._best: dict[str, float] = {}
        self._rounds = 0
        self._before_probe = 0
        """The limit that comes back after the probe; 0 when there is none."""
        self._full = False
        self._overloaded = False

    def ended(self, kind: str, seconds: float, *, working: int) -> None:
        """Learn that a job of this kind was answered, while so many were worked on, it included."""
        self._round.setdefault(kind, []).append(seconds)
        self._full = self._full or working >= self.limit
        if sum(map(len, self._round.values())) >= max(self.limit, _FEWEST_IN_A_ROUND):
            self._end_round()

    def overloaded(self) -> None:
        """Learn that a model refused a job or had no time for it; once a round counts."""
        if self._overloaded:
            return
        if not self._before_probe:
            self._set(self.limit // 2)
        self._before_probe = 0
        self._begin_round()
        self._overloaded = True

    def _end_round(self) -> None:
        self._rounds += 1
        if self._before_probe:
            self._probed()
        else:
            waiting = self.limit * self._slowness()
            if waiting > _MANY_WAIT:
                self._set(self.limit - 1)
            elif waiting < _FEW_WAIT and self._full:
                # Not full it was not tried out: who knows whether more would do.
                self._set(self.limit + 1)
            if self._rounds >= _ROUNDS_BETWEEN_PROBES:
                self._before_probe, self._rounds = self.limit, 0
                self._set(self.limit // 2)
        self._begin_round()

    def _probed(self) -> None:
        # Most of the first round's jobs began under the former limit: the second one counts.
        if self._rounds > 1:
            self._best.clear()
            self._slowness()
            self._set(self._before_probe)
            self._before_probe = self._rounds = 0

    def _slowness(self) -> float:
        """Return which part of their time this round's jobs waited, at a guess."""
        waited, jobs = 0.0, 0
        for kind, times in self._round.items():
            # The middle one: a job with an hour of audio among twenty short ones says nothing.
            now = statistics.median(times)
            best = self._best[kind] = min(now, self._best.get(kind, now))
            jobs += len(times)
            if now > 0:
                waited += len(times) * (1 - best / now)
        return waited / jobs

    def _begin_round(self) -> None:
        self._round.clear()
        self._full = self._overloaded = False

    def _set(self, limit: int) -> None:
        self.limit = max(self._least, min(limit, self._most))
