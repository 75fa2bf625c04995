"""Data retention: who is erased and when, what goes with a student and what stays, and what is cleared by age."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import JSON, Column, Row, Text, event, func, select, text, update

from functions.tutoring.data_retention.app import handler
from schoolbell.database import Database
from schoolbell.database.tables import metadata, personal_columns, student_columns
from schoolbell.domains.platform.schema import audit_logs, dead_letters
from schoolbell.domains.tutoring import clearing, erasure, retention
from schoolbell.domains.tutoring.schema import (
    RETENTION_DEFAULTS,
    contact_log,
    credit_ledger,
    drive_file_copies,
    enrollments,
    erasure_requests,
    scheduled_messages,
    session_calendar_sync,
    sessions,
    students,
    teacher_notifications,
    waitlist_entries,
)
from schoolbell.jobs.outbox import Outbox
from schoolbell.jobs.outcomes import JobFailed
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe, contents
from tests.fixtures.database import Stored
from tests.performing import Invocation, Performed, Performer

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
AGES = timedelta(days=3 * 365)
QUEUES = ("tutoring.session-events", "tutoring.message-events", "tutoring.waitlist-answers")

type Retain = Callable[..., Performed]
type Sent = Callable[[str], list[Any]]


@pytest.fixture
def retain(perform: Performer, queues: Any) -> Retain:
    """Runs the job by hand at a time."""
    queues.make(*QUEUES)

    def run(at: datetime = NOW, **data: bool) -> Performed:
        return perform(handler, now=at, event=data)

    return run


@pytest.fixture
def teacher(make: Make) -> Row[Any]:
    return make.teacher()


def long_gone(make: Make, teacher: Row[Any] | None = None, **columns: Any) -> Row[Any]:
    """A student who was last active three years ago."""
    return make.student(teacher, **{"last_activity_at": NOW - AGES, "created_at": NOW - AGES, **columns})


def erased(stored: Stored) -> set[UUID]:
    return {row.id for row in stored(students, status="erased")}


# Who is inactive


def test_a_student_is_erased_when_inactive_for_longer_than_the_threshold(
    make: Make, retain: Retain, stored: Stored, teacher: Row[Any]
) -> None:
    make.settings(teacher, inactive_student_days=100)
    limit = NOW - 100 * DAY
    gone = make.student(teacher, last_activity_at=limit - TICK)
    make.student(teacher, last_activity_at=limit)
    result = retain().result
    assert erased(stored) == {gone.id}
    assert result["students_erased"] == 1


def test_a_teacher_without_settings_has_the_defaults(make: Make, retain: Retain, stored: Stored) -> None:
    limit = NOW - RETENTION_DEFAULTS["inactive_student_days"] * DAY
    gone = make.student(last_activity_at=limit - TICK)
    make.student(last_activity_at=limit)
    retain()
    assert erased(stored) == {gone.id}


def test_each_teacher_s_own_threshold_holds(make: Make, retain: Retain, stored: Stored) -> None:
    strict, patient, default = make.teacher(), make.teacher(), make.teacher()
    make.settings(strict, inactive_student_days=30)
    make.settings(patient, inactive_student_days=2_000)
    gone = make.student(strict, last_activity_at=NOW - 31 * DAY)
    for teacher in (patient, default):
        make.student(teacher, last_activity_at=NOW - 31 * DAY)
    also_gone = make.student(default, last_activity_at=NOW - 800 * DAY)
    make.student(patient, last_activity_at=NOW - 800 * DAY)
    make.student(default, last_activity_at=NOW - 730 * DAY)
    retain()
    assert erased(stored) == {gone.id, also_gone.id}


def test_a_student_who_was_never_active_counts_from_the_first_day(make: Make, retain: Retain, stored: Stored) -> None:
    gone = make.student(last_activity_at=None, created_at=NOW - 731 * DAY)
    make.student(last_activity_at=None, created_at=NOW - 729 * DAY)
    retain()
    assert erased(stored) == {gone.id}


@pytest.mark.parametrize("status", ["active", "inactive"])
def test_the_status_that_an_application_keeps_does_not_matter(
    make: Make, retain: Retain, stored: Stored, status: str
) -> None:
    gone = long_gone(make, status=status)
    make.student(status=status)
    retain()
    assert erased(stored) == {gone.id}


@pytest.mark.parametrize(
    ("starts_at", "status", "is_erased"),
    [
        (NOW + 7 * DAY, "scheduled", False),
        (NOW - 10 * DAY, "completed", False),
        (NOW - 10 * DAY, "no_show", False),
        (NOW - 730 * DAY, "completed", False),
        (NOW - 730 * DAY - TICK, "completed", True),
        (NOW + 7 * DAY, "cancelled", True),
    ],
)
def test_a_student_with_lessons_is_not_inactive_whatever_the_application_wrote(
    make: Make, retain: Retain, stored: Stored, starts_at: datetime, status: str, is_erased: bool
) -> None:
    student = long_gone(make)
    make.session(student, starts_at=starts_at, status=status)
    retain()
    assert erased(stored) == ({student.id} if is_erased else set())


def test_a_threshold_of_ages_is_as_good_as_never(make: Make, retain: Retain, stored: Stored, teacher: Row[Any]) -> None:
    make.settings(teacher, **dict.fromkeys(RETENTION_DEFAULTS, 2_147_483_647))
    long_gone(make, teacher)
    retain()
    assert erased(stored) == set()


# Erasure requests


def test_a_request_is_carried_out_when_it_is_overdue(make: Make, retain: Retain, stored: Stored) -> None:
    gone, other = make.student(), make.student()
    overdue = make.erasure_request(gone, due_at=NOW - TICK)
    make.erasure_request(other, due_at=NOW)
    result = retain().result
    assert erased(stored) == {gone.id}
    done = {row.id: (row.status, row.completed_at) for row in stored(erasure_requests, status="done")}
    assert done == {overdue.id: ("done", NOW)}
    assert (result["requests_overdue"], result["requests_done"], result["students_erased"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("days", "age", "is_erased"), [(None, 30, False), (None, 31, True), (10, 9, False), (10, 11, True)]
)
def test_a_request_without_a_date_is_due_after_the_teacher_s_days(
    make: Make, retain: Retain, stored: Stored, teacher: Row[Any], days: int | None, age: int, is_erased: bool
) -> None:
    if days:
        make.settings(teacher, erasure_due_days=days)
    student = make.student(teacher)
    make.erasure_request(student, requested_at=NOW - age * DAY, due_at=None)
    retain()
    assert erased(stored) == ({student.id} if is_erased else set())


def test_a_date_that_was_agreed_holds_even_if_it_is_later(make: Make, retain: Retain, stored: Stored) -> None:
    make.erasure_request(requested_at=NOW - 50 * DAY, due_at=NOW + DAY)
    retain()
    assert erased(stored) == set()


def test_all_requests_of_an_erased_student_are_done(make: Make, retain: Retain, stored: Stored) -> None:
    student = make.student()
    for due_at in (NOW - DAY, NOW + 20 * DAY):
        make.erasure_request(student, due_at=due_at)
    inactive = long_gone(make)
    make.erasure_request(inactive, due_at=NOW + 20 * DAY)
    earlier = make.student(status="erased", name="Erased student", email=None, phone=None)
    make.erasure_request(earlier, due_at=NOW - DAY)
    result = retain().result
    assert {row.status for row in stored(erasure_requests)} == {"done"}
    assert (result["students_erased"], result["requests_done"]) == (2, 4)


def test_an_overdue_request_raises_an_alert_once(
    make: Make,
    retain: Retain,
    stored: Stored,
    outbox_rows: Callable[[], list[Row[Any]]],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = make.erasure_request()
    retain()
    (alert,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert alert.getMessage() == "erasure requests are overdue"
    assert alert.__dict__["requests"] == [str(request.id)]
    assert '"OverdueErasureRequests":[1.0]' in capsys.readouterr().out
    (told,) = stored(teacher_notifications)
    assert (told.kind, told.subject_id, told.student_id, told.body) == ("erasure_overdue", request.id, None, None)
    assert told.title == "An erasure request was overdue, and is now carried out"
    assert stored(erasure_requests)[0].alerted_at == NOW
    raised, ended = (row.payload for row in outbox_rows() if row.destination == "topic/alerts")
    assert (raised["action"], raised["severity"], raised["key"]) == (
        "trigger",
        "critical",
        "erasure-overdue/tutoring.data-retention",
    )
    assert (ended["action"], ended["key"]) == ("resolve", raised["key"])

    caplog.clear()
    retain(NOW + 7 * DAY)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(stored(teacher_notifications)) == 1


def test_a_request_that_was_opened_again_by_hand_tells_the_teacher_no_second_time(
    make: Make, retain: Retain, stored: Stored, database: Database
) -> None:
    make.erasure_request()
    retain()
    with database.transaction() as connection:
        connection.execute(update(erasure_requests).values(status="open", alerted_at=None))
    assert retain().result["requests_done"] == 1
    assert len(stored(teacher_notifications)) == 1


def test_the_alert_comes_before_the_erasure_and_not_again_when_that_failed(
    make: Make, retain: Retain, stored: Stored, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.erasure_request()
    with monkeypatch.context() as patched:
        patched.setattr(erasure, "replace_personal", _refuse)
        with pytest.raises(JobFailed):
            retain()
    assert caplog.messages.count("erasure requests are overdue") == 1
    assert erased(stored) == set()
    assert stored(erasure_requests)[0].status == "open"
    assert retain().result["requests_overdue"] == 0
    assert caplog.messages.count("erasure requests are overdue") == 1
    assert stored(erasure_requests)[0].status == "done"


# What is personal


def everything_of(make: Make, student: Row[Any]) -> None:
    """A row of each kind that a student can have."""
    teacher, past = student.teacher_id, make.session(student, starts_at=NOW - AGES, status="completed")
    message = make.message(student, status="fired", send_at=NOW - 3 * DAY)
    make.enrollment(student)
    make.ledger(student, 10)
    make.ledger(student, -1, "CONSUME", session_id=past.id)
    make.notification(teacher, student_id=student.id)
    for subject in (student, past, message):
        make.notification(teacher, subject_id=subject.id)
    make.calendar_sync(past, status="synced", external_event_id="event")
    make.drive_copy(make.drive_resource(teacher), student)
    make.signal(student)
    make.content_event(make.content_item(teacher), student)
    make.entry(make.waitlist(past), student)
    make.contact(student)
    make.to_deliver(student)
    make.preference(student, channel="sms", wanted=False)
    make.push_token(student)
    make.audit_log(subject=str(student.id), tier="student")
    make.dead_letter(payload=json.dumps({"student_id": str(student.id)}))


def write_secrets(database: Database, student: Row[Any], secret: str) -> Counter[str]:
    """Writes a secret into every personal column of a student's rows, by the declarations alone; counts the rows."""
    rows: Counter[str] = Counter()
    with database.transaction() as connection:
        for column in personal_columns():
            table = column.table
            owners = ("teacher_id",) if table is teacher_notifications else student_columns(table) or ("payload",)
            is_theirs = " OR ".join(f"strpos({owner}::text, :owner) > 0" for owner in owners)
            kept = "jsonb_build_object('secret', CAST(:secret AS text))" if _is_json(column) else ":secret"
            if table is dead_letters and column.name == "payload":
                kept = "payload || :secret"
            changed = connection.execute(
                text(f"UPDATE {table} SET {column.name} = {kept} WHERE {is_theirs}"),
                {"owner": str(student.teacher_id if table is teacher_notifications else student.id), "secret": secret},
            )
            rows[str(table)] = changed.rowcount
    return rows


def secrets_left(database: Database, secret: str) -> dict[str, int]:
    """In how many rows of each table the secret is found, in whatever column."""
    left = {}
    for name, rows in contents(database).items():
        if found := sum(secret in json.dumps(row) for row in rows):
            left[name] = found
    return left


def _is_json(column: Column[Any]) -> bool:
    return isinstance(column.type, JSON)


def test_every_personal_datum_of_an_erased_student_goes_from_every_table(
    make: Make, retain: Retain, stored: Stored, database: Database
) -> None:
    """The list of what is personal comes from the declarations, so a column that is added later is in this test."""
    student, other = long_gone(make), make.student()
    for each, secret in ((student, "GONE-SECRET"), (other, "OTHER-SECRET")):
        everything_of(make, each)
        rows = write_secrets(database, each, secret)
        assert not [table for table, count in rows.items() if not count], "everything_of() writes no row of these"
    of_other = secrets_left(database, "OTHER-SECRET")

    result = retain().result

    assert secrets_left(database, "GONE-SECRET") == {}
    assert result["rows_erased"] == of_other
    for column in personal_columns():
        if column.table is students:
            (gone,) = stored(students, id=student.id)
            assert gone._mapping[column.name] == column.info["personal"]
    # The other one, who is active, loses nothing but what is old.
    of_other["tutoring.sessions"] -= 1
    assert secrets_left(database, "OTHER-SECRET") == {table: count for table, count in of_other.items() if count}


NOT_PERSONAL: Mapping[str, set[str]] = {
    "platform.alerts": {"key", "status", "severity", "summary", "source", "details", "told"},
    "platform.job_statistics": {"job"},
    "platform.job_totals": {"job"},
    "platform.seen_schedules": {"name", "shape"},
    "platform.standing_alerts": {"key", "source", "severity", "summary", "details"},
    "platform.triggers": {"key", "job", "queue", "requested_by", "schedule"},
    "platform.zone_schedules": {"job", "time_zone"},
    "platform.audit_logs": {"tier", "action", "actor", "subject", "archived_to"},
    "platform.dead_letters": {"job", "queue", "message_id", "reason", "resolution", "resolved_by"},
    "platform.job_runs": {
        *("job", "trigger", "status", "cursor", "result", "error", "traceback", "request_id", "data"),
        "time_zone",
    },
    "platform.leases": {"name", "holder"},
    "platform.notification_preferences": {"person", "kind", "channel"},
    "platform.notifications": {
        *("channel", "template", "priority", "dedup_key", "status", "provider", "provider_message_id", "error"),
        "sent_by",
    },
    "platform.push_tokens": {"person"},
    "platform.outbox": {"destination", "payload", "dedup_key", "tenant", "last_error", "attributes"},
    "platform.watermarks": {"name"},
    "tutoring.teachers": {"name", "email", "timezone"},  # of a teacher
    "tutoring.calendar_connections": {"calendar_id", "secret_id", "status"},  # of a teacher
    "tutoring.content_items": {"title"},  # a teacher's
    "tutoring.drive_resources": {"drive_file_id", "name"},  # a teacher's
    "tutoring.metric_alert_rules": {"metric", "comparator"},
    "tutoring.session_calendar_sync": {"action", "status", "last_error", "external_event_id"},
    "tutoring.students": {"status"},
    "tutoring.content_events": {"kind"},
    "tutoring.drive_file_copies": {"status", "last_error"},
    "tutoring.enrollments": {"status"},
    "tutoring.erasure_requests": {"status"},
    "tutoring.lifecycle_signals": {"kind", "period"},
    "tutoring.scheduled_messages": {"channel", "status"},
    "tutoring.sessions": {"completion_mode", "status"},
    "tutoring.teacher_notifications": {"kind", "dedup_key"},
    "tutoring.contact_log": {"channel", "direction"},
    "tutoring.credit_ledger": {"kind"},
    "tutoring.waitlist_openings": {"source"},
    "tutoring.waitlist_seats": {"status"},
    "tutoring.waitlist_entries": {"status", "task_token"},
    "tutoring.waitlist_answers": {"source", "answer", "outcome", "reason"},
}
"""Columns of text or JSON that hold codes, ids and numbers by rule, or what is not a student's."""


def test_every_column_of_text_is_either_personal_or_known_not_to_be() -> None:
    """A new column of text or JSON must be marked `info=personal()`, or put on the list above."""
    list(personal_columns())  # declares the tables
    undecided = {
        f"{table}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Text | JSON)
        and "personal" not in column.info
        and column.name not in NOT_PERSONAL.get(str(table), ())
    }
    assert undecided == set()


def test_the_list_of_what_is_not_personal_names_only_columns_that_exist() -> None:
    list(personal_columns())
    declared = {f"{table}.{column.name}" for table in metadata.sorted_tables for column in table.columns}
    personal = {f"{column.table}.{column.name}" for column in personal_columns()}
    listed = {f"{table}.{column}" for table, columns in NOT_PERSONAL.items() for column in columns}
    assert listed <= declared - personal


# What stays


def test_the_ledger_stays_under_the_pseudonym(make: Make, retain: Retain, stored: Stored, database: Database) -> None:
    student = long_gone(make)
    everything_of(make, student)
    before = stored(credit_ledger)
    retain()
    assert stored(credit_ledger) == before
    balance = select(func.sum(credit_ledger.c.amount)).where(credit_ledger.c.student_id == student.id)
    with database.transaction() as connection:
        assert connection.execute(balance).scalar_one() == 9
    (gone,) = stored(students, id=student.id)
    assert (gone.status, gone.erased_at, gone.name, gone.email, gone.phone) == (
        "erased",
        NOW,
        "Erased student",
        None,
        None,
    )


def test_what_others_have_written_about_other_things_stays(make: Make, retain: Retain, stored: Stored) -> None:
    student = long_gone(make)
    everything_of(make, student)
    kept = [
        make.notification(student.teacher_id, title="About all of them"),
        make.notification(student.teacher_id, subject_id=uuid4(), title="About something"),
        make.notification(student.teacher_id, student_id=make.student().id, title="About another"),
    ]
    letter = make.dead_letter(payload=json.dumps({"student_id": str(uuid4())}))
    retain()
    titles = {row.id: row.title for row in stored(teacher_notifications)}
    assert [titles[note.id] for note in kept] == [note.title for note in kept]
    assert sum(title == "" for title in titles.values()) == 4
    assert stored(dead_letters, id=letter.id)[0].payload == letter.payload


def test_what_was_erased_is_in_the_audit_log_by_id(make: Make, retain: Retain, stored: Stored) -> None:
    requested, inactive = make.student(), long_gone(make)
    request = make.erasure_request(requested)
    retain()
    logged = stored(audit_logs, actor="tutoring.data-retention")
    assert {(row.action, row.subject) for row in logged} == {
        ("student.erased", str(requested.id)),
        ("student.erased", str(inactive.id)),
        ("erasure_request.done", str(request.id)),
    }
    assert {(row.tier, row.occurred_at, row.details) for row in logged} == {("student", NOW, None)}


def test_an_erasure_and_its_record_are_one_transaction(
    make: Make, retain: Retain, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = long_gone(make)
    monkeypatch.setattr(erasure, "call_off", _refuse)
    with pytest.raises(JobFailed):
        retain()
    assert stored(audit_logs) == []
    (kept,) = stored(students)
    assert (kept.status, kept.name) == (student.status, student.name)


def _refuse(*_: Any, **__: Any) -> None:
    raise RuntimeError("no")


# What only mentions a student


@pytest.mark.parametrize(
    "said",
    [
        lambda student: {"payload": json.dumps({"student_id": str(student)})},
        lambda student: {"payload": f"not JSON, {str(student).upper()}"},
        lambda student: {"payload": json.dumps({"student_id": student.hex})},
        lambda student: {"error": f"ValueError: {student}"},
        lambda student: {"attributes": {"MessageGroupId": str(student)}},
    ],
)
def test_a_dead_letter_that_mentions_the_student_is_emptied(
    make: Make, retain: Retain, stored: Stored, said: Callable[[UUID], dict[str, Any]]
) -> None:
    student = long_gone(make)
    make.dead_letter(**{"attributes": {"a": 1}, "traceback": "here", **said(student.id)})
    retain()
    (letter,) = stored(dead_letters)
    assert (letter.payload, letter.attributes, letter.error, letter.traceback) == (None, None, None, None)


def test_a_message_that_died_after_the_erasure_is_emptied_too(make: Make, retain: Retain, stored: Stored) -> None:
    student = long_gone(make)
    retain()
    make.dead_letter(payload=json.dumps({"student_id": str(student.id)}))
    assert retain(NOW + 7 * DAY).result["rows_erased"] == {"platform.dead_letters": 1}
    assert stored(dead_letters)[0].payload is None


def test_letters_are_looked_at_some_at_a_time(
    make: Make, retain: Retain, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MENTIONS_A_CHUNK", 2)
    student = long_gone(make)
    for number in range(7):
        make.dead_letter(payload=json.dumps({"student_id": str(student.id if number % 2 else uuid4())}))
    retain()
    assert sum(row.payload is None for row in stored(dead_letters)) == 3


def test_what_is_written_about_a_student_after_the_erasure_goes_with_the_next_run(
    make: Make, retain: Retain, stored: Stored
) -> None:
    """A job that was under way had read the name before, and writes it after."""
    student = long_gone(make)
    retain()
    make.notification(student.teacher_id, student_id=student.id, body=f"{student.name} was last active in March.")
    make.contact(student, occurred_at=NOW)
    result = retain(NOW + 7 * DAY).result
    assert result["rows_erased"] == {"tutoring.teacher_notifications": 1, "tutoring.contact_log": 1}
    assert [row.body for row in (*stored(teacher_notifications), *stored(contact_log))] == [None, None]


# What was still to come


def test_lessons_to_come_are_cancelled_and_others_left_as_they_are(
    make: Make, retain: Retain, stored: Stored, sent: Sent
) -> None:
    student = make.student()
    make.erasure_request(student)
    to_come = make.session(student, starts_at=NOW + DAY)
    with_schedule = make.session(student, starts_at=NOW + 2 * DAY, scheduled_for=NOW + 2 * DAY)
    over = make.session(student, starts_at=NOW - 2 * 60 * timedelta(minutes=1))  # its credit is still to be consumed
    held = make.session(student, starts_at=NOW - DAY, status="completed")
    retain()
    statuses = {row.id: row.status for row in stored(sessions)}
    assert statuses == {
        to_come.id: "cancelled",
        with_schedule.id: "cancelled",
        over.id: "scheduled",
        held.id: "completed",
    }
    assert sent("tutoring.session-events") == [{"type": "session.cancelled", "session_id": str(with_schedule.id)}]


def test_planned_messages_are_cancelled(make: Make, retain: Retain, stored: Stored, sent: Sent) -> None:
    student = long_gone(make)
    make.message(student, send_at=NOW + DAY)
    scheduled = make.message(student, send_at=NOW + DAY, scheduled_for=NOW + DAY)
    make.message(student, send_at=NOW - DAY, status="fired")
    retain()
    assert Counter((row.status, row.body) for row in stored(scheduled_messages)) == {
        ("cancelled", None): 2,
        ("fired", None): 1,
    }
    assert sent("tutoring.message-events") == [{"type": "message.cancelled", "message_id": str(scheduled.id)}]


def test_places_on_waiting_lists_are_withdrawn_and_offers_declined(
    make: Make, retain: Retain, stored: Stored, sent: Sent
) -> None:
    student = long_gone(make)
    entries = {
        status: make.entry(student=student, status=status) for status in ("waiting", "notified", "accepted", "expired")
    }
    retain()
    statuses = {row.id: row.status for row in stored(waitlist_entries)}
    assert {status: statuses[entry.id] for status, entry in entries.items()} == {
        "waiting": "withdrawn",
        "notified": "notified",  # until the answer has arrived, as any other
        "accepted": "accepted",
        "expired": "expired",
    }
    assert sent("tutoring.waitlist-answers") == [{"entry_id": str(entries["notified"].id), "answer": "decline"}]


def test_enrolments_end_and_copies_that_are_being_made_are_no_longer_asked_for(
    make: Make, retain: Retain, stored: Stored
) -> None:
    student = long_gone(make)
    make.enrollment(student)
    make.enrollment(student, status="cancelled")
    make.drive_copy(student=student, status="pending", claimed_by=uuid4(), claimed_until=NOW + DAY)
    retain()
    assert sorted(row.status for row in stored(enrollments)) == ["cancelled", "ended"]
    assert [(row.status, row.claimed_by) for row in stored(drive_file_copies)] == [("failed", None)]


def test_calendar_events_to_come_are_deleted_and_past_ones_lose_the_name_where_it_was_asked_for(
    make: Make, retain: Retain, stored: Stored
) -> None:
    asked, inactive = make.student(), long_gone(make)
    make.erasure_request(asked)
    coming = make.session(asked, starts_at=NOW + DAY)
    past = make.session(asked, starts_at=NOW - DAY, status="completed")
    long_past = make.session(inactive, starts_at=NOW - AGES, status="completed")
    deleted = make.session(asked, starts_at=NOW - DAY, status="cancelled")
    make.session(asked, starts_at=NOW - DAY, status="completed")  # never was in the calendar
    for session in (coming, past, long_past, deleted):
        make.calendar_sync(session, status="synced", external_event_id="event")
    make.calendar_sync(deleted, action="delete", status="synced", external_event_id="event")
    retain()
    changes = {(row.session_id, row.action) for row in stored(session_calendar_sync, status="pending")}
    assert changes == {(coming.id, "delete"), (past.id, "upsert")}


# What is cleared by age


def test_lesson_content_is_cleared_after_the_teacher_s_days(
    make: Make, retain: Retain, stored: Stored, teacher: Row[Any]
) -> None:
    make.settings(teacher, session_content_days=90)
    student = make.student(teacher)
    limit = NOW - 90 * DAY
    old = make.session(student, ends_at=limit - TICK, status="completed", content="about vectors")
    make.session(student, ends_at=limit, status="completed", content="about vectors")
    make.session(student, ends_at=limit - DAY, status="completed")
    by_default = make.session(ends_at=NOW - 365 * DAY - TICK, status="completed", content="about vectors")
    make.session(ends_at=NOW - 365 * DAY, status="completed", content="about vectors")
    result = retain().result
    cleared = {row.id for row in stored(sessions, status="completed") if row.content is None and row.updated_at == NOW}
    assert cleared == {old.id, by_default.id}
    assert result["sessions_cleared"] == 2
    assert sum(row.content is not None for row in stored(sessions)) == 2


def test_contact_log_entries_are_deleted_after_the_teacher_s_days(
    make: Make, retain: Retain, stored: Stored, teacher: Row[Any]
) -> None:
    make.settings(teacher, contact_log_days=90)
    limit = NOW - 90 * DAY
    student = make.student(teacher)
    make.contact(student, occurred_at=limit - TICK)
    kept = [make.contact(student, occurred_at=limit), make.contact(occurred_at=NOW - 365 * DAY)]
    make.contact(occurred_at=NOW - 365 * DAY - TICK)
    result = retain().result
    assert {row.id for row in stored(contact_log)} == {row.id for row in kept}
    assert result["contacts_deleted"] == 2


def test_the_text_of_an_old_message_goes_with_the_entry_that_repeats_it(
    make: Make, retain: Retain, stored: Stored
) -> None:
    old = NOW - 365 * DAY - TICK
    fired = make.message(send_at=old, status="fired")
    make.contact(make.student(), scheduled_message_id=fired.id, body=fired.body, occurred_at=old)
    cancelled = make.message(send_at=old, status="cancelled")
    kept = {make.message(send_at=old).id, make.message(send_at=NOW - 365 * DAY, status="fired").id}
    result = retain().result
    assert {row.id: row.body is None for row in stored(scheduled_messages)} == {
        **dict.fromkeys(kept, False),
        fired.id: True,
        cancelled.id: True,
    }
    assert stored(contact_log) == []
    assert (result["contacts_deleted"], result["messages_cleared"]) == (1, 2)


def test_what_was_cleared_is_in_the_audit_log_by_id(make: Make, retain: Retain, stored: Stored) -> None:
    teachers = [make.teacher(), make.teacher()]
    old: dict[UUID, set[str]] = {}
    for teacher in teachers:
        student = make.student(teacher)
        lessons = [make.session(student, ends_at=NOW - (400 + n) * DAY, content="old") for n in range(3)]
        old[teacher.id] = {str(lesson.id) for lesson in lessons}
    contact = make.contact(make.student(teachers[0]), occurred_at=NOW - 400 * DAY)
    retain()
    logged = stored(audit_logs)
    lessons_logged = {UUID(row.subject): set(row.details["sessions"]) for row in logged if "session" in row.action}
    assert lessons_logged == old
    (entry,) = (row for row in logged if row.action == "contact_log.deleted")
    assert (entry.subject, entry.details) == (str(teachers[0].id), {"contact_log": [str(contact.id)]})
    assert {row.tier for row in logged} == {"student"}


# Many, again, at once, and at any time


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STUDENTS_A_CHUNK", 2)
    monkeypatch.setattr(retention, "REQUESTS_A_CHUNK", 2)
    monkeypatch.setattr(clearing, "ROWS_A_CHUNK", 2)


def a_little_of_everything(make: Make) -> None:
    """Students to be erased for both reasons, and for both at once, with all they can have; and old rows of others."""
    teacher = make.teacher()
    make.settings(teacher, inactive_student_days=100, session_content_days=50, contact_log_days=50)
    moment = NOW - 200 * DAY
    inactive = [make.student(teacher, last_activity_at=moment) for _ in range(3)]
    requested = [make.student() for _ in range(3)]
    for student in (*requested, inactive[0]):
        make.erasure_request(student)
    for student in (inactive[0], requested[0]):
        everything_of(make, student)
    for student in (*inactive, *requested, make.student(teacher)):
        make.session(student, ends_at=NOW - 370 * DAY, status="completed", content="old")
        make.contact(student, occurred_at=NOW - 370 * DAY)
        make.message(student, send_at=NOW - 370 * DAY, status="fired")
    make.session(requested[1], starts_at=NOW + DAY, scheduled_for=NOW + DAY)


@pytest.mark.usefixtures("few_at_a_time")
def test_students_of_the_same_moment_are_all_found(make: Make, retain: Retain, stored: Stored) -> None:
    gone = {long_gone(make, last_activity_at=NOW - AGES).id for _ in range(7)}
    assert retain().result["students_erased"] == 7
    assert erased(stored) == gone


@pytest.mark.usefixtures("few_at_a_time")
def test_students_of_before_our_era_hold_up_no_other(make: Make, retain: Retain, stored: Stored) -> None:
    times = ("-infinity", "4000-01-01 BC", "4000-01-01 BC", "0044-03-15 BC", "0202-03-02", "2020-03-02", "2021-03-02")
    gone = {long_gone(make, last_activity_at=text(f"'{time}'")).id for time in times}
    assert retain().result["students_erased"] == 7
    assert erased(stored) == gone


@pytest.mark.usefixtures("few_at_a_time")
def test_more_old_rows_than_a_chunk_are_all_cleared(make: Make, retain: Retain, stored: Stored) -> None:
    for student in (make.student(), make.student(), make.student()):
        for n in range(5):
            make.session(student, ends_at=NOW - (400 + n) * DAY, content="old")
    assert retain().result["sessions_cleared"] == 15
    assert {row.content for row in stored(sessions)} == {None}


@pytest.mark.usefixtures("few_at_a_time")
def test_a_second_run_changes_nothing(make: Make, retain: Retain, database: Database) -> None:
    a_little_of_everything(make)
    retain()
    before = _rows(database)
    result = retain().result
    assert _rows(database) == before
    assert not any(result.values())


@pytest.mark.usefixtures("few_at_a_time")
def test_a_dry_run_says_what_a_run_does_and_touches_nothing(make: Make, retain: Retain, database: Database) -> None:
    a_little_of_everything(make)
    before = _rows(database)
    foreseen = retain(dry_run=True)
    assert foreseen.answer["dry_run"] is True
    assert _rows(database) == before
    assert retain().result == foreseen.result
    assert all(foreseen.result.values())
    assert foreseen.result["students_erased"] == 6


@pytest.mark.usefixtures("few_at_a_time")
def test_a_run_that_is_out_of_time_goes_on_in_another_invocation(
    make: Make, perform: Performer, retain: Retain, stored: Stored
) -> None:
    a_little_of_everything(make)
    foreseen = retain(dry_run=True).result
    minutes = iter([15] * 8 + [0.5] * 1_000)
    cut_short = perform(handler, invocation=Invocation(remaining=lambda: timedelta(minutes=next(minutes))))
    assert cut_short.status == "continued"
    assert len(erased(stored)) < 6
    goes_on = perform(handler, event={"run_id": cut_short.answer["run_id"]})
    assert goes_on.result == foreseen


def test_a_crash_anywhere_is_put_right_by_the_next_try(
    make: Make, perform: Performer, queues: Any, database: Database
) -> None:
    queues.make(*QUEUES)
    asked, inactive = make.student(), long_gone(make)
    make.erasure_request(asked)
    make.calendar_sync(make.session(asked, starts_at=NOW + DAY, scheduled_for=NOW + DAY), status="synced")
    make.message(inactive, scheduled_for=NOW)
    make.notification(inactive.teacher_id, student_id=inactive.id)
    make.dead_letter(payload=json.dumps({"student_id": str(asked.id)}))
    make.session(make.student(asked.teacher_id), ends_at=NOW - 400 * DAY, content="old")
    make.contact(make.student(), occurred_at=NOW - 400 * DAY)
    invocation = Invocation()
    assert_crash_safe(
        database,
        Crashing(
            run=lambda: perform(handler, invocation=invocation),
            recover=lambda: perform(handler, invocation=invocation),
        ),
        volatile=frozenset({"session_calendar_sync.sequence", "outbox.sent_at"}),  # what is unsent, the relay sends
    )


def test_an_erasure_and_a_completion_at_the_same_time_both_happen(
    make: Make, perform: Performer, retain: Retain, stored: Stored
) -> None:
    """The lesson's credit is consumed and the student is erased, in whatever order the two come."""
    from functions.tutoring.auto_complete.app import handler as auto_complete

    asked = [make.student() for _ in range(20)]
    lessons = []
    for student in asked:
        make.erasure_request(student)
        lessons.append(make.session(student, content="about vectors"))
    with ThreadPoolExecutor(2) as pool:
        erasing = pool.submit(handler, {}, Invocation())
        completing = pool.submit(perform, auto_complete, *({"session_id": str(lesson.id)} for lesson in lessons))
        erasing.result()
        completing.result()
    assert {row.status for row in stored(sessions)} == {"completed"}
    assert {row.content for row in stored(sessions)} == {None}
    assert len(stored(credit_ledger, kind="CONSUME")) == 20
    assert erased(stored) == {student.id for student in asked}


def test_what_the_schedule_sends_runs_once(make: Make, perform: Performer, stored: Stored) -> None:
    gone = long_gone(make)
    event = {"scheduled_for": "2026-03-01T03:00:00Z"}
    assert perform(handler, event=event).status == "completed"
    assert erased(stored) == {gone.id}
    assert perform(handler, event=event).status == "skipped"


def test_what_the_log_says_names_nobody(
    make: Make, retain: Retain, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    student = make.student(name="Jane Eyre", email="jane@example.org")
    make.erasure_request(student)
    make.session(student, ends_at=NOW - 400 * DAY, content="Thornfield")
    retain()
    said = capsys.readouterr().out + "".join(str(record.__dict__) for record in caplog.records)
    assert not [secret for secret in ("Jane", "jane@", "Thornfield") if secret in said]


def _rows(database: Database) -> dict[str, Any]:
    return {name: rows for name, rows in contents(database).items() if name != "platform.job_runs"}


def test_the_students_are_known_as_a_statement_is_planned(make: Make, database: Database) -> None:
    """An array that is made of a text as the statement runs would be made anew for each row that it is held against."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        statements.append((statement, values))

    student = make.student()
    event.listen(database.engine, "before_cursor_execute", note)
    with database.transaction() as connection:
        erasure.replace_personal(connection, [student.id], datetime.now(UTC))
        erasure.count_personal(connection, [student.id])
        now = datetime.now(UTC)
        erasure.call_off(connection, Outbox(lambda: now), [student.id], now, past_events=True)
    event.remove(database.engine, "before_cursor_execute", note)
    with database.transaction() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, values in statements:
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN (VERBOSE) {statement}", values).scalars())
            assert str(student.id) in plan
            assert not re.search(r"\)::(uuid|text)\[\]", plan), plan
    assert len(statements) > 10
