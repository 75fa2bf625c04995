"""Copies of a teacher's Drive files for students: which file goes where, who copies it, and how it went."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

from schoolbell.domains.tutoring.calendar_connections import GoogleAccount, active_account, has_ever_connected
from schoolbell.jobs import Discard, JobContext, Snooze

LEASE: Final = timedelta(minutes=5)
"""Longer than an invocation lasts, and shorter than a message that was being handled stays invisible."""

UNTIL_CONNECTED: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class CopyKey:
    """Which copy: of a resource, for a student."""

    resource_id: UUID
    student_id: UUID


@dataclass(frozen=True, slots=True)
class FileToCopy:
    """What is copied, and where to."""

    file_id: str
    name: str | None
    folder_id: str
    account: GoogleAccount
    key: str


_FIND = text(
    """
    SELECT resource.id IS NOT NULL AS has_resource, student.id IS NOT NULL AS has_student,
           resource.teacher_id, resource.drive_file_id, resource.name,
           student.teacher_id AS student_teacher_id, student.status, student.drive_folder_id
    FROM (SELECT 1) AS one
    LEFT JOIN tutoring.drive_resources AS resource ON resource.id = :resource_id
    LEFT JOIN tutoring.students AS student ON student.id = :student_id
    """
)

_CLAIM = text(
    """
    INSERT INTO tutoring.drive_file_copies AS copy (resource_id, student_id, claimed_by, claimed_until, created_at)
    VALUES (:resource_id, :student_id, :run, :until, :now)
    ON CONFLICT (resource_id, student_id) DO UPDATE
    SET status = 'pending', claimed_by = :run, claimed_until = :until, updated_at = :now
    WHERE copy.status IN ('pending', 'failed') AND (copy.claimed_until IS NULL OR copy.claimed_until <= :now)
    """
)

_STATE = text(
    """
    SELECT status, claimed_until FROM tutoring.drive_file_copies
    WHERE resource_id = :resource_id AND student_id = :student_id
    """
)

# A student may have been erased while Google was copying; then nothing that leads to the copy is kept.
_SETTLE = text(
    """
    UPDATE tutoring.drive_file_copies
    SET status = :status, last_error = :error,
        copied_file_id = (SELECT cast(:file_id AS text) FROM tutoring.students
                          WHERE id = :student_id AND status <> 'erased'),
        verified_at = CASE :status WHEN 'copied' THEN :now ELSE verified_at END,
        claimed_by = NULL, claimed_until = NULL, updated_at = :now
    WHERE resource_id = :resource_id AND student_id = :student_id AND claimed_by = :run AND status = 'pending'
    """
)

_GIVE_UP = text(
    """
    UPDATE tutoring.drive_file_copies SET status = 'failed', last_error = :error, updated_at = :now
    WHERE resource_id = :resource_id AND student_id = :student_id AND status = 'pending'
      AND (claimed_until IS NULL OR claimed_until <= :now)
    """
)


def find(connection: Connection, copy: CopyKey) -> FileToCopy:
    """What a copy takes.

    Raises:
        Discard: there is no such thing, or it may not be copied.
        Snooze: the teacher must connect Google again first.
    """
    row = connection.execute(_FIND, asdict(copy)).one()
    if not row.has_resource:
        raise Discard(f"resource_id: {copy.resource_id} does not exist")
    if not row.has_student or row.status == "erased":
        raise Discard(f"student_id: {copy.student_id} does not exist")
    if row.teacher_id != row.student_teacher_id:
        raise Discard(f"student_id: {copy.student_id} is another teacher's student")
    if not row.drive_folder_id:
        raise Discard(f"student_id: {copy.student_id} has no Drive folder")
    account = active_account(connection, row.teacher_id)
    if account is None and has_ever_connected(connection, row.teacher_id):
        raise Snooze(UNTIL_CONNECTED)
    if account is None:
        raise Discard(f"resource_id: its teacher {row.teacher_id} has not connected Google")
    key = f"{copy.resource_id}:{copy.student_id}"
    return FileToCopy(row.drive_file_id, row.name, row.drive_folder_id, account, key)


def claim(connection: Connection, job: JobContext, copy: CopyKey) -> bool:
    """Takes the copy for this invocation, unless it is made or another has it."""
    values = {**asdict(copy), "run": job.run_id, "until": job.now + LEASE, "now": job.now}
    return connection.execute(_CLAIM, values).rowcount == 1


def state_of(connection: Connection, copy: CopyKey) -> Row[Any]:
    """The status of a copy, and until when it is claimed."""
    return connection.execute(_STATE, asdict(copy)).one()


def give_up(job: JobContext, copy: CopyKey, reason: Discard) -> None:
    """Marks a copy that an application has asked for and that can't be made; nothing if it is made, or being made."""
    values = {**asdict(copy), "error": str(reason), "now": job.now}
    with job.transaction() as connection:
        connection.execute(_GIVE_UP, values)


def settle(
    job: JobContext, copy: CopyKey, status: str, *, file_id: str | None = None, error: str | None = None
) -> None:
    """Writes down how it went and gives the copy free."""
    values = {"status": status, "file_id": file_id, "error": error, "run": job.run_id, "now": job.now}
    with job.transaction() as connection:
        connection.execute(_SETTLE, {**asdict(copy), **values})
