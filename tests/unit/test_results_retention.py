"""Old results go, and a wrong clock takes nothing with it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from liner.v1 import enrichment_pb2
from liner_server.results.sqlite import SqliteResultStore
from liner_server.results_retention import ResultsRetention
from support.clock import ManualClock

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Clocks:
    """Wall and steady time, which part only when a clock is set."""

    def __init__(self) -> None:
        self.wall = ManualClock(START.timestamp())
        self.steady = ManualClock()

    def pass_by(self, time: timedelta) -> None:
        """Let time pass for both."""
        self.wall.advance(time)
        self.steady.advance(time)


@pytest.fixture
def clocks() -> Clocks:
    """Clocks that agree."""
    return Clocks()


@pytest.fixture
async def store(tmp_path: Path, clocks: Clocks) -> AsyncIterator[SqliteResultStore]:
    """An empty store in the clocks' time."""
    async with SqliteResultStore(tmp_path / "results.sqlite", now=clocks.wall) as store:
        yield store


def retention(
    store: SqliteResultStore, clocks: Clocks, *, results: timedelta = 90 * DAY
) -> ResultsRetention:
    """Return what clears the store by these clocks."""
    return ResultsRetention(
        store, results=results, answers=30 * DAY, wall=clocks.wall, steady=clocks.steady
    )


async def put(store: SqliteResultStore, name: str) -> None:
    """Store a result and an answer of now."""
    done = enrichment_pb2.ENRICHMENT_STATE_DONE
    await store.put(enrichment_pb2.Enrichment(enrichment_id=name, state=done))
    await store.keep_answer(name.encode(), enrichment_pb2.EnrichMetadataResponse())


async def names(store: SqliteResultStore) -> list[str]:
    """Return what is stored, newest first."""
    newest = enrichment_pb2.ENRICHMENT_ORDER_NEWEST_FIRST
    page = await store.list(enrichment_pb2.ListEnrichmentsRequest(order=newest))
    return [record.enrichment_id for record in page.enrichments]


async def test_each_is_kept_for_its_own_time(store, clocks):
    """Results for 90 days, known answers for 30."""
    keeper = retention(store, clocks)
    await put(store, "a")
    clocks.pass_by(31 * DAY)
    await put(store, "b")
    assert await keeper.clear() == (0, 1)
    clocks.pass_by(60 * DAY)
    await put(store, "c")

    assert await keeper.clear() == (1, 1)
    assert await names(store) == ["c", "b"]


async def test_zero_keeps_results_for_ever(store, clocks):
    """An archive is one setting away."""
    keeper = retention(store, clocks, results=timedelta(0))
    await put(store, "a")
    clocks.pass_by(4000 * DAY)
    await put(store, "b")

    assert await keeper.clear() == (0, 1)
    assert await names(store) == ["b", "a"]


@pytest.mark.parametrize("jump", [3650 * DAY, 2 * timedelta(hours=1), -3650 * DAY])
async def test_a_clock_that_jumped_deletes_nothing(store, clocks, jump):
    """It may be set right a minute later; results would not come back."""
    keeper = retention(store, clocks)
    await put(store, "a")
    clocks.pass_by(timedelta(hours=1))
    clocks.wall.advance(jump)
    await put(store, "b")

    assert await keeper.clear() == (0, 0)
    assert len(await names(store)) == 2


async def test_a_server_that_starts_with_a_wrong_clock_deletes_nothing(store, clocks):
    """There is no time before to compare with, but there is the newest result's."""
    await put(store, "a")
    clocks.wall.advance(3650 * DAY)

    assert await retention(store, clocks).clear() == (0, 0)
    assert await names(store) == ["a"]
