"""How many jobs at once: found from the times that a simulated model takes, no clock involved."""

from hypothesis import given
from hypothesis import strategies as st
from liner_server.queues.concurrency import Concurrency


def work(limit: Concurrency, jobs: int, *, capacity: float, base: float = 1.0, kind: str = "x"):
    """Let a model that does `capacity` jobs at once answer so many, under as many as allowed."""
    for _ in range(jobs):
        # Little's law: beyond its capacity a model only lets them wait.
        seconds = base * max(1.0, limit.limit / capacity)
        limit.ended(kind, seconds, working=limit.limit)


def test_it_settles_a_little_above_what_the_model_does_at_once():
    """Enough wait that the model never idles, and no more."""
    limit = Concurrency(least=1, most=64)

    work(limit, 2000, capacity=16)

    assert 16 <= limit.limit <= 16 + 5


def test_it_follows_a_model_that_gets_slower_and_recovers():
    """Half the replicas are gone, then they are back."""
    limit = Concurrency(least=1, most=64)
    work(limit, 2000, capacity=16)

    work(limit, 2000, capacity=4)
    slow = limit.limit
    work(limit, 2000, capacity=16)

    assert 4 <= slow <= 4 + 5
    assert 16 <= limit.limit <= 16 + 5


def test_a_model_that_is_slower_at_any_load_is_not_starved():
    """A larger model takes twice as long for each: its own best counts in the end."""
    limit = Concurrency(least=1, most=32)
    work(limit, 2000, capacity=8)

    work(limit, 6000, capacity=8, base=2.0)

    assert 8 <= limit.limit <= 8 + 5


def test_kinds_of_jobs_are_not_compared_with_each_other():
    """A burst of short texts does not make the audio after it look slow."""
    limit = Concurrency(least=1, most=32)
    work(limit, 500, capacity=100, base=2.0, kind="audio")
    before = limit.limit

    work(limit, 500, capacity=100, base=0.002, kind="text")
    work(limit, 500, capacity=100, base=2.0, kind="audio")

    assert limit.limit >= before


def test_an_idle_queue_raises_nothing():
    """Jobs that come one by one tell nothing of many at once."""
    limit = Concurrency(least=1, most=64)

    for _ in range(500):
        limit.ended("x", 1.0, working=1)

    assert limit.limit == 4


def test_too_much_halves_it_once_a_round():
    """Ten refusals at the same moment are one piece of news."""
    limit = Concurrency(least=1, most=64)
    work(limit, 2000, capacity=16)
    before = limit.limit

    for _ in range(10):
        limit.overloaded()
    once = limit.limit
    work(limit, once, capacity=16)
    limit.overloaded()

    assert once == before // 2
    assert limit.limit <= once // 2 + 1


@given(
    least=st.integers(1, 40),
    most=st.integers(1, 40),
    events=st.lists(
        st.tuples(st.floats(0, 1e6) | st.none(), st.integers(1, 60), st.sampled_from("ab"))
    ),
)
def test_it_never_leaves_its_bounds(
    least: int, most: int, events: list[tuple[float | None, int, str]]
):
    """Whatever times are told; where the bounds contradict each other the upper one counts."""
    limit = Concurrency(least=least, most=most)

    for seconds, working, kind in events:
        if seconds is None:
            limit.overloaded()
        else:
            limit.ended(kind, seconds, working=working)
        assert min(least, most) <= limit.limit <= most
