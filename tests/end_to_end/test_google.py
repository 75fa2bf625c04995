"""Jobs that talk to Google, over real HTTP, through its troubles."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row

from schoolbell.domains.platform.schema import dead_letters
from schoolbell.domains.tutoring.schema import (
    calendar_connections,
    drive_file_copies,
    session_calendar_sync,
)
from tests.end_to_end.google import Google, Material, material
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

COPY = "tutoring.drive-copy"
CALENDAR = "tutoring.calendar-sync"
SNOOZED = 30.0
"""Seconds that a copy waits at least when Google says "too many requests"."""


@pytest.fixture
def google(stack: Stack, make: Make) -> Google:
    return Google(stack, make)


def test_drive_copy_copies_a_file_once_however_often_it_is_asked_to(stack: Stack, google: Google) -> None:
    wanted = material(google)
    stack.drop(COPY, wanted.message)
    row = wanted.copied(stack)
    stack.drop(COPY, wanted.message)
    eventually(
        lambda: {"copied": 0, "found": 0, "already": 1} in [run.result for run in stack.runs(COPY)], "second run"
    )
    (copy,) = google.copies(wanted.account)
    assert copy["id"] == row.copied_file_id
    assert copy["parents"] == [wanted.student.drive_folder_id]


def test_a_token_that_is_encrypted_with_the_stacks_key_needs_no_secret(stack: Stack, google: Google) -> None:
    wanted = material(google)
    google.encrypt(wanted.account)
    stack.drop(COPY, wanted.message)
    assert wanted.copied(stack).status == "copied"


def test_copy_whose_answer_was_lost_is_found_when_the_message_comes_back(stack: Stack, google: Google) -> None:
    wanted = material(google)
    google.fail(wanted.account, method="POST", path="/copy$", status=500, effect=True, times=1)
    stack.drop(COPY, wanted.message)
    row = wanted.copied(stack)
    assert [copy["id"] for copy in google.copies(wanted.account)] == [row.copied_file_id]


def test_copy_that_was_put_off_comes_back_and_is_made_once(stack: Stack, begun_throttled_copy: Material) -> None:
    google = Google(stack, Make(stack.database, datetime.now(UTC)))
    row = begun_throttled_copy.copied(stack, patience=SNOOZED + 60)
    assert row.verified_at - row.created_at >= timedelta(seconds=SNOOZED - 2)
    assert len(google.copies(begun_throttled_copy.account)) == 1
    assert not stack.rows(dead_letters, payload=json.dumps(begun_throttled_copy.message))


@pytest.fixture
def drive_circuit(google: Google) -> Iterator[str]:
    """The circuit of Google Drive, which a test may open."""
    yield "google-drive"
    google.close_circuit("google-drive")


@pytest.fixture
def calendar_circuit(google: Google) -> Iterator[str]:
    yield "google-calendar"
    google.close_circuit("google-calendar")


def test_copy_waits_for_an_open_circuit_and_closes_it(stack: Stack, google: Google, drive_circuit: str) -> None:
    wanted = copy_that_waits(stack, google, drive_circuit)
    wanted.copied(stack, patience=90)
    assert len(google.copies(wanted.account)) == 1
    assert google.circuit(drive_circuit) == "CLOSED"


def copy_that_waits(stack: Stack, google: Google, circuit: str) -> Material:
    """A copy of which Google was asked nothing, since the circuit is open.

    The functions' view of it is seconds old: some copies are made, or looked up and then not made, before they see it.
    So it is opened for each copy anew: however slow this machine is, it is open when one of them is tried.
    """

    def look() -> Material | None:
        wanted = material(google)
        google.open_circuit(circuit)
        stack.drop(COPY, wanted.message)
        (copy,) = eventually(
            lambda: stack.rows(drive_file_copies, resource_id=wanted.resource.id, claimed_by=None), "attempt"
        )
        return wanted if copy.status == "pending" and not google.requests(wanted.account) else None

    found = eventually(look, "copy of which an open circuit lets nothing through")
    assert found is not None
    return found


def test_drive_sync_has_each_teachers_files_verified(stack: Stack, google: Google) -> None:
    here, trashed = material(google), material(google)
    for wanted in (here, trashed):
        stack.drop(COPY, wanted.message)
        google_id = wanted.copied(stack).copied_file_id
    google.trash(google_id)
    stack.invoke("tutoring.drive-sync", {})
    eventually(lambda: stack.rows(drive_file_copies, resource_id=trashed.resource.id, status="trashed"), "trashed copy")
    looked_at = eventually(
        lambda: [
            row
            for row in stack.rows(drive_file_copies, resource_id=here.resource.id)
            if row.verified_at > here.copied(stack).created_at + timedelta(milliseconds=1)
        ],
        "look at the other",
    )
    assert looked_at[0].status == "copied"


# Google Calendar


def change(google: Google, action: str = "upsert", lesson: Row[Any] | None = None) -> tuple[str, Row[Any]]:
    """A change of a lesson that its teacher's calendar is to follow."""
    teacher, account = google.connected_teacher()
    if lesson is None:
        lesson = google.make.session(google.make.student(teacher), starts_at=google.make.now + timedelta(days=1))
    return account, google.make.calendar_sync(lesson, action=action)


def test_calendar_sync_makes_and_deletes_the_event_of_a_lesson(stack: Stack, google: Google) -> None:
    account, record = change(google)
    stack.invoke(CALENDAR, {})
    synced = stack.becomes(session_calendar_sync, record.id, status="synced")
    (event,) = google.events(account)
    assert event["id"] == synced.external_event_id

    deletion = google.make.row(
        session_calendar_sync, session_id=record.session_id, teacher_id=record.teacher_id, action="delete"
    )
    stack.invoke(CALENDAR, {})
    stack.becomes(session_calendar_sync, deletion.id, status="synced")
    assert google.events(account) == []


def test_calendar_sync_puts_off_what_failed_and_marks_a_revoked_connection(stack: Stack, google: Google) -> None:
    failing, failed = change(google)
    revoked, waiting = change(google)
    google.fail(failing, method="POST", path="/events", status=503, times=1)
    google.ask("POST", "revoke", {"account": revoked})
    stack.invoke(CALENDAR, {})
    postponed = stack.becomes(session_calendar_sync, failed.id, attempts=1)
    assert postponed.status == "pending"
    assert postponed.next_attempt_at > postponed.updated_at
    stack.becomes(session_calendar_sync, waiting.id, status="pending", attempts=0)
    assert stack.row(calendar_connections, secret_id=revoked).status == "revoked"


def test_calendar_sync_skips_its_run_while_the_circuit_is_open(
    stack: Stack, google: Google, calendar_circuit: str
) -> None:
    def skipped() -> Row[Any] | None:
        _, record = change(google)
        google.open_circuit(calendar_circuit)
        return record if stack.run(CALENDAR)["circuit_open"] else None

    record = eventually(skipped, "run that skips")  # the function's view of the circuit is seconds old
    assert record is not None
    assert stack.row(session_calendar_sync, id=record.id).claimed_by is None

    def synced() -> bool:
        stack.invoke(CALENDAR, {})
        return bool(stack.row(session_calendar_sync, id=record.id).status == "synced")

    eventually(synced, "sync after the circuit let a call through")
    assert google.circuit(calendar_circuit) == "CLOSED"
