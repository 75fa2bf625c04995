"""Copy a teacher's Drive file into a student's folder, once.

    pending ──▶ copied ──▶ trashed, deleted: by drive-verify
       ▲  │
       │  └──▶ failed: Google refuses for good; a message for it tries again
       └── claimed by one message at a time, for as long as the invocation can last

The copy carries a key made of the resource's and the student's ids, by which it is looked up before it is made. So a
crash after the copy makes no second one, and the claim keeps two messages from both looking before either copies.
"""

from datetime import timedelta
from uuid import UUID

from schoolbell.domains.tutoring import drive_copies
from schoolbell.domains.tutoring.calendar_connections import mark_revoked
from schoolbell.domains.tutoring.drive_copies import CopyKey, FileToCopy
from schoolbell.gateways.errors import NeverWorks, Revoked, Throttled
from schoolbell.gateways.google.drive import Drive, drive_of
from schoolbell.jobs import Discard, JobContext, Payload, Result, Snooze, queue_job
from schoolbell.resilience.errors import Withheld

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


@queue_job("tutoring.drive-copy", DriveCopy)
def handler(job: JobContext, message: DriveCopy) -> Copied:
    copy = CopyKey(message.resource_id, message.student_id)
    try:
        with job.transaction() as connection:
            wanted = drive_copies.find(connection, copy)
            is_claimed = drive_copies.claim(connection, job, copy)
            state = drive_copies.state_of(connection, copy)
    except Discard as reason:
        drive_copies.give_up(job, copy, reason)
        raise
    if not is_claimed and state.status == "pending":
        raise Snooze(state.claimed_until - job.now)
    if not is_claimed:
        return Copied(already=1)
    try:
        result, file_id = copy_once(drive_of(wanted.account.teacher_id, wanted.account.grant, job.settings), wanted)
    except Withheld as not_now:
        drive_copies.settle(job, copy, "pending")
        raise Snooze(not_now.retry_after) from None
    except Throttled as not_now:
        drive_copies.settle(job, copy, "pending", error=str(not_now))
        raise Snooze(max(not_now.retry_after, AFTER_THROTTLED)) from None
    except Revoked as error:
        drive_copies.settle(job, copy, "pending", error=str(error))
        with job.transaction() as connection:
            mark_revoked(connection, wanted.account, job.now)
        raise Snooze(drive_copies.UNTIL_CONNECTED) from None
    except NeverWorks as error:
        drive_copies.settle(job, copy, "failed", error=str(error))
        raise Discard(f"Google refuses: {error}") from None
    except Exception as error:
        drive_copies.settle(job, copy, "pending", error=type(error).__name__)
        raise
    drive_copies.settle(job, copy, "copied", file_id=file_id)
    return result


def copy_once(drive: Drive, wanted: FileToCopy) -> tuple[Copied, str]:
    """Copies the file, unless an earlier try has, and returns the copy's id."""
    found = drive.find_copy(wanted.key)
    if found:
        return Copied(found=1), found.id
    return Copied(copied=1), drive.copy(wanted.file_id, wanted.folder_id, wanted.key, wanted.name).id
