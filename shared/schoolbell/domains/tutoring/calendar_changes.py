"""Changes of lessons for Google calendars: claiming them, carrying them over, and writing down what came of it."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Row, text

from schoolbell import aws
from schoolbell.database.sql import statement
from schoolbell.domains.tutoring import notices
from schoolbell.domains.tutoring.calendar_connections import GoogleAccount, grant_of, mark_revoked
from schoolbell.domains.tutoring.teacher_notifications import email_teachers
from schoolbell.gateways.errors import GatewayError, NeverWorks, NotNow, Revoked
from schoolbell.gateways.google.calendar import Calendar, Event, calendar_of, event_id
from schoolbell.jobs import JobContext, JobError
from schoolbell.resilience.backoff import Backoff
from schoolbell.resilience.errors import CircuitOpen, NoBudget

BATCH = 20  # source 000: "Processes batch of 20 pending session_calendar_sync records"
ATTEMPTS = 8
BACKOFF = Backoff(base=timedelta(minutes=5), cap=timedelta(hours=6))

LEASE = timedelta(minutes=15)
"""No invocation lasts longer, so whoever held a claim that has run out is dead, and so are its requests."""

ENOUGH_TIME = timedelta(seconds=75)
"""The slowest record: a token, an insert and a patch that all just make it."""


AFTER_TROUBLE = timedelta(minutes=15)


class OurTrouble(JobError):
    """A secret or the table of budgets can't be read. The run does what it can, and fails, so that somebody looks."""


class Outcome(StrEnum):
    """What became of a record, by the name of its count."""

    SYNCED = "synced"
    POSTPONED = "postponed"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Change:
    """A record that this run has claimed, and what it takes to carry it over."""

    id: UUID
    session_id: UUID
    sequence: int
    attempts: int
    account: GoogleAccount
    action: str
    """What the newest record of the lesson says."""
    event: Event | str
    """What Google is to show, or why there is nothing that it could."""
    student_id: UUID | None


# Claims are made one after the other: a claim sees which lessons another run is at. They take milliseconds.
_QUEUE_UP = text("SELECT pg_advisory_xact_lock(hashtext('tutoring.calendar-sync'))")

_CLAIM = statement(__file__, "claim_calendar_changes.sql")

# The record, and those of the same lesson that it replaced.
_SYNCED = text(
    """
    UPDATE tutoring.session_calendar_sync
    SET status = 'synced', external_event_id = :event_id, last_error = NULL, next_attempt_at = NULL,
        attempts = attempts + CASE WHEN id = :id THEN 1 ELSE 0 END,
        claimed_by = NULL, claimed_until = NULL, updated_at = :now
    WHERE session_id = :session_id AND sequence <= :sequence AND status = 'pending'
    """
)

_FAILED = text(
    """
    WITH failed AS (
        UPDATE tutoring.session_calendar_sync
        SET status = 'failed', last_error = :error, next_attempt_at = NULL,
            attempts = attempts + CASE WHEN id = :id THEN 1 ELSE 0 END,
            claimed_by = NULL, claimed_until = NULL, updated_at = :now
        WHERE session_id = :session_id AND sequence <= :sequence AND status = 'pending'
        RETURNING id, teacher_id, session_id
    )
    INSERT INTO tutoring.teacher_notifications
        (teacher_id, student_id, kind, subject_id, dedup_key, title, created_at, updated_at)
    SELECT teacher_id, cast(:student_id AS uuid), 'calendar_sync_failed', session_id, 'calendar-sync-failed/' || id,
           :title, :now, :now
    FROM failed WHERE id = :id
    ON CONFLICT (dedup_key) DO NOTHING
    RETURNING id
    """
)

_POSTPONE = text(
    """
    UPDATE tutoring.session_calendar_sync
    SET attempts = attempts + :attempt, next_attempt_at = :again_at, last_error = :error,
        claimed_by = NULL, claimed_until = NULL, updated_at = :now
    WHERE id = :id AND status = 'pending' AND claimed_by = :run
    """
)

_LET_GO = text(
    """
    UPDATE tutoring.session_calendar_sync
    SET claimed_by = NULL, claimed_until = NULL, updated_at = :now
    WHERE claimed_by = :run AND status = 'pending'
    """
)


def claim(job: JobContext) -> list[Change]:
    """Takes the oldest due records of teachers whose connection works; a crash frees them when the lease is over."""
    with job.transaction() as connection:
        connection.execute(_QUEUE_UP)
        values = {"now": job.now, "run": job.run_id, "until": job.now + LEASE, "batch": BATCH}
        return [_change(row) for row in connection.execute(_CLAIM, values)]


def carry_over(job: JobContext, change: Change) -> Outcome:
    """Tells Google, and writes down what came of it.

    Raises:
        CircuitOpen: Google was not told.
        Revoked: the teacher's token no longer works.
        OurTrouble: AWS refused us something; the record waits, and no attempt is counted.
    """
    calendar = calendar_of(change.account.teacher_id, change.account.grant, job.settings)
    try:
        tell(calendar, change)
    except (CircuitOpen, Revoked):
        raise
    except NoBudget as error:
        put_off(job, change, error.retry_after, "no budget for Google's API")
        return Outcome.WAITING
    except Exception as error:
        if code := aws.error_code(error):
            put_off(job, change, AFTER_TROUBLE, code)
            raise OurTrouble(f"record {change.id}: {code}") from error
        return fail(job, change, error)
    with job.transaction() as connection:
        values = {**_which(change), "event_id": event_id(change.session_id), "now": job.now}
        connection.execute(_SYNCED, values)
    return Outcome.SYNCED


def tell(calendar: Calendar, change: Change) -> None:
    """Makes the teacher's calendar agree with the change. Can be repeated: the event's id is the lesson's."""
    if change.action == "delete":
        calendar.delete(change.account.calendar_id, event_id(change.session_id))
        return
    if isinstance(change.event, str):
        raise NeverWorks(change.event)
    calendar.upsert(change.account.calendar_id, change.event)


def fail(job: JobContext, change: Change, error: Exception) -> Outcome:
    """Writes down a failure: to be tried again, or given up and told to the teacher."""
    reason = str(error) if isinstance(error, GatewayError) else type(error).__name__
    attempt = change.attempts + 1
    is_over = isinstance(error, NeverWorks) or attempt >= ATTEMPTS
    job.logger.warning("change not carried over", record_id=str(change.id), attempt=attempt, error=reason, over=is_over)
    if not is_over:
        asked = error.retry_after if isinstance(error, NotNow) else timedelta(0)
        wait = max(asked, BACKOFF.delay(attempt, random.random()))  # noqa: S311 - jitter
        _postpone(job, change, job.now + wait, attempt=1, reason=reason)
        return Outcome.POSTPONED
    with job.transaction() as connection:
        values = {
            **_which(change),
            "error": reason,
            "student_id": change.student_id,
            "title": notices.title("calendar_sync_failed"),
            "now": job.now,
        }
        told = connection.execute(_FAILED, values).scalars().all()
        email_teachers(connection, told, job.now)
    return Outcome.FAILED


def put_off(job: JobContext, change: Change, wait: timedelta, reason: str) -> None:
    """Leaves a record for later; that counts as no attempt."""
    _postpone(job, change, job.now + wait, attempt=0, reason=reason)


def set_aside(job: JobContext, change: Change, error: Revoked) -> None:
    """Marks the teacher's connection; the record waits, as it is, until the connection works again."""
    job.logger.warning("connection revoked", connection_id=str(change.account.id), error=str(error))
    with job.transaction() as connection:
        mark_revoked(connection, change.account, job.now)


def let_go(job: JobContext) -> None:
    """Frees what this run has claimed and not tried."""
    with job.transaction() as connection:
        connection.execute(_LET_GO, {"run": job.run_id, "now": job.now})


def go_on(job: JobContext) -> None:
    """Asks for another run at once: there may be more than one batch."""
    with job.transaction() as connection:
        job.outbox.send(connection, f"function/{job.name}", {}, dedup_key=f"calendar-sync-more/{job.run_id}")


def _postpone(job: JobContext, change: Change, again_at: datetime, *, attempt: int, reason: str) -> None:
    with job.transaction() as connection:
        connection.execute(
            _POSTPONE,
            {
                "id": change.id,
                "attempt": attempt,
                "again_at": again_at,
                "error": reason,
                "run": job.run_id,
                "now": job.now,
            },
        )


def _which(change: Change) -> dict[str, object]:
    return {"id": change.id, "session_id": change.session_id, "sequence": change.sequence}


def _change(row: Row[tuple[object, ...]]) -> Change:
    grant = grant_of(row.account_id, row.token_ciphertext, row.secret_id)
    account = GoogleAccount(row.account_id, row.teacher_id, row.calendar_id, grant, row.seen)
    return Change(row.id, row.session_id, row.sequence, row.attempts, account, row.action, _event(row), row.student_id)


def _event(row: Row[tuple[object, ...]]) -> Event | str:
    if row.starts_at is None:
        return "the lesson does not exist"
    for field, at in (("starts_at", row.starts_at), ("ends_at", row.ends_at)):
        if not isinstance(at, datetime):  # pg8000 hands over as text what Python's calendar doesn't have
            return f"{field}: {at} is outside the calendar of the years 1 to 9999"
    try:
        ZoneInfo(row.timezone)
    except (ValueError, OSError, KeyError):
        return f"timezone: the teacher's, {row.timezone[:60]!r}, is no time zone"
    return Event(row.session_id, f"Lesson: {row.name}", row.starts_at, row.ends_at, row.timezone)
