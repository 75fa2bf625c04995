"""History goes when its time is over, in batches, and what is not over stays."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from functions.platform.run_history_cleanup.app import handler as cleanup
from schoolbell.database import Database
from schoolbell.domains.platform.schema import alerts, dead_letters, job_runs, triggers
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.performing import Invocation, Performer

CHIME = "tutoring.chime"
DAY = timedelta(days=1)


def run(make: Make, status: str, age: timedelta, **columns: object) -> Any:
    at = make.now - age
    defaults = {"job": CHIME, "status": status, "started_at": at, "finished_at": at, "counted": 1}
    return make.row(job_runs, **defaults | columns)


@pytest.mark.parametrize(
    ("status", "days", "goes"),
    [
        ("completed", 29, False),
        ("completed", 31, True),
        ("failed", 31, False),
        ("failed", 89, False),
        ("failed", 91, True),
        ("timed_out", 89, False),
        ("timed_out", 91, True),
    ],
)
def test_a_run_is_kept_as_long_as_its_end_deserves(
    perform: Performer, make: Make, stored: Stored, status: str, days: int, goes: bool
) -> None:
    run(make, status, days * DAY)
    result = perform(cleanup).result
    assert result["completed"] + result["failed"] == int(goes)
    assert len(stored(job_runs, job=CHIME)) == int(not goes)


def test_a_run_that_is_not_over_stays_however_old(perform: Performer, make: Make, stored: Stored) -> None:
    run(make, "running", 400 * DAY, finished_at=None)
    perform(cleanup)
    assert len(stored(job_runs, job=CHIME)) == 1


@pytest.mark.parametrize("status", ["completed", "failed", "timed_out"])
def test_a_run_that_is_in_no_statistics_yet_stays(perform: Performer, make: Make, stored: Stored, status: str) -> None:
    run(make, status, 91 * DAY, counted=0)
    perform(cleanup)
    assert len(stored(job_runs, job=CHIME)) == 1


def test_a_key_is_remembered_for_90_days_after_its_time(perform: Performer, make: Make, stored: Stored) -> None:
    for key, asked, due in (
        ("old", 91, None),
        ("young", 89, None),
        ("long ago, for tomorrow", 91, -1),
        ("over", 99, 91),
    ):
        due_at = make.now - due * DAY if due else None
        make.row(triggers, key=key, job=CHIME, requested_by="ada", created_at=make.now - asked * DAY, due_at=due_at)
    assert perform(cleanup).result["triggers"] == 2
    assert {row.key for row in stored(triggers)} == {"young", "long ago, for tomorrow"}


def test_resolved_dead_letters_go_and_open_ones_stay(
    perform: Performer, make: Make, stored: Stored, now: datetime
) -> None:
    for name, resolved_at in (("open", None), ("fresh", now - 89 * DAY), ("old", now - 91 * DAY)):
        make.row(
            dead_letters,
            job=CHIME,
            queue="q",
            message_id=name,
            dead_at=now - 400 * DAY,
            resolved_at=resolved_at,
            resolution="dropped" if resolved_at else None,
        )
    assert perform(cleanup).result["dead_letters"] == 1
    assert {letter.message_id for letter in stored(dead_letters)} == {"open", "fresh"}


def test_alerts_go_90_days_after_their_end_and_those_that_stand_stay(
    perform: Performer, make: Make, stored: Stored, now: datetime
) -> None:
    for key, resolved_at in (("stands", None), ("fresh", now - 89 * DAY), ("old", now - 91 * DAY)):
        make.row(
            alerts,
            key=key,
            status="resolved" if resolved_at else "triggered",
            severity="warning",
            summary="The queue is long",
            source="platform.alarms",
            first_seen_at=now - 400 * DAY,
            last_seen_at=now - 400 * DAY,
            resolved_at=resolved_at,
        )
    assert perform(cleanup).result["alerts"] == 1
    assert {alert.key for alert in stored(alerts)} == {"stands", "fresh"}


def test_a_dry_run_counts_and_deletes_nothing(perform: Performer, make: Make, stored: Stored) -> None:
    for status in ("completed", "failed", "timed_out"):
        run(make, status, 91 * DAY)
    assert perform(cleanup, data={"dry_run": True}).result == {
        "completed": 1,
        "failed": 2,
        "dead_letters": 0,
        "alerts": 0,
        "triggers": 0,
    }
    assert len(stored(job_runs, job=CHIME)) == 3


def test_respects_batch_size(perform: Performer, database: Database, now: datetime) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO platform.job_runs (job, status, started_at, finished_at, counted)"
                " SELECT :job, 'completed', :at, :at, 1 FROM generate_series(1, 12000)"
            ),
            {"job": CHIME, "at": now - 31 * DAY},
        )
    deleted: list[int] = []

    def count(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith("DELETE FROM platform.job_runs"):
            deleted.append(cursor.rowcount)

    event.listen(database.engine, "after_cursor_execute", count)
    assert perform(cleanup).result["completed"] == 12_000
    event.remove(database.engine, "after_cursor_execute", count)
    assert [number for number in deleted if number] == [5_000, 5_000, 2_000]


def test_a_cleanup_that_dies_anywhere_is_finished_by_its_retry(
    perform: Performer, make: Make, database: Database, now: datetime, stored: Stored
) -> None:
    run(make, "completed", 31 * DAY)
    run(make, "failed", 91 * DAY)
    make.row(dead_letters, job=CHIME, queue="q", resolved_at=now - 91 * DAY, resolution="dropped")
    occurrence, invocation = {"scheduled_for": now.isoformat()}, Invocation()
    once = lambda: perform(cleanup, event=occurrence, invocation=invocation)  # noqa: E731
    assert_crash_safe(database, Crashing(run=once, recover=once))
    assert stored(dead_letters) == stored(job_runs, job=CHIME) == []
