"""Money: what calls cost, and a day's budget that many calls at once cannot overspend."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import track_pb2
from liner_server.core.costs import DailyBudget, Price, Prices, Spending, Spent
from liner_server.models.spending_file import SpendingFile

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


def budget(limit: str | None = "1.00") -> tuple[DailyBudget, Clock]:
    """Return a budget and its clock."""
    clock = Clock()
    return DailyBudget(Decimal(limit) if limit is not None else None, clock=clock), clock


def test_a_cost_is_both_prices_by_the_million() -> None:
    """Prompt and completion cost differently everywhere."""
    price = Price(prompt=Decimal("2.5"), completion=Decimal(10))
    usage = track_pb2.Usage(prompt_tokens=2_000_000, completion_tokens=500_000)

    assert price.cost(usage) == Decimal(10)


def test_a_model_without_a_price_costs_nothing() -> None:
    """One's own machine is paid for already."""
    prices = Prices({"paid": Price(prompt=Decimal(1))})
    usage = track_pb2.Usage(prompt_tokens=1_000_000)

    assert (prices.of("own").cost(usage), prices.of("paid").cost(usage)) == (0, 1)


def test_a_budget_allows_what_fits_and_nothing_more() -> None:
    """The cap is a cap: the last call has to fit as well."""
    day, _ = budget("1.00")
    day.spend(Decimal("0.60"))

    assert day.allows(Decimal("0.40"))
    assert not day.allows(Decimal("0.41"))


def test_a_spent_budget_allows_not_even_what_is_free() -> None:
    """An estimate of nothing may be wrong."""
    day, _ = budget("1.00")
    day.spend(Decimal("1.20"))

    assert not day.allows()


def test_a_day_ends_at_midnight_utc_wherever_the_clock_hangs() -> None:
    """Whoever is refused is told when it is worth asking again."""
    day, clock = budget()
    noon = day.renewed_in
    clock.now = datetime(2026, 5, 5, 1, 30, tzinfo=timezone(timedelta(hours=2)))

    assert (noon, day.renewed_in) == (timedelta(hours=12), timedelta(minutes=30))


def test_no_limit_allows_everything() -> None:
    """A budget is a choice."""
    day, _ = budget(None)
    day.spend(Decimal(10_000))

    assert day.allows(Decimal(10_000))


def test_what_is_held_back_is_not_given_to_others() -> None:
    """A hundred calls at once would otherwise all see the same money."""
    day, _ = budget("1.00")

    with day.holding(Decimal("0.70")):
        assert not day.allows(Decimal("0.40"))
    assert day.allows(Decimal("0.40"))


def test_what_was_held_back_is_free_after_a_failure() -> None:
    """A call that broke did not spend its estimate."""
    day, _ = budget("1.00")

    with pytest.raises(RuntimeError), day.holding(Decimal("0.70")):
        raise RuntimeError

    assert day.allows(Decimal(1))


def test_a_new_day_begins_at_midnight_utc() -> None:
    """Wherever the server stands."""
    day, clock = budget("1.00")
    day.spend(Decimal(1))
    clock.now = datetime(2026, 5, 4, 23, 59, 59, tzinfo=UTC)
    before = day.allows()
    clock.now = datetime(2026, 5, 5, 2, 0, tzinfo=timezone(timedelta(hours=2)))

    assert (before, day.allows(), day.spent) == (False, True, 0)


def test_a_clock_that_goes_back_gives_no_money_again() -> None:
    """A corrected clock, or a tampered one."""
    day, clock = budget("1.00")
    day.spend(Decimal(1))
    clock.now = NOON - timedelta(days=2)
    earlier = day.allows()
    clock.now = NOON

    assert (earlier, day.allows(), day.spent) == (False, False, 1)


def test_the_share_that_is_spent_tells_the_operator_in_time() -> None:
    """An alert at four fifths needs the share, on a new day from nothing again."""
    day, clock = budget("2.00")
    day.spend(Decimal("1.70"))
    share = day.spent_share
    clock.now = NOON + timedelta(days=1)

    assert (share, day.spent_share) == (0.85, 0)
    assert budget(None)[0].spent_share == 0


@given(costs=st.lists(st.decimals("0.001", "0.5", places=3), max_size=60))
def test_whoever_asks_first_never_overspends(costs: list[Decimal]) -> None:
    """As long as estimates are not too low, the limit holds to the cent."""
    day, _ = budget("1.00")
    for cost in costs:
        if day.allows(cost):
            with day.holding(cost):
                day.spend(cost)

    assert day.spent <= 1


def spending(limit: str | None = "1.00") -> tuple[Spending, DailyBudget, Clock]:
    """Return what counts a day's spending, its budget and their clock."""
    day, clock = budget(limit)
    return Spending(day, clock=clock), day, clock


def call(provider: str = "openai", cost: str = "0.25") -> Spent:
    """Return what one call consumed."""
    usage = track_pb2.Usage(prompt_tokens=100, completion_tokens=10, cost_usd=float(cost))
    return Spent(provider=provider, model="m", usage=usage, usd=Decimal(cost))


def test_each_model_has_its_own_sum_of_the_day() -> None:
    """Whoever wonders about the bill wants to know who ran it up, today."""
    sums, day, clock = spending()
    for spent in (call(), call(), call("qwen2", "0")):
        sums.add(spent)
    found = sums.today("openai")
    clock.now = NOON + timedelta(days=1)

    assert (found.prompt_tokens, found.completion_tokens, found.cost_usd) == (200, 20, 0.5)
    assert sums.today("openai") == sums.today("nobody") == track_pb2.Usage()
    assert day.spent == 0


async def test_a_restart_gives_nobody_the_days_money_again(tmp_path: Path) -> None:
    """A server that crashes in a loop would spend its budget in every round."""
    path = tmp_path / "spending.json"
    sums, _, _ = spending()
    async with SpendingFile(path, sums):
        sums.add(call(cost="0.75"))
    again, day, _ = spending()
    async with SpendingFile(path, again):
        pass

    assert again.today("openai") == sums.today("openai")
    assert day.spent == Decimal("0.75")
    assert not day.allows(Decimal("0.30"))


async def test_yesterdays_file_costs_nothing_today(tmp_path: Path) -> None:
    """The budget is a day's."""
    path = tmp_path / "spending.json"
    sums, _, _ = spending()
    async with SpendingFile(path, sums):
        sums.add(call())
    again, day, clock = spending()
    clock.now = NOON + timedelta(days=1)
    async with SpendingFile(path, again):
        pass

    assert (day.spent, again.today("openai")) == (0, track_pb2.Usage())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"day": "2026-05-04", "providers": []}',
        '{"day": "2026-05-04", "providers": {"openai": [1, 2]}}',
        '{"day": "2026-05-04", "providers": {"openai": [1, 2, NaN]}}',
        '{"day": "2026-05-04", "providers": {"openai": [1, 2, -5]}}',
        '{"day": "2026-05-04", "providers": {"openai": [1e400, 2, 3]}}',
        '{"day": "today", "providers": {"openai": [1, 2, 3]}}',
        '{"day": "2026-05-04", "providers": {"openai": [1, 2, 1%s]}}' % ("0" * 400),
        "[" * 60_000,
        "x" * 70_000,
    ],
)
async def test_a_file_that_makes_no_sense_stops_no_server(text: str, tmp_path: Path) -> None:
    """Counting begins anew, and the next write mends the file."""
    path = tmp_path / "spending.json"
    path.write_text(text)
    sums, day, _ = spending()
    async with SpendingFile(path, sums):
        assert day.spent == 0
        sums.add(call())
    again, _, _ = spending()
    async with SpendingFile(path, again):
        pass

    assert again.today("openai").cost_usd == 0.25


async def test_a_disk_that_takes_nothing_costs_no_answer(tmp_path: Path) -> None:
    """It is logged; the sums of this process still hold."""
    sums, day, _ = spending()
    async with SpendingFile(tmp_path / "no such folder" / "spending.json", sums):
        sums.add(call())

    assert day.spent == Decimal("0.25")
