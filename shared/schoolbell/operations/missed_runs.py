"""What a schedule should have rung by now, as a value: which of its times to look for, and which to make good.

A time that passed while nobody could ring is made good once, under its own name. Of an interval (`rate`) only the
latest is: such a job does whatever has come up since, and each of its times replaces the one before.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schoolbell.operations.expressions import Expression

GRACE: Final = timedelta(minutes=5)
"""How late a schedule may be. EventBridge Scheduler is precise to a minute, and Lambda's queue takes its time."""

LOOK_BACK: Final = timedelta(days=1)
"""What was missed longer ago than this stays so: a day's work is not done a week late, when it has been done since."""

MADE_GOOD_AT_MOST: Final = 24
"""Of one schedule in one look: an hour's work for each hour of `LOOK_BACK`."""


@dataclass(frozen=True, slots=True)
class Due:
    """A time at which a job should have run."""

    at: datetime
    is_left_out: bool = False
    """The spring change of clocks removes it from the wall clock, so EventBridge never rings it: nothing is wrong."""


def due(expression: Expression, checked_to: datetime, now: datetime) -> list[Due]:
    """The times of a `cron()` or `at()` to look for, oldest first; not those of an interval, see `overdue`.

    Args:
        expression: the schedule's.
        checked_to: up to when it was looked at before; where it was changed or resumed since, that time.
        now: the time of this look.
    """
    start, end = max(checked_to, now - LOOK_BACK), now - GRACE
    if expression.interval or end <= start:
        return []
    rung = {at: Due(at) for at in expression.between(start, end)}
    left_out = {at: Due(at, is_left_out=True) for at in expression.skipped_between(start, end)}
    both = left_out | rung  # a time that is left out may fall on one that is rung
    return [both[at] for at in sorted(both)]


def overdue(interval: timedelta, last: datetime, now: datetime) -> datetime | None:
    """The latest time that an interval should have rung; `None` while it is not late.

    An interval has no times of its own: it goes on from whenever it rang last, so it is late when it has been silent
    for longer than an interval and the grace.

    Args:
        interval: between two times.
        last: when it rang last; where it was made, changed or resumed since, that time.
        now: the time of this look.
    """
    if now - last < interval + GRACE:
        return None
    return last + interval * ((now - GRACE - last) // interval)


def checked_to(now: datetime) -> datetime:
    """Up to when a look at `now` has looked: what is not late yet is left to the next."""
    return now - GRACE
