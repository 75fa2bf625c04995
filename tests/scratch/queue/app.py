"""Clear the content of a session, when its teacher asks for it."""

from uuid import UUID

from sqlalchemy import update

from schoolbell.domains.tutoring.tables.lessons import sessions
from schoolbell.jobs import Discard, JobContext, Payload, Result, queue_job


class ContentUnwanted(Payload):
    """A session whose content its teacher wants to be gone."""

    session_id: UUID


class Cleared(Result):
    """How many sessions were cleared."""

    cleared: int


@queue_job("tutoring.content-clearing", ContentUnwanted)
def handler(job: JobContext, message: ContentUnwanted) -> Cleared:
    wanted = sessions.c.id == message.session_id
    with job.transaction() as connection:
        found = connection.execute(update(sessions).where(wanted).values(content=None)).rowcount
    if not found:
        raise Discard("there is no such session")
    return Cleared(cleared=found)
