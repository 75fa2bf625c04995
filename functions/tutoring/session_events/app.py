"""Create, move or delete the one-shot schedule of a lesson's end when the lesson is scheduled, moved or cancelled."""

from typing import Literal
from uuid import UUID

from schoolbell.domains.tutoring.one_shots import SESSION_ENDS, follow
from schoolbell.jobs import Batch, JobContext, Payload, Result, batch_job


class SessionEvent(Payload):
    """Something happened to a lesson. What, is in the database: events come twice, late and out of order."""

    type: Literal["session.scheduled", "session.rescheduled", "session.cancelled"]
    session_id: UUID


class Followed(Result):
    """How many lessons' schedules were set, deleted, or not worth setting since the lesson is about to be over."""

    scheduled: int
    unscheduled: int
    sent: int


@batch_job("tutoring.session-events", SessionEvent)
def handler(job: JobContext, batch: Batch[SessionEvent]) -> Followed:
    settled = follow(job, batch, SESSION_ENDS, lambda event: event.session_id)
    return Followed(scheduled=len(settled.scheduled), unscheduled=len(settled.unscheduled), sent=len(settled.sent))
