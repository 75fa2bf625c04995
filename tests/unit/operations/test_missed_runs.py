"""What should have run, over outages, changes of clocks and intervals."""

from datetime import UTC, datetime, timedelta

import pytest

from schoolbell.operations.expressions import parse
from schoolbell.operations.missed_runs import Due, due, overdue

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NOW = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)


def at(hour: int, minute: int = 0, day: int = 29) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "zone", "checked_to", "expected"),
    [
        ("cron(0 11 * * ? *)", "UTC", at(10), [Due(at(11))]),
        ("cron(0 11 * * ? *)", "UTC", at(11), []),
        ("cron(55 11 * * ? *)", "UTC", at(11), [Due(at(11, 55))]),
        ("cron(56 11 * * ? *)", "UTC", at(11), []),  # within the grace
        ("cron(0 * * * ? *)", "UTC", at(8, 30), [Due(at(9)), Due(at(10)), Due(at(11))]),
        ("cron(0 11 * * ? *)", "UTC", at(0, day=1), [Due(at(11))]),  # the look-back ends a day ago
        ("at(2026-03-29T11:00:00)", "UTC", at(10), [Due(at(11))]),
        # Berlin's clocks go from 02:00 to 03:00, that is at 01:00 UTC.
        ("cron(30 2 * * ? *)", "Europe/Berlin", at(0), [Due(at(1, 30), is_left_out=True)]),
        ("cron(30 2,3 * * ? *)", "Europe/Berlin", at(0), [Due(at(1, 30))]),
        ("rate(5 minutes)", "UTC", at(0), []),
    ],
)
def test_due(expression: str, zone: str, checked_to: datetime, expected: list[Due]) -> None:
    assert due(parse(expression, zone), checked_to, NOW) == expected


@pytest.mark.parametrize(
    ("interval", "last", "expected"),
    [
        (MINUTE, NOW - 5 * MINUTE, None),
        (MINUTE, NOW - 6 * MINUTE, NOW - 5 * MINUTE),
        (MINUTE, NOW - 66 * MINUTE, NOW - 5 * MINUTE),
        (15 * MINUTE, NOW - 19 * MINUTE, None),
        (15 * MINUTE, NOW - 20 * MINUTE, NOW - 5 * MINUTE),
        (15 * MINUTE, NOW - 40 * MINUTE, NOW - 10 * MINUTE),
        (24 * HOUR, NOW - 72 * HOUR, NOW - 24 * HOUR),
        (24 * HOUR, NOW - 73 * HOUR, NOW - HOUR),
        (HOUR, NOW + HOUR, None),
    ],
)
def test_overdue(interval: timedelta, last: datetime, expected: datetime | None) -> None:
    assert overdue(interval, last, NOW) == expected
