"""Leave the task token of the waiting machine with the offer, so that the answer can wake it."""

from uuid import UUID

from pydantic import Field
from sqlalchemy import update

from schoolbell.domains.tutoring.tables.waitlists import waitlist_entries
from schoolbell.domains.tutoring.waitlists import wake
from schoolbell.jobs import JobContext, Payload, Result, task_job


class AwaitAnswer(Payload):
    """The offer whose answer the machine waits for."""

    seat_id: UUID
    entry_id: UUID
    task_token: str = Field(min_length=1)


class Awaited(Result):
    """Whether the offer still stood; if not, the machine has been woken."""

    standing: bool


@task_job("tutoring.waitlist-await", AwaitAnswer)
def handler(job: JobContext, message: AwaitAnswer) -> Awaited:
    """The answer may have come before the token. Both lock the entry's row, and whoever is second wakes the machine."""
    offer = (
        (waitlist_entries.c.id == message.entry_id)
        & (waitlist_entries.c.seat_id == message.seat_id)
        & (waitlist_entries.c.status == "notified")
    )
    with job.transaction() as connection:
        stored = connection.execute(update(waitlist_entries).where(offer).values(task_token=message.task_token))
        standing = stored.rowcount == 1
    if not standing:
        wake(job, message.task_token, {"entry_id": str(message.entry_id)})
    return Awaited(standing=standing)
