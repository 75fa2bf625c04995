"""Fire planned messages that are overdue, and have schedules set for those to come that have none.

Every 15 minutes and after each deployment (source 000: overdue messages are recovered on startup).
"""

from sqlalchemy import Connection

from schoolbell.domains.tutoring import messages
from schoolbell.domains.tutoring.one_shots import MESSAGES, ask_for_schedules, overdue
from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job


class Swept(Result):
    """What schedules that were lost or late had left over."""

    fired: int
    asked_for: int
    """Messages to come without a schedule, or with one at another time."""


@scheduled_job("tutoring.message-sweep", singleton=True)
def handler(job: JobContext) -> Swept:
    def fire_some(connection: Connection, _: Cursor) -> Chunk | None:
        firing = messages.fire(connection, overdue(connection, MESSAGES, job.now), job.now)
        return Chunk(cursor=None, items=firing.fired) if firing.fired else None

    fired = job.in_chunks(fire_some, phase="overdue")
    asked_for = job.in_chunks(ask_for_schedules(job, MESSAGES), phase="unscheduled")
    return Swept(fired=fired.items, asked_for=asked_for.items)
