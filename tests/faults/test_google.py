"""The jobs that call Google, with the process ended at every point where it can end, also between two requests."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from functions.platform.outbox_relay.app import handler as outbox_relay
from functions.tutoring.calendar_sync.app import handler as calendar_sync
from functions.tutoring.drive_copy.app import handler as drive_copy
from functions.tutoring.drive_sync.app import handler as drive_sync
from functions.tutoring.drive_verify.app import handler as drive_verify
from schoolbell.database import Database
from schoolbell.domains.tutoring.drive_copies import LEASE as COPY_LEASE
from schoolbell.domains.tutoring.schema import drive_file_copies
from schoolbell.jobs.outbox import CLAIM
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.fixtures.google import Google, forget
from tests.performing import Invocation, Performer, rule_event, sqs_event

WHEN = frozenset(
    {
        "outbox.sent_at",
        "outbox.dedup_key",  # holds the run's id
        "drive_file_copies.verified_at",
        "drive_file_copies.copied_file_id",  # Google's choice; `outside` compares what it leads to
        "teacher_notifications.dedup_key",
        "dead_letters.dead_at",
    }
)


@pytest.fixture
def settings(settings: Settings, google: Google) -> Settings:
    plenty = {  # a test of a hundred runs within a minute
        "google_calendar_calls_per_teacher": 100_000,
        "google_calendar_calls_overall": 100_000,
        "google_drive_calls_per_teacher": 100_000,
        "google_drive_calls_overall": 100_000,
    }
    return google.settings_of(settings).model_copy(update=plenty)


def events_of(google: Google, *accounts: str) -> Any:
    """The events of some accounts, without the times of their making."""
    return [
        {name: each["resource"][name] for name in ("id", "status", "summary", "start", "end")}
        for account in accounts
        for each in sorted(google.sandbox.store.world.model_dump()["events"].values(), key=lambda event: event["id"])
        if each["account"] == account
    ]


def test_calendar_sync(google: Google, make: Make, database: Database, perform: Performer, now: datetime) -> None:
    fine, revoked, calendarless = google.account(), google.account(), google.account()
    google.revoke(revoked)
    teachers = [make.teacher() for _ in range(3)]
    for teacher, account, calendar in zip(
        teachers, (fine, revoked, calendarless), ("primary", "primary", "deleted"), strict=True
    ):
        make.calendar_connection(teacher, secret_id=account, calendar_id=calendar)
    lessons = [make.session(make.student(teacher)) for teacher in (teachers[0], *teachers, teachers[0])]
    for lesson in lessons:
        make.calendar_sync(lesson)
    make.calendar_sync(lessons[0])  # replaces the first
    make.calendar_sync(lessons[-1], action="delete")
    event, invocation = rule_event(now + timedelta(minutes=5)), Invocation()
    worlds = google.sandbox.store

    def run() -> None:
        forget()
        perform(calendar_sync, event=event, invocation=invocation)

    def recover() -> None:
        for _ in range(2):  # Lambda's own retry, and the next run
            run()
        perform(calendar_sync, now=now + timedelta(minutes=20))

    def reset() -> None:
        worlds.reset()
        google.revoke(revoked)

    points = assert_crash_safe(
        database,
        Crashing(run, recover, outside=lambda: events_of(google, fine, calendarless), reset_outside=reset),
        volatile=WHEN,
    )
    assert any("POST /calendar" in point for point in points)
    assert any("POST /token" in point for point in points)


def test_drive_copy(
    google: Google,
    make: Make,
    database: Database,
    stored: Stored,
    perform: Performer,
    queues: Queues,
    now: datetime,
) -> None:
    queues.make("tutoring.drive-copy")
    account = google.account()
    teacher = make.teacher()
    make.calendar_connection(teacher, secret_id=account)
    resources = [make.drive_resource(teacher, drive_file_id=file) for file in ("1file", "1gone")]
    student = make.student(teacher, drive_folder_id="1folder")
    links = [{"resource_id": str(each.id), "student_id": str(student.id)} for each in resources]

    def arrange() -> None:
        google.sandbox.store.reset()
        google.add_file(account, "1file")
        google.add_file(account, "1folder")

    def run(at: datetime = now, attempt: int = 1) -> None:
        forget()
        perform(
            drive_copy,
            event=sqs_event(links, queue="tutoring.drive-copy", attempt=attempt, message_ids=["one", "two"]),
            now=at,
        )

    def recover() -> None:
        for attempt in (2, 3):  # the messages come back when they are visible again
            run(now + attempt * COPY_LEASE, attempt)

    def outside() -> Any:
        copies = google.copies(account)
        (row,) = (row for row in stored(drive_file_copies) if row.resource_id == resources[0].id)
        return [(copy["copied_from"], copy["parents"], copy["id"] == row.copied_file_id) for copy in copies]

    arrange()
    points = assert_crash_safe(database, Crashing(run, recover, outside=outside, reset_outside=arrange), volatile=WHEN)
    assert outside() == [("1file", ["1folder"], True)]
    assert any("/copy" in point for point in points)


def test_drive_sync(
    google: Google, make: Make, database: Database, perform: Performer, queues: Queues, now: datetime
) -> None:
    queues.make("tutoring.drive-verify")
    for _ in range(3):
        teacher = make.teacher()
        make.calendar_connection(teacher)
        make.drive_copy(make.drive_resource(teacher))
    event, invocation = rule_event(now), Invocation()
    told: set[str] = set()

    def run() -> None:
        perform(drive_sync, event=event, invocation=invocation)

    def recover() -> None:
        run()
        perform(outbox_relay, now=now + 2 * CLAIM)

    def outside() -> list[str]:
        told.update(message["Body"] for message in queues.messages("tutoring.drive-verify"))
        return sorted(told)

    assert_crash_safe(
        database,
        Crashing(run, recover, outside=outside, reset_outside=told.clear),
        volatile=WHEN | {"outbox.available_at"},
    )


def test_drive_verify(
    google: Google, make: Make, database: Database, perform: Performer, queues: Queues, now: datetime
) -> None:
    queues.make("tutoring.drive-verify")
    account = google.account()
    teacher = make.teacher()
    make.calendar_connection(teacher, secret_id=account)
    resource = make.drive_resource(teacher)
    for number in range(4):
        make.drive_copy(resource, make.student(teacher), copied_file_id=f"1copy{number}")

    def arrange() -> None:
        google.sandbox.store.reset()
        for number in range(3):
            google.add_file(account, f"1copy{number}", trashed=number == 0)

    def run(attempt: int = 1) -> None:
        forget()
        event = sqs_event(
            [{"teacher_id": str(teacher.id)}], queue="tutoring.drive-verify", attempt=attempt, message_ids=["one"]
        )
        perform(drive_verify, event=event, now=now + timedelta(minutes=attempt))

    arrange()
    assert_crash_safe(database, Crashing(run, lambda: run(2), reset_outside=arrange), volatile=WHEN)
