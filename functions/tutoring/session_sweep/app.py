"""Complete lessons that are overdue, and have schedules set for lessons to come that have none, every 15 minutes."""

from sqlalchemy import Connection

from schoolbell.domains.tutoring import sessions
from schoolbell.domains.tutoring.one_shots import SESSION_ENDS, ask_for_schedules, overdue
from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job


class Swept(Result):
    """What schedules that were lost or late had left over."""

    completed: int
    pending_review: int
    asked_for: int
    """Lessons to come without a schedule, or with one at another time."""


@scheduled_job("tutoring.session-sweep", singleton=True)
def handler(job: JobContext) -> Swept:
    def complete_some(connection: Connection, _: Cursor) -> Chunk | None:
        over = sessions.complete(connection, overdue(connection, SESSION_ENDS, job.now), job.now)
        done = over.completed + over.pending_review
        counts = {"completed": over.completed, "pending_review": over.pending_review}
        return Chunk(cursor=None, items=done, counts=counts) if done else None

    completed = job.in_chunks(complete_some, phase="overdue")
    asked_for = job.in_chunks(ask_for_schedules(job, SESSION_ENDS), phase="unscheduled")
    return Swept(
        completed=completed.counts.get("completed", 0),
        pending_review=completed.counts.get("pending_review", 0),
        asked_for=asked_for.items,
    )
