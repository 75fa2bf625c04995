"""What goes after 90 days, and what stays however old it is."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from functions.platform.notification_cleanup.app import handler
from schoolbell.database import Database
from schoolbell.domains.platform.schema import notifications
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.performing import Performer

DAY = timedelta(days=1)
KEEP = 90 * DAY
OLD = -KEEP - DAY


@pytest.mark.parametrize(
    ("columns", "goes"),
    [
        ({"status": "sent", "created_at": OLD, "sent_at": OLD}, True),
        ({"status": "delivered", "created_at": OLD}, True),
        ({"status": "failed", "created_at": OLD}, True),
        ({"status": "suppressed", "created_at": OLD}, True),
        ({"status": "sent", "created_at": -KEEP, "sent_at": -KEEP}, False),
        ({"status": "sent", "created_at": 2 * OLD, "scheduled_for": -DAY, "sent_at": -DAY}, False),
        ({"status": "failed", "created_at": 2 * OLD, "scheduled_for": -DAY}, False),
        ({"status": "queued", "created_at": OLD}, False),
        ({"status": "queued", "created_at": OLD, "scheduled_for": DAY}, False),
    ],
)
def test_what_goes_and_what_stays(
    perform: Performer, make: Make, stored: Stored, now: datetime, columns: dict[str, Any], goes: bool
) -> None:
    make.to_deliver(
        None, **{name: now + value if isinstance(value, timedelta) else value for name, value in columns.items()}
    )
    perform(handler)
    assert (not stored(notifications)) == goes


def test_what_has_waited_so_long_without_a_plan_is_told_of(
    perform: Performer, make: Make, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    make.to_deliver(created_at=now + OLD)
    make.to_deliver(created_at=now + OLD, scheduled_for=now + DAY)
    assert perform(handler).result == {"rows": 0, "left_waiting": 1}
    (said,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert (said.getMessage(), said.__dict__["count"]) == ("notifications have waited for 90 days", 1)


def test_a_dry_run_counts_and_deletes_nothing(perform: Performer, make: Make, stored: Stored, now: datetime) -> None:
    make.to_deliver(status="sent", created_at=now + OLD)
    assert perform(handler, data={"dry_run": True}).result == {"rows": 1, "left_waiting": 0}
    assert len(stored(notifications)) == 1


def test_a_crash_at_any_point_is_put_right(perform: Performer, make: Make, database: Database, now: datetime) -> None:
    make.to_deliver(status="sent", created_at=now + OLD)
    make.to_deliver(status="sent")
    again = now + timedelta(hours=1)
    assert_crash_safe(database, Crashing(lambda: perform(handler), lambda: perform(handler, now=again)))
