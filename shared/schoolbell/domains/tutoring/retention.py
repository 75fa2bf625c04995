"""Whose time is over, and the steps that erase them: overdue requests first, then students who have been inactive.

Which students, requests and rows are due follows from what each teacher has set; see docs/data-protection.md.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Interval,
    Row,
    Select,
    Table,
    Text,
    and_,
    cast,
    exists,
    func,
    literal,
    literal_column,
    select,
    text,
    tuple_,
)

from schoolbell.alerts import Alert, Severity, send_alert
from schoolbell.domains.tutoring import erasure, notices
from schoolbell.domains.tutoring.tables.lessons import sessions
from schoolbell.domains.tutoring.tables.people import (
    RETENTION_DEFAULTS,
    erasure_requests,
    retention_settings,
    students,
)
from schoolbell.domains.tutoring.teacher_notifications import email_teachers
from schoolbell.jobs import Chunk, Cursor, JobContext, audit

STUDENTS_A_CHUNK: Final = 1_000
REQUESTS_A_CHUNK: Final = 5_000
MENTIONS_A_CHUNK: Final = 100  # a dead letter may be of a megabyte

LONGEST: Final = 36_500  # days; a longer threshold is as good as never, and would leave the calendar
LATE_WRITES: Final = timedelta(days=30)
"""For so long after an erasure, somebody may still write what was read before it."""

type Counts = Mapping[str, int]
type Step = Callable[[Connection, Cursor], Chunk | None]


# Whose time is over


def at(moment: datetime) -> ColumnElement[datetime]:
    return literal(moment, DateTime(timezone=True))


def in_days(days: ColumnElement[int]) -> ColumnElement[timedelta]:
    return func.make_interval(0, 0, 0, days, type_=Interval)


def threshold(name: str, teacher_id: Column[Any]) -> ColumnElement[timedelta]:
    """SQL: a threshold of a teacher's; the default where the teacher has no settings."""
    own = select(retention_settings.c[name]).where(retention_settings.c.teacher_id == teacher_id)
    own_days = own.correlate_except(retention_settings).scalar_subquery()
    return in_days(func.least(func.coalesce(own_days, RETENTION_DEFAULTS[name]), LONGEST))


IS_ERASED: Final = students.c.status == literal_column("'erased'")
NOT_ERASED: Final = students.c.status != literal_column("'erased'")  # to the letter as the index says it
LAST_ACTIVE: Final = func.coalesce(students.c.last_activity_at, students.c.created_at)


def is_inactive(now: datetime) -> ColumnElement[bool]:
    """SQL: whether a student was last active before the teacher's threshold, and has no lesson since, or to come."""
    since = at(now) - threshold("inactive_student_days", students.c.teacher_id)
    lesson = sessions.alias("lesson").c
    has_lesson = exists().where(
        lesson.student_id == students.c.id, lesson.starts_at >= since, lesson.status != literal_column("'cancelled'")
    )
    return and_(NOT_ERASED, since > LAST_ACTIVE, ~has_lesson)


def is_overdue(now: datetime) -> ColumnElement[bool]:
    """SQL: whether an erasure request of a student is open, and its time has passed."""
    request = erasure_requests.c
    by_default = request.requested_at + threshold("erasure_due_days", students.c.teacher_id)
    return and_(request.status == literal_column("'open'"), func.coalesce(request.due_at, by_default) < now)


def is_requested(now: datetime) -> ColumnElement[bool]:
    """SQL: whether a student's erasure is overdue."""
    return exists().where(erasure_requests.c.student_id == students.c.id, is_overdue(now))


def is_due(now: datetime) -> ColumnElement[bool]:
    """SQL: whether this run erases a student."""
    return is_inactive(now) | and_(NOT_ERASED, is_requested(now))


# Overdue requests


def raise_alert(job: JobContext) -> Step:
    """Tells of requests that have become overdue: the operator by log and metric, the teacher by a notification."""
    overdue = (
        select(erasure_requests.c.id)
        .join_from(erasure_requests, students)
        .where(is_overdue(job.now), erasure_requests.c.alerted_at.is_(None))
        .order_by(erasure_requests.c.id)
        .limit(REQUESTS_A_CHUNK)
    )

    def step(connection: Connection, cursor: Cursor) -> Chunk | None:
        ids = connection.execute(overdue.where(erasure_requests.c.id > first_id(cursor))).scalars().all()
        if not ids:
            return None
        if not job.dry_run:
            job.logger.error("erasure requests are overdue", count=len(ids), requests=list(map(str, ids[:100])))
            given = {"ids": erasure.as_array(ids), "now": job.now, "title": notices.title("erasure_overdue")}
            told = connection.execute(_TELL_TEACHERS, given).scalars().all()
            email_teachers(connection, told, job.now)
            tell_operators(job, connection, "trigger", f"{len(ids)} erasure requests were not carried out in time")
        return Chunk(str(ids[-1]), items=len(ids))

    return step


def tell_operators(
    job: JobContext, connection: Connection, action: Literal["trigger", "resolve"], summary: str
) -> None:
    """Raises or ends the alert of overdue requests, once for a scheduled time."""
    key = f"erasure-overdue/{job.name}"
    alert = Alert(action=action, key=key, severity=Severity.CRITICAL, summary=summary, source=job.name)
    send_alert(job.outbox, connection, alert, dedup_key=f"{key}/{action}/{job.scheduled_for or job.run_id}")


# The notification names no student: what is about a student is erased with the student, and this is to stay.
_TELL_TEACHERS = text(
    """
    WITH told AS (
        UPDATE tutoring.erasure_requests AS request SET alerted_at = :now, updated_at = :now
        FROM tutoring.students AS student
        WHERE request.id = ANY (cast(:ids AS uuid[])) AND student.id = request.student_id
        RETURNING request.id, student.teacher_id
    )
    INSERT INTO tutoring.teacher_notifications (teacher_id, kind, subject_id, dedup_key, title, created_at)
    SELECT teacher_id, 'erasure_overdue', id, 'erasure-overdue/' || id,
           :title, :now
    FROM told
    ON CONFLICT (dedup_key) DO NOTHING
    RETURNING id
    """
)


# Erasing students


def erase_requested(job: JobContext) -> Step:
    """Carries out overdue requests; one for a student who has been erased before is done."""
    student_id = erasure_requests.c.student_id
    asking = select(student_id).distinct().join_from(erasure_requests, students).where(is_overdue(job.now))

    def step(connection: Connection, cursor: Cursor) -> Chunk | None:
        some = asking.where(student_id > first_id(cursor)).order_by(student_id).limit(STUDENTS_A_CHUNK)
        ids = connection.execute(some).scalars().all()
        return _erase(connection, job, ids, str(ids[-1]), past_events=True) if ids else None

    return step


def erase_inactive(job: JobContext) -> Step:
    """Erases students who have been inactive for longer than their teacher allows, the longest inactive first."""
    shortest = select(func.min(retention_settings.c.inactive_student_days)).scalar_subquery()
    latest = at(job.now) - in_days(func.least(shortest, RETENTION_DEFAULTS["inactive_student_days"]))
    inactive = select(students.c.id).where(latest > LAST_ACTIVE, is_inactive(job.now), ~is_requested(job.now))

    def step(connection: Connection, cursor: Cursor) -> Chunk | None:
        found = connection.execute(_next(inactive, LAST_ACTIVE, cursor)).all()
        ids = [student.id for student in found]
        return _erase(connection, job, ids, _place(found[-1]), past_events=False) if ids else None

    return step


def erase_late_writes(job: JobContext) -> Step:
    """Erases what was written about a student after the erasure, by somebody who had read it before."""
    gone = select(students.c.id).where(students.c.erased_at >= job.now - LATE_WRITES)

    def step(connection: Connection, cursor: Cursor) -> Chunk | None:
        found = connection.execute(_next(gone, students.c.erased_at, cursor)).all()
        ids = [student.id for student in found]
        return Chunk(_place(found[-1]), counts=_replace(connection, job, ids)) if ids else None

    return step


def erase_mentions(job: JobContext, table: Table) -> Step:
    """Erases rows that are no student's by themselves and mention one who is gone, now or before."""

    def step(connection: Connection, cursor: Cursor) -> Chunk | None:
        some = erasure.with_something_personal(table, first_id(cursor), MENTIONS_A_CHUNK)
        ids = connection.execute(some).scalars().all()
        if not ids:
            return None
        if job.dry_run:
            rows = erasure.count_mentions(connection, table, ids, IS_ERASED | is_due(job.now))
        else:
            rows = erasure.replace_mentions(connection, table, ids, IS_ERASED, job.now)
        return Chunk(str(ids[-1]), items=rows, counts={table.fullname: rows} if rows else {})

    return step


def _erase(connection: Connection, job: JobContext, ids: Sequence[UUID], last: Cursor, *, past_events: bool) -> Chunk:
    """Erases those of some students who are not erased yet, and closes all requests for any of them."""
    given = {"ids": erasure.as_array(ids), "now": job.now}
    if job.dry_run:
        erased: Sequence[UUID] = connection.execute(_UNERASED, {"ids": given["ids"]}).scalars().all()
        requests = connection.execute(_OPEN_REQUESTS, {"ids": given["ids"]}).scalar_one()
        rows = _replace(connection, job, erased)
    else:
        erased = connection.execute(_MARK_ERASED, given).scalars().all()
        audit.record_each(connection, "student", "student.erased", job.name, erased, job.now)
        rows = _replace(connection, job, erased)
        erasure.call_off(connection, job.outbox, erased, job.now, past_events=past_events)
        closed = connection.execute(_CLOSE_REQUESTS, given).scalars().all()
        audit.record_each(connection, "student", "erasure_request.done", job.name, closed, job.now)
        requests = len(closed)
    return Chunk(last, len(erased), {"students": len(erased), "requests": requests, **rows})


_UNERASED = text("SELECT id FROM tutoring.students WHERE id = ANY (cast(:ids AS uuid[])) AND status <> 'erased'")

_OPEN_REQUESTS = text(
    "SELECT count(*) FROM tutoring.erasure_requests WHERE student_id = ANY (cast(:ids AS uuid[])) AND status = 'open'"
)

_MARK_ERASED = text(
    """
    UPDATE tutoring.students SET status = 'erased', erased_at = :now, updated_at = :now
    WHERE id = ANY (cast(:ids AS uuid[])) AND status <> 'erased'
    RETURNING id
    """
)

_CLOSE_REQUESTS = text(
    """
    UPDATE tutoring.erasure_requests SET status = 'done', completed_at = :now, updated_at = :now
    WHERE student_id = ANY (cast(:ids AS uuid[])) AND status = 'open'
    RETURNING id
    """
)


def _replace(connection: Connection, job: JobContext, ids: Sequence[UUID]) -> Counts:
    """Replaces everything personal of some students, or counts it."""
    if job.dry_run:
        return erasure.count_personal(connection, ids)
    return erasure.replace_personal(connection, ids, job.now)


def _next(query: Select[Any], time: ColumnElement[datetime], cursor: Cursor) -> Select[Any]:
    """SQL: the next students by a time, which stays PostgreSQL's: its calendar begins before Python's."""
    if cursor:
        place = tuple_(time, students.c.id)
        query = query.where(place > tuple_(cast(literal(cursor[0], Text), DateTime(timezone=True)), UUID(cursor[1])))
    return query.add_columns(cast(time, Text).label("at")).order_by(time, students.c.id).limit(STUDENTS_A_CHUNK)


def _place(student: Row[Any]) -> Cursor:
    return [student.at, str(student.id)]


def first_id(cursor: Cursor) -> UUID:
    """The id after which a chunk begins."""
    return UUID(cursor) if cursor else UUID(int=0)
