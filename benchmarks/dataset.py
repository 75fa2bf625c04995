"""A tutoring business of any size, made inside PostgreSQL: thirty lessons a student, and what the scans look at.

The rows depend on nothing but their numbers and `now`. One student in thirty has stopped coming; one in ten comes every
week and so has a streak now and then, the others every other week.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, DateTime, Integer, Table, bindparam, text

from benchmarks.scheduled import NOW
from local.tables import empty
from schoolbell.database import Database
from schoolbell.domains.platform import schema as platform
from schoolbell.domains.tutoring import schema as tutoring

STUDENTS_OF_A_TEACHER: Final = 50
LESSONS_OF_A_STUDENT: Final = 30
"""Two of them are to come."""

# `pick(number, purpose, below)` is a number from 0 to below - 1 that depends on the other two alone.
_PICK: Final = """
CREATE FUNCTION pg_temp.pick(number bigint, purpose bigint, below int) RETURNS int LANGUAGE sql IMMUTABLE
RETURN mod(hashint8extended(number, purpose) & 9223372036854775807, below)
"""

# mod() where % would do: pg8000 takes a percent sign for a parameter.
_FILL: Final[Mapping[Table, str]] = {
    tutoring.teachers: """
        INSERT INTO tutoring.teachers (id, name, email, timezone, created_at)
        SELECT md5('teacher' || t)::uuid, 'Teacher ' || t, 'teacher' || t || '@example.org',
               (ARRAY['Europe/London', 'Europe/Berlin', 'Europe/Madrid', 'America/New_York', 'America/Los_Angeles'])
                   [1 + pg_temp.pick(t, 1, 5)],
               :now - interval '3 years'
        FROM generate_series(1, :teachers) AS t
    """,
    tutoring.retention_settings: """
        INSERT INTO tutoring.retention_settings (teacher_id, gap_days, churn_days, streak_weeks)
        SELECT md5('teacher' || t)::uuid,
               10 + pg_temp.pick(t, 2, 12), 21 + pg_temp.pick(t, 3, 24), 3 + pg_temp.pick(t, 4, 4)
        FROM generate_series(1, :teachers) AS t WHERE mod(t, 3) = 0
    """,
    tutoring.students: """
        INSERT INTO tutoring.students (id, teacher_id, name, email, phone, status, last_activity_at, created_at)
        SELECT md5('student' || s)::uuid, md5('teacher' || 1 + mod(s, :teachers))::uuid,
               'Student ' || s, 'student' || s || '@example.org', '+44 555 ' || s,
               CASE WHEN mod(s, 50) = 7 THEN 'inactive' ELSE 'active' END,
               :now - CASE WHEN mod(s, 50) = 7 THEN 500 + pg_temp.pick(s, 5, 500)
                           WHEN mod(s, 30) = 0 THEN 31 + pg_temp.pick(s, 5, 90)
                           ELSE pg_temp.pick(s, 5, 14) END * interval '1 day',
               :now - interval '3 years'
        FROM generate_series(1, :students) AS s
    """,
    tutoring.enrollments: """
        INSERT INTO tutoring.enrollments (student_id, starts_on, ends_on, status)
        SELECT md5('student' || s)::uuid, CAST(:now AS date) - 200,
               CAST(:now AS date)
               + CASE WHEN mod(s, 25) = 0 THEN 1 + pg_temp.pick(s, 6, 13) ELSE 30 + pg_temp.pick(s, 6, 300) END,
               'active'
        FROM generate_series(1, :students) AS s
    """,
    # The first two are to come; those of students who have left are two months earlier. In the order of their time.
    # OFFSET 0 keeps PostgreSQL from working out an expression again wherever it is used.
    tutoring.sessions: """
        WITH student AS MATERIALIZED (
            SELECT s, md5('student' || s)::uuid AS id, md5('teacher' || 1 + mod(s, :teachers))::uuid AS teacher_id,
                   CASE WHEN mod(s, 10) = 1 THEN 7 ELSE 14 END * interval '1 day' AS apart,
                   date_trunc('hour', :now) + (1 + pg_temp.pick(s, 8, 166)) * interval '1 hour'
                   - CASE WHEN mod(s, 30) = 0 OR mod(s, 50) = 7 THEN 60 WHEN mod(s, 10) = 1 THEN 7 ELSE 0 END
                     * interval '1 day' AS next
            FROM generate_series(1, :students) AS s
        )
        INSERT INTO tutoring.sessions (id, teacher_id, student_id, starts_at, ends_at, grace_period_minutes,
                                       completion_mode, status, credit_cost, content, completed_at, created_at)
        SELECT md5('session' || n)::uuid, teacher_id, student_id, starts_at, starts_at + interval '1 hour', 15,
               CASE WHEN mod(n, 10) = 0 THEN 'PENDING_REVIEW' ELSE 'AUTO_COMPLETE' END, status, 1,
               CASE WHEN status = 'completed' AND mod(n, 2) = 0 THEN 'Worked on vectors. Next time: probability.' END,
               CASE WHEN status = 'completed' THEN starts_at + interval '75 minutes' END,
               starts_at - interval '14 days'
        FROM (
            SELECT n, teacher_id, student_id, starts_at,
                   CASE WHEN starts_at > :now THEN 'scheduled'
                        ELSE coalesce((ARRAY['cancelled', 'cancelled', 'no_show'])[pg_temp.pick(n, 7, 34)], 'completed')
                   END AS status
            FROM (
                SELECT s * CAST(:lessons AS bigint) + lesson AS n, teacher_id, id AS student_id,
                       next + (2 - lesson) * apart AS starts_at
                FROM generate_series(:lessons, 1, -1) AS lesson, student
                OFFSET 0
            ) AS placed
            OFFSET 0
        ) AS held
    """,
    tutoring.contact_log: """
        INSERT INTO tutoring.contact_log (student_id, teacher_id, channel, direction, body, occurred_at, created_at)
        SELECT md5('student' || s)::uuid, md5('teacher' || 1 + mod(s, :teachers))::uuid, 'whatsapp', 'outbound',
               'See you on Tuesday!', occurred_at, occurred_at
        FROM generate_series(1, :students) AS s, generate_series(1, 2) AS k,
             LATERAL (SELECT :now - pg_temp.pick(2 * s + k, 9, 500) * interval '1 day' AS occurred_at) AS at
    """,
    tutoring.waitlists: """
        INSERT INTO tutoring.waitlists (id, teacher_id, capacity)
        SELECT md5('waitlist' || w)::uuid, md5('teacher' || 1 + mod(w, :teachers))::uuid, 6
        FROM generate_series(1, greatest(1, :students / 20)) AS w
    """,
    # In one list of five, an offer ran out of time.
    tutoring.waitlist_entries: """
        INSERT INTO tutoring.waitlist_entries (id, waitlist_id, student_id, position, status, notified_at, expires_at,
                                               created_at)
        SELECT md5('entry' || w || '.' || p)::uuid, md5('waitlist' || w)::uuid,
               md5('student' || 1 + mod(w * 20 + p * 7, :students))::uuid, p,
               CASE WHEN offered THEN 'notified' ELSE 'waiting' END,
               CASE WHEN offered THEN :now - interval '50 hours' END,
               CASE WHEN offered THEN :now - interval '2 hours' END,
               :now - interval '5 days'
        FROM generate_series(1, greatest(1, :students / 20)) AS w, generate_series(1, 5) AS p,
             LATERAL (SELECT p = 1 AND mod(w, 5) = 0 AS offered) AS first
    """,
    tutoring.content_items: """
        INSERT INTO tutoring.content_items (id, teacher_id, title, created_at)
        SELECT md5('item' || i)::uuid, md5('teacher' || 1 + mod(i, :teachers))::uuid, 'Chapter ' || i,
               :now - interval '1 year'
        FROM generate_series(1, :teachers * 3) AS i
    """,
    tutoring.content_events: """
        INSERT INTO tutoring.content_events (item_id, student_id, kind, occurred_at, seconds, created_at)
        SELECT md5('item' || 1 + pg_temp.pick(3 * s + k, 10, 3 * :teachers))::uuid, md5('student' || s)::uuid,
               (ARRAY['view', 'view', 'download', 'assignment'])[1 + pg_temp.pick(3 * s + k, 11, 4)],
               occurred_at, 20 + pg_temp.pick(3 * s + k, 12, 1800), occurred_at
        FROM generate_series(1, :students) AS s, generate_series(1, 3) AS k,
             LATERAL (SELECT :now - pg_temp.pick(3 * s + k, 13, 95 * 1440) * interval '1 minute' AS occurred_at) AS at
    """,
    tutoring.erasure_requests: """
        INSERT INTO tutoring.erasure_requests (student_id, requested_at, due_at)
        SELECT md5('student' || s)::uuid, requested_at, requested_at + interval '30 days'
        FROM generate_series(13, :students, 1000) AS s,
             LATERAL (SELECT :now - pg_temp.pick(s, 14, 60) * interval '1 day' AS requested_at) AS at
    """,
    tutoring.metric_alert_rules: """
        INSERT INTO tutoring.metric_alert_rules (teacher_id, metric, comparator, threshold, window_days)
        SELECT md5('teacher' || t)::uuid, (ARRAY['completion_rate', 'active_students'])[1 + mod(t, 2)], 'below',
               (ARRAY[0.85, 20])[1 + mod(t, 2)], 30
        FROM generate_series(1, :teachers) AS t WHERE mod(t, 4) = 0
    """,
    platform.audit_logs: """
        INSERT INTO platform.audit_logs (tier, action, actor, subject, occurred_at, details, created_at)
        SELECT (ARRAY['financial', 'student', 'general', 'marketing'])[tier], 'student.updated', 'operator',
               md5('student' || s)::uuid::text, occurred_at, '{"changed": ["status"]}', occurred_at
        FROM generate_series(1, :students) AS s, generate_series(1, 4) AS tier,
             LATERAL (SELECT (ARRAY[2800, 1200, 400, 200])[tier] AS oldest) AS kept,
             LATERAL (SELECT :now - pg_temp.pick(4 * s + tier, 15, oldest) * interval '1 day' AS occurred_at) AS at
    """,
}


# The foreign keys that refer to a table, and then its own keys.
_CONSTRAINTS: Final = text("""
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE contype = 'f' AND confrelid = CAST(:table AS regclass)
   OR contype IN ('p', 'u') AND conrelid = CAST(:table AS regclass)
ORDER BY contype = 'f' DESC
""")

_INDEXES: Final = text("""
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = CAST(:table AS regclass)
""")


def fill(database: Database, students: int, now: datetime = NOW) -> None:
    """Replaces what is in the database, with the powers of a superuser.

    Args:
        database: a database that has all migrations.
        students: how many students; the lessons are thirty times as many.
        now: the present.
    """
    teachers = max(1, students // STUDENTS_OF_A_TEACHER)
    parameters: list[BindParameter[Any]] = [
        bindparam("now", now, DateTime(timezone=True)),
        bindparam("students", students, Integer),
        bindparam("teachers", teachers, Integer),
        bindparam("lessons", LESSONS_OF_A_STUDENT, Integer),
    ]
    with database.transaction() as connection:
        # Foreign keys hold by construction, and need no check for each of millions of rows.
        empty(connection)
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        connection.execute(text("DROP FUNCTION IF EXISTS pg_temp.pick"))
        connection.execute(text(_PICK))
        for table, insert in _FILL.items():
            with _without_indexes(connection, table):
                connection.execute(text(insert).bindparams(*(p for p in parameters if f":{p.key}" in insert)))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM (ANALYZE)"))
        connection.execute(text("RESET statement_timeout"))


@contextmanager
def _without_indexes(connection: Connection, table: Table) -> Iterator[None]:
    """Drops a table's indexes and keys, and builds them anew at the end, in half the time it takes to keep them."""
    named = {"table": table.fullname}
    constraints = connection.execute(_CONSTRAINTS, named).all()
    for owner, name, _ in constraints:
        connection.execute(text(f"ALTER TABLE {owner} DROP CONSTRAINT {name}"))
    indexes = connection.execute(_INDEXES, named).all()
    for name, _ in indexes:
        connection.execute(text(f"DROP INDEX {name}"))
    yield
    for _, definition in indexes:
        connection.exec_driver_sql(definition)
    for owner, name, definition in reversed(constraints):
        connection.exec_driver_sql(f"ALTER TABLE {owner} ADD CONSTRAINT {name} {definition}")
