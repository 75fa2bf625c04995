"""Tell each teacher, once, of students who have gone quiet, whose enrolment ends, or who keep coming week after week.

A signal is a row of `lifecycle_signals` that stands until its condition ends. Each run compares what it finds with what
stands, in SQL and 50,000 students at a time: what is new is recorded and told, what is over is ended. What each kind
means, to the day, and what its `period` is, stands in docs/lifecycle-signals.md.
"""

from typing import Final
from uuid import UUID

from sqlalchemy import Connection, DateTime, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from schoolbell.database.sql import statement
from schoolbell.domains.tutoring import notices
from schoolbell.domains.tutoring.tables.people import RETENTION_DEFAULTS
from schoolbell.domains.tutoring.teacher_notifications import email_teachers
from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job

STUDENTS_A_CHUNK: Final = 50_000
DEFAULTS: Final = {
    name: RETENTION_DEFAULTS[name] for name in ("gap_days", "churn_days", "expiring_days", "streak_weeks")
}
NOTICES: Final = notices.patterns("lifecycle_", "student", "number", "day")


class Detected(Result):
    """New signals by kind, and signals that ended."""

    students: int = 0
    gap: int = 0
    churn: int = 0
    enrollment_expiring: int = 0
    streak: int = 0
    ended: int = 0
    unknown_zones: int = 0
    """Teachers whose time zone is not an IANA name; their days are counted in UTC."""


@scheduled_job("tutoring.lifecycle-detection", singleton=True, dry_run=True)
def handler(job: JobContext) -> Detected:
    """Records new signals, tells the teachers, and ends what is over."""
    zones, unknown_zones = _zones(job)

    def next_students(connection: Connection, after: Cursor) -> Chunk | None:
        bounds = {"after": after or UUID(int=0), "size": STUDENTS_A_CHUNK}
        last = connection.scalar(_LAST_OF_CHUNK, bounds)
        if last is None:
            return None
        values = {"after": bounds["after"], "last": last, "now": job.now, "zones": zones, **DEFAULTS}
        if job.dry_run:
            found = connection.execute(_PREVIEW, values)
        else:
            found = connection.execute(_RECORD, {**values, "notices": NOTICES})
        detected = dict(found.mappings().one())
        email_teachers(connection, detected.pop("told"), job.now)
        return Chunk(cursor=str(last), items=detected["students"], counts=detected)

    return Detected(**job.in_chunks(next_students).counts, unknown_zones=unknown_zones)


def _zones(job: JobContext) -> tuple[list[str], int]:
    """The time zones that teachers are in, and how many teachers are in none."""
    with job.transaction() as connection:
        zones = connection.scalars(_ZONES).all()
        teachers = connection.execute(_IN_UNKNOWN_ZONES).all()
    if not teachers:
        return [*zones], 0
    number = teachers[0].number
    job.logger.warning("unknown time zones taken as UTC", number=number, teachers=[row.id for row in teachers])
    return [*zones], number


_ZONES = text(
    """
    SELECT 'UTC' UNION SELECT name FROM pg_timezone_names WHERE name IN (SELECT timezone FROM tutoring.teachers)
    """
)

_IN_UNKNOWN_ZONES = text(
    """
    SELECT id::text AS id, count(*) OVER () AS number FROM tutoring.teachers
    WHERE timezone NOT IN (SELECT name FROM pg_timezone_names UNION SELECT 'UTC')
    ORDER BY id
    LIMIT 20
    """
)

_LAST_OF_CHUNK = text(
    """
    SELECT id FROM (SELECT id FROM tutoring.students WHERE id > :after ORDER BY id LIMIT :size) AS chunk
    ORDER BY id DESC LIMIT 1
    """
)


_types = (bindparam("now", type_=DateTime(timezone=True)), bindparam("zones", type_=ARRAY(Text)))
_RECORD = statement(__file__, "record.sql").bindparams(*_types, bindparam("notices", type_=JSONB))
_PREVIEW = statement(__file__, "preview.sql").bindparams(*_types)
