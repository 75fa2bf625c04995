"""Fire the planned messages that are due: into the contact log, and to the teacher, who sends them by hand."""

from uuid import UUID

from schoolbell.domains.tutoring import messages
from schoolbell.domains.tutoring.one_shots import MESSAGES, put_off
from schoolbell.jobs import Batch, JobContext, Payload, Result, batch_job


class MessageDue(Payload):
    """A planned message's schedule went off."""

    message_id: UUID


class Fired(Result):
    """How many messages were fired."""

    fired: int


@batch_job("tutoring.scheduled-messages", MessageDue)
def handler(job: JobContext, batch: Batch[MessageDue]) -> Fired:
    with job.transaction() as connection:
        firing = messages.fire(connection, [due.message_id for due in batch.payloads], job.now)
        put_off(job, connection, batch, MESSAGES, lambda due: due.message_id, firing.overlooked)
    return Fired(fired=firing.fired)
