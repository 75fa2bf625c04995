"""The sessions of a day, by time zone."""

from datetime import datetime, timedelta

from tests.factories import Make
from tests.performing import Performer
from tests.scratch.by_time_zone.app import handler


def test_sessions_of_the_day_are_counted_in_their_teachers_zone(perform: Performer, make: Make, now: datetime) -> None:
    for zone, start in (("Asia/Tokyo", now), ("Asia/Tokyo", now + timedelta(days=2)), ("Europe/Madrid", now)):
        student = make.student(make.teacher(timezone=zone))
        make.session(student, starts_at=start, ends_at=start + timedelta(hours=1))
    event = {"scheduled_for": now.isoformat(), "time_zone": "Asia/Tokyo"}
    assert perform(handler, event=event).result == {"sessions": 1}
