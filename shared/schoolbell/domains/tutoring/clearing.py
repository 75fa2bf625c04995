"""What is cleared of students who stay: content of lessons, entries of the contact log, messages, when they are old."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Delete,
    Select,
    Table,
    Text,
    Update,
    and_,
    any_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    literal_column,
    select,
    true,
    update,
)

from schoolbell.domains.tutoring import retention
from schoolbell.domains.tutoring.tables.lessons import sessions
from schoolbell.domains.tutoring.tables.messages import contact_log, scheduled_messages
from schoolbell.domains.tutoring.tables.people import (
    students,
    teachers,
)
from schoolbell.jobs import Chunk, Cursor, JobContext, audit

ROWS_A_CHUNK: Final = 5_000


@dataclass(frozen=True, slots=True)
class Old:
    """Rows of a table that have a time, and are cleared when that is longer ago than a teacher's threshold."""

    table: Table
    at: Column[datetime]
    threshold: str
    is_left: ColumnElement[bool]
    """What is still to be cleared, whatever its age."""
    change: Update | Delete
    action: str
    """What the audit log calls it."""
    goes_with_student: bool
    """Whether erasing the student leaves nothing to clear."""


LESSON_CONTENT = Old(
    sessions,
    sessions.c.ends_at,
    "session_content_days",
    sessions.c.content.is_not(None),
    update(sessions).values(content=None),
    "session_content.cleared",
    goes_with_student=True,
)
CONTACTS = Old(
    contact_log,
    contact_log.c.occurred_at,
    "contact_log_days",
    true(),
    delete(contact_log),
    "contact_log.deleted",
    goes_with_student=False,
)
# A message that was fired stands in the contact log, word for word.
MESSAGES = Old(
    scheduled_messages,
    scheduled_messages.c.send_at,
    "contact_log_days",
    and_(scheduled_messages.c.body.is_not(None), scheduled_messages.c.status != "pending"),
    update(scheduled_messages).values(body=None),
    "message_text.cleared",
    goes_with_student=True,
)


def clear(job: JobContext, old: Old) -> retention.Step:
    """Clears what is too old, teacher by teacher; what was cleared is in the audit log, a record a teacher."""
    some = _clear_some(job, old)

    def step(connection: Connection, cursor: Cursor) -> Chunk | None:
        if job.dry_run:
            return None if cursor else Chunk("counted", items=connection.execute(_count(job, old)).scalar_one())
        cleared, last = connection.execute(some, {"after": retention.first_id(cursor)}).one()
        return Chunk(str(last), items=cleared) if last else None

    return step


def _is_too_old(job: JobContext, old: Old) -> ColumnElement[bool]:
    too_old = old.at < retention.at(job.now) - retention.threshold(old.threshold, teachers.c.id)
    return and_(old.table.c.teacher_id == teachers.c.id, old.is_left, too_old)


def _clear_some(job: JobContext, old: Old) -> Select[int, UUID | None]:
    """SQL: clears the next rows, and says how many, and of which teacher the last was (whose next ones may follow)."""
    id_ = old.table.c.id
    place: ColumnElement[Any] = literal_column(f"{old.table}.ctid")
    rows = select(place.label("place")).where(_is_too_old(job, old)).order_by(old.at).limit(ROWS_A_CHUNK).lateral("old")
    due = (
        select(teachers.c.id.label("teacher_id"), rows.c.place)
        .join_from(teachers, rows, true())
        .where(teachers.c.id >= bindparam("after", type_=teachers.c.id.type))
        .order_by(teachers.c.id)
        .limit(ROWS_A_CHUNK)
        .cte("due")
    )
    # Found again by their place, which no estimate of the planner's can turn into a scan of the whole table.
    change = old.change.where(place == any_(func.array(select(due.c.place).scalar_subquery())), old.is_left)
    if isinstance(change, Update):
        change = change.values(updated_at=job.now)
    cleared = change.returning(id_, old.table.c.teacher_id).cte("cleared")
    record = select(
        literal("student").label("tier"),
        literal(old.action).label("action"),
        literal(job.name).label("actor"),
        cast(cleared.c.teacher_id, Text).label("subject"),
        retention.at(job.now).label("occurred_at"),
        func.jsonb_build_object(cast(old.table.name, Text), func.jsonb_agg(cleared.c.id)).label("details"),
    ).group_by(cleared.c.teacher_id)
    audited = audit.record_from(record).cte("audited")
    last = select(due.c.teacher_id).order_by(due.c.teacher_id.desc()).limit(1).scalar_subquery()
    return select(func.count(cleared.c.id), last).add_cte(audited)


def _count(job: JobContext, old: Old) -> Select[int]:
    """SQL: how many rows would be cleared, after this run's erasures."""
    is_in_the_way = exists().where(students.c.id == old.table.c.student_id, retention.is_due(job.now))
    counted = select(func.count().label("rows")).where(_is_too_old(job, old))
    if old.goes_with_student:
        counted = counted.where(~is_in_the_way)
    rows = counted.lateral("old")
    return select(cast(func.coalesce(func.sum(rows.c.rows), 0), BigInteger)).join_from(teachers, rows, true())
