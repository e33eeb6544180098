"""The simulation behind docs/scaling.md agrees with what can be reckoned by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from performance.scale_sim import Assumptions, Scenario, Simulation, provision, quantile

PLAIN = Assumptions(
    cell_per_second=9,
    audio_share=0,
    text_cpu_seconds=1e-9,
    asked_share=1,
    model_seconds=1,
    cores=1000,
    places=1,
)
"""Each job waits for a model, an exponential time of 1 s on average, and for nothing else."""


def _erlang_c(servers: int, load: float) -> float:
    """Return the chance that somebody has to wait in an M/M/c queue."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**n / math.factorial(n) for n in range(servers)) + last)


def test_waiting_is_what_queueing_theory_says() -> None:
    """An M/M/12 queue at three quarters of its capacity; priorities change no mean."""
    outcome = Simulation(PLAIN, Scenario(name="", seconds=20_000), workers=12, seed=7).run()
    waits = [wait for waited in outcome.waits.values() for wait in waited]

    expected = _erlang_c(12, 9) / (12 - 9)

    assert sum(waits) / len(waits) == pytest.approx(expected, rel=0.1)
    assert sum(wait > 0 for wait in waits) / len(waits) == pytest.approx(_erlang_c(12, 9), rel=0.07)


def test_every_track_is_done_though_workers_die() -> None:
    """What a dead worker had comes again: none is lost, none is counted twice."""
    assumed = replace(PLAIN, audio_share=0.2, cores=2, places=4)
    scenario = Scenario(name="", seconds=300, lost_at=100)

    outcome = Simulation(assumed, scenario, workers=10, seed=3).run()

    arrived = sum(map(len, outcome.waits.values()))
    again = arrived - outcome.done
    assert 0 < again <= 2 * 4, "handed out twice: what two workers of four places had"


def test_high_goes_before_low_when_all_wait() -> None:
    """A burst is paid for by those who can wait, and low still moves."""
    scenario = Scenario(name="", seconds=600, rate=lambda t: 3 if 60 < t < 120 else 1)

    outcome = Simulation(PLAIN, scenario, workers=12, seed=5).run()

    high, low = (quantile(outcome.waits[name], 0.5) for name in ("high", "low"))
    assert high < 1 < low
    assert outcome.clear_at > 120


def test_provision_covers_cores_and_places() -> None:
    """Where models are waited for, cores alone would be too few workers."""
    assumed = Assumptions(audio_share=0)

    busy = assumed.cell_per_second * assumed.asked_share * assumed.model_seconds

    assert assumed.workers() * assumed.places * assumed.utilisation >= busy


def test_the_page_shows_what_the_command_prints() -> None:
    """Its first table; the second one takes ten seconds (`make scale-sim`)."""
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    mixes = [Assumptions(audio_share=share) for share in (0.0, 0.05, 0.25, 1.0)]

    for rows in zip(*map(provision, mixes), strict=True):
        assert f"| {' | '.join([rows[0][0], *(value for _, value in rows)])} |" in page
