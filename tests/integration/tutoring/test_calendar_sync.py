"""calendar-sync: what lessons' records say reaches their teachers' Google calendars."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from botocore.exceptions import ClientError
from sqlalchemy import Connection, Row, Table, insert, text, update

from functions.tutoring.calendar_sync.app import handler
from schoolbell.database import Database
from schoolbell.domains.tutoring.calendar_changes import BACKOFF, BATCH, LEASE, claim
from schoolbell.domains.tutoring.calendar_connections import mark_revoked
from schoolbell.domains.tutoring.schema import (
    calendar_connections,
    session_calendar_sync,
    sessions,
    teacher_notifications,
    teachers,
)
from schoolbell.gateways.google.calendar import GoogleCalendar, event_id
from schoolbell.jobs import JobContext
from schoolbell.jobs.outcomes import JobFailed
from schoolbell.resilience.circuit import FAILURES_TO_OPEN
from schoolbell.settings import Settings
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.fixtures.google import Google, circuit_state, open_circuit
from tests.performing import Invocation, Performer

FIVE_MINUTES = timedelta(minutes=5)


@pytest.fixture
def settings(settings: Settings, google: Google) -> Settings:
    return google.settings_of(settings)


class School:
    """Teachers with their calendars, lessons, and the records of lessons' changes."""

    def __init__(self, google: Google, make: Make, database: Database, stored: Stored, perform: Performer) -> None:
        self.google = google
        self.make = make
        self.database = database
        self.stored = stored
        self.perform = perform
        self.now = make.now
        self.connections: dict[UUID, Row[Any]] = {}

    def teacher(self, **columns: object) -> Row[Any]:
        """A teacher with a calendar that works."""
        teacher = self.make.teacher()
        secret = self.google.account()
        connection = {"secret_id": secret, "calendar_id": "primary", **columns}
        self.connections[teacher.id] = self.make.calendar_connection(teacher, **connection)
        return teacher

    def account(self, teacher: Row[Any]) -> str:
        return str(self.connections[teacher.id].secret_id)

    def lesson(self, teacher: Row[Any], **columns: object) -> Row[Any]:
        return self.make.session(self.make.student(teacher), **columns)

    def change(self, lesson: Row[Any], action: str = "upsert", **columns: object) -> Row[Any]:
        return self.make.calendar_sync(lesson, action=action, **columns)

    def write(self, table: Table, id: UUID, **columns: object) -> None:
        """Changes a row, as an application does."""
        with self.database.transaction() as connection:
            connection.execute(update(table).where(table.c.id == id).values(columns))

    def record(self, change: Row[Any]) -> Row[Any]:
        """A record as it is now."""
        (row,) = self.stored(session_calendar_sync, id=change.id)
        return row

    def run(self, at: datetime | None = None, **more: Any) -> dict[str, Any]:
        """One run; at five past ten, ten past ten and so on, unless told."""
        self.now = at or self.now + FIVE_MINUTES
        return self.perform(handler, now=self.now, **more).result

    def events(self, teacher: Row[Any]) -> dict[str, dict[str, Any]]:
        return self.google.events(self.account(teacher))

    def told(self, teacher: Row[Any]) -> list[str]:
        return [row.kind for row in self.stored(teacher_notifications, teacher_id=teacher.id)]

    def calls(self) -> int:
        return self.google.requests()


@pytest.fixture
def school(google: Google, make: Make, database: Database, stored: Stored, perform: Performer) -> School:
    return School(google, make, database, stored, perform)


def result(**counts: object) -> dict[str, Any]:
    return {"synced": 0, "postponed": 0, "failed": 0, "waiting": 0, "circuit_open": False} | counts


# What a record does


def test_a_lesson_gets_an_event_at_its_time_under_an_id_of_its_own(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher, starts_at=datetime(2026, 3, 3, 17, 0, tzinfo=UTC))
    change = school.change(lesson)

    assert school.run() == result(synced=1)

    event = school.events(teacher)[event_id(lesson.id)]
    assert event["start"] == {"dateTime": "2026-03-03T17:00:00Z", "timeZone": "Europe/London"}
    record = school.record(change)
    assert (record.status, record.attempts, record.external_event_id) == ("synced", 1, event_id(lesson.id))
    assert (record.claimed_by, record.claimed_until, record.last_error) == (None, None, None)


def test_a_moved_lesson_moves_its_event(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    school.change(lesson)
    school.run()
    with school.database.transaction() as connection:
        moved = {"starts_at": school.now + timedelta(days=3), "ends_at": school.now + timedelta(days=3, hours=1)}
        connection.execute(update(sessions).where(sessions.c.id == lesson.id).values(moved))
    school.change(lesson)

    assert school.run() == result(synced=1)

    (event,) = school.events(teacher).values()
    assert event["start"]["dateTime"] == f"{moved['starts_at']:%Y-%m-%dT%H:%M:%SZ}"


def test_a_cancelled_lesson_loses_its_event(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    school.change(lesson)
    school.run()
    school.change(lesson, "delete")

    assert school.run() == result(synced=1)

    assert school.events(teacher) == {}


def test_the_event_of_a_lesson_whose_row_is_gone_can_still_be_deleted(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    school.change(lesson)
    school.run()
    with school.database.transaction() as connection:
        connection.execute(sessions.delete().where(sessions.c.id == lesson.id))
    school.change(lesson, "delete")

    assert school.run() == result(synced=1)

    assert school.events(teacher) == {}


def test_a_repeat_after_a_lost_answer_changes_nothing(school: School) -> None:
    teacher = school.teacher()
    school.change(school.lesson(teacher))
    school.google.fail(method="POST", path="/calendar/", status=500, effect=True, times=1)
    assert school.run() == result(postponed=1)
    before = school.events(teacher)

    assert school.run(school.now + timedelta(hours=1)) == result(synced=1)

    assert school.events(teacher).keys() == before.keys()
    assert len(before) == 1


def test_a_row_written_by_hand_is_carried_over(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    with school.database.transaction() as connection:
        row = {"session_id": lesson.id, "teacher_id": teacher.id, "action": "upsert", "status": "pending"}
        connection.execute(insert(session_calendar_sync).values(row))
    assert school.run() == result(synced=1)


# Which records a run takes


def test_takes_twenty_at_a_time_the_oldest_first(school: School) -> None:
    teacher = school.teacher()
    changes = [
        school.change(school.lesson(teacher), created_at=school.now - timedelta(minutes=n)) for n in range(BATCH + 5)
    ]

    assert school.run() == result(synced=20)

    statuses = [school.record(change).status for change in changes]
    assert statuses == ["pending"] * 5 + ["synced"] * 20


def test_asks_for_another_run_when_there_may_be_more(school: School, outbox_rows: Callable[[], list[Row[Any]]]) -> None:
    teacher = school.teacher()
    for _ in range(BATCH):
        school.change(school.lesson(teacher))
    school.run()
    assert [(row.destination, row.payload) for row in outbox_rows()] == [("function/tutoring.calendar-sync", {})]


def test_asks_for_no_other_run_when_it_took_all_there_was(
    school: School, outbox_rows: Callable[[], list[Row[Any]]]
) -> None:
    school.change(school.lesson(school.teacher()))
    school.run()
    assert outbox_rows() == []


def test_does_not_spin_while_budget_is_lacking(
    school: School, settings: Settings, outbox_rows: Callable[[], list[Row[Any]]]
) -> None:
    teacher = school.teacher()
    for _ in range(BATCH):
        school.change(school.lesson(teacher))
    poor = settings.model_copy(update={"google_calendar_calls_per_teacher": 3})
    school.perform.runtime = replaced(school.perform, poor)
    assert school.run() == result(synced=3, waiting=17)
    assert outbox_rows() == []


def replaced(perform: Performer, settings: Settings) -> Any:
    return type(perform.runtime)(perform.runtime.database, settings, perform.runtime.clock)


def test_leaves_what_is_not_due(school: School) -> None:
    teacher = school.teacher()
    later = school.now + timedelta(hours=1)
    change = school.change(school.lesson(teacher), next_attempt_at=later)
    assert school.run() == result()
    assert school.run(later) == result(synced=1)
    assert school.record(change).status == "synced"


@pytest.mark.parametrize("status", ["synced", "failed"])
def test_leaves_what_is_done(school: School, status: str) -> None:
    school.change(school.lesson(school.teacher()), status=status)
    assert school.run() == result()
    assert school.calls() == 0


def test_skips_what_somebody_else_has_locked(school: School) -> None:
    teacher = school.teacher()
    locked, free = school.change(school.lesson(teacher)), school.change(school.lesson(teacher))
    with school.database.engine.connect() as other:
        other.execute(text("SELECT FROM tutoring.session_calendar_sync WHERE id = :id FOR UPDATE"), {"id": locked.id})
        assert school.run() == result(synced=1)
        other.rollback()
    assert [school.record(change).status for change in (locked, free)] == ["pending", "synced"]


def test_calls_google_outside_any_transaction(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    school.change(school.lesson(school.teacher()))
    open_transactions: list[int] = []

    def tell(self: GoogleCalendar, calendar_id: str, event: object) -> None:
        with school.database.engine.connect() as other:
            count = other.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND state = 'idle in transaction'"
                )
            )
            open_transactions.append(count or 0)

    monkeypatch.setattr(GoogleCalendar, "upsert", tell)
    school.run()
    assert open_transactions == [0]


def test_two_runs_at_once_do_nothing_twice(school: School) -> None:
    teacher = school.teacher()
    for _ in range(2 * BATCH):
        school.change(school.lesson(teacher))
    school.google.fail(path="/calendar/", delay=0.05)
    school.now += FIVE_MINUTES
    event = {}  # type: dict[str, Any]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: handler(dict(event), Invocation()), range(2)))
    assert [answer["result"]["synced"] for answer in answers] == [20, 20]
    assert school.google.requests("events.insert") == 40


# The circuit breaker and the budgets


def test_skips_the_run_while_the_circuit_is_open(school: School, resilience_table: str) -> None:
    change = school.change(school.lesson(school.teacher()))
    open_circuit("google-calendar")

    assert school.run() == result(circuit_open=True)

    assert school.calls() == 0
    record = school.record(change)
    assert (record.status, record.attempts, record.claimed_by) == ("pending", 0, None)


def test_an_outage_opens_the_circuit_and_spares_the_other_records_the_attempt(
    school: School, resilience_table: str
) -> None:
    teacher = school.teacher()
    changes = [school.change(school.lesson(teacher)) for _ in range(8)]
    school.google.fail(path="/calendar/", status=503)

    assert school.run() == result(postponed=FAILURES_TO_OPEN, waiting=3, circuit_open=True)

    assert school.calls() == FAILURES_TO_OPEN
    assert circuit_state("google-calendar") == "OPEN"
    records = [school.record(change) for change in changes]
    assert [record.attempts for record in records] == [1] * 5 + [0] * 3
    assert all(record.claimed_by is None and record.status == "pending" for record in records)


def test_goes_on_when_the_circuit_is_due_for_a_probe_and_google_answers(school: School, resilience_table: str) -> None:
    teacher = school.teacher()
    for _ in range(3):
        school.change(school.lesson(teacher))
    open_circuit("google-calendar", datetime.now(UTC) - timedelta(minutes=2))
    assert school.run() == result(synced=3)
    assert circuit_state("google-calendar") == "CLOSED"


def test_a_record_without_budget_waits_and_loses_no_attempt(school: School, settings: Settings) -> None:
    rich, poor = school.teacher(), school.teacher()
    changes = [school.change(school.lesson(poor)) for _ in range(5)] + [school.change(school.lesson(rich))]
    small = settings.model_copy(update={"google_calendar_calls_per_teacher": 3})
    school.perform.runtime = replaced(school.perform, small)

    assert school.run() == result(synced=4, waiting=2)

    records = [school.record(change) for change in changes]
    assert [record.status for record in records] == ["synced"] * 3 + ["pending"] * 2 + ["synced"]
    assert [record.attempts for record in records[3:5]] == [0, 0]
    assert all(school.now < record.next_attempt_at < school.now + timedelta(minutes=3) for record in records[3:5])


# Failures


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429}, {"disconnect": True}])
def test_a_failure_is_tried_again_after_a_growing_wait(school: School, fault: dict[str, Any]) -> None:
    change = school.change(school.lesson(school.teacher()))
    for attempt in range(1, 4):
        school.google.fail(path="/calendar/", **fault, times=1)
        assert school.run(at=school.now + timedelta(hours=7)) == result(postponed=1)
        record = school.record(change)
        assert record.status == "pending"
        assert record.attempts == attempt
        assert school.now <= record.next_attempt_at <= school.now + BACKOFF.delay(attempt, 1.0)
        assert record.last_error
    assert school.run(at=school.now + timedelta(hours=7)) == result(synced=1)


def test_the_wait_grows(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    change = school.change(school.lesson(school.teacher()))
    waits = []
    for _ in range(4):
        school.google.fail(path="/calendar/", status=500, times=1)
        school.run(at=school.now + timedelta(hours=7))
        waits.append(school.record(change).next_attempt_at - school.now)
    assert waits == [timedelta(minutes=minutes) for minutes in (5, 10, 20, 40)]


def test_waits_at_least_as_long_as_google_asks(school: School) -> None:
    change = school.change(school.lesson(school.teacher()))
    school.google.fail(path="/calendar/", status=429, retry_after=3600, times=1)
    school.run()
    assert school.record(change).next_attempt_at >= school.now + timedelta(hours=1)


def test_gives_up_after_eight_attempts_and_tells_the_teacher_once(school: School) -> None:
    teacher = school.teacher()
    change = school.change(school.lesson(teacher), attempts=6)
    school.google.fail(path="/calendar/", status=500, times=2)

    assert school.run() == result(postponed=1)
    assert school.told(teacher) == []
    assert school.run(school.now + timedelta(hours=7)) == result(failed=1)

    record = school.record(change)
    assert (record.status, record.attempts) == ("failed", 8)
    assert record.last_error == "events.insert: 500 internalError"
    assert school.told(teacher) == ["calendar_sync_failed"]


def test_gives_up_at_once_on_what_never_passes(school: School) -> None:
    teacher = school.teacher(calendar_id="deleted@group.calendar.google.com")
    change = school.change(school.lesson(teacher))

    assert school.run() == result(failed=1)

    assert (school.record(change).status, school.record(change).attempts) == ("failed", 1)
    assert school.told(teacher) == ["calendar_sync_failed"]


def test_a_record_that_is_tried_again_by_hand_does_not_tell_the_teacher_again(school: School) -> None:
    teacher = school.teacher(calendar_id="deleted@group.calendar.google.com")
    change = school.change(school.lesson(teacher))
    school.run()
    with school.database.transaction() as connection:
        again = update(session_calendar_sync).where(session_calendar_sync.c.id == change.id)
        connection.execute(again.values(status="pending", attempts=0))
    assert school.run() == result(failed=1)
    assert school.told(teacher) == ["calendar_sync_failed"]


def test_a_lesson_that_does_not_exist_never_passes(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    change = school.change(lesson)
    with school.database.transaction() as connection:
        connection.execute(sessions.delete().where(sessions.c.id == lesson.id))
    assert school.run() == result(failed=1)
    assert school.record(change).last_error == "the lesson does not exist"


BC = "0044-03-15 12:00:00+00 BC"
FAR = "20260-03-15 12:00:00+00"


@pytest.mark.parametrize(
    ("wrong", "field", "shown"),
    [
        ({"starts_at": "-infinity"}, "starts_at", "-infinity"),
        ({"starts_at": BC}, "starts_at", BC),
        ({"ends_at": "infinity"}, "ends_at", "infinity"),
        ({"ends_at": FAR}, "ends_at", FAR),
        ({"starts_at": FAR, "ends_at": FAR}, "starts_at", FAR),
    ],
)
def test_a_time_that_no_calendar_has_fails_at_once_and_is_named(
    school: School, wrong: dict[str, str], field: str, shown: str
) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    change, other = school.change(lesson), school.change(school.lesson(teacher))
    school.write(sessions, lesson.id, **wrong)

    assert school.run() == result(synced=1, failed=1)

    record = school.record(change)
    assert (record.status, record.attempts) == ("failed", 1)
    assert record.last_error == f"{field}: {shown} is outside the calendar of the years 1 to 9999"
    assert school.record(other).status == "synced"
    assert school.told(teacher) == ["calendar_sync_failed"]


def test_a_zone_that_is_none_fails_at_once_and_is_named(school: School) -> None:
    teacher, other = school.teacher(), school.teacher()
    change = school.change(school.lesson(teacher))
    school.change(school.lesson(other))
    school.write(teachers, teacher.id, timezone="Mars/Olympus")

    assert school.run() == result(synced=1, failed=1)

    record = school.record(change)
    assert (record.status, record.attempts) == ("failed", 1)
    assert record.last_error == "timezone: the teacher's, 'Mars/Olympus', is no time zone"
    assert (school.events(teacher), len(school.events(other))) == ({}, 1)


def test_a_record_goes_out_once_its_data_are_mended_and_it_is_tried_again(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    change = school.change(lesson)
    school.write(teachers, teacher.id, timezone="Mars/Olympus")
    school.run()
    school.write(teachers, teacher.id, timezone="Europe/Madrid")
    school.write(session_calendar_sync, change.id, status="pending", attempts=0)

    assert school.run() == result(synced=1)

    assert school.events(teacher)[event_id(lesson.id)]["start"]["timeZone"] == "Europe/Madrid"


def test_an_event_can_be_deleted_whatever_is_wrong_with_its_lesson(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    school.change(lesson)
    school.run()
    school.write(teachers, teacher.id, timezone="Mars/Olympus")
    school.write(sessions, lesson.id, ends_at="infinity")
    school.change(lesson, "delete")

    assert school.run() == result(synced=1)

    assert school.events(teacher) == {}


def test_one_record_that_cannot_be_handled_holds_up_no_other(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = school.teacher()
    poisoned, healthy = school.change(school.lesson(teacher)), school.change(school.lesson(teacher))
    upsert = GoogleCalendar.upsert

    def trip(self: GoogleCalendar, calendar_id: str, event: Any) -> None:
        if event.session_id == poisoned.session_id:
            raise ZeroDivisionError("Maria's lesson")
        upsert(self, calendar_id, event)

    monkeypatch.setattr(GoogleCalendar, "upsert", trip)
    assert school.run() == result(synced=1, postponed=1)
    assert school.record(healthy).status == "synced"
    assert school.record(poisoned).last_error == "ZeroDivisionError", "its text might name somebody"


def test_trouble_of_our_own_fails_the_run_and_no_record(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = school.teacher()
    changes = [school.change(school.lesson(teacher)) for _ in range(3)]
    upsert = GoogleCalendar.upsert

    def denied(self: GoogleCalendar, calendar_id: str, event: Any) -> None:
        if event.session_id == changes[0].session_id:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "GetSecretValue")
        upsert(self, calendar_id, event)

    monkeypatch.setattr(GoogleCalendar, "upsert", denied)
    with pytest.raises(JobFailed, match="AccessDeniedException"):
        school.run()
    records = [school.record(change) for change in changes]
    assert [record.status for record in records] == ["pending", "synced", "synced"]
    assert (records[0].attempts, records[0].last_error) == (0, "AccessDeniedException")
    assert records[0].next_attempt_at > school.now, "it does not stand in the others' way"


# Revoked tokens


def test_a_revoked_token_marks_the_connection_and_its_records_wait(school: School) -> None:
    teacher, other = school.teacher(), school.teacher()
    waiting = [school.change(school.lesson(teacher)) for _ in range(3)]
    fine = school.change(school.lesson(other))
    school.google.revoke(school.account(teacher))

    assert school.run() == result(synced=1, waiting=3)

    (connection,) = school.stored(calendar_connections, teacher_id=teacher.id)
    assert connection.status == "revoked"
    for change in waiting:
        record = school.record(change)
        assert (record.status, record.attempts, record.claimed_by) == ("pending", 0, None)
    assert school.record(fine).status == "synced"
    assert school.told(teacher) == ["google_disconnected"]


def test_records_of_a_revoked_connection_are_not_even_tried(school: School) -> None:
    teacher = school.teacher(status="revoked")
    for _ in range(BATCH):
        school.change(school.lesson(teacher), created_at=school.now - timedelta(days=1))
    other = school.teacher()
    school.change(school.lesson(other))
    assert school.run() == result(synced=1), "those who wait take nobody's place"
    assert school.google.requests("token") == 1


def test_records_go_on_when_the_connection_works_again(school: School) -> None:
    teacher = school.teacher()
    change = school.change(school.lesson(teacher))
    school.google.revoke(school.account(teacher))
    school.run()
    school.google.restore(school.account(teacher))
    with school.database.transaction() as connection:
        connection.execute(update(calendar_connections).values(status="active"))

    assert school.run() == result(synced=1)

    assert school.record(change).attempts == 1
    assert len(school.events(teacher)) == 1


def test_a_teacher_who_connected_again_meanwhile_stays_connected(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = school.teacher()
    school.change(school.lesson(teacher))
    school.google.revoke(school.account(teacher))

    def after_the_teacher(connection: Any, account: Any, now: datetime) -> bool:
        with school.database.transaction() as other:
            other.execute(update(calendar_connections).values(calendar_id="a new one", status="active"))
        return mark_revoked(connection, account, now)

    monkeypatch.setattr("schoolbell.domains.tutoring.calendar_changes.mark_revoked", after_the_teacher)
    school.run()
    (connection,) = school.stored(calendar_connections)
    assert connection.status == "active"
    assert school.told(teacher) == []


@pytest.mark.parametrize("connection", [{"secret_id": None}, {"status": "disconnected"}])
def test_records_of_a_teacher_without_a_usable_connection_wait(school: School, connection: dict[str, Any]) -> None:
    teacher = school.make.teacher()
    school.make.calendar_connection(teacher, **connection)
    change = school.change(school.lesson(teacher))
    assert school.run() == result()
    assert (school.record(change).status, school.record(change).attempts) == ("pending", 0)


def test_of_several_connections_the_latest_is_used(school: School) -> None:
    teacher = school.teacher()
    latest = school.google.account()
    later = school.connections[teacher.id].created_at + timedelta(days=1)
    school.make.calendar_connection(teacher, secret_id=latest, calendar_id="primary", created_at=later)
    school.change(school.lesson(teacher))
    assert school.run() == result(synced=1)
    assert (len(school.events(teacher)), len(school.google.events(latest))) == (0, 1)


# The order of a lesson's records


def test_a_newer_record_is_not_undone_by_an_older_one_that_failed_before(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    older = school.change(lesson)
    school.google.fail(method="POST", path="/calendar/", status=500, effect=True, times=1)
    assert school.run() == result(postponed=1)
    newer = school.change(lesson, "delete")

    assert school.run() == result(synced=1)
    assert school.run(school.now + timedelta(hours=7)) == result()

    assert school.events(teacher) == {}, "the older record would have brought the event back"
    assert [school.record(change).status for change in (older, newer)] == ["synced", "synced"]


def test_only_the_newest_of_a_lessons_records_goes_out(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    changes = [school.change(lesson, action) for action in ("upsert", "delete", "upsert", "upsert", "delete", "upsert")]

    assert school.run() == result(synced=1)

    assert school.google.requests("events.insert") == 1
    assert school.google.requests("events.delete") == 0
    assert {school.record(change).status for change in changes} == {"synced"}
    assert len(school.events(teacher)) == 1


def test_records_written_in_one_transaction_keep_their_order(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    with school.database.transaction() as connection:
        for action in ("upsert", "delete"):
            row = {"session_id": lesson.id, "teacher_id": teacher.id, "action": action, "created_at": school.now}
            connection.execute(insert(session_calendar_sync).values(row))
    school.run()
    assert school.google.requests("events.insert") == 0
    assert school.google.requests("events.delete") == 1


def test_what_becomes_of_the_newest_record_becomes_of_those_it_replaced(school: School) -> None:
    teacher = school.teacher(calendar_id="deleted@group.calendar.google.com")
    lesson = school.lesson(teacher)
    changes = [school.change(lesson) for _ in range(3)]
    assert school.run() == result(failed=1)
    assert {school.record(change).status for change in changes} == {"failed"}
    assert school.told(teacher) == ["calendar_sync_failed"]


def test_an_older_record_set_to_pending_by_hand_does_what_the_newest_says(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    older = school.change(lesson, status="failed")
    school.change(lesson, "delete", status="synced")
    with school.database.transaction() as connection:
        again = update(session_calendar_sync).where(session_calendar_sync.c.id == older.id)
        connection.execute(again.values(status="pending"))
    assert school.run() == result(synced=1)
    assert school.events(teacher) == {}


def test_a_lesson_that_another_run_is_at_waits_for_it(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    school.change(lesson, claimed_by=uuid4(), claimed_until=school.now + LEASE)
    newer = school.change(lesson, "delete")

    assert school.run() == result()
    assert school.record(newer).status == "pending"

    assert school.run(school.now + LEASE) == result(synced=1), "the other run is dead"
    assert school.events(teacher) == {}


def test_a_record_that_arrives_while_an_older_one_is_on_its_way_goes_out_after_it(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    older = school.change(lesson)
    arrived: list[Row[Any]] = []
    second_run: list[dict[str, Any]] = []
    upsert = GoogleCalendar.upsert

    def meanwhile(self: GoogleCalendar, calendar_id: str, event: Any) -> None:
        arrived.append(school.change(lesson, "delete"))
        done = threading.Thread(target=lambda: second_run.append(handler({}, Invocation())["result"]))
        done.start()
        done.join()
        upsert(self, calendar_id, event)

    monkeypatch.setattr(GoogleCalendar, "upsert", meanwhile)
    assert school.run() == result(synced=1)
    assert second_run == [result()]
    assert (school.record(older).status, school.record(arrived[0]).status) == ("synced", "pending")
    assert school.run() == result(synced=1)
    assert school.events(teacher) == {}


def test_a_record_that_arrives_while_an_older_one_is_being_claimed_waits_too(school: School) -> None:
    teacher = school.teacher()
    lesson = school.lesson(teacher)
    older = school.change(lesson)
    claimed, may_commit = threading.Event(), threading.Event()

    @contextmanager
    def slow() -> Iterator[Connection]:
        with school.database.transaction() as connection:
            yield connection
            claimed.set()
            may_commit.wait(10)

    first_run = cast(JobContext, SimpleNamespace(transaction=slow, now=school.now, run_id=uuid4()))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(claim, first_run)
        claimed.wait(10)
        newer = school.change(lesson, "delete")
        second = threads.submit(lambda: handler({}, Invocation())["result"])
        time.sleep(0.5)
        may_commit.set()
        assert [change.id for change in first.result()] == [older.id]
        assert second.result() == result()
    assert school.record(newer).claimed_by is None


# Crashes


class Killed(BaseException):
    """Lambda ended the invocation."""


def kill(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """The invocation is killed right after so many calls of Google."""
    upsert = GoogleCalendar.upsert
    made: list[int] = []

    def dying(self: GoogleCalendar, calendar_id: str, event: Any) -> None:
        upsert(self, calendar_id, event)
        made.append(1)
        if len(made) == after:
            raise Killed

    monkeypatch.setattr(GoogleCalendar, "upsert", dying)


def test_a_crash_frees_what_was_claimed(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = school.teacher()
    changes = [school.change(school.lesson(teacher)) for _ in range(4)]
    with monkeypatch.context() as patch:
        kill(patch, after=2)
        with pytest.raises(Killed):
            school.run()
    assert [school.record(change).status for change in changes] == ["synced", "pending", "pending", "pending"]

    assert school.run() == result(), "another run leaves them alone while the first might live"
    assert school.run(school.now + LEASE) == result(synced=3)

    assert len(school.events(teacher)) == 4
    assert all(school.record(change).attempts == 1 for change in changes)


@pytest.mark.parametrize("meanwhile", [{"status": "synced"}, {"claimed_by": uuid4()}])
def test_a_failure_after_the_claim_was_lost_changes_nothing(
    school: School, monkeypatch: pytest.MonkeyPatch, meanwhile: dict[str, Any]
) -> None:
    """As when a run was frozen for longer than its claim lasts, and another has done its work or is at it."""
    change = school.change(school.lesson(school.teacher()))

    def slow(*_: Any) -> None:
        with school.database.transaction() as connection:
            connection.execute(update(session_calendar_sync).values(meanwhile))
        raise TimeoutError

    monkeypatch.setattr(GoogleCalendar, "upsert", slow)
    school.run()
    record = school.record(change)
    assert (record.attempts, record.next_attempt_at, record.last_error) == (0, None, None)
    assert {name: getattr(record, name) for name in meanwhile} == meanwhile


def test_lambdas_own_retry_goes_on_at_once(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = school.teacher()
    for _ in range(3):
        school.change(school.lesson(teacher))
    invocation = Invocation()
    at = school.now + FIVE_MINUTES
    with monkeypatch.context() as patch:
        kill(patch, after=1)
        with pytest.raises(Killed):
            school.run(at, invocation=invocation)
    assert school.run(at, invocation=invocation) == result(synced=3)
    assert len(school.events(teacher)) == 3


def test_leaves_the_rest_for_the_next_run_when_time_is_short(school: School) -> None:
    teacher = school.teacher()
    changes = [school.change(school.lesson(teacher)) for _ in range(3)]
    left = iter([timedelta(minutes=4)] * 3 + [timedelta(seconds=80)] + [timedelta(seconds=10)] * 50)
    done = school.run(invocation=Invocation(remaining=lambda: next(left)))
    assert done["waiting"] > 0
    assert all(school.record(change).claimed_by is None for change in changes)
    assert school.run()["synced"] == done["waiting"]


def test_nothing_personal_is_logged(school: School, caplog: pytest.LogCaptureFixture) -> None:
    teacher = school.teacher(calendar_id="maria.lopez@gmail.com")
    school.change(school.lesson(teacher))
    school.run()
    logged = " ".join(str(vars(record)) for record in caplog.records if record.name.startswith("tutoring"))
    assert "change not carried over" in logged
    assert "maria.lopez" not in logged
    assert "ya29" not in logged
