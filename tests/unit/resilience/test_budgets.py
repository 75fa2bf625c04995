"""What a sliding window made of two weighted buckets lets through, and for how long it makes wait."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schoolbell.resilience.rate_limiter import Budget

MINUTE = timedelta(minutes=1)
START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds_in", "previous", "room"),
    [
        (0, 0, 10),
        (0, 10, 0),
        (15, 10, 2),  # 7.5 of the bucket before still count
        (30, 10, 5),
        (45, 10, 7),
        (59, 10, 9),
        (30, 4, 8),
        (30, 5, 7),
    ],
)
def test_the_previous_bucket_counts_for_the_part_of_it_still_in_the_window(
    seconds_in: int, previous: int, room: int
) -> None:
    assert Budget(10, MINUTE).room(START + timedelta(seconds=seconds_in), previous) == room


@pytest.mark.parametrize(
    ("seconds_in", "previous", "current", "cost", "wait"),
    [
        (0, 0, 0, 1, 0.0),
        (0, 10, 0, 1, 6.0),  # a tenth of the bucket before must leave the window
        (30, 10, 5, 1, 6.0),
        (30, 10, 9, 1, 30.0),
        (0, 0, 10, 1, 66.0),  # the running bucket becomes the previous one, and a tenth of it must leave
        (30, 0, 10, 1, 36.0),
        (30, 0, 10, 5, 60.0),
        (0, 0, 10, 10, 120.0),
    ],
)
def test_the_wait_is_until_the_cost_fits(seconds_in: int, previous: int, current: int, cost: int, wait: float) -> None:
    waited = Budget(10, MINUTE).wait(START + timedelta(seconds=seconds_in), previous, current, cost)
    assert waited.total_seconds() == pytest.approx(wait)


@given(
    units=st.integers(1, 1_000),
    seconds_in=st.floats(0, 59.9),
    spent=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    part=st.floats(0, 1),
)
def test_after_the_wait_the_cost_fits_and_not_much_sooner(
    units: int, seconds_in: float, spent: tuple[float, float], part: float
) -> None:
    budget = Budget(units, MINUTE)
    now = START + timedelta(seconds=seconds_in)
    previous, current = (int(units * each) for each in spent)
    cost = max(1, int(units * part))
    wait = budget.wait(now, previous, current, cost)
    assert timedelta(0) <= wait <= 2 * MINUTE
    assert _fits(budget, now, wait + timedelta(milliseconds=1), previous, current, cost)
    if wait > timedelta(seconds=2 * 60 / units):
        assert not _fits(budget, now, wait - timedelta(milliseconds=10), previous, current, cost) or units > 500


def _fits(budget: Budget, now: datetime, wait: timedelta, previous: int, current: int, cost: int) -> bool:
    later = now + wait
    buckets_on = budget.bucket(later) - budget.bucket(now)
    if buckets_on == 0:
        return current + cost <= budget.room(later, previous)
    return cost <= budget.room(later, current if buckets_on == 1 else 0)


@given(st.lists(st.floats(0, 600), max_size=300), st.integers(1, 20))
def test_no_window_holds_twice_the_limit(arrivals: list[float], units: int) -> None:
    budget = Budget(units, MINUTE)
    spent: dict[int, int] = {}
    granted: list[float] = []
    for at in sorted(arrivals):
        now = START + timedelta(seconds=at)
        bucket = budget.bucket(now)
        if spent.get(bucket, 0) + 1 <= budget.room(now, spent.get(bucket - 1, 0)):
            spent[bucket] = spent.get(bucket, 0) + 1
            granted.append(at)
    for start in granted:
        assert sum(start <= at < start + 60 for at in granted) < max(2, 2 * units)


@pytest.mark.parametrize(("units", "window"), [(0, MINUTE), (-1, MINUTE), (1, timedelta(0))])
def test_refuses_a_budget_that_never_grants_anything(units: int, window: timedelta) -> None:
    with pytest.raises(ValueError, match="budget needs"):
        Budget(units, window)
