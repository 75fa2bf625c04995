"""Content analytics: the incremental count is the count from scratch, and looks only at what can have changed."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Row, delete, event, insert, select, update

from functions.tutoring.content_analytics import app
from functions.tutoring.content_analytics.app import handler
from local.tables import empty
from schoolbell.database import Database
from schoolbell.domains.platform.schema import watermarks
from schoolbell.domains.tutoring.schema import content_analytics_cache, content_events
from schoolbell.jobs.outcomes import JobFailed
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.performing import Performer

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

AT_TEN = {"scheduled_for": "2026-03-02T10:00:00Z"}

type Count = Callable[..., dict[str, Any]]
type Usage = dict[str, Any]


@pytest.fixture
def count(perform: Performer) -> Count:
    """Runs the job by hand at a time, and returns its result."""

    def run(at: datetime = NOW) -> dict[str, Any]:
        return perform(handler, now=at, event={}).result

    return run


@pytest.fixture
def item(make: Make) -> Row[Any]:
    return make.content_item()


@pytest.fixture
def dies_at_the_third_item(database: Database, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four items whose events leave the week one hour after the other; the first run to count three of them dies."""
    monkeypatch.setattr(app, "ITEMS_A_CHUNK", 1)
    for hours in range(4):
        make.content_event(occurred_at=NOW - 7 * DAY + (hours + 1) * HOUR)
    chunks = 0

    def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal chunks
        if "INTO tutoring.content_analytics_cache" in statement:
            chunks += 1
            if chunks == 3:
                raise MemoryError

    event.listen(database.engine, "before_cursor_execute", die)


def cached(stored: Stored, item: Row[Any], days: int) -> Row[Any]:
    (row,) = stored(content_analytics_cache, item_id=item.id, window_days=days)
    return row


def cache(database: Database) -> dict[tuple[Any, int], Usage]:
    """What the cache says, by item and window."""
    with database.transaction() as connection:
        rows = connection.execute(select(content_analytics_cache)).mappings().all()
    times = ("computed_at", "created_at", "updated_at")
    return {
        (row["item_id"], row["window_days"]): {
            name: value for name, value in row.items() if name not in ("item_id", "window_days", *times)
        }
        for row in rows
    }


def counted_from_scratch(database: Database, at: datetime) -> dict[tuple[Any, int], Usage]:
    """The same, computed in Python from every event there is."""
    with database.transaction() as connection:
        events = connection.execute(select(content_events)).all()
    return {
        (item, days): usage([row for row in events if row.item_id == item and at - days * DAY < row.occurred_at <= at])
        for item in {row.item_id for row in events}
        for days in (7, 30, 90)
    }


def usage(events: Sequence[Row[Any]]) -> Usage:
    kinds = [row.kind for row in events]
    seconds = [row.seconds for row in events if row.kind == "view" and row.seconds is not None]
    return {
        "views": kinds.count("view"),
        "downloads": kinds.count("download"),
        "assignments": kinds.count("assignment"),
        "unique_students": len({row.student_id for row in events if row.student_id}),
        "average_seconds": sum(seconds) / len(seconds) if seconds else None,
        "last_used_at": max((row.occurred_at for row in events), default=None),
    }


class TestWhatIsCounted:
    def test_views_unique_students_average_seconds_and_last_use(
        self, make: Make, item: Row[Any], count: Count, stored: Stored
    ) -> None:
        ana, ben, cleo = (make.student(item.teacher_id) for _ in range(3))
        make.content_event(item, ana, seconds=100, occurred_at=NOW - 3 * DAY)
        make.content_event(item, ana, seconds=200, occurred_at=NOW - 2 * DAY)
        make.content_event(item, ben, seconds=None, occurred_at=NOW - 2 * DAY)
        make.content_event(item, cleo, kind="download", seconds=9_000, occurred_at=NOW - DAY)
        make.content_event(item, cleo, kind="assignment", seconds=None, occurred_at=NOW - 4 * DAY)
        count()
        row = cached(stored, item, 7)
        assert (row.views, row.downloads, row.assignments, row.unique_students) == (3, 1, 1, 3)
        assert (row.average_seconds, row.last_used_at, row.computed_at) == (150.0, NOW - DAY, NOW)

    @pytest.mark.parametrize("days", [7, 30, 90])
    def test_a_window_holds_its_days_of_24_hours_to_the_second(
        self, make: Make, item: Row[Any], count: Count, stored: Stored, days: int
    ) -> None:
        make.content_event(item, occurred_at=NOW - days * DAY)  # just out
        make.content_event(item, occurred_at=NOW - days * DAY + timedelta(seconds=1))
        make.content_event(item, occurred_at=NOW)
        make.content_event(item, occurred_at=NOW + timedelta(seconds=1))  # not yet
        count()
        assert cached(stored, item, days).views == 2

    def test_an_event_of_nobody_counts_as_a_view_and_as_no_student(
        self, make: Make, item: Row[Any], count: Count, stored: Stored
    ) -> None:
        make.content_event(item, student_id=None)
        count()
        assert (cached(stored, item, 7).views, cached(stored, item, 7).unique_students) == (1, 0)

    def test_an_item_that_was_never_used_has_no_row(self, item: Row[Any], count: Count, stored: Stored) -> None:
        count()
        assert stored(content_analytics_cache) == []


class TestOnlyWhatCanHaveChanged:
    def test_the_first_run_counts_every_item_that_was_ever_used(self, make: Make, count: Count, stored: Stored) -> None:
        make.content_event(occurred_at=NOW - 400 * DAY)
        make.content_event(occurred_at=NOW - DAY)
        assert count()["items"] == 2
        assert len(stored(content_analytics_cache)) == 6

    def test_an_item_without_news_is_left_alone(
        self, database: Database, make: Make, item: Row[Any], count: Count, stored: Stored
    ) -> None:
        make.content_event(item, occurred_at=NOW - 3 * DAY)
        count()
        with database.transaction() as connection:  # a mark that counting anew would wipe out
            connection.execute(update(content_analytics_cache).values(views=1_000))
        assert count(NOW + HOUR)["items"] == 0
        assert cached(stored, item, 7).views == 1_000

    def test_a_new_event_is_counted(self, make: Make, item: Row[Any], count: Count, stored: Stored) -> None:
        make.content_event(item, occurred_at=NOW - 3 * DAY)
        count()
        make.content_event(item, occurred_at=NOW + 30 * MINUTE)
        assert count(NOW + HOUR)["items"] == 1
        assert cached(stored, item, 7).views == 2

    def test_an_event_that_arrives_late_is_counted(
        self, make: Make, item: Row[Any], count: Count, stored: Stored
    ) -> None:
        make.content_event(item, occurred_at=NOW - 3 * DAY)
        count()
        make.content_event(item, occurred_at=NOW - 20 * DAY, created_at=NOW + 30 * MINUTE)
        count(NOW + HOUR)
        assert (cached(stored, item, 7).views, cached(stored, item, 30).views) == (1, 2)

    def test_an_event_whose_transaction_ended_after_the_last_run_is_counted(
        self, make: Make, item: Row[Any], count: Count, stored: Stored
    ) -> None:
        make.content_event(item, occurred_at=NOW - 3 * DAY)
        count()
        make.content_event(item, occurred_at=NOW - 15 * MINUTE, created_at=NOW - 15 * MINUTE)
        count(NOW + HOUR)
        assert cached(stored, item, 7).views == 2

    def test_an_event_dated_ahead_is_counted_when_its_time_has_come(
        self, make: Make, item: Row[Any], count: Count, stored: Stored
    ) -> None:
        make.content_event(item, occurred_at=NOW + 5 * HOUR, created_at=NOW - HOUR)
        count()
        assert cached(stored, item, 7).views == 0
        count(NOW + 4 * HOUR)
        count(NOW + 5 * HOUR)
        assert cached(stored, item, 7).views == 1

    @pytest.mark.parametrize("days", [7, 30, 90])
    def test_an_item_is_counted_anew_when_an_event_slides_out_of_a_window(
        self, make: Make, item: Row[Any], count: Count, stored: Stored, days: int
    ) -> None:
        make.content_event(item, occurred_at=NOW - days * DAY + HOUR)
        count()
        assert cached(stored, item, days).views == 1
        assert count(NOW + HOUR - timedelta(seconds=1))["items"] == 0
        assert count(NOW + HOUR)["items"] == 1
        assert cached(stored, item, days).views == 0

    def test_an_item_whose_last_event_left_the_windows_goes_to_zero(
        self, make: Make, item: Row[Any], count: Count, stored: Stored
    ) -> None:
        make.content_event(item, occurred_at=NOW - 89 * DAY)
        count()
        count(NOW + 2 * DAY)
        for days in (7, 30, 90):
            row = cached(stored, item, days)
            assert (row.views, row.unique_students, row.average_seconds, row.last_used_at) == (0, 0, None, None)

    def test_a_long_outage_loses_nothing(self, database: Database, make: Make, item: Row[Any], count: Count) -> None:
        for days in (1, 8, 20, 31, 60):
            make.content_event(item, occurred_at=NOW - days * DAY)
            make.content_event(occurred_at=NOW - days * DAY)
        count()
        make.content_event(item, occurred_at=NOW + 40 * DAY)
        later = NOW + 55 * DAY
        count(later)
        assert cache(database) == counted_from_scratch(database, later)

    def test_an_event_stored_while_the_job_was_away_for_a_moment_is_not_lost(
        self, database: Database, make: Make, item: Row[Any], perform: Performer, stored: Stored
    ) -> None:
        """A run that dies after its last item must not pass off its second try's time as its first one's."""
        make.content_event(item, occurred_at=NOW - 7 * DAY + 30 * MINUTE)
        scheduled = {"scheduled_for": "2026-03-02T10:00:00Z"}

        def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "INTO platform.watermarks" in statement:
                raise MemoryError

        event.listen(database.engine, "before_cursor_execute", die)
        with pytest.raises(JobFailed):
            perform(handler, event=scheduled, now=NOW)
        event.remove(database.engine, "before_cursor_execute", die)
        perform(handler, event=scheduled, now=NOW + HOUR)
        assert stored(watermarks)[0].reached_at == NOW
        perform(handler, now=NOW + 2 * HOUR)
        assert cached(stored, item, 7).views == 0


class TestTwice:
    def test_a_second_run_changes_nothing(self, make: Make, item: Row[Any], count: Count, stored: Stored) -> None:
        make.content_event(item, occurred_at=NOW - MINUTE)
        count()
        before = stored(content_analytics_cache)
        assert count() == {"items": 1, "changed": 0}
        assert stored(content_analytics_cache) == before

    def test_a_run_of_many_chunks_counts_each_item_once(
        self, database: Database, make: Make, count: Count, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(app, "ITEMS_A_CHUNK", 2)
        for _ in range(5):
            make.content_event()
        assert count() == {"items": 5, "changed": 15}
        assert cache(database) == counted_from_scratch(database, NOW)

    def test_a_killed_run_counts_what_is_left_as_of_its_own_time(
        self, database: Database, perform: Performer, dies_at_the_third_item: None
    ) -> None:
        with pytest.raises(JobFailed):
            perform(handler, event=AT_TEN, now=NOW)
        perform(handler, event=AT_TEN, now=NOW + 3 * HOUR)
        assert cache(database) == counted_from_scratch(database, NOW)
        perform(handler, now=NOW + 4 * HOUR)
        assert cache(database) == counted_from_scratch(database, NOW + 4 * HOUR)

    def test_a_killed_run_that_is_tried_again_after_a_later_one_undoes_nothing(
        self, database: Database, perform: Performer, dies_at_the_third_item: None
    ) -> None:
        with pytest.raises(JobFailed):
            perform(handler, event=AT_TEN, now=NOW)
        perform(handler, now=NOW + 3 * HOUR)
        perform(handler, event=AT_TEN, now=NOW + 4 * HOUR)
        assert cache(database) == counted_from_scratch(database, NOW + 3 * HOUR)


HOURS = st.integers(min_value=-100 * 24, max_value=30)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),  # item
        st.integers(0, 3),  # student, or nobody
        st.sampled_from(["view", "view", "download", "assignment"]),
        HOURS,  # after the first run, when it occurred
        st.one_of(st.none(), st.integers(0, 500)),  # seconds
    ),
    max_size=12,
)
RUNS = st.lists(st.tuples(st.integers(1, 24 * 40), EVENTS), min_size=1, max_size=5)


class TestAgainstACountFromScratch:
    @given(first=EVENTS, runs=RUNS)
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_runs_that_build_on_each_other_end_where_a_count_from_scratch_does(
        self, database: Database, make: Make, perform: Performer, first: Any, runs: Any
    ) -> None:
        with database.transaction() as connection:
            empty(connection)
        teacher = make.teacher()
        items = [make.content_item(teacher).id for _ in range(4)]
        students = [None, *(make.student(teacher).id for _ in range(3))]

        def arrive(events: Any, at: datetime) -> None:
            rows = [
                {
                    "item_id": items[item],
                    "student_id": students[student],
                    "kind": kind,
                    "occurred_at": NOW + hours * HOUR,
                    "seconds": seconds,
                    "created_at": at,
                }
                for item, student, kind, hours, seconds in events
            ]
            if rows:
                with database.transaction() as connection:
                    connection.execute(insert(content_events).values(rows))

        at = NOW
        arrive(first, at - MINUTE)
        perform(handler, now=at, event={})
        assert cache(database) == counted_from_scratch(database, at)
        for hours, events in runs:
            arrive(events, at + MINUTE)
            at += hours * HOUR
            perform(handler, now=at, event={})
            assert cache(database) == counted_from_scratch(database, at)

    def test_a_month_of_hourly_runs_ends_where_a_count_from_scratch_does(
        self, database: Database, make: Make, perform: Performer
    ) -> None:
        random = Random(20260302)
        items = [make.content_item() for _ in range(20)]
        at = NOW
        for _ in range(30):
            at += random.choice([HOUR, HOUR, DAY, 3 * DAY])
            for _ in range(random.randrange(6)):
                occurred_at = at - random.choice([MINUTE, HOUR, 6 * DAY, 29 * DAY, 89 * DAY]) * random.random()
                make.content_event(random.choice(items), occurred_at=occurred_at, created_at=at - MINUTE)
            perform(handler, now=at, event={})
        assert cache(database) == counted_from_scratch(database, at)
        with database.transaction() as connection:  # and where the job itself does
            incremental = cache(database)
            connection.execute(delete(content_analytics_cache))
            connection.execute(delete(watermarks))
        perform(handler, now=at, event={})
        assert cache(database) == incremental
