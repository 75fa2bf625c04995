"""Count the sessions of the day, in each time zone in the morning."""

from sqlalchemy import func, select

from schoolbell.domains.tutoring.tables.lessons import sessions
from schoolbell.domains.tutoring.tables.people import teachers
from schoolbell.jobs import JobContext, Result, scheduled_job


class Counted(Result):
    """How many sessions the teachers of a time zone give on a day."""

    sessions: int


@scheduled_job("tutoring.morning-count")
def handler(job: JobContext) -> Counted:
    day = func.date(func.timezone(job.time_zone, job.scheduled_for or job.now))
    of_the_day = func.date(func.timezone(job.time_zone, sessions.c.starts_at)) == day
    query = select(func.count()).select_from(sessions.join(teachers, teachers.c.id == sessions.c.teacher_id))
    with job.transaction() as connection:
        found = connection.execute(query.where(teachers.c.timezone == job.time_zone, of_the_day)).scalar_one()
    return Counted(sessions=found)
