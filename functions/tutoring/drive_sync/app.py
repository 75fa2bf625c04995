"""Ask, for every teacher with copies in Drive, for a look at whether they are still there, daily."""

from sqlalchemy import Text, cast, exists, func, literal, select

from schoolbell.domains.tutoring.tables.google import calendar_connections, drive_file_copies, drive_resources
from schoolbell.domains.tutoring.tables.people import teachers
from schoolbell.jobs import JobContext, Result, scheduled_job

LIVING = ("copied", "trashed")
"""What is deleted stays deleted; what is in the trash can come back, or go for good."""


class Asked(Result):
    """How many teachers' files will be looked at."""

    teachers: int


@scheduled_job("tutoring.drive-sync")
def handler(job: JobContext) -> Asked:
    has_copies = exists().where(
        drive_resources.c.teacher_id == teachers.c.id,
        drive_file_copies.c.resource_id == drive_resources.c.id,
        drive_file_copies.c.status.in_(LIVING),
    )
    is_connected = exists().where(
        calendar_connections.c.teacher_id == teachers.c.id, calendar_connections.c.status == "active"
    )
    teacher_id = cast(teachers.c.id, Text)
    messages = select(
        literal("tutoring.drive-verify").label("destination"),
        func.jsonb_build_object("teacher_id", teachers.c.id).label("payload"),
        func.concat("drive-verify/", teacher_id, "/", str(job.run_id)).label("dedup_key"),
        teacher_id.label("tenant"),
    ).where(has_copies, is_connected)
    with job.transaction() as connection:
        return Asked(teachers=job.outbox.send_from(connection, messages))
