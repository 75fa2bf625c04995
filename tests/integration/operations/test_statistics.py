"""What runs come to is counted once, whoever counts when, and outlives the runs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, insert, select, text, update

from schoolbell.database import Database
from schoolbell.domains.platform.schema import job_runs, job_statistics, job_totals
from schoolbell.jobs import runs
from schoolbell.operations import statistics
from schoolbell.operations.statistics import BOUNDS, Day, Statistics

JOB = "tutoring.session-sweep"
ENDED = datetime(2026, 3, 2, 9, 20, tzinfo=UTC)

Ran = Callable[..., UUID]


@pytest.fixture
def ran(database: Database) -> Ran:
    """Writes a run: `ran(status="failed", seconds=3)`."""

    def write(seconds: float = 1.0, ended: datetime = ENDED, **values: Any) -> UUID:
        row = {"job": JOB, "status": "completed", "started_at": ended - timedelta(seconds=seconds), **values}
        if row["status"] != "running":
            row["finished_at"] = ended
        with database.transaction() as connection:
            run: UUID = connection.execute(insert(job_runs).values(row).returning(job_runs.c.id)).scalar_one()
        return run

    return write


@pytest.fixture
def roll_up(database: Database, now: datetime) -> Callable[[], int]:
    def call() -> int:
        with database.transaction() as connection:
            return statistics.roll_up(connection, now)

    return call


@pytest.fixture
def read(database: Database) -> Callable[..., Statistics]:
    def call(since: datetime | None = None, job: str = JOB) -> Statistics:
        with database.transaction(read_only=True) as connection:
            return statistics.read(connection, since).get(job, Statistics())

    return call


def test_runs_are_counted_before_they_are_rolled_up_and_after_it_alike(ran: Ran, roll_up: Any, read: Any) -> None:
    ran(2.0, items_done=5, items_failed=1)
    ran(3.0, status="failed")
    ran(9.0, status="timed_out")
    ran(status="running")
    before = read()
    assert (before.runs, before.failures, before.timed_out) == (3, 2, 1)
    assert (before.items_done, before.items_failed, before.timed, before.average) == (5, 1, 1, 2.0)
    assert roll_up() == 3
    assert read() == before
    assert read(ENDED - timedelta(hours=1)) == before


def test_a_repeated_roll_up_finds_nothing(ran: Ran, roll_up: Any, read: Any) -> None:
    ran()
    assert [roll_up(), roll_up()] == [1, 0]
    assert read().runs == 1


def test_later_runs_are_added_to_their_hour(ran: Ran, roll_up: Any, read: Any, stored: Any) -> None:
    for hour in (0, 0, 1):
        ran(0.02, ended=ENDED + timedelta(hours=hour))
        roll_up()
    assert [row.runs for row in stored(job_statistics)] == [2, 1]
    assert [row.hour.minute for row in stored(job_statistics)] == [0, 0]
    assert read().durations[2] == 3
    assert read(ENDED + timedelta(hours=1)).runs == 1


def test_simultaneous_roll_ups_share_the_runs(ran: Ran, roll_up: Any, read: Any) -> None:
    for _ in range(40):
        ran()
    with ThreadPoolExecutor(4) as pool:
        counted = list(pool.map(lambda _: roll_up(), range(4)))
    assert sum(counted) == 40
    assert read().runs == 40


def test_a_transaction_that_commits_late_is_counted_late(database: Database, ran: Ran, roll_up: Any, read: Any) -> None:
    run = ran(status="running")
    with database.transaction() as slow:
        runs.complete(slow, run, None, ENDED)
        assert roll_up() == 0
        assert read().runs == 0
    assert read().runs == 1
    assert roll_up() == 1


def test_a_failure_stays_counted_when_the_run_is_tried_again(
    database: Database, ran: Ran, roll_up: Any, read: Any
) -> None:
    seen = []
    for rolled_up_between in (True, False):
        with database.transaction() as connection:
            connection.execute(delete(job_runs))
            connection.execute(delete(job_totals))
        run = ran(status="failed")
        seen.append((read().runs, read().failures))
        if rolled_up_between:
            roll_up()
        with database.transaction() as connection:
            connection.execute(update(job_runs).values(status="running", attempt=2, finished_at=None))
        seen.append((read().runs, read().failures))
        with database.transaction() as connection:
            runs.complete(connection, run, None, ENDED)
        seen.append((read().runs, read().failures))
        roll_up()
        seen.append((read().runs, read().failures))
    assert seen == [(1, 1), (1, 1), (2, 1), (2, 1)] * 2


def test_counts_outlive_the_runs(database: Database, ran: Ran, roll_up: Any, read: Any) -> None:
    ran(status="failed")
    roll_up()
    with database.transaction() as connection:
        connection.execute(delete(job_runs).where(job_runs.c.is_counted))
        assert connection.scalar(select(text("count(*)")).select_from(job_runs)) == 0
    assert (read().runs, read().failures) == (1, 1)


def test_hours_are_forgotten_and_totals_are_not(ran: Ran, roll_up: Any, read: Any, now: datetime) -> None:
    ran(ended=now - statistics.KEPT - timedelta(hours=2))
    roll_up()
    roll_up()
    assert read(now - timedelta(days=1000)).runs == 0
    assert read().runs == 1


def test_no_call_takes_more_than_it_is_told(database: Database, ran: Ran, now: datetime) -> None:
    for _ in range(5):
        ran()
    with database.transaction() as connection:
        assert statistics.roll_up(connection, now, size=3) == 3
        assert statistics.roll_up(connection, now, size=3) == 2


def test_a_run_that_had_nothing_to_do_says_nothing_about_durations(ran: Ran, read: Any) -> None:
    ran(error="an earlier run is not over")
    assert (read().runs, read().failures, read().timed) == (1, 0, 0)


def test_every_invocation_of_a_queue_job_is_timed(ran: Ran, read: Any) -> None:
    ran(0.5, trigger="queue", status="failed", items_done=9, items_failed=1)
    assert (read().timed, read().items_done, read().items_failed) == (1, 9, 1)


def test_days_are_told_by_job(ran: Ran, roll_up: Any, database: Database) -> None:
    ran(ended=ENDED - timedelta(days=1))
    roll_up()
    ran(status="failed")
    ran(job="platform.outbox-relay")
    with database.transaction() as connection:
        days = statistics.by_day(connection, ENDED - timedelta(days=30))
        one = statistics.by_day(connection, ENDED - timedelta(days=30), JOB)
    assert days[JOB] == [Day(date(2026, 3, 1), 1, 0), Day(date(2026, 3, 2), 1, 1)]
    assert list(days) == ["platform.outbox-relay", JOB]
    assert list(one) == [JOB]


@pytest.mark.parametrize(
    ("seconds", "percentile", "least", "most"),
    [
        ([1.2] * 100, 0.95, 1.0, 1.6),
        ([0.001] * 100, 0.95, 0.0, 0.01),
        ([0.3] * 94 + [50.0] * 6, 0.95, 40.0, 63.0),
        ([0.3] * 96 + [50.0] * 4, 0.95, 0.25, 0.4),
        ([100_000.0], 0.95, BOUNDS[-1], BOUNDS[-1]),
    ],
)
def test_a_percentile_is_read_from_the_histogram(
    ran: Ran, roll_up: Any, read: Any, seconds: list[float], percentile: float, least: float, most: float
) -> None:
    for duration in seconds:
        ran(duration)
    roll_up()
    assert least <= read().percentile(percentile) <= most


def test_without_runs_there_is_no_percentile() -> None:
    assert Statistics().percentile(0.95) is None
    assert Statistics().average is None


def test_what_was_not_counted_yet_is_found_without_the_history(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO platform.job_runs (job, status, started_at, finished_at, counted)"
                " SELECT 'j', 'completed', now(), now(), 1 FROM generate_series(1, 20000)"
            )
        )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE platform.job_runs"))
        plan = "\n".join(connection.execute(text(f"EXPLAIN {statistics._READ_TOTALS.text}"), {"since": None}).scalars())
        assert "ix_job_runs_uncounted" in plan
        assert "Seq Scan on job_runs" not in plan
