"""Send what a crash left unsent in the outbox, oldest first, every minute, and forget what was sent 14 days ago."""

from datetime import timedelta

from sqlalchemy import delete

from schoolbell.domains.platform.tables.outbox import outbox
from schoolbell.jobs import JobContext, Result, scheduled_job
from schoolbell.jobs.outbox import claim_oldest, deliver

KEEP_SENT = timedelta(days=14)  # SQS keeps a message 14 days at most, so no duplicate can come later
STOP_BELOW = timedelta(seconds=20)


class Relayed(Result):
    """How many messages went, and how many old rows were forgotten."""

    sent: int
    forgotten: int


@scheduled_job("platform.outbox-relay")
def handler(job: JobContext) -> Relayed:
    sent = 0
    while job.remaining() > STOP_BELOW:
        with job.transaction() as connection:
            claimed = claim_oldest(connection, job.current)
        if not claimed:
            break
        sent += deliver(job.database, job.settings, claimed, job.current)
    forgotten = job.in_batches(delete(outbox).where(outbox.c.sent_at < job.now - KEEP_SENT))
    return Relayed(sent=sent, forgotten=forgotten)
