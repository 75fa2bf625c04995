"""Notifications that were read long ago."""

from datetime import datetime, timedelta

from tests.factories import Make
from tests.performing import Performer
from tests.scratch.scheduled.app import handler


def test_what_was_read_90_days_ago_goes(perform: Performer, make: Make, now: datetime) -> None:
    make.notification(read_at=now - timedelta(days=91))
    make.notification(read_at=now - timedelta(days=89))
    make.notification()
    assert perform(handler).result == {"rows": 1}
