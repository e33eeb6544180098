"""What is due and what is not, and how much may go at once."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liner.v1 import storage_pb2
from liner_server.core.retention import Census, RetentionPolicy
from liner_server.errors import FailedPreconditionError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
POLICY = RetentionPolicy(prefixes={"in/": "free", "in/gold/": "pro"})


def stored(
    name: str = "x",
    *,
    age: float = 0.0,
    custom_age: float | None = None,
    metadata: dict[str, str] | None = None,
) -> storage_pb2.StoredObject:
    """Return an object made so many days ago."""
    made = storage_pb2.StoredObject(object_name=name, generation=1, metadata=metadata)
    made.create_time.FromDatetime(NOW - timedelta(days=age))
    if custom_age is not None:
        made.custom_time.FromDatetime(NOW - timedelta(days=custom_age))
    return made


@pytest.mark.parametrize(
    ("kind", "days", "found"),
    [
        ("temp", 1, stored("temp/a")),
        ("temp", 1, stored("temp/a", metadata={"tier": "pro"})),
        ("free", 30, stored(metadata={"tier": "free"})),
        ("pro", 180, stored(metadata={"tier": "pro"})),
        ("free", 30, stored("in/a")),
        ("pro", 180, stored("in/gold/a")),
        ("pro", 180, stored("in/a", metadata={"tier": "pro"})),
        ("enterprise", None, stored(metadata={"tier": "enterprise"})),
        ("enterprise", 9, stored(metadata={"tier": "enterprise", "retention-days": "9"})),
        ("enterprise", None, stored(metadata={"tier": "enterprise", "retention-days": "0"})),
        ("enterprise", None, stored(metadata={"tier": "enterprise", "retention-days": "-1"})),
        ("enterprise", None, stored(metadata={"tier": "enterprise", "retention-days": "soon"})),
        ("enterprise", None, stored(metadata={"tier": "enterprise", "retention-days": "99999"})),
        ("free", 30, stored(metadata={"tier": "free", "retention-days": "9999"})),
        ("other", None, stored()),
        ("other", None, stored("temporary/a")),
        ("other", None, stored("a/temp/b")),
        ("other", None, stored(metadata={"tier": "FREE"})),
    ],
)
def test_each_kind_has_its_days(kind, days, found):
    """What a rule does not understand is kept for ever."""
    verdict = POLICY.judge(found)

    assert verdict.kind == kind
    assert verdict.due == (NOW + timedelta(days=days) if days else None)


@pytest.mark.parametrize("value", ["true", "yes", "1", "case 4711", " TRUE "])
def test_a_hold_is_a_hold_however_it_is_written(value):
    """In doubt the object stays."""
    verdict = POLICY.judge(stored("temp/a", age=99, metadata={"legal-hold": value}))

    assert verdict.held


@pytest.mark.parametrize("value", ["", "false", "0", "No", "off"])
def test_a_hold_that_was_taken_back_is_none(value):
    """Plain words for no."""
    assert not POLICY.judge(stored(metadata={"legal-hold": value})).held


def test_time_counts_from_the_callers_own_time():
    """In both directions."""
    early = POLICY.judge(stored(metadata={"tier": "free"}, custom_age=31))
    late = POLICY.judge(stored(metadata={"tier": "free"}, age=99, custom_age=-5))

    assert early.due == NOW - timedelta(days=1)
    assert late.due == NOW + timedelta(days=35)


def test_a_time_at_the_end_of_all_times_is_no_crash():
    """Year 9999 and 180 days more."""
    found = stored(metadata={"tier": "pro"})
    found.custom_time.FromDatetime(datetime(9999, 12, 31, tzinfo=UTC))

    assert POLICY.judge(found).due is None


def census(*found: storage_pb2.StoredObject) -> Census:
    """Count these objects."""
    counted = Census(policy=POLICY, now=NOW)
    for one in found:
        counted.add(one)
    return counted


def test_too_large_a_part_is_refused_and_temp_does_not_count():
    """A wrong clock must not empty a bucket; what comes and goes daily may."""
    due = [stored(f"d{n}", custom_age=31, metadata={"tier": "free"}) for n in range(4)]
    fresh = [stored(f"f{n}", metadata={"tier": "free"}) for n in range(7)]
    kept = [stored(f"k{n}") for n in range(90)]
    temp = [stored(f"temp/{n}", custom_age=2) for n in range(500)]

    census(*due[:3], *fresh, stored("temp/x"), *kept, *temp).check(None)
    with pytest.raises(FailedPreconditionError) as error:
        census(*due, *fresh, *kept, *temp).check(None)

    assert error.value.reason == "CLEANUP_SHARE"
    assert "4 of 11" in str(error.value)


@pytest.mark.parametrize(
    ("newest", "last_run", "fine"),
    [
        (0, None, True),
        (9, None, True),
        (11, None, False),
        (11, 1, True),
        (400, 400, False),
        (-0.03, None, True),
        (-0.1, None, False),
        (1, -0.1, False),
    ],
)
def test_a_clock_far_from_what_is_stored_is_refused(newest, last_run, fine):
    """Days behind or ahead of the newest object and the last clean-up, whichever is later."""
    counted = census(stored("temp/a", age=newest, custom_age=500))
    ran = None if last_run is None else NOW - timedelta(days=last_run)

    if fine:
        counted.check(ran)
    else:
        with pytest.raises(FailedPreconditionError) as error:
            counted.check(ran)
        assert error.value.reason == "CLEANUP_CLOCK"


def test_where_nothing_is_due_nothing_is_refused():
    """An archive that nobody touches for a year is no fault."""
    census(stored(age=400), stored("y", age=400, metadata={"tier": "enterprise"})).check(None)


@given(
    days=st.integers(0, 400),
    tier=st.sampled_from(["free", "pro", "enterprise", ""]),
    hold=st.booleans(),
)
def test_nothing_is_due_before_its_days_or_under_a_hold(days, tier, hold):
    """The one thing that must never happen."""
    limits = {"free": 30, "pro": 180}
    metadata = {"tier": tier} | ({"legal-hold": "true"} if hold else {})

    counted = census(stored(age=days, metadata=metadata))

    assert counted.due == (not hold and days >= limits.get(tier, 10**6))
