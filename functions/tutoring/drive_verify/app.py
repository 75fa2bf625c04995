"""Look whether a teacher's copies are still in Drive, a hundred at a time.

    copied ◀──▶ trashed
       └────┬──────┘
            ▼
         deleted

Where Google could not say, the status stays as it is, and so does `verified_at`: the next night asks again.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import Connection, text

from schoolbell.domains.tutoring.calendar_connections import active_account, mark_revoked
from schoolbell.gateways.errors import NeverWorks, Revoked, Throttled
from schoolbell.gateways.google.drive import Drive, FileState, drive_of
from schoolbell.jobs import Discard, JobContext, Payload, Result, Snooze, queue_job
from schoolbell.resilience.errors import Withheld

AFTER_THROTTLED = timedelta(seconds=30)
ENOUGH_TIME = timedelta(seconds=60)

STATUSES = {FileState.PRESENT: "copied", FileState.TRASHED: "trashed", FileState.GONE: "deleted"}


class DriveVerify(Payload):
    """A teacher whose files are to be looked at."""

    teacher_id: UUID
    not_since: AwareDatetime | None = None
    """Set when a look goes on in another invocation: only files not looked at since then."""


class Verified(Result):
    """How many files are where they were, in the trash, gone, and not answered for."""

    present: int = 0
    trashed: int = 0
    deleted: int = 0
    unanswered: int = 0


_NEXT = text(
    """
    SELECT copy.id, copy.copied_file_id
    FROM tutoring.drive_resources AS resource
    JOIN tutoring.drive_file_copies AS copy ON copy.resource_id = resource.id
    WHERE resource.teacher_id = :teacher_id
      AND copy.status IN ('copied', 'trashed') AND copy.copied_file_id IS NOT NULL
      AND (copy.verified_at IS NULL OR copy.verified_at < :not_since)
      AND copy.id > :after
    ORDER BY copy.id
    LIMIT :size
    """
)

_MARK = text(
    """
    UPDATE tutoring.drive_file_copies AS copy
    SET status = seen.status, verified_at = :now, updated_at = :now
    FROM json_to_recordset(cast(:seen AS json)) AS seen (id uuid, file_id text, status text)
    WHERE copy.id = seen.id AND copy.copied_file_id = seen.file_id AND copy.status IN ('copied', 'trashed')
    """
)

_KNOWN = text("SELECT EXISTS (SELECT FROM tutoring.teachers WHERE id = :teacher_id)")


@queue_job("tutoring.drive-verify", DriveVerify)
def handler(job: JobContext, message: DriveVerify) -> Verified:
    with job.transaction() as connection:
        account = active_account(connection, message.teacher_id)
        if account is None and not connection.execute(_KNOWN, {"teacher_id": message.teacher_id}).scalar():
            raise Discard(f"teacher_id: {message.teacher_id} does not exist")
    if account is None:
        return Verified()
    drive = drive_of(message.teacher_id, account.grant, job.settings)
    result, after = Verified(), UUID(int=0)
    while files := next_files(job, message, after, drive.largest_batch):
        try:
            if job.remaining() < ENOUGH_TIME:
                return go_on(job, message, result, timedelta(0))
            done = look(job, drive, files)
        except Withheld as not_now:
            return go_on(job, message, result, not_now.retry_after)
        except Throttled as not_now:
            return go_on(job, message, result, max(not_now.retry_after, AFTER_THROTTLED))
        except Revoked:
            with job.transaction() as connection:
                mark_revoked(connection, account, job.now)
            return result
        except NeverWorks as error:
            raise Discard(f"Google refuses: {error}") from None
        result, after = result.plus(done), max(files)
    return result


def next_files(job: JobContext, message: DriveVerify, after: UUID, size: int) -> Mapping[UUID, str]:
    """The Drive ids of the next copies to look at, by copy."""
    values = {
        "teacher_id": message.teacher_id,
        "not_since": message.not_since or job.now,
        "after": after,
        "size": size,
    }
    with job.transaction() as connection:
        return {row.id: row.copied_file_id for row in connection.execute(_NEXT, values)}


def look(job: JobContext, drive: Drive, files: Mapping[UUID, str]) -> Verified:
    """Asks Google about some files and writes down what it says of each."""
    states = drive.check(list(files.values()))
    seen = {copy: states[file] for copy, file in files.items()}
    with job.transaction() as connection:
        mark(connection, job, files, seen)
    counts = list(seen.values())
    return Verified(
        present=counts.count(FileState.PRESENT),
        trashed=counts.count(FileState.TRASHED),
        deleted=counts.count(FileState.GONE),
        unanswered=counts.count(FileState.UNANSWERED),
    )


def mark(connection: Connection, job: JobContext, files: Mapping[UUID, str], seen: Mapping[UUID, FileState]) -> None:
    """Writes the statuses of the files that Google answered for, in one statement."""
    rows = [
        {"id": str(copy), "file_id": files[copy], "status": STATUSES[state]}
        for copy, state in seen.items()
        if state in STATUSES
    ]
    if rows:
        connection.execute(_MARK, {"seen": json.dumps(rows), "now": job.now})


def go_on(job: JobContext, message: DriveVerify, so_far: Verified, delay: timedelta) -> Verified:
    """Leaves the rest for later: the same message if nothing was done yet, else one that knows what was.

    Raises:
        Snooze: nothing was done yet.
    """
    if so_far == Verified():
        raise Snooze(delay)
    not_since = message.not_since or job.now
    with job.transaction() as connection:
        job.outbox.send(
            connection,
            "tutoring.drive-verify",
            {"teacher_id": str(message.teacher_id), "not_since": not_since.isoformat()},
            dedup_key=f"drive-verify-more/{message.teacher_id}/{job.run_id}",
            tenant=message.teacher_id,
            available_at=job.now + delay,
        )
    return so_far
