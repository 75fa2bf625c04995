"""Lifecycle detection: what a signal is, to the day, when it is told, and when it is over."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Row, event, insert, text, update

from functions.tutoring.lifecycle_detection import app
from functions.tutoring.lifecycle_detection.app import handler
from schoolbell.database import Database
from schoolbell.domains.platform.schema import job_runs
from schoolbell.domains.tutoring.schema import (
    enrollments,
    lifecycle_signals,
    sessions,
    students,
    teacher_notifications,
)
from schoolbell.jobs.outcomes import JobFailed
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.performing import Performed, Performer

MORNING = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)  # a Monday, the first day of ISO week 10
DAY = timedelta(days=1)
WEEK = timedelta(weeks=1)

type Detect = Callable[..., Performed]
type Signals = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def detect(perform: Performer) -> Detect:
    """Runs the job by hand at a time, the Monday morning unless told otherwise."""

    def run(at: datetime = MORNING, **data: bool) -> Performed:
        return perform(handler, now=at, event=data)

    return run


@pytest.fixture
def signals(stored: Stored) -> Signals:
    """The standing signals, as kind and period."""

    def standing(*kinds: str) -> list[tuple[str, str]]:
        rows = stored(lifecycle_signals)
        return sorted(
            (row.kind, row.period) for row in rows if row.ended_at is None and row.kind in (kinds or row.kind)
        )

    return standing


@pytest.fixture
def teacher(make: Make) -> Row[Any]:
    return make.teacher(timezone="UTC")


@pytest.fixture
def student(make: Make, teacher: Row[Any]) -> Row[Any]:
    """A student whom no signal is about, as long as there is a lesson within the last 14 days."""
    return make.student(teacher, created_at=MORNING - 300 * DAY, last_activity_at=MORNING - DAY)


def at_home(zone: str, *local: int) -> datetime:
    """A local time in UTC: `at_home("America/New_York", 2026, 2, 16, 23, 59)`."""
    return datetime(*local, tzinfo=ZoneInfo(zone)).astimezone(UTC)  # type: ignore[misc,arg-type]


def weekly(make: Make, student: Row[Any], *starts: datetime, status: str = "completed") -> None:
    for start in starts:
        make.session(student, starts_at=start, status=status)


class TestGap:
    def test_stands_on_the_day_on_which_the_last_lesson_is_gap_days_ago(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.session(student, starts_at=datetime(2026, 2, 16, 23, 30, tzinfo=UTC), status="completed")
        detect(datetime(2026, 3, 2, 0, 0, tzinfo=UTC))
        assert signals("gap") == [("gap", "2026-02-16")]

    def test_does_not_stand_a_day_earlier(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.session(student, starts_at=datetime(2026, 2, 16, 0, 0, tzinfo=UTC), status="completed")
        detect(datetime(2026, 3, 1, 23, 59, tzinfo=UTC))
        assert signals("gap") == []

    def test_does_not_stand_while_a_lesson_is_booked(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.session(student, starts_at=MORNING - 40 * DAY, status="completed")
        make.session(student, starts_at=MORNING + timedelta(minutes=1))
        detect()
        assert signals("gap") == []

    def test_a_cancelled_lesson_ahead_is_no_booking(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.session(student, starts_at=MORNING - 40 * DAY, status="completed")
        make.session(student, starts_at=MORNING + DAY, status="cancelled")
        detect()
        assert signals("gap") == [("gap", "2026-01-21")]

    def test_a_lesson_that_began_and_was_never_settled_is_no_booking(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.session(student, starts_at=MORNING - 20 * DAY, status="scheduled")
        detect()
        assert signals("gap") == [("gap", "2026-02-10")]

    @pytest.mark.parametrize("status", ["cancelled", "no_show"])
    def test_a_lesson_that_did_not_happen_fills_no_gap(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals, status: str
    ) -> None:
        make.session(student, starts_at=MORNING - 20 * DAY, status="completed")
        make.session(student, starts_at=MORNING - 2 * DAY, status=status)
        detect()
        assert signals("gap") == [("gap", "2026-02-10")]

    @pytest.mark.parametrize("status", ["completed", "pending_review", "scheduled"])
    def test_a_lesson_that_happened_counts_before_it_is_settled(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals, status: str
    ) -> None:
        make.session(student, starts_at=MORNING - 2 * DAY, status=status)
        detect()
        assert signals("gap") == []

    def test_a_student_without_lessons_is_counted_from_the_day_of_joining(
        self, make: Make, teacher: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.student(teacher, created_at=MORNING - 13 * DAY)
        make.student(teacher, created_at=MORNING - 14 * DAY)
        detect()
        assert signals("gap") == [("gap", "2026-02-16")]

    def test_a_last_lesson_of_years_ago_is_found(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.session(student, starts_at=datetime(2023, 5, 3, 12, tzinfo=UTC), status="completed")
        make.session(student, starts_at=datetime(2023, 6, 3, 12, tzinfo=UTC), status="cancelled")
        detect()
        assert signals("gap") == [("gap", "2023-05-03")]

    def test_the_teachers_own_threshold_holds(
        self, make: Make, teacher: Row[Any], student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.settings(teacher, gap_days=30)
        make.session(student, starts_at=MORNING - 29 * DAY, status="completed")
        detect()
        assert signals("gap") == []
        detect(MORNING + DAY)
        assert signals("gap") == [("gap", "2026-02-01")]

    def test_a_threshold_beyond_the_calendar_is_never_reached(
        self, make: Make, teacher: Row[Any], student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        most = 2**31 - 1
        make.settings(teacher, gap_days=most, churn_days=most, expiring_days=most, streak_weeks=most)
        make.enrollment(student, ends_on=date(2026, 12, 31))
        detect()
        assert [kind for kind, _ in signals()] == ["enrollment_expiring"]


@pytest.mark.parametrize("time", ["-infinity", "infinity", "0044-03-15 BC", "20260-03-02"])
class TestTimesBeyondTheCalendar:
    """As an application may write them for "never", or by a slip; one such row holds up no other teacher's."""

    def test_an_activity(
        self, make: Make, teacher: Row[Any], database: Database, detect: Detect, signals: Signals, time: str
    ) -> None:
        make.student(last_activity_at=MORNING - 30 * DAY)
        student = make.student(teacher, last_activity_at=text(f"'{time}'"))
        make.session(student, starts_at=MORNING - DAY)
        detect()
        detect(MORNING + DAY)
        assert signals("churn") == [("churn", "2026-01-31")]

    def test_a_day_of_joining(
        self, make: Make, teacher: Row[Any], detect: Detect, signals: Signals, stored: Stored, time: str
    ) -> None:
        make.student(teacher, last_activity_at=None, created_at=text(f"'{time}'"))
        detect()
        first = signals()
        detect(MORNING + DAY)
        assert signals() == first
        assert len(stored(teacher_notifications)) == len(first)


class TestDaysAreTheTeachers:
    """The same instants, a day apart in the teacher's calendar."""

    LESSON = datetime(2026, 2, 17, 3, 0, tzinfo=UTC)  # still 16 February in New York

    @pytest.mark.parametrize(
        ("zone", "gap"),
        [
            ("America/New_York", [("gap", "2026-02-16")]),
            ("Europe/Madrid", []),
            ("Asia/Tokyo", []),
        ],
    )
    def test_a_lesson_belongs_to_the_teachers_day(
        self, make: Make, detect: Detect, signals: Signals, zone: str, gap: list[tuple[str, str]]
    ) -> None:
        make.session(make.student(make.teacher(timezone=zone)), starts_at=self.LESSON, status="completed")
        detect()
        assert signals("gap") == gap

    @pytest.mark.parametrize(("zone", "stands"), [("Europe/Madrid", True), ("America/New_York", False)])
    def test_today_is_the_teachers_day(
        self, make: Make, detect: Detect, signals: Signals, zone: str, stands: bool
    ) -> None:
        make.session(
            make.student(make.teacher(timezone=zone)),
            starts_at=datetime(2026, 2, 16, 18, 0, tzinfo=UTC),
            status="completed",
        )
        detect(datetime(2026, 3, 1, 23, 30, tzinfo=UTC))  # 2 March in Madrid, 1 March in New York
        assert bool(signals("gap")) is stands

    def test_clock_changes_do_not_move_a_day(self, make: Make, detect: Detect, signals: Signals) -> None:
        # 14 calendar days with the spring change in them last 335 hours.
        zone = "America/New_York"
        make.session(
            make.student(make.teacher(timezone=zone)), starts_at=at_home(zone, 2026, 3, 2, 23, 30), status="completed"
        )
        detect(at_home(zone, 2026, 3, 16, 0, 0) - timedelta(seconds=1))
        assert signals("gap") == []
        detect(at_home(zone, 2026, 3, 16, 0, 0))
        assert signals("gap") == [("gap", "2026-03-02")]

    def test_a_zone_that_does_not_exist_is_taken_as_utc_and_counted(
        self, make: Make, detect: Detect, signals: Signals
    ) -> None:
        for zone in ("Mars/Phobos", "", "EST5EDT4,M3.2.0"):
            make.session(make.student(make.teacher(timezone=zone)), starts_at=self.LESSON - DAY, status="completed")
        make.session(make.student(make.teacher(timezone="Europe/Madrid")), starts_at=self.LESSON, status="completed")
        performed = detect()
        assert signals("gap") == [("gap", "2026-02-16")] * 3
        assert performed.result["unknown_zones"] == 3


class TestChurn:
    def test_stands_on_the_day_on_which_the_last_activity_is_churn_days_ago(
        self, make: Make, teacher: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.student(teacher, last_activity_at=datetime(2026, 1, 31, 0, 1, tzinfo=UTC))
        make.student(teacher, last_activity_at=datetime(2026, 2, 1, 0, 1, tzinfo=UTC))
        detect(datetime(2026, 3, 2, 23, 59, tzinfo=UTC))
        assert signals("churn") == [("churn", "2026-01-31")]

    def test_a_student_who_was_never_active_is_counted_from_the_day_of_joining(
        self, make: Make, teacher: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.student(teacher, last_activity_at=None, created_at=MORNING - 30 * DAY)
        make.student(teacher, last_activity_at=None, created_at=MORNING - 29 * DAY)
        detect()
        assert signals("churn") == [("churn", "2026-01-31")]

    def test_a_lesson_is_activity(self, make: Make, teacher: Row[Any], detect: Detect, signals: Signals) -> None:
        student = make.student(teacher, last_activity_at=MORNING - 90 * DAY)
        make.session(student, starts_at=MORNING - 29 * DAY, status="completed")
        detect()
        assert signals("churn") == []

    def test_a_lesson_that_the_student_missed_is_no_activity(
        self, make: Make, teacher: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        student = make.student(teacher, last_activity_at=MORNING - 90 * DAY)
        make.session(student, starts_at=MORNING - DAY, status="no_show")
        detect()
        assert signals("churn") == [("churn", "2025-12-02")]

    def test_the_teachers_own_threshold_and_day_hold(self, make: Make, detect: Detect, signals: Signals) -> None:
        teacher = make.teacher(timezone="America/Los_Angeles")
        make.settings(teacher, churn_days=5)
        make.student(teacher, last_activity_at=at_home("America/Los_Angeles", 2026, 2, 25, 23, 59))
        make.student(teacher, last_activity_at=at_home("America/Los_Angeles", 2026, 2, 26, 0, 0))
        detect()
        assert signals("churn") == [("churn", "2026-02-25")]


class TestEnrollmentExpiring:
    @pytest.mark.parametrize(
        ("ends_on", "stands"),
        [
            (date(2026, 3, 1), False),  # over
            (date(2026, 3, 2), True),  # today
            (date(2026, 3, 16), True),  # in expiring_days
            (date(2026, 3, 17), False),
            (None, False),
        ],
    )
    def test_stands_from_expiring_days_before_the_end_up_to_the_last_day(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals, ends_on: date | None, stands: bool
    ) -> None:
        enrollment = make.enrollment(student, ends_on=ends_on)
        detect()
        expected = [("enrollment_expiring", f"{enrollment.id}/{ends_on}")] if stands else []
        assert signals("enrollment_expiring") == expected

    def test_an_enrolment_that_is_not_active_does_not_expire(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.enrollment(student, ends_on=date(2026, 3, 3), status="cancelled")
        detect()
        assert signals("enrollment_expiring") == []

    def test_each_enrolment_has_a_signal_of_its_own(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.enrollment(student, ends_on=date(2026, 3, 3))
        make.enrollment(student, ends_on=date(2026, 3, 3))
        detect()
        assert len(signals("enrollment_expiring")) == 2

    def test_an_end_that_moves_is_a_new_signal(
        self, database: Database, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        enrollment = make.enrollment(student, ends_on=date(2026, 3, 3))
        detect()
        change(database, update(enrollments).values(ends_on=date(2026, 3, 10)))
        detect(MORNING + DAY)
        assert signals("enrollment_expiring") == [("enrollment_expiring", f"{enrollment.id}/2026-03-10")]

    def test_the_days_left_are_counted_in_the_teachers_zone(self, make: Make, detect: Detect, signals: Signals) -> None:
        for zone in ("America/New_York", "Europe/Madrid"):
            make.enrollment(make.student(make.teacher(timezone=zone)), ends_on=date(2026, 3, 16))
        detect(datetime(2026, 3, 2, 2, 0, tzinfo=UTC))  # 1 March in New York
        assert len(signals("enrollment_expiring")) == 1


class TestStreak:
    def test_stands_after_a_completed_lesson_in_each_of_streak_weeks_weeks(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 3, 4)))
        detect()
        assert signals("streak") == [("streak", "2026-W06")]

    def test_a_week_short_is_no_streak(self, make: Make, student: Row[Any], detect: Detect, signals: Signals) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 3)))
        detect()
        assert signals("streak") == []

    def test_a_week_left_out_is_no_streak(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 4, 5)))
        detect()
        assert signals("streak") == []

    def test_two_lessons_in_a_week_do_not_make_up_for_a_week_without(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK + d * DAY for n in (1, 2, 4) for d in (0, 2)))
        detect()
        assert signals("streak") == []

    @pytest.mark.parametrize("status", ["cancelled", "no_show", "pending_review", "scheduled"])
    def test_only_completed_lessons_count(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals, status: str
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 4)))
        weekly(make, student, MORNING - 3 * WEEK, status=status)
        detect()
        assert signals("streak") == []

    def test_this_week_counts_when_there_was_a_lesson(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        weekly(make, student, *(MORNING - timedelta(hours=2) - n * WEEK for n in (0, 1, 2, 3)))
        detect()
        assert signals("streak") == [("streak", "2026-W07")]

    def test_this_week_does_not_count_against_the_student_before_it_ends(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 3, 4)))
        detect(datetime(2026, 3, 8, 23, 59, 59, tzinfo=UTC))
        assert signals("streak") == [("streak", "2026-W06")]
        detect(datetime(2026, 3, 9, 0, 0, tzinfo=UTC))
        assert signals("streak") == []

    def test_a_lesson_that_is_still_to_come_does_not_count(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 3)), MORNING + DAY)
        detect()
        assert signals("streak") == []

    def test_the_teachers_own_number_of_weeks_holds(
        self, make: Make, teacher: Row[Any], student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        make.settings(teacher, streak_weeks=1)
        weekly(make, student, MORNING - WEEK)
        detect()
        assert signals("streak") == [("streak", "2026-W09")]

    def test_it_is_followed_back_to_the_week_in_which_it_began(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals, stored: Stored
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in range(1, 12)), MORNING - 13 * WEEK)
        detect()
        assert signals("streak") == [("streak", "2025-W51")]
        (signal,) = stored(lifecycle_signals, kind="streak")
        assert signal.details == {"since": "2025-12-15", "weeks": 11}

    @pytest.mark.parametrize(
        ("starts", "period"),
        [
            # 2026 has 53 ISO weeks; the last one holds 1 to 3 January 2027.
            ([(2026, 12, 14), (2026, 12, 21), (2027, 1, 3), (2027, 1, 4)], "2026-W51"),
            # 2024 has 52; 30 December 2024 is a day of 2025-W01.
            ([(2024, 12, 18), (2024, 12, 29), (2024, 12, 30), (2025, 1, 6)], "2024-W51"),
            ([(2024, 12, 30), (2025, 1, 6), (2025, 1, 13), (2025, 1, 20)], "2025-W01"),
        ],
    )
    def test_weeks_around_new_year_follow_each_other(
        self,
        make: Make,
        student: Row[Any],
        detect: Detect,
        signals: Signals,
        starts: list[tuple[int, int, int]],
        period: str,
    ) -> None:
        days = [datetime(*day, 12, 0, tzinfo=UTC) for day in starts]
        weekly(make, student, *days)
        detect(days[-1] + DAY)
        assert signals("streak") == [("streak", period)]

    def test_weeks_before_it_without_a_completed_lesson_are_no_part_of_it(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 3, 4)))
        weekly(make, student, MORNING - 5 * WEEK, status="cancelled")
        weekly(make, student, MORNING - 6 * WEEK)
        detect()
        assert signals("streak") == [("streak", "2026-W06")]

    @pytest.mark.parametrize(("zone", "stands"), [("America/New_York", True), ("Europe/Madrid", False)])
    def test_a_week_is_over_when_it_is_over_where_the_teacher_is(
        self, make: Make, detect: Detect, signals: Signals, zone: str, stands: bool
    ) -> None:
        weekly(make, make.student(make.teacher(timezone=zone)), *(MORNING + DAY - n * WEEK for n in (1, 2, 3, 4)))
        detect(datetime(2026, 3, 9, 2, 0, tzinfo=UTC))  # Sunday evening in New York, Monday in Madrid
        assert bool(signals("streak")) is stands

    def test_a_week_begins_on_the_teachers_monday(
        self, make: Make, detect: Detect, signals: Signals, stored: Stored
    ) -> None:
        # Sunday evening in New York is Monday in Madrid: four weeks there, three in New York.
        late = [datetime(2026, 2, day, 2, 0, tzinfo=UTC) for day in (2, 9, 16, 23)]
        early = datetime(2026, 2, 3, 12, 0, tzinfo=UTC)  # the Tuesday after the first of them
        for zone in ("America/New_York", "Europe/Madrid"):
            student = make.student(make.teacher(timezone=zone))
            weekly(make, student, *late[:3], early)
        detect(datetime(2026, 2, 23, 12, 0, tzinfo=UTC))
        # New York: 26 January (Sunday 1 February), 2 February twice, 9 February. Madrid: 2, 9 and 16 February.
        assert signals("streak") == []
        for student in stored(students):
            weekly(make, student, late[3])
        detect(datetime(2026, 2, 23, 13, 0, tzinfo=UTC))
        # New York: up to that of 16 February. Madrid: up to that of 23 February, which has begun.
        assert signals("streak") == [("streak", "2026-W05"), ("streak", "2026-W06")]

    @pytest.mark.parametrize("zone", ["America/New_York", "Europe/Madrid", "America/Sao_Paulo", "Australia/Lord_Howe"])
    @pytest.mark.parametrize("around", [(2026, 3, 30), (2026, 11, 2)])
    def test_clock_changes_do_not_move_a_week(
        self, make: Make, detect: Detect, signals: Signals, zone: str, around: tuple[int, int, int]
    ) -> None:
        monday = datetime(*around, 0, 0)  # noqa: DTZ001 - a local time, whose zone is added below
        student = make.student(make.teacher(timezone=zone))
        edges = (0, -1, 1, -2)  # the first minutes of a week, or the last ones
        for weeks, edge in zip((1, 2, 3, 4), edges, strict=True):
            local = monday - weeks * WEEK + (timedelta(minutes=1) if edge >= 0 else WEEK - timedelta(minutes=1))
            weekly(make, student, local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC))
        detect(monday.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) + timedelta(minutes=30))
        began = monday - 4 * WEEK
        assert signals("streak") == [("streak", began.strftime("%G-W%V"))]

    def test_a_streak_of_more_than_a_year_stays_the_same_signal(
        self, make: Make, student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in range(-4, 70)))
        for weeks in range(4):
            detect(MORNING + weeks * WEEK + DAY)
        assert len(stored(lifecycle_signals, kind="streak")) == 1


class TestOnce:
    def test_a_new_signal_notifies_the_teacher_once(
        self, make: Make, teacher: Row[Any], student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        make.session(student, starts_at=MORNING - 20 * DAY, status="completed")
        detect()
        (told,) = stored(teacher_notifications)
        assert (told.teacher_id, told.student_id, told.subject_id) == (teacher.id, student.id, student.id)
        assert (told.kind, told.title) == ("lifecycle_gap", "No lesson for 20 days")
        assert told.body == f"{student.name} has had no lesson since 2026-02-10, and none is booked."

    def test_each_kind_tells_what_it_is_about(
        self, make: Make, teacher: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        quiet = make.student(teacher, last_activity_at=MORNING - 40 * DAY)
        make.session(quiet, starts_at=MORNING + DAY)
        keen = make.student(teacher)
        weekly(make, keen, *(MORNING - n * WEEK for n in (1, 2, 3, 4)))
        make.enrollment(keen, ends_on=date(2026, 3, 9))
        detect()
        assert {(row.kind, row.title, row.body) for row in stored(teacher_notifications)} == {
            ("lifecycle_churn", "No activity for 40 days", f"{quiet.name} was last active on 2026-01-21."),
            (
                "lifecycle_streak",
                "4 weeks in a row",
                f"{keen.name} has completed a lesson in every week since that of 2026-02-02.",
            ),
            (
                "lifecycle_enrollment_expiring",
                "An enrolment ends on 2026-03-09",
                f"The enrolment of {keen.name} ends on 2026-03-09.",
            ),
        }

    def test_a_standing_signal_is_not_repeated(
        self, make: Make, student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 3, 4)))
        make.enrollment(student, ends_on=date(2026, 3, 9))
        make.student(student.teacher_id, last_activity_at=None, created_at=MORNING - 50 * DAY)
        for days in range(3):
            detect(MORNING + days * DAY)
        assert len(stored(lifecycle_signals)) == len(stored(teacher_notifications)) == 4

    def test_a_second_run_of_the_same_morning_changes_nothing(
        self, make: Make, student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        make.session(student, starts_at=MORNING - 20 * DAY, status="completed")
        detect()
        before = stored(lifecycle_signals), stored(teacher_notifications)
        detect()
        assert (stored(lifecycle_signals), stored(teacher_notifications)) == before

    def test_a_lesson_ends_the_gap_and_the_next_gap_is_new(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals, stored: Stored
    ) -> None:
        make.session(student, starts_at=MORNING - 20 * DAY, status="completed")
        detect()
        make.session(student, starts_at=MORNING + timedelta(hours=1), status="completed")
        detect(MORNING + DAY)
        assert signals("gap") == []
        assert [row.ended_at for row in stored(lifecycle_signals, kind="gap")] == [MORNING + DAY]
        detect(MORNING + 14 * DAY)
        assert signals("gap") == [("gap", "2026-03-02")]
        assert len(stored(teacher_notifications, kind="lifecycle_gap")) == 2

    def test_a_gap_that_comes_again_between_two_runs_is_new(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals, stored: Stored
    ) -> None:
        make.session(student, starts_at=MORNING - 20 * DAY, status="completed")
        detect()
        make.session(student, starts_at=MORNING + DAY, status="completed")
        detect(MORNING + 20 * DAY)
        assert signals("gap") == [("gap", "2026-03-03")]
        assert len(stored(teacher_notifications, kind="lifecycle_gap")) == 2

    def test_a_gap_that_returns_because_the_booking_was_cancelled_is_new(
        self, database: Database, make: Make, student: Row[Any], detect: Detect, signals: Signals, stored: Stored
    ) -> None:
        make.session(student, starts_at=MORNING - 20 * DAY, status="completed")
        detect()
        booked = make.session(student, starts_at=MORNING + 5 * DAY)
        detect(MORNING + DAY)
        assert signals("gap") == []
        change(database, update(sessions).where(sessions.c.id == booked.id).values(status="cancelled"))
        detect(MORNING + 2 * DAY)
        assert signals("gap") == [("gap", "2026-02-10")]
        assert len(stored(teacher_notifications, kind="lifecycle_gap")) == 2

    def test_a_lesson_struck_out_afterwards_does_not_make_the_gap_new(
        self, database: Database, make: Make, student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        make.session(student, starts_at=MORNING - 30 * DAY, status="completed")
        last = make.session(student, starts_at=MORNING - 20 * DAY, status="completed")
        detect()
        change(database, update(sessions).where(sessions.c.id == last.id).values(status="no_show"))
        detect(MORNING + DAY)
        assert len(stored(lifecycle_signals, kind="gap")) == 1

    def test_a_streak_that_goes_on_is_not_repeated(
        self, make: Make, student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        weekly(make, student, *(MORNING + n * WEEK for n in range(-4, 8)))
        for weeks in range(8):
            detect(MORNING + weeks * WEEK + DAY)
        assert len(stored(lifecycle_signals, kind="streak")) == 1

    def test_a_streak_that_is_broken_and_built_again_is_new_even_if_no_run_saw_it_broken(
        self, make: Make, student: Row[Any], detect: Detect, signals: Signals, stored: Stored
    ) -> None:
        weekly(make, student, *(MORNING + n * WEEK for n in (-4, -3, -2, -1)))
        detect()
        weekly(make, student, *(MORNING + n * WEEK for n in (1, 2, 3, 4)))
        detect(MORNING + 5 * WEEK)
        assert signals("streak") == [("streak", "2026-W11")]
        assert len(stored(teacher_notifications, kind="lifecycle_streak")) == 2

    def test_a_streak_that_is_found_to_have_begun_earlier_is_not_repeated(
        self, database: Database, make: Make, student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        weekly(make, student, *(MORNING - n * WEEK for n in (1, 2, 3, 4)))
        waiting = make.session(student, starts_at=MORNING - 5 * WEEK, status="pending_review")
        detect()
        change(database, update(sessions).where(sessions.c.id == waiting.id).values(status="completed"))
        detect(MORNING + DAY)
        assert len(stored(lifecycle_signals, kind="streak")) == 1


class TestWhom:
    @pytest.mark.parametrize("status", ["inactive", "erased"])
    def test_only_active_students(
        self, database: Database, make: Make, student: Row[Any], detect: Detect, signals: Signals, status: str
    ) -> None:
        make.enrollment(student, ends_on=date(2026, 3, 3))
        detect()
        assert [kind for kind, _ in signals()] == ["enrollment_expiring", "gap"]
        change(database, update(students).values(status=status))
        detect(MORNING + DAY)
        assert signals() == []

    def test_a_student_who_changes_teacher_is_told_to_the_new_one(
        self, database: Database, make: Make, student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        detect()
        new = make.teacher()
        change(database, update(students).values(teacher_id=new.id))
        detect(MORNING + DAY)
        (standing,) = (row for row in stored(lifecycle_signals, kind="gap") if row.ended_at is None)
        assert standing.teacher_id == new.id

    def test_every_teacher_is_looked_at_with_their_own_thresholds(
        self, make: Make, detect: Detect, stored: Stored, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(app, "STUDENTS_A_CHUNK", 2)
        expected = set()
        for gap_days in (5, 10, 20, 40, 80):
            teacher = make.teacher()
            make.settings(teacher, gap_days=gap_days)
            student = make.student(teacher)
            make.session(student, starts_at=MORNING - 15 * DAY, status="completed")
            if gap_days <= 15:
                expected.add(student.id)
        performed = detect()
        assert {row.student_id for row in stored(lifecycle_signals)} == expected
        assert (performed.result["students"], performed.result["gap"]) == (5, 2)

    def test_a_killed_run_goes_on_with_the_students_that_are_left(
        self,
        database: Database,
        make: Make,
        perform: Performer,
        stored: Stored,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(app, "STUDENTS_A_CHUNK", 1)
        for _ in range(3):
            make.student(last_activity_at=None, created_at=MORNING - 60 * DAY)
        scheduled = {"scheduled_for": "2026-03-02T10:00:00Z"}
        chunks = 0

        def die_at_the_second_chunk(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            nonlocal chunks
            if "INSERT INTO tutoring.lifecycle_signals" in statement:
                chunks += 1
                if chunks == 2:
                    raise MemoryError

        event.listen(database.engine, "before_cursor_execute", die_at_the_second_chunk)
        with pytest.raises(JobFailed, match="MemoryError"):
            perform(handler, event=scheduled)
        assert len(stored(lifecycle_signals, kind="gap")) == 1
        performed = perform(handler, event=scheduled)
        assert chunks == 2 + 2  # the second student, and the third
        assert len(stored(lifecycle_signals, kind="gap")) == len(stored(teacher_notifications, kind="lifecycle_gap"))
        assert performed.result["gap"] == 3  # of the whole run

    def test_a_dry_run_counts_and_touches_nothing(
        self, make: Make, student: Row[Any], detect: Detect, stored: Stored
    ) -> None:
        make.signal(student, kind="churn", period="2025-01-01", created_at=MORNING - 30 * DAY)
        before = stored(lifecycle_signals)
        performed = detect(dry_run=True)
        assert (performed.result["gap"], performed.result["ended"]) == (1, 1)
        assert stored(lifecycle_signals) == before
        assert stored(teacher_notifications) == []

    def test_no_teachers_is_no_work(self, detect: Detect, stored: Stored) -> None:
        detect()
        (run,) = stored(job_runs)
        assert run.status == "completed"


class TestAgainstReadingEveryRow:
    """The statement finds what a reading of each student's rows in Python finds."""

    ZONES = ("America/New_York", "America/Sao_Paulo", "Europe/Madrid", "Europe/London", "Asia/Kolkata", "Pacific/Apia")

    @pytest.mark.parametrize(
        "at",
        [
            datetime(2026, 3, 9, 3, 30, tzinfo=UTC),  # the day after the clocks changed in New York
            datetime(2026, 3, 30, 0, 30, tzinfo=UTC),  # the day after they did in Europe
            datetime(2027, 1, 4, 4, 0, tzinfo=UTC),  # ISO week 1, after a week 53
            datetime(2025, 11, 3, 5, 15, tzinfo=UTC),
        ],
    )
    def test_a_random_school(
        self, database: Database, make: Make, detect: Detect, signals: Signals, at: datetime
    ) -> None:
        random = Random(at.toordinal())
        expected: list[tuple[str, str]] = []
        rows: list[dict[str, Any]] = []
        for zone in self.ZONES:
            for _ in range(6):
                teacher = make.teacher(timezone=zone)
                rule = make.settings(
                    teacher,
                    gap_days=random.randint(3, 20),
                    churn_days=random.randint(5, 30),
                    streak_weeks=random.randint(1, 6),
                )
                for _ in range(3):
                    student = make.student(
                        teacher,
                        created_at=at - random.random() * 60 * DAY,
                        last_activity_at=random.choice([None, at - random.random() * 40 * DAY]),
                    )
                    lessons = self.lessons_of(random, at, zone)
                    rows += [
                        {
                            "teacher_id": teacher.id,
                            "student_id": student.id,
                            "starts_at": starts_at,
                            "ends_at": starts_at + timedelta(hours=1),
                            "status": status,
                        }
                        for starts_at, status in lessons
                    ]
                    expected += self.signals_of(student, lessons, rule, at, ZoneInfo(zone))
        change(database, insert(sessions).values(rows))
        detect(at)
        assert signals() == sorted(expected)
        assert {kind for kind, _ in expected} == {"gap", "churn", "streak"}

    def lessons_of(self, random: Random, at: datetime, zone: str) -> list[tuple[datetime, str]]:
        """A term of lessons, many of them around midnight, when days and weeks turn."""
        monday = (at - random.randint(3, 9) * WEEK).astimezone(ZoneInfo(zone)).replace(hour=0, minute=0)
        lessons = []
        for _ in range(random.randint(0, 16)):
            local = monday.replace(tzinfo=None) + timedelta(
                days=random.choice([0, 6, random.randrange(90)]) + 7 * random.randrange(10),
                minutes=random.choice([-1, 0, 1, random.randrange(1440)]),
            )
            starts_at = local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
            past = random.choice(["completed", "completed", "completed", "cancelled", "no_show", "pending_review"])
            lessons.append((starts_at, past if starts_at <= at else random.choice(["scheduled", "cancelled"])))
        return lessons

    def signals_of(
        self, student: Row[Any], lessons: list[tuple[datetime, str]], rule: Row[Any], at: datetime, zone: ZoneInfo
    ) -> list[tuple[str, str]]:
        def day(moment: datetime) -> date:
            return moment.astimezone(zone).date()

        held = [start for start, status in lessons if start <= at and status in ("completed", "pending_review")]
        coming = any(start > at and status == "scheduled" for start, status in lessons)
        last_lesson = day(max(held, default=student.created_at))
        last_activity = day(max([*held, student.last_activity_at or student.created_at]))
        found = []
        if (day(at) - last_lesson).days >= rule.gap_days and not coming:
            found.append(("gap", str(last_lesson)))
        if (day(at) - last_activity).days >= rule.churn_days:
            found.append(("churn", str(last_activity)))
        weeks = {day(start).isocalendar()[:2] for start, status in lessons if start <= at and status == "completed"}
        week = day(at)
        if week.isocalendar()[:2] not in weeks:
            week -= WEEK
        length = 0
        while week.isocalendar()[:2] in weeks:
            length, week = length + 1, week - WEEK
        if length >= rule.streak_weeks:
            found.append(("streak", (week + WEEK).strftime("%G-W%V")))
        return found


def change(database: Database, statement: Any) -> None:
    with database.transaction() as connection:
        connection.execute(statement)
