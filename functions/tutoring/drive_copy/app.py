"""Copy a teacher's Drive file into a student's folder, once.

    pending ──▶ copied ──▶ trashed, deleted: by drive-verify
       ▲  │
       │  └──▶ failed: Google refuses for good; a message for it tries again
       └── claimed by one message at a time, for as long as the invocation can last

The copy carries a key made of the resource's and the student's ids, by which it is looked up before it is made. So a
crash after the copy makes no second one, and the claim keeps two messages from both looking before either copies.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from schoolbell.domains.tutoring.calendar_connections import (
    GoogleAccount,
    active_account,
    has_ever_connected,
    mark_revoked,
)
from schoolbell.gateways.google.drive import Drive, drive_of
from schoolbell.gateways.google.errors import NeverWorks, Revoked, Throttled
from schoolbell.jobs import Discard, JobContext, Payload, Result, Snooze, queue_job
from schoolbell.resilience.errors import Withheld

LEASE = timedelta(minutes=5)
"""Longer than an invocation lasts, and shorter than a message that was being handled stays invisible."""

UNTIL_CONNECTED = timedelta(minutes=15)
AFTER_THROTTLED = timedelta(seconds=30)


class DriveCopy(Payload):
    """A resource that was linked to a lesson of a student."""

    resource_id: UUID
    student_id: UUID


class Copied(Result):
    """How many copies were made, were found made by an earlier try, or had been made before."""

    copied: int = 0
    found: int = 0
    already: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be copied, and where to."""

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


@queue_job("tutoring.drive-copy", DriveCopy)
def handler(job: JobContext, message: DriveCopy) -> Copied:
    try:
        with job.transaction() as connection:
            wanted = find(connection, message)
            is_claimed = claim(connection, job, message)
            state = connection.execute(_STATE, message.model_dump()).one()
    except Discard as reason:
        give_up(job, message, reason)
        raise
    if not is_claimed and state.status == "pending":
        raise Snooze(state.claimed_until - job.now)
    if not is_claimed:
        return Copied(already=1)
    try:
        result, file_id = copy_once(drive_of(wanted.account.teacher_id, wanted.account.grant, job.settings), wanted)
    except Withheld as not_now:
        settle(job, message, "pending")
        raise Snooze(not_now.retry_after) from None
    except Throttled as not_now:
        settle(job, message, "pending", error=str(not_now))
        raise Snooze(max(not_now.retry_after, AFTER_THROTTLED)) from None
    except Revoked as error:
        settle(job, message, "pending", error=str(error))
        with job.transaction() as connection:
            mark_revoked(connection, wanted.account, job.now)
        raise Snooze(UNTIL_CONNECTED) from None
    except NeverWorks as error:
        settle(job, message, "failed", error=str(error))
        raise Discard(f"Google refuses: {error}") from None
    except Exception as error:
        settle(job, message, "pending", error=type(error).__name__)
        raise
    settle(job, message, "copied", file_id=file_id)
    return result


def find(connection: Connection, message: DriveCopy) -> Wanted:
    """What the message is about.

    Raises:
        Discard: there is no such thing, or it may not be copied.
        Snooze: the teacher must connect Google again first.
    """
    row = connection.execute(_FIND, message.model_dump()).one()
    if not row.has_resource:
        raise Discard(f"resource_id: {message.resource_id} does not exist")
    if not row.has_student or row.status == "erased":
        raise Discard(f"student_id: {message.student_id} does not exist")
    if row.teacher_id != row.student_teacher_id:
        raise Discard(f"student_id: {message.student_id} is another teacher's student")
    if not row.drive_folder_id:
        raise Discard(f"student_id: {message.student_id} has no Drive folder")
    account = active_account(connection, row.teacher_id)
    if account is None and has_ever_connected(connection, row.teacher_id):
        raise Snooze(UNTIL_CONNECTED)
    if account is None:
        raise Discard(f"resource_id: its teacher {row.teacher_id} has not connected Google")
    key = f"{message.resource_id}:{message.student_id}"
    return Wanted(row.drive_file_id, row.name, row.drive_folder_id, account, key)


def claim(connection: Connection, job: JobContext, message: DriveCopy) -> bool:
    """Takes the copy for this invocation, unless it is made or another has it."""
    values = {**message.model_dump(), "run": job.run_id, "until": job.now + LEASE, "now": job.now}
    return connection.execute(_CLAIM, values).rowcount == 1


def give_up(job: JobContext, message: DriveCopy, reason: Discard) -> None:
    """Marks a copy that an application has asked for and that can't be made; nothing if it is made, or being made."""
    values = {**message.model_dump(), "error": str(reason), "now": job.now}
    with job.transaction() as connection:
        connection.execute(_GIVE_UP, values)


def copy_once(drive: Drive, wanted: Wanted) -> tuple[Copied, str]:
    """Copies the file, unless an earlier try has, and returns the copy's id."""
    found = drive.find_copy(wanted.key)
    if found:
        return Copied(found=1), found.id
    return Copied(copied=1), drive.copy(wanted.file_id, wanted.folder_id, wanted.key, wanted.name).id


def settle(
    job: JobContext, message: DriveCopy, status: str, *, file_id: str | None = None, error: str | None = None
) -> None:
    """Writes down how it went and gives the copy free."""
    values = {"status": status, "file_id": file_id, "error": error, "run": job.run_id, "now": job.now}
    with job.transaction() as connection:
        connection.execute(_SETTLE, {**message.model_dump(), **values})
