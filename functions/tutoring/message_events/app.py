"""Create, move or delete the one-shot schedule of a planned message when it is scheduled or cancelled."""

from typing import Literal
from uuid import UUID

from schoolbell.domains.tutoring.one_shots import MESSAGES, follow
from schoolbell.jobs import Batch, JobContext, Payload, Result, batch_job


class MessageEvent(Payload):
    """Something happened to a planned message. What, is in the database: events come twice, late and out of order."""

    type: Literal["message.scheduled", "message.cancelled"]
    message_id: UUID


class Followed(Result):
    """How many messages' schedules were set, deleted, or not worth setting since the message is about to be due."""

    scheduled: int
    unscheduled: int
    sent: int


@batch_job("tutoring.message-events", MessageEvent)
def handler(job: JobContext, batch: Batch[MessageEvent]) -> Followed:
    settled = follow(job, batch, MESSAGES, lambda event: event.message_id)
    return Followed(scheduled=len(settled.scheduled), unscheduled=len(settled.unscheduled), sent=len(settled.sent))
