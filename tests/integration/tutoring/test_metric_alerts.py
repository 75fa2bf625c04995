"""Metric alerts: what each metric counts, where its line is, and that crossing it is told once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row, delete, event, update

from functions.tutoring.metric_alerts import app
from functions.tutoring.metric_alerts.app import handler
from schoolbell.database import Database
from schoolbell.domains.tutoring.schema import (
    metric_alert_rules,
    metric_alert_states,
    sessions,
    students,
    teacher_notifications,
)
from schoolbell.jobs.outcomes import JobFailed
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.performing import Performer

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

type Check = Callable[..., dict[str, Any]]
type Lessons = Callable[..., None]


@pytest.fixture
def check(perform: Performer) -> Check:
    """Runs the job by hand at a time, and returns its result."""

    def run(at: datetime = NOW) -> dict[str, Any]:
        return perform(handler, now=at, event={}).result

    return run


@pytest.fixture
def teacher(make: Make) -> Row[Any]:
    return make.teacher()


@pytest.fixture
def student(make: Make, teacher: Row[Any]) -> Row[Any]:
    return make.student(teacher)


@pytest.fixture
def lessons(make: Make, student: Row[Any]) -> Lessons:
    """Writes lessons of one day: `lessons(completed=4, cancelled=1)`."""

    def write(at: datetime = NOW - 2 * DAY, **by_status: int) -> None:
        for status, number in by_status.items():
            for _ in range(number):
                make.session(student, starts_at=at, status=status)

    return write


@pytest.fixture
def told(stored: Stored) -> Callable[[], list[str]]:
    """The titles of the notifications, oldest first."""
    return lambda: [row.title for row in stored(teacher_notifications, kind="metric_alert")]


def change(database: Database, statement: Any) -> None:
    with database.transaction() as connection:
        connection.execute(statement)


def value_of(stored: Stored, rule: Row[Any]) -> float | None:
    (state,) = stored(metric_alert_states, rule_id=rule.id)
    return None if state.value is None else float(state.value)


class TestMetrics:
    """The value that the first run writes down."""

    @pytest.mark.parametrize(
        ("metric", "value"),
        [
            ("completion_rate", 0.5),
            ("cancellation_rate", 0.3),
            ("no_show_rate", 0.2),
            ("sessions_taught", 5),
            ("active_students", 1),
        ],
    )
    def test_a_metric_counts_the_settled_lessons_of_the_window(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, stored: Stored, metric: str, value: float
    ) -> None:
        lessons(completed=5, cancelled=3, no_show=2, pending_review=7, scheduled=4)
        rule = make.alert_rule(teacher, metric=metric)
        check()
        assert value_of(stored, rule) == value

    def test_active_students_are_those_with_a_completed_lesson(
        self, make: Make, teacher: Row[Any], check: Check, stored: Stored
    ) -> None:
        for status in ("completed", "completed", "cancelled", "no_show"):
            make.session(make.student(teacher), starts_at=NOW - DAY, status=status)
        twice = make.student(teacher)
        for days in (1, 2):
            make.session(twice, starts_at=NOW - days * DAY, status="completed")
        rule = make.alert_rule(teacher, metric="active_students")
        check()
        assert value_of(stored, rule) == 3

    def test_credits_consumed_are_the_consumptions_of_the_teachers_students(
        self, make: Make, teacher: Row[Any], student: Row[Any], check: Check, stored: Stored
    ) -> None:
        make.ledger(student, 10, "PURCHASE", created_at=NOW - DAY)
        make.ledger(student, 1, "REFUND", created_at=NOW - DAY)
        make.ledger(student, -2, "CONSUME", created_at=NOW - DAY)
        make.ledger(make.student(teacher), -3, "CONSUME", created_at=NOW)
        make.ledger(student, -4, "CONSUME", created_at=NOW - 30 * DAY)  # just out
        make.ledger(student, -5, "CONSUME", created_at=NOW + HOUR)
        make.ledger(make.student(), -6, "CONSUME", created_at=NOW - DAY)  # somebody else's
        rule = make.alert_rule(teacher, metric="credits_consumed")
        check()
        assert value_of(stored, rule) == 5

    def test_nothing_consumed_is_zero(self, make: Make, teacher: Row[Any], check: Check, stored: Stored) -> None:
        rule = make.alert_rule(teacher, metric="credits_consumed")
        check()
        assert value_of(stored, rule) == 0

    def test_the_window_is_that_of_the_rule_to_the_second(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, stored: Stored
    ) -> None:
        lessons(NOW - 7 * DAY, completed=1)  # just out
        lessons(NOW - 7 * DAY + timedelta(seconds=1), completed=1)
        lessons(NOW, completed=1)
        lessons(NOW + timedelta(seconds=1), completed=1)
        week = make.alert_rule(teacher, metric="sessions_taught", window_days=7)
        fortnight = make.alert_rule(teacher, metric="sessions_taught", window_days=14)
        forever = make.alert_rule(teacher, metric="sessions_taught", window_days=2**31 - 1)
        check()
        assert [value_of(stored, rule) for rule in (week, fortnight, forever)] == [2, 3, 3]

    def test_each_teacher_has_figures_of_their_own(
        self, make: Make, lessons: Lessons, check: Check, stored: Stored
    ) -> None:
        lessons(completed=5)
        rule = make.alert_rule(make.teacher(), metric="sessions_taught")
        check()
        assert value_of(stored, rule) == 0

    def test_a_metric_that_does_not_exist_is_counted_and_left(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, told: Callable[[], list[str]]
    ) -> None:
        lessons(no_show=5)
        make.alert_rule(teacher, metric="happiness")
        make.alert_rule(teacher)
        assert check()["unknown_metrics"] == 1
        assert told() == ["Completion rate below 80%"]


class TestTheLine:
    @pytest.mark.parametrize(
        ("comparator", "completed", "fires"),
        [
            ("below", 3, True),
            ("below", 4, False),
            ("below", 5, False),
            ("above", 3, False),
            ("above", 4, False),
            ("above", 5, True),
        ],
    )
    def test_a_value_beyond_the_threshold_fires_and_one_exactly_on_it_does_not(
        self,
        make: Make,
        teacher: Row[Any],
        lessons: Lessons,
        check: Check,
        told: Callable[[], list[str]],
        comparator: str,
        completed: int,
        fires: bool,
    ) -> None:
        lessons(completed=completed, cancelled=5 - completed)
        make.alert_rule(teacher, comparator=comparator, threshold=0.8)
        check()
        assert told() == ([f"Completion rate {comparator} 80%"] if fires else [])

    @pytest.mark.parametrize("threshold", [1e308, float("inf"), float("nan")])
    def test_a_line_that_nothing_reaches_holds_up_no_other(
        self,
        make: Make,
        teacher: Row[Any],
        lessons: Lessons,
        check: Check,
        told: Callable[[], list[str]],
        threshold: float,
    ) -> None:
        lessons(completed=3, cancelled=2)
        make.alert_rule(teacher, threshold=threshold)
        make.alert_rule(teacher, threshold=0.8)
        assert check()["fired"] == 2
        assert "Completion rate below 80%" in told()

    @pytest.mark.parametrize("metric", ["completion_rate", "cancellation_rate", "no_show_rate"])
    def test_a_rate_of_too_few_lessons_does_not_fire(
        self,
        make: Make,
        teacher: Row[Any],
        lessons: Lessons,
        check: Check,
        told: Callable[[], list[str]],
        metric: str,
    ) -> None:
        make.alert_rule(teacher, metric=metric, comparator="below", threshold=1.1)
        lessons(completed=2, cancelled=1, no_show=1, pending_review=20, scheduled=20)
        assert check()["too_few_lessons"] == 1
        assert told() == []
        lessons(completed=1)
        assert check()["too_few_lessons"] == 0
        assert len(told()) == 1

    def test_a_count_means_something_however_small(
        self, make: Make, teacher: Row[Any], check: Check, told: Callable[[], list[str]]
    ) -> None:
        make.alert_rule(teacher, metric="sessions_taught", threshold=10, window_days=7)
        check()
        assert told() == ["Lessons taught below 10"]


class TestCrossing:
    def test_the_teacher_is_told_what_the_figure_is(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, stored: Stored
    ) -> None:
        lessons(completed=2, cancelled=4)
        rule = make.alert_rule(teacher, threshold=0.625)
        check()
        (row,) = stored(teacher_notifications)
        assert (row.teacher_id, row.kind, row.subject_id) == (teacher.id, "metric_alert", rule.id)
        assert (row.title, row.body) == (
            "Completion rate below 62.5%",
            "Completion rate over the last 30 days: 33.3%",
        )

    def test_is_not_told_again_while_it_stays_beyond(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, told: Callable[[], list[str]]
    ) -> None:
        make.alert_rule(teacher)
        lessons(completed=3, cancelled=2)
        check()
        lessons(cancelled=1)
        for hours in (1, 2, 3):
            assert check(NOW + hours * HOUR)["fired"] == 0
        assert len(told()) == 1

    def test_coming_back_arms_it_again(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, told: Callable[[], list[str]]
    ) -> None:
        make.alert_rule(teacher)
        lessons(completed=3, cancelled=2)
        check()
        lessons(completed=5)  # exactly on the line
        assert check(NOW + HOUR)["came_back"] == 1
        lessons(cancelled=3)
        assert check(NOW + 2 * HOUR)["fired"] == 1
        assert len(told()) == 2

    def test_too_few_lessons_do_not_arm_it_again(
        self,
        database: Database,
        make: Make,
        teacher: Row[Any],
        lessons: Lessons,
        check: Check,
        told: Callable[[], list[str]],
    ) -> None:
        make.alert_rule(teacher)
        lessons(completed=3, cancelled=2)
        check()
        change(database, delete(sessions).where(sessions.c.status == "completed"))
        check(NOW + HOUR)
        lessons(cancelled=5)
        check(NOW + 2 * HOUR)
        assert len(told()) == 1

    def test_a_first_look_that_finds_all_well_is_no_coming_back(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check
    ) -> None:
        make.alert_rule(teacher)
        lessons(completed=5)
        result = check()
        assert (result["rules"], result["fired"], result["came_back"]) == (1, 0, 0)

    def test_the_job_finds_rules_in_chunks(
        self, make: Make, check: Check, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(app, "RULES_A_CHUNK", 2)
        for _ in range(5):
            make.alert_rule(metric="sessions_taught", threshold=1)
        assert check()["rules"] == 5
        assert len(told()) == 5


class TestTwice:
    def test_a_second_run_in_the_same_hour_changes_nothing(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, stored: Stored
    ) -> None:
        make.alert_rule(teacher)
        lessons(completed=3, cancelled=2)
        check()
        before = stored(metric_alert_states), stored(teacher_notifications)
        check(NOW + timedelta(minutes=1))
        assert (stored(metric_alert_states), stored(teacher_notifications)) == before

    def test_a_run_that_dies_tells_nothing_and_its_second_try_tells_once(
        self,
        database: Database,
        make: Make,
        teacher: Row[Any],
        lessons: Lessons,
        perform: Performer,
        stored: Stored,
        told: Callable[[], list[str]],
    ) -> None:
        make.alert_rule(teacher)
        lessons(completed=3, cancelled=2)

        def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "UPDATE platform.job_runs\n    SET cursor" in statement:  # after the alert, before its commit
                raise MemoryError

        event.listen(database.engine, "before_cursor_execute", die)
        with pytest.raises(JobFailed):
            perform(handler)
        assert (told(), stored(metric_alert_states)) == ([], [])
        event.remove(database.engine, "before_cursor_execute", die)
        for _ in range(2):
            perform(handler)
        assert len(told()) == 1


class TestRulesThatChange:
    def test_a_rule_that_is_switched_off_does_not_fire(
        self, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, stored: Stored
    ) -> None:
        off = make.alert_rule(teacher, enabled=False)
        on = make.alert_rule(teacher)
        lessons(no_show=10)
        assert check()["rules"] == 1
        assert [row.subject_id for row in stored(teacher_notifications)] == [on.id]
        assert stored(metric_alert_states, rule_id=off.id) == []

    def test_a_rule_that_is_switched_off_and_on_is_armed_again(
        self,
        database: Database,
        make: Make,
        teacher: Row[Any],
        lessons: Lessons,
        check: Check,
        told: Callable[[], list[str]],
    ) -> None:
        make.alert_rule(teacher)
        lessons(no_show=10)
        check()
        change(database, update(metric_alert_rules).values(enabled=False))
        check(NOW + HOUR)
        change(database, update(metric_alert_rules).values(enabled=True))
        check(NOW + 2 * HOUR)
        assert len(told()) == 2

    def test_a_rule_that_is_deleted_takes_its_state_along(
        self,
        database: Database,
        make: Make,
        teacher: Row[Any],
        lessons: Lessons,
        check: Check,
        stored: Stored,
        told: Callable[[], list[str]],
    ) -> None:
        make.alert_rule(teacher)
        lessons(no_show=10)
        check()
        change(database, delete(metric_alert_rules))
        check(NOW + HOUR)
        assert stored(metric_alert_states) == []
        assert len(told()) == 1

    def test_a_student_who_changes_teacher_leaves_the_lessons_where_they_were_held(
        self, database: Database, make: Make, teacher: Row[Any], lessons: Lessons, check: Check, stored: Stored
    ) -> None:
        lessons(completed=6)
        change(database, update(students).values(teacher_id=make.teacher().id))
        rule = make.alert_rule(teacher, metric="sessions_taught")
        check()
        assert value_of(stored, rule) == 6
