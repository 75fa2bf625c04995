"""drive-copy: a teacher's file in a student's folder, once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Row, text, update

from functions.tutoring.drive_copy.app import handler
from schoolbell.database import Database
from schoolbell.domains.platform.schema import dead_letters
from schoolbell.domains.tutoring.drive_copies import LEASE
from schoolbell.domains.tutoring.schema import (
    calendar_connections,
    drive_file_copies,
    students,
    teacher_notifications,
)
from schoolbell.gateways.google.drive import COPY_PROPERTY, DriveFile, GoogleDrive
from schoolbell.resilience.circuit import FAILURES_TO_OPEN
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.fixtures.google import Google, circuit_state, open_circuit, snoozed
from tests.performing import Invocation, Performed, Performer, sqs_event

JOB = "tutoring.drive-copy"


@pytest.fixture
def settings(settings: Settings, google: Google) -> Settings:
    return google.settings_of(settings)


class School:
    """A teacher with files in Drive, and students with folders."""

    def __init__(
        self, google: Google, make: Make, database: Database, stored: Stored, perform: Performer, queues: Queues
    ) -> None:
        self.google = google
        self.make = make
        self.database = database
        self.stored = stored
        self.perform = perform
        self.queues = queues
        self.now = make.now
        queues.make(JOB)
        self.account = google.account()
        self.teacher = make.teacher()
        self.connection = make.calendar_connection(self.teacher, secret_id=self.account)

    def student(self, **columns: object) -> Row[Any]:
        folder = self.google.add_file(self.account, mimeType="application/vnd.google-apps.folder")
        return self.make.student(self.teacher, **{"drive_folder_id": folder, **columns})

    def resource(self, **columns: object) -> Row[Any]:
        file = self.google.add_file(self.account, name="Scales")
        return self.make.drive_resource(self.teacher, **{"drive_file_id": file, "name": "Scales", **columns})

    def link(self) -> dict[str, str]:
        """A message for a new resource and a new student."""
        return message(self.resource(), self.student())

    def drop(self, *messages: Any, at: datetime | None = None, **more: Any) -> Performed:
        return self.perform(handler, *messages, now=at or self.now, **more)

    def copies(self) -> list[dict[str, Any]]:
        """The copies in Drive."""
        return self.google.copies(self.account)

    def rows(self) -> Sequence[Row[Any]]:
        return self.stored(drive_file_copies)

    def row(self) -> Row[Any]:
        (row,) = self.rows()
        return row

    def snoozed(self) -> int:
        """How many messages were sent again, with a delay."""
        return snoozed(JOB, self.perform.runtime.settings)

    def dead(self) -> list[str]:
        """The reasons of what is on the dead-letter queue."""
        return [each["MessageAttributes"]["reason"]["StringValue"] for each in self.queues.messages(JOB, dead=True)]

    def give(self, **budget: int) -> None:
        """Runs the job with other settings from now on."""
        on = self.perform.runtime
        self.perform.runtime = type(on)(on.database, on.settings.model_copy(update=budget), on.clock)


@pytest.fixture
def school(
    google: Google, make: Make, database: Database, stored: Stored, perform: Performer, queues: Queues
) -> School:
    return School(google, make, database, stored, perform, queues)


def message(resource: Row[Any], student: Row[Any]) -> dict[str, str]:
    return {"resource_id": str(resource.id), "student_id": str(student.id)}


# The copy


def test_copies_the_file_into_the_students_folder(school: School) -> None:
    resource, student = school.resource(), school.student()

    assert school.drop(message(resource, student)).failed == []

    (copy,) = school.copies()
    assert copy["copied_from"] == resource.drive_file_id
    assert copy["parents"] == [student.drive_folder_id]
    assert copy["name"] == "Scales"
    assert copy["appProperties"] == {COPY_PROPERTY: f"{resource.id}:{student.id}"}
    row = school.row()
    assert (row.status, row.copied_file_id, row.verified_at) == ("copied", copy["id"], school.now)
    assert (row.claimed_by, row.claimed_until, row.last_error) == (None, None, None)


def test_a_second_delivery_makes_no_second_copy(school: School) -> None:
    link = school.link()
    school.drop(link)
    made = school.google.requests()
    assert school.drop(link).failed == []
    assert len(school.copies()) == 1
    assert school.google.requests() == made, "it isn't even looked up"


@pytest.mark.parametrize("status", ["trashed", "deleted"])
def test_what_the_teacher_threw_away_is_not_copied_again(school: School, status: str) -> None:
    resource, student = school.resource(), school.student()
    school.make.drive_copy(resource, student, status=status)
    assert school.drop(message(resource, student)).failed == []
    assert school.copies() == []


def test_a_row_that_the_application_has_prepared_is_used(school: School) -> None:
    resource, student = school.resource(), school.student()
    school.make.drive_copy(resource, student, status="pending")
    school.drop(message(resource, student))
    assert school.row().status == "copied"


def test_one_resource_goes_to_many_students_once_each(school: School) -> None:
    resource = school.resource()
    links = [message(resource, school.student()) for _ in range(3)]
    school.drop(*links, *links)
    assert len(school.copies()) == 3
    assert {row.status for row in school.rows()} == {"copied"}


class Killed(BaseException):
    """Lambda ended the invocation."""


def test_a_crash_after_the_copy_makes_no_second_one(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    link = school.link()
    copy = GoogleDrive.copy

    def dying(self: GoogleDrive, *arguments: Any) -> DriveFile:
        copy(self, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(GoogleDrive, "copy", dying)
        with pytest.raises(Killed):
            school.drop(link)
    assert school.row().status == "pending"

    assert school.drop(link, at=school.now + LEASE).failed == []

    (made,) = school.copies()
    assert (school.row().status, school.row().copied_file_id) == ("copied", made["id"])


def test_a_copy_whose_answer_was_lost_is_found(school: School) -> None:
    link = school.link()
    school.google.fail(path="/copy$", status=500, effect=True, times=1)
    assert school.drop(link).failed == [0]
    assert school.drop(link, attempt=2).failed == []
    assert len(school.copies()) == 1


def test_two_messages_at_once_make_one_copy(school: School) -> None:
    link = school.link()
    school.google.fail(path="/drive/v3/files$", delay=0.2)  # both would look before either copies
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: handler(sqs_event([link], queue=JOB), Invocation()), range(2)))
    assert answers == [{"batchItemFailures": []}] * 2
    assert len(school.copies()) == 1
    assert school.snoozed() == 1, "the one that came second looks again later"


def test_a_copy_that_another_message_is_at_is_left_to_it(school: School) -> None:
    resource, student = school.resource(), school.student()
    claim = {"claimed_by": uuid4(), "claimed_until": school.now + timedelta(minutes=2)}
    school.make.drive_copy(resource, student, **{"status": "pending", **claim})
    assert school.drop(message(resource, student)).failed == []
    assert school.google.requests() == 0
    assert school.snoozed() == 1


def test_calls_google_outside_any_transaction(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    open_transactions: list[int] = []

    def look(self: GoogleDrive, key: str) -> None:
        with school.database.engine.connect() as other:
            idle = text(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND state = 'idle in transaction'"
            )
            open_transactions.append(other.scalar(idle) or 0)

    monkeypatch.setattr(GoogleDrive, "find_copy", look)
    school.drop(school.link())
    assert open_transactions == [0]


# Not now


def test_an_open_circuit_snoozes_the_message_and_spends_no_attempt(school: School) -> None:
    link = school.link()
    open_circuit("google-drive")

    assert school.drop(link, attempt=5).failed == []

    assert school.google.requests() == 0
    assert school.snoozed() == 1
    assert school.dead() == []
    assert (school.row().status, school.row().claimed_by) == ("pending", None)


@pytest.mark.parametrize("budget", ["google_drive_calls_per_teacher", "google_drive_calls_overall"])
def test_no_budget_snoozes_the_message_and_spends_no_attempt(school: School, budget: str) -> None:
    school.give(**{budget: 2})
    first, second = school.link(), school.link()
    school.drop(first)
    made = school.google.requests()

    assert school.drop(second, attempt=5).failed == []

    assert school.google.requests() == made
    assert school.snoozed() == 1
    assert school.dead() == []


def test_a_snoozed_message_is_done_when_there_is_budget_again(school: School) -> None:
    link = school.link()
    open_circuit("google-drive")
    school.drop(link)
    open_circuit("google-drive", datetime.now(UTC) - timedelta(minutes=2))
    assert school.drop(link).failed == []
    assert len(school.copies()) == 1
    assert circuit_state("google-drive") == "CLOSED"


def test_when_google_has_had_enough_the_message_is_snoozed(school: School) -> None:
    school.google.fail(path="/drive/", status=429, retry_after=60, times=1)
    assert school.drop(school.link(), attempt=5).failed == []
    assert school.snoozed() == 1
    assert school.dead() == []
    assert (school.row().status, school.row().claimed_by) == ("pending", None)


@pytest.mark.parametrize(("asked", "waited"), [(1, 30), (60, 60), (600, 600)])
def test_waits_at_least_as_long_as_google_asks(
    school: School, monkeypatch: pytest.MonkeyPatch, asked: int, waited: int
) -> None:
    delays: list[timedelta] = []

    def note(_: str, again: Any) -> set[str]:
        delays.extend(delay for _, delay in again)
        return {message.id for message, _ in again}

    monkeypatch.setattr("schoolbell.jobs.queues.send_again", note)
    school.google.fail(path="/drive/", status=429, retry_after=asked, times=1)
    school.drop(school.link())
    assert [round(delay.total_seconds()) for delay in delays] == [waited]


def test_a_failure_counts_as_an_attempt_and_frees_the_copy(school: School) -> None:
    link = school.link()
    school.google.fail(path="/drive/", status=503, times=1)
    assert school.drop(link).failed == [0]
    assert school.row().claimed_by is None
    assert school.drop(link, attempt=2).failed == []
    assert len(school.copies()) == 1


def test_an_outage_opens_the_circuit(school: School) -> None:
    school.google.fail(path="/drive/", status=503)
    links = [school.link() for _ in range(FAILURES_TO_OPEN + 3)]
    assert school.drop(*links).failed == list(range(FAILURES_TO_OPEN))
    assert school.google.requests() == FAILURES_TO_OPEN
    assert school.snoozed() == 3


# Never


def test_a_file_that_is_gone_is_never_copied(school: School) -> None:
    resource, student = school.resource(drive_file_id="1gone"), school.student()
    assert school.drop(message(resource, student)).failed == []
    assert school.dead() == ["Google refuses: files.copy: 404 notFound"]
    assert (school.row().status, school.row().last_error) == ("failed", "files.copy: 404 notFound")


def test_a_failed_copy_is_tried_again_by_a_new_message(school: School) -> None:
    resource, student = school.resource(drive_file_id="1soon"), school.student()
    school.drop(message(resource, student))
    school.google.add_file(school.account, "1soon")
    assert school.drop(message(resource, student)).failed == []
    assert school.row().status == "copied"
    assert school.row().last_error is None


def test_unknown_ids_are_discarded_with_the_field_that_is_wrong(school: School) -> None:
    resource, student = school.resource(), school.student()
    unknown = uuid4()
    school.drop({**message(resource, student), "resource_id": str(unknown)})
    school.drop({**message(resource, student), "student_id": str(unknown)})
    assert school.dead() == [f"resource_id: {unknown} does not exist", f"student_id: {unknown} does not exist"]
    assert school.rows() == []


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "resource_id: Field required; student_id: Field required"),
        ({"resource_id": "x", "student_id": str(uuid4())}, "resource_id: Input should be a valid UUID"),
        ("{", "Invalid JSON"),
        ("[]", "message: Input should be an object"),
        ({"resource_id": str(uuid4()), "student_id": str(uuid4()), "folder": "x"}, "folder: Extra inputs"),
    ],
)
def test_bad_messages_are_discarded_with_the_field_that_is_wrong(school: School, payload: Any, reason: str) -> None:
    assert school.drop(payload).failed == []
    (dead,) = school.dead()
    assert reason in dead


def test_another_teachers_student_gets_nothing(school: School) -> None:
    stranger = school.make.student(drive_folder_id="1folder")
    school.drop(message(school.resource(), stranger))
    assert school.dead() == [f"student_id: {stranger.id} is another teacher's student"]
    assert school.google.requests() == 0


@pytest.mark.parametrize(
    ("columns", "reason"),
    [({"status": "erased"}, "does not exist"), ({"drive_folder_id": None}, "has no Drive folder")],
)
def test_a_student_who_can_have_no_copy_gets_none(school: School, columns: dict[str, Any], reason: str) -> None:
    resource, student = school.resource(), school.student(**columns)
    school.make.drive_copy(resource, student, status="pending")
    school.drop(message(resource, student))
    assert school.dead() == [f"student_id: {student.id} {reason}"]
    assert school.row().status == "failed"
    assert school.google.requests() == 0


def test_a_teacher_who_never_connected_google_gets_no_copies(school: School) -> None:
    teacher = school.make.teacher()
    link = message(school.make.drive_resource(teacher), school.make.student(teacher, drive_folder_id="1f"))
    school.drop(link)
    assert school.dead() == [f"resource_id: its teacher {teacher.id} has not connected Google"]


def test_the_reason_is_recorded(school: School) -> None:
    school.drop(message(school.resource(drive_file_id="1gone"), school.student()))
    (letter,) = school.stored(dead_letters)
    assert (letter.reason, letter.error) == ("discarded", "Google refuses: files.copy: 404 notFound")


# Revoked tokens


def test_a_revoked_token_marks_the_connection_and_the_copy_waits(school: School) -> None:
    school.google.revoke(school.account)
    assert school.drop(school.link(), attempt=5).failed == []
    (connection,) = school.stored(calendar_connections)
    assert connection.status == "revoked"
    assert school.snoozed() == 1
    assert school.dead() == []
    assert (school.row().status, school.row().claimed_by) == ("pending", None)
    assert [row.kind for row in school.stored(teacher_notifications)] == ["google_disconnected"]


def test_copies_wait_until_the_teacher_has_connected_again(school: School) -> None:
    link = school.link()
    with school.database.transaction() as connection:
        connection.execute(update(calendar_connections).values(status="revoked"))
    school.drop(link)
    assert school.snoozed() == 1
    assert school.google.requests("token") == 0
    with school.database.transaction() as connection:
        connection.execute(update(calendar_connections).values(status="active"))
    assert school.drop(link).failed == []
    assert len(school.copies()) == 1


def test_copies_wait_while_a_connection_has_no_token(school: School) -> None:
    with school.database.transaction() as connection:
        connection.execute(update(calendar_connections).values(secret_id=None))
    school.drop(school.link())
    assert school.snoozed() == 1


def test_of_several_connections_the_latest_is_used(school: School) -> None:
    latest, later = school.google.account(), school.connection.created_at + timedelta(days=1)
    school.make.calendar_connection(school.teacher, secret_id=latest, created_at=later)
    file = school.google.add_file(latest)
    folder = school.google.add_file(latest, mimeType="application/vnd.google-apps.folder")
    school.drop(message(school.resource(drive_file_id=file), school.student(drive_folder_id=folder)))
    assert len(school.google.copies(latest)) == 1


def test_a_student_erased_meanwhile_keeps_no_copys_id(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    link = school.link()
    copy = GoogleDrive.copy

    def meanwhile(self: GoogleDrive, *arguments: Any) -> DriveFile:
        with school.database.transaction() as connection:
            connection.execute(update(students).values(status="erased"))
        return copy(self, *arguments)

    monkeypatch.setattr(GoogleDrive, "copy", meanwhile)
    school.drop(link)
    assert school.row().copied_file_id is None
