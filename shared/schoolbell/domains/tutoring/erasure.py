"""What erasing a student means: everything personal goes from every table, and what was still to come is called off.

    active, inactive ──▶ erased      for good; the row stays, with its id as the pseudonym of the credit ledger

Which columns are personal is not listed here. It comes from the tables' declarations (`info=personal(...)`), so that a
column which is added later is erased without a change of this module.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    exists,
    func,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import NullType

from schoolbell.database.tables import metadata, personal_columns, student_columns
from schoolbell.domains.tutoring.tables.people import erasure_requests, students
from schoolbell.domains.tutoring.tables.teacher_notifications import teacher_notifications
from schoolbell.jobs.outbox import Outbox

A_UUID = "[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}"
"""As PostgreSQL and Python read UUIDs: hyphens may be left out."""


# What is personal


def replace_personal(connection: Connection, ids: Sequence[UUID], now: datetime) -> dict[str, int]:
    """Replaces every personal datum of some students, and returns how many rows held any, by table.

    A row in which nothing personal is left is not touched, so this can be repeated. Rows that merely mention a student
    are left to `replace_mentions`.

    Args:
        connection: the caller's transaction.
        ids: the students, a thousand or so.
        now: written as `updated_at`.
    """
    rows = {}
    for table, columns in _columns_of_students().items():
        statement = update(table).where(_is_of_given(table), _is_left(columns)).values(_replacements(table, now))
        rows[table.fullname] = connection.execute(statement, {"ids": as_array(ids)}).rowcount
    return {table: count for table, count in rows.items() if count}


def count_personal(connection: Connection, ids: Sequence[UUID]) -> dict[str, int]:
    """How many rows `replace_personal` would change, by table."""
    rows = {}
    for table, columns in _columns_of_students().items():
        query = select(func.count()).select_from(table).where(_is_of_given(table), _is_left(columns))
        rows[table.fullname] = connection.execute(query, {"ids": as_array(ids)}).scalar_one()
    return {table: count for table, count in rows.items() if count}


@cache
def _personal() -> Mapping[Table, Sequence[Column[Any]]]:
    columns: dict[Table, list[Column[Any]]] = {}
    for column in personal_columns():
        columns.setdefault(column.table, []).append(column)
    return columns


@cache
def _columns_of_students() -> Mapping[Table, Sequence[Column[Any]]]:
    """The personal columns of the tables whose rows say whose they are."""
    return {table: columns for table, columns in _personal().items() if student_columns(table)}


def _is_of_given(table: Table) -> ColumnElement[bool]:
    if table is teacher_notifications:
        return table.c.id.in_(_notifications())
    columns = (table.c[name] for name in student_columns(table))
    return or_(*(column == _given(Text if isinstance(column.type, Text) else Uuid) for column in columns))


def _notifications() -> Any:
    """Notifications about a student, or about anything of a student's: a lesson, a message, a signal."""
    note = teacher_notifications.c
    things = union_all(
        *(select(table.c.id).where(table.c.student_id == _given(Uuid)) for table in _things_of_students())
    ).subquery("thing")
    return union_all(
        *(select(note.id).where(note[name] == _given(Uuid)) for name in student_columns(teacher_notifications)),
        select(note.id).join_from(things, teacher_notifications, note.subject_id == things.c.id),
    )


def _things_of_students() -> list[Table]:
    """Tables whose rows are a student's, and found by student. What is said of an erasure request is not personal."""
    return [
        table
        for table in metadata.sorted_tables
        if table not in (teacher_notifications, erasure_requests)
        and any(list(index.columns.keys())[:1] == ["student_id"] for index in table.indexes)
    ]


def _is_left(columns: Sequence[Column[Any]]) -> ColumnElement[bool]:
    """SQL: whether anything personal is left in a row."""
    return or_(
        *(
            column.is_not(None) if column.info["personal"] is None else column.is_distinct_from(column.info["personal"])
            for column in columns
        )
    )


def _replacements(table: Table, now: datetime) -> dict[Column[Any], Any]:
    values: dict[Column[Any], Any] = {column: column.info["personal"] for column in _personal()[table]}
    if "updated_at" in table.c:
        values[table.c.updated_at] = now
    return values


def _given(kind: type[Any]) -> ColumnElement[Any]:
    """SQL: any of the students in the parameter `ids`.

    The parameter has no type of its own and is an array from the first. A text that is made one would be read again for
    each row that it is held against, and be nothing to the planner.
    """
    return any_(cast(bindparam("ids", type_=NullType()), ARRAY(kind)))


def as_array(ids: Sequence[UUID]) -> str:
    """UUIDs as PostgreSQL reads an array: one parameter, however many they are."""
    return f"{{{','.join(map(str, ids))}}}"


# What only mentions a student


def tables_of_mentions() -> list[Table]:
    """The tables whose rows belong to the students that they mention."""
    return [table for table in _personal() if not student_columns(table)]


def with_something_personal(table: Table, after: UUID, size: int) -> Select[UUID]:
    """SQL: the next rows of a table in which something personal is left, by id."""
    return select(table.c.id).where(table.c.id > after, _is_left(_personal()[table])).order_by(table.c.id).limit(size)


def replace_mentions(
    connection: Connection, table: Table, rows: Sequence[UUID], is_gone: ColumnElement[bool], now: datetime
) -> int:
    """Replaces everything personal in those of some rows that mention a student who is gone; returns how many did."""
    statement = update(table).where(_mentions(table, is_gone)).values(_replacements(table, now))
    return connection.execute(statement, {"ids": as_array(rows)}).rowcount


def count_mentions(connection: Connection, table: Table, rows: Sequence[UUID], is_gone: ColumnElement[bool]) -> int:
    """How many rows `replace_mentions` would change."""
    query = select(func.count()).select_from(table).where(_mentions(table, is_gone))
    return connection.execute(query, {"ids": as_array(rows)}).scalar_one()


def _mentions(table: Table, is_gone: ColumnElement[bool]) -> ColumnElement[bool]:
    said = func.lower(func.concat_ws(" ", *(cast(column, Text) for column in _personal()[table])))
    found = func.regexp_matches(said, A_UUID, "g", type_=ARRAY(Text)).column_valued("found")
    return (table.c.id == _given(Uuid)) & exists().where(students.c.id == cast(found[1], Uuid), is_gone)


# What was still to come

_EVENTS = text(
    """
    INSERT INTO tutoring.session_calendar_sync (session_id, teacher_id, action, created_at)
    SELECT lesson.id, lesson.teacher_id, CASE WHEN is_to_come THEN 'delete' ELSE 'upsert' END, :now
    FROM tutoring.sessions AS lesson
    CROSS JOIN LATERAL (SELECT status = 'scheduled' AND starts_at > :now AS is_to_come) AS time
    CROSS JOIN LATERAL (
        SELECT action FROM tutoring.session_calendar_sync WHERE session_id = lesson.id ORDER BY sequence DESC LIMIT 1
    ) AS newest
    WHERE student_id = ANY (cast(:ids AS uuid[])) AND newest.action = 'upsert' AND (is_to_come OR :past)
    """
)

# Student by student: the planner would else look through the lessons to come of all students there are.
_LESSONS_TO_COME = """
    SELECT lesson.id, lesson.scheduled_for
    FROM unnest(cast(:ids AS uuid[])) AS erased (student_id)
    CROSS JOIN LATERAL (
        SELECT id, scheduled_for FROM tutoring.sessions AS session
        WHERE session.student_id = erased.student_id AND status = 'scheduled' AND starts_at > :now
        OFFSET 0
    ) AS lesson
"""

_MESSAGES = text(
    f"""
    SELECT 'tutoring.session-events' AS destination,
           jsonb_build_object('type', 'session.cancelled', 'session_id', id) AS payload,
           'session-erased/' || id AS dedup_key
    FROM ({_LESSONS_TO_COME}) AS lesson
    WHERE scheduled_for IS NOT NULL
    UNION ALL
    SELECT 'tutoring.message-events', jsonb_build_object('type', 'message.cancelled', 'message_id', id),
           'message-erased/' || id
    FROM tutoring.scheduled_messages
    WHERE student_id = ANY (cast(:ids AS uuid[])) AND status = 'pending' AND scheduled_for IS NOT NULL
    UNION ALL
    SELECT 'tutoring.waitlist-answers', jsonb_build_object('entry_id', id, 'answer', 'decline'),
           'waitlist-erased/' || id
    FROM tutoring.waitlist_entries
    WHERE student_id = ANY (cast(:ids AS uuid[])) AND status = 'notified'
    """  # noqa: S608 - made of constants
).bindparams(bindparam("ids", type_=NullType()))

_CALL_OFF = (
    text(
        f"""
        UPDATE tutoring.sessions SET status = 'cancelled', updated_at = :now
        WHERE id = ANY (ARRAY(SELECT id FROM ({_LESSONS_TO_COME}) AS lesson)) AND status = 'scheduled'
        """  # noqa: S608 - made of constants
    ),
    text(
        """
        UPDATE tutoring.scheduled_messages SET status = 'cancelled', updated_at = :now
        WHERE student_id = ANY (cast(:ids AS uuid[])) AND status = 'pending'
        """
    ),
    text(
        """
        UPDATE tutoring.waitlist_entries SET status = 'withdrawn', updated_at = :now
        WHERE student_id = ANY (cast(:ids AS uuid[])) AND status = 'waiting'
        """
    ),
    text(
        """
        UPDATE tutoring.enrollments SET status = 'ended', updated_at = :now
        WHERE student_id = ANY (cast(:ids AS uuid[])) AND status = 'active'
        """
    ),
    # A copy that is being made finds that it is no longer asked for.
    text(
        """
        UPDATE tutoring.drive_file_copies
        SET status = 'failed', claimed_by = NULL, claimed_until = NULL, updated_at = :now
        WHERE student_id = ANY (cast(:ids AS uuid[])) AND status = 'pending'
        """
    ),
)


def call_off(connection: Connection, outbox: Outbox, ids: Sequence[UUID], now: datetime, *, past_events: bool) -> None:
    """Calls off lessons, messages and places on waiting lists of some students; schedules and calendar events follow.

    An offer that a student has not answered is declined as the student would, so that the next one is asked at once.

    Args:
        connection: the caller's transaction.
        outbox: the run's.
        ids: the students.
        now: what starts after it is still to come.
        past_events: also have the student's name taken out of the calendar events of lessons that are over.
    """
    given = {"ids": as_array(ids), "now": now}
    connection.execute(_EVENTS, {**given, "past": past_events})
    messages = _MESSAGES.bindparams(**given).columns(destination=Text, payload=JSONB, dedup_key=Text)
    outbox.send_from(connection, select(messages.subquery("called_off")))
    for statement in _CALL_OFF:
        connection.execute(statement, given)
