"""Say whether a seat of a waiting list is still free, for a state machine to decide by."""

from uuid import UUID

from sqlalchemy import func, select

from schoolbell.domains.tutoring.tables.waitlists import waitlist_entries
from schoolbell.jobs import JobContext, Payload, Result, task_job


class LookAtSeat(Payload):
    """The seat that is asked for."""

    seat_id: UUID


class Seen(Result):
    """How many entries the seat is offered to."""

    offers: int


@task_job("tutoring.seat-check", LookAtSeat)
def handler(job: JobContext, message: LookAtSeat) -> Seen:
    offered = select(func.count()).where(waitlist_entries.c.seat_id == message.seat_id)
    with job.transaction() as connection:
        return Seen(offers=connection.execute(offered).scalar_one())
