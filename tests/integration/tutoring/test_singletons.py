"""Jobs that must not overlap themselves leave the work to the run that is at it."""

from datetime import datetime, timedelta
from importlib import import_module

import pytest

from tests.factories import Make
from tests.performing import Performer

SINGLETONS = [
    "session-sweep",
    "message-sweep",
    "lifecycle-detection",
    "content-analytics",
    "data-retention",
    "waitlist-expiry",
    "metric-alerts",
]


@pytest.mark.parametrize("job", SINGLETONS)
def test_a_run_is_skipped_while_an_earlier_one_is_at_it(
    job: str, make: Make, perform: Performer, now: datetime
) -> None:
    handler = import_module(f"functions.tutoring.{job.replace('-', '_')}.app").handler
    make.lease(f"tutoring.{job}", expires_at=now + timedelta(minutes=10))
    assert perform(handler).answer["reason"] == "an earlier run is not over"
