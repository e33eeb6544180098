"""`make scale-sim`: how many workers, models and dollars so many tracks a second take, and what a
burst or an outage does to the waiting time.

A discrete-event simulation of the queue door: tracks arrive, wait at Pub/Sub by priority, a
worker's place takes one, its audio is fetched, a core listens to it, a model is asked, and that is
all. It is no measurement: the CPU of a track is measured (docs/performance.md), everything else is
assumed and printed with the result. One cell is simulated and the figures are multiplied; small
cells wait longer than large ones, so the waiting times err to the safe side.
"""

import argparse
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

WEIGHTS = {"high": 8, "medium": 3, "low": 1}


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the simulation believes."""

    tracks_per_second: float = 10_000
    """Of all cells together."""

    cell_per_second: float = 100
    """Tracks a second of the cell that is simulated."""

    audio_share: float = 0.05
    """Part of the tracks whose audio has to be heard: new recordings, not their new metadata."""

    listen_cpu_seconds: float = 3.6
    """Measured: 0.77 s a minute of FLAC and 0.95 s for the tagger, for 3.5 minutes."""

    text_cpu_seconds: float = 0.005
    """1.4 ms measured, for a track without audio that is stored; the rest is reckoned for the way
    of a job by Pub/Sub."""

    fetch_seconds: float = 0.3
    """Mean wait for the audio from the bucket."""

    asked_share: float = 0.5
    """Part of the tracks that a model is asked about: fields are open, and the answer not known."""

    model_seconds: float = 1.0
    """Mean wait for a model that has a place free."""

    model_per_gpu: float = 20
    """Answers a second of one GPU, questions packed and batched. Not measured here."""

    priorities: tuple[tuple[str, float], ...] = (("high", 0.1), ("medium", 0.6), ("low", 0.3))

    cores: int = 2
    """Of a worker."""

    places: int = 8
    """Jobs at once of a worker (LINER_WORKERS)."""

    utilisation: float = 0.7
    """Of the cores, that workers are provided for."""

    usd_vcpu_second: float = 0.000018
    usd_gib_second: float = 0.000002
    usd_gpu_hour: float = 0.8
    usd_gb_pubsub: float = 0.04
    usd_gb_bigquery: float = 0.05
    """Round list prices; put in yours."""

    kb_job: float = 2.0
    kb_result: float = 6.0
    kb_row: float = 1.0

    def cpu_a_track(self) -> float:
        """Mean CPU seconds of a track."""
        return self.audio_share * self.listen_cpu_seconds + self.text_cpu_seconds

    def workers(self) -> int:
        """Workers of the cell: enough cores, and enough places for what waits."""
        held = self.asked_share * self.model_seconds
        held += self.audio_share * (self.fetch_seconds + self.listen_cpu_seconds)
        cores = self.cell_per_second * self.cpu_a_track() / self.cores
        places = self.cell_per_second * (held + self.text_cpu_seconds) / self.places
        return math.ceil(max(cores, places) / self.utilisation)


@dataclass(kw_only=True)
class Scenario:
    """What happens during the run."""

    name: str
    seconds: float = 600
    rate: Callable[[float], float] = lambda _: 1.0
    """Times the usual arrivals, by the time."""
    lost_at: float = math.inf
    """When a fifth of the workers is killed; their jobs come again after the lease of 30 s."""
    slow_model: Callable[[float], float] = lambda _: 1.0
    """Times the usual wait for a model, by the time."""


@dataclass(kw_only=True)
class Outcome:
    """What was seen."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    """From arrival to a place, by priority, in seconds."""
    done: int = 0
    most_waiting: int = 0
    busy_core_seconds: float = 0.0
    clear_at: float = 0.0
    """When the queue was last longer than a second's arrivals."""


@dataclass(eq=False)
class _Worker:
    cores: int
    places: int
    alive: bool = True
    backlog: deque[tuple[float, Callable[[], None]]] = field(default_factory=deque)
    jobs: dict["_Job", None] = field(default_factory=dict)
    """In the order they began: a set's order would differ from run to run."""


@dataclass(eq=False)
class _Job:
    priority: str
    arrived: float
    audio: bool


class Simulation:
    """One run of one cell."""

    def __init__(
        self, assumed: Assumptions, scenario: Scenario, *, workers: int, seed: int
    ) -> None:
        self._assumed, self._scenario = assumed, scenario
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._now = 0.0
        self._queues: dict[str, deque[_Job]] = {name: deque() for name in WEIGHTS}
        self._credit = dict.fromkeys(WEIGHTS, 0.0)
        self._free: deque[_Worker] = deque()
        self._workers = [_Worker(assumed.cores, assumed.places) for _ in range(workers)]
        # Places are handed out in turn, as pulls come in turn.
        for _ in range(assumed.places):
            self._free.extend(self._workers)
        self.outcome = Outcome(waits={name: [] for name in WEIGHTS})

    def run(self) -> Outcome:
        """Simulate, and let what is queued at the end be worked off."""
        self._arrive()
        if self._scenario.lost_at < math.inf:
            self._at(self._scenario.lost_at, self._lose)
        while self._events:
            self._now, _, act = heapq.heappop(self._events)
            act()
        return self.outcome

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), act))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(self._now + seconds, act)

    def _exponential(self, mean: float) -> float:
        return self._rng.expovariate(1 / mean)

    def _arrive(self) -> None:
        rate = self._assumed.cell_per_second * self._scenario.rate(self._now)
        wait = self._exponential(1 / rate)
        if self._now + wait < self._scenario.seconds:
            self._after(wait, self._arrived)

    def _arrived(self) -> None:
        names, shares = zip(*self._assumed.priorities, strict=True)
        [priority] = self._rng.choices(names, shares)
        audio = self._rng.random() < self._assumed.audio_share
        self._queues[priority].append(_Job(priority, self._now, audio))
        self._arrive()
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free and any(self._queues.values()):
            worker = self._free.popleft()
            if not worker.alive:
                continue
            job = self._next()
            worker.jobs[job] = None
            self.outcome.waits[job.priority].append(self._now - job.arrived)
            self._begin(worker, job)
        waiting = sum(map(len, self._queues.values()))
        self.outcome.most_waiting = max(self.outcome.most_waiting, waiting)
        if waiting > self._assumed.cell_per_second:
            self.outcome.clear_at = self._now

    def _next(self) -> _Job:
        """Priorities take turns 8 : 3 : 1 among those that have something."""
        waiting = [name for name in WEIGHTS if self._queues[name]]
        total = sum(WEIGHTS[name] for name in waiting)
        for name in waiting:
            self._credit[name] += WEIGHTS[name]
        chosen = max(waiting, key=lambda name: self._credit[name])
        self._credit[chosen] -= total
        return self._queues[chosen].popleft()

    def _begin(self, worker: _Worker, job: _Job) -> None:
        assumed = self._assumed
        if not job.audio:
            self._compute(worker, assumed.text_cpu_seconds, lambda: self._ask(worker, job))
            return
        # Lengths of tracks vary by a third; the longest are heard in windows.
        spread = min(max(self._rng.gauss(1, 0.35), 0.3), 1.6)
        cpu = assumed.listen_cpu_seconds * spread + assumed.text_cpu_seconds
        self._after(
            self._exponential(assumed.fetch_seconds),
            lambda: self._compute(worker, cpu, lambda: self._ask(worker, job)),
        )

    def _compute(self, worker: _Worker, cpu: float, then: Callable[[], None]) -> None:
        if not worker.cores:
            worker.backlog.append((cpu, then))
            return
        worker.cores -= 1

        def computed() -> None:
            self.outcome.busy_core_seconds += cpu
            worker.cores += 1
            if worker.backlog:
                self._compute(worker, *worker.backlog.popleft())
            then()

        self._after(cpu, computed)

    def _ask(self, worker: _Worker, job: _Job) -> None:
        if self._rng.random() >= self._assumed.asked_share:
            self._end(worker, job)
            return
        wait = self._exponential(self._assumed.model_seconds)
        # Liner's own limit of one call; the fields are then left to measurement.
        wait = min(wait * self._scenario.slow_model(self._now), 20.0)
        self._after(wait, lambda: self._end(worker, job))

    def _end(self, worker: _Worker, job: _Job) -> None:
        if job not in worker.jobs:
            return
        del worker.jobs[job]
        self.outcome.done += 1
        self._free.append(worker)
        self._hand_out()

    def _lose(self) -> None:
        for worker in self._workers[: len(self._workers) // 5]:
            worker.alive = False
            for job in worker.jobs:
                self._after(30, lambda job=job: self._come_again(job))  # type: ignore[misc]
            worker.jobs.clear()

    def _come_again(self, job: _Job) -> None:
        self._queues[job.priority].appendleft(job)
        self._hand_out()


def quantile(values: list[float], share: float) -> float:
    """Return the value that so large a share lies below."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def scenarios() -> list[Scenario]:
    """What is asked of every provision."""
    return [
        Scenario(name="steady"),
        Scenario(
            name="three times the arrivals for a minute", rate=lambda t: 3 if 60 < t < 120 else 1
        ),
        Scenario(name="a fifth of the workers killed", lost_at=60),
        Scenario(
            name="models ten times slower for five minutes",
            slow_model=lambda t: 10 if 60 < t < 360 else 1,
        ),
    ]


def provision(assumed: Assumptions) -> list[tuple[str, str]]:
    """Return what the whole takes, from the assumptions alone."""
    rate = assumed.tracks_per_second
    cells = rate / assumed.cell_per_second
    workers = assumed.workers() * cells
    gpus = rate * assumed.asked_share / assumed.model_per_gpu
    million = 1e6 / rate
    second = assumed.cores * assumed.usd_vcpu_second + 4 * assumed.usd_gib_second
    cpu_usd = workers * million * second
    gpu_usd = gpus * million / 3600 * assumed.usd_gpu_hour
    # Each byte is published and delivered.
    pubsub_usd = 2 * (assumed.kb_job + assumed.kb_result) * assumed.usd_gb_pubsub
    bigquery_usd = assumed.kb_row * assumed.usd_gb_bigquery
    published = rate * (assumed.kb_job + assumed.kb_result) / 1000
    return [
        ("CPU a track", f"{1000 * assumed.cpu_a_track():,.0f} ms"),
        ("workers of 2 vCPU, 4 GiB", f"{workers:,.0f}"),
        ("model answers a second", f"{rate * assumed.asked_share:,.0f}"),
        ("GPUs", f"{gpus:,.0f}"),
        ("published to Pub/Sub", f"{published:,.0f} MB/s"),
        ("BigQuery rows", f"{rate:,.0f} a second, {rate * assumed.kb_row / 1000:,.0f} MB/s"),
        ("workers, USD a million tracks", f"{cpu_usd:,.0f}"),
        ("models, USD a million tracks", f"{gpu_usd:,.0f}"),
        ("Pub/Sub and BigQuery, USD a million tracks", f"{pubsub_usd + bigquery_usd:,.2f}"),
    ]


def report(assumed: Assumptions, *, seed: int) -> str:
    """Return the tables of docs/scaling.md."""
    lines = []
    mixes = [replace(assumed, audio_share=share) for share in (0.0, assumed.audio_share, 0.25, 1.0)]
    columns = [dict(provision(mix)) for mix in mixes]
    lines += [
        _row("of the tracks are heard", *(f"{100 * mix.audio_share:.0f} %" for mix in mixes)),
        "|---|" + "---|" * len(mixes),
        *(_row(name, *(column[name] for column in columns)) for name in columns[0]),
        "",
        _row(
            *("scenario", "workers", "p50 / p99 wait high", "medium", "low"),
            *("most waiting", "clear after", "cores busy"),
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for scenario in scenarios():
        workers = assumed.workers()
        outcome = Simulation(assumed, scenario, workers=workers, seed=seed).run()
        waits = " | ".join(
            f"{quantile(outcome.waits[p], 0.5):.1f} / {quantile(outcome.waits[p], 0.99):.1f} s"
            for p in WEIGHTS
        )
        busy = outcome.busy_core_seconds / (workers * assumed.cores * scenario.seconds)
        lines.append(
            f"| {scenario.name} | {workers} | {waits} | {outcome.most_waiting:,} |"
            f" {outcome.clear_at:.0f} s | {100 * busy:.0f} % |"
        )
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the assumptions and the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    numbers = {n: v for n, v in vars(Assumptions()).items() if isinstance(v, int | float)}
    for name, value in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--seed", type=int, default=1)
    given = vars(parser.parse_args())
    seed = given.pop("seed")
    assumed = Assumptions(**given)
    print("Assumed: " + ", ".join(f"{name} {value:g}" for name, value in given.items()) + "\n")  # noqa: T201
    print(report(assumed, seed=seed))  # noqa: T201


if __name__ == "__main__":
    main()
