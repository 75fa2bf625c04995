"""Complete the lessons whose end and grace period are over; a whole batch is one transaction."""

from uuid import UUID

from schoolbell.domains.tutoring import sessions
from schoolbell.domains.tutoring.one_shots import SESSION_ENDS, put_off
from schoolbell.jobs import Batch, JobContext, Payload, Result, batch_job


class SessionDue(Payload):
    """A lesson's schedule went off."""

    session_id: UUID


class Completed(Result):
    """How many lessons were completed, and how many wait for their teacher's review."""

    completed: int
    pending_review: int


@batch_job("tutoring.auto-complete", SessionDue)
def handler(job: JobContext, batch: Batch[SessionDue]) -> Completed:
    with job.transaction() as connection:
        over = sessions.complete(connection, [due.session_id for due in batch.payloads], job.now)
        put_off(job, connection, batch, SESSION_ENDS, lambda due: due.session_id, over.overlooked)
    return Completed(completed=over.completed, pending_review=over.pending_review)
