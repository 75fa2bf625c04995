"""drive-verify: whether a teacher's copies are still in Drive."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Row, update

from functions.tutoring.drive_verify.app import handler
from schoolbell.database import Database
from schoolbell.domains.platform.schema import job_runs
from schoolbell.domains.tutoring.schema import calendar_connections, drive_file_copies
from schoolbell.gateways.google.drive import GoogleDrive
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.fixtures.google import Google, open_circuit, snoozed
from tests.performing import Invocation, Performed, Performer

JOB = "tutoring.drive-verify"


@pytest.fixture
def settings(settings: Settings, google: Google) -> Settings:
    return google.settings_of(settings)


class School:
    """A teacher with copies in Drive."""

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
        make.calendar_connection(self.teacher, secret_id=self.account)
        self.resource = make.drive_resource(self.teacher)

    def copy(self, **columns: object) -> Row[Any]:
        """A copy that is in Drive, made three days ago."""
        file = self.google.add_file(self.account)
        made = {"copied_file_id": file, "verified_at": self.now - timedelta(days=3)}
        return self.make.drive_copy(self.resource, self.make.student(self.teacher), **{**made, **columns})

    def copies(self, count: int) -> list[Row[Any]]:
        return [self.copy() for _ in range(count)]

    def look(self, at: datetime | None = None, message: Any = None, **more: Any) -> Performed:
        message = message or {"teacher_id": str(self.teacher.id)}
        return self.perform(handler, message, now=at or self.now, **more)

    def counts(self) -> dict[str, int]:
        """What the last run says it saw."""
        runs = self.stored(job_runs, job=JOB)
        result: dict[str, int] = max(runs, key=lambda run: run.started_at).result
        return {name: count for name, count in result.items() if count}

    def row(self, copy: Row[Any]) -> Row[Any]:
        (row,) = self.stored(drive_file_copies, id=copy.id)
        return row

    def statuses(self, copies: Sequence[Row[Any]]) -> list[str]:
        return [self.row(copy).status for copy in copies]


@pytest.fixture
def school(
    google: Google, make: Make, database: Database, stored: Stored, perform: Performer, queues: Queues
) -> School:
    return School(google, make, database, stored, perform, queues)


def test_marks_what_is_in_the_trash_and_what_is_gone(school: School) -> None:
    present, trashed, deleted = school.copies(3)
    school.google.trash(trashed.copied_file_id)
    school.google.delete(deleted.copied_file_id)

    assert school.look().failed == []

    assert school.statuses([present, trashed, deleted]) == ["copied", "trashed", "deleted"]
    assert {school.row(copy).verified_at for copy in (present, trashed, deleted)} == {school.now}
    assert school.counts() == {"present": 1, "trashed": 1, "deleted": 1}


def test_what_comes_back_from_the_trash_is_a_copy_again(school: School) -> None:
    copy = school.copy(status="trashed")
    school.look()
    assert school.row(copy).status == "copied"


def test_what_is_deleted_is_not_asked_for_again(school: School) -> None:
    school.copy(status="deleted")
    school.look()
    assert school.google.requests() == 0


def test_checks_a_hundred_files_in_one_request(school: School) -> None:
    copies = school.copies(130)
    school.google.trash(copies[7].copied_file_id)
    school.look()
    assert school.google.requests("batch") == 2
    assert school.counts() == {"present": 129, "trashed": 1}


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429}, {"status": 403}])
def test_leaves_the_status_alone_when_google_could_not_answer_for_a_file(school: School, fault: dict[str, Any]) -> None:
    sick, trashed = school.copies(2)
    school.google.trash(sick.copied_file_id)
    school.google.trash(trashed.copied_file_id)
    school.google.fail(path=f"/files/{sick.copied_file_id}", **fault)

    assert school.look().failed == []

    assert school.statuses([sick, trashed]) == ["copied", "trashed"]
    assert school.row(sick).verified_at == school.now - timedelta(days=3), "it has not been verified"
    assert school.counts() == {"trashed": 1, "unanswered": 1}


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}, {"disconnect": True}])
def test_leaves_all_alone_and_tries_again_when_google_is_unwell(school: School, fault: dict[str, Any]) -> None:
    copy = school.copy()
    school.google.delete(copy.copied_file_id)
    school.google.fail(path="^/batch", **fault, times=1)
    assert school.look().failed == [0]
    assert school.row(copy).status == "copied"
    assert school.look(attempt=2).failed == []
    assert school.row(copy).status == "deleted"


@pytest.mark.parametrize("fault", [{"status": 429, "retry_after": 60}, {"status": 403, "reason": "rateLimitExceeded"}])
def test_comes_back_later_when_google_has_had_enough(school: School, fault: dict[str, Any]) -> None:
    school.copy()
    school.google.fail(path="^/batch", **fault, times=1)
    assert school.look(attempt=5).failed == []
    assert snoozed(JOB, school.perform.runtime.settings) == 1


def test_an_open_circuit_snoozes_the_message(school: School) -> None:
    school.copy()
    open_circuit("google-drive")
    assert school.look(attempt=5).failed == []
    assert school.google.requests() == 0
    assert snoozed(JOB, school.perform.runtime.settings) == 1


def test_a_budget_that_runs_out_leaves_the_rest_for_later(
    school: School, outbox_rows: Callable[[], list[Row[Any]]]
) -> None:
    copies = school.copies(8)
    for copy in copies:
        school.google.trash(copy.copied_file_id)
    on = school.perform.runtime
    poor = on.settings.model_copy(update={"google_drive_calls_per_teacher": 5})
    school.perform.runtime = type(on)(on.database, poor, on.clock)

    assert school.look().failed == []

    assert sorted(school.statuses(copies)) == ["copied"] * 3 + ["trashed"] * 5
    (rest,) = outbox_rows()
    assert rest.destination == JOB
    assert rest.tenant == str(school.teacher.id)
    assert rest.available_at > school.now

    school.perform.runtime = on
    asked = school.google.requests("files.get")
    assert school.look(at=school.now + timedelta(minutes=2), message=rest.payload).failed == []
    assert school.statuses(copies) == ["trashed"] * 8
    assert school.google.requests("files.get") - asked == 3, "what was done is not done again"


def test_goes_on_in_another_invocation_when_time_is_short(
    school: School, outbox_rows: Callable[[], list[Row[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = school.copies(3)
    monkeypatch.setattr(GoogleDrive, "largest_batch", 1, raising=False)
    monkeypatch.setattr("schoolbell.gateways.google.drive.LARGEST_BATCH", 1)
    began = school.google.requests("batch")
    left = {0: timedelta(minutes=5)}

    def remaining() -> timedelta:
        return left.get(school.google.requests("batch") - began, timedelta(seconds=30))

    assert school.look(invocation=Invocation(remaining=remaining)).failed == []
    (rest,) = outbox_rows()
    seen = [school.row(copy).verified_at == school.now for copy in copies]
    assert seen.count(True) == 1
    assert school.look(message=rest.payload).failed == []
    assert all(school.row(copy).verified_at == school.now for copy in copies)


def test_looks_at_no_other_teachers_files(school: School) -> None:
    other = school.make.drive_copy()
    school.look()
    assert school.google.requests() == 0
    assert school.row(other).verified_at is None


@pytest.mark.parametrize("change", [{"copied_file_id": "1another"}, {"status": "failed"}])
def test_a_copy_that_changed_meanwhile_is_left_alone(
    school: School, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    copy = school.copy()
    school.google.delete(copy.copied_file_id)
    check = GoogleDrive.check

    def meanwhile(self: GoogleDrive, files: Sequence[str]) -> Any:
        states = check(self, files)
        with school.database.transaction() as connection:
            connection.execute(update(drive_file_copies).values(change))
        return states

    monkeypatch.setattr(GoogleDrive, "check", meanwhile)
    school.look()
    assert school.row(copy).status == change.get("status", "copied")


def test_what_google_refuses_for_good_is_discarded_with_the_reason(school: School) -> None:
    copy = school.copy()
    school.google.fail(path="^/batch", status=403, reason="accessNotConfigured", times=1)
    assert school.look().failed == []
    (dead,) = school.queues.messages(JOB, dead=True)
    assert dead["MessageAttributes"]["reason"]["StringValue"] == "Google refuses: batch: 403 accessNotConfigured"
    assert school.row(copy).status == "copied"


def test_a_revoked_token_marks_the_connection_and_leaves_the_statuses_alone(school: School) -> None:
    copy = school.copy()
    school.google.delete(copy.copied_file_id)
    school.google.revoke(school.account)
    assert school.look().failed == []
    assert school.row(copy).status == "copied"
    (connection,) = school.stored(calendar_connections)
    assert connection.status == "revoked"


def test_a_teacher_without_a_connection_that_works_is_left_alone(school: School) -> None:
    copy = school.copy()
    with school.database.transaction() as connection:
        connection.execute(update(calendar_connections).values(status="revoked"))
    assert school.look().failed == []
    assert school.row(copy).status == "copied"
    assert school.google.requests("token") == 0


def test_an_unknown_teacher_is_discarded(school: School) -> None:
    unknown = uuid4()
    assert school.look(message={"teacher_id": str(unknown)}).failed == []
    (dead,) = school.queues.messages(JOB, dead=True)
    assert dead["MessageAttributes"]["reason"]["StringValue"] == f"teacher_id: {unknown} does not exist"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "teacher_id: Field required"),
        ({"teacher_id": "5"}, "teacher_id: Input should be a valid UUID"),
        (
            {"teacher_id": str(uuid4()), "not_since": "2026-03-02T10:00:00"},
            "not_since: Input should have timezone info",
        ),
        ({"teacher_id": str(uuid4()), "all": True}, "all: Extra inputs are not permitted"),
    ],
)
def test_bad_messages_are_discarded_with_the_field_that_is_wrong(
    school: School, payload: dict[str, Any], reason: str
) -> None:
    school.look(message=payload or "{}")
    (dead,) = school.queues.messages(JOB, dead=True)
    assert reason in dead["MessageAttributes"]["reason"]["StringValue"]


def test_a_second_delivery_changes_nothing(school: School) -> None:
    copies = school.copies(3)
    school.google.trash(copies[0].copied_file_id)
    school.look()
    before = [school.row(copy)._asdict() for copy in copies]
    school.look()
    assert [{**school.row(copy)._asdict(), "updated_at": 0} for copy in copies] == [
        {**row, "updated_at": 0} for row in before
    ]


def test_an_hour_of_silence_is_no_deletion(school: School) -> None:
    copy = school.copy()
    school.google.fail(path="/drive/", status=401)
    school.look(at=datetime(2026, 3, 2, 11, 0, tzinfo=UTC))
    assert school.row(copy).status == "copied"
