"""Hand over the notifications whose time has come, and those that a failed hand-over left behind, every minute.

For a notification that is written with its message there is nothing to do here. The others are planned for later, wait
for the end of quiet hours, were written without one, by an application or as a teacher's email, or have lost theirs: a
queue was purged, or the function died with the message on its last attempt.
"""

from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, any_, func, or_, select, update

from schoolbell.domains.platform.tables.notifications import notifications
from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job
from schoolbell.notifications import messages_for

AT_A_TIME: Final = 10_000

LEFT_BEHIND: Final = timedelta(minutes=30)
"""A message that is under way comes back sooner: a snooze lasts 15 minutes, one whose function died is hidden for 6."""


class HandedOver(Result):
    """How many messages were sent, each with up to a hundred notifications."""

    messages: int


@scheduled_job("platform.email-queue")
def handler(job: JobContext) -> HandedOver:
    def next_ones(connection: Connection, cursor: Cursor) -> Chunk | None:
        row = notifications.c
        due = (
            select(row.id)
            .where(
                row.status == "queued",
                func.coalesce(row.scheduled_for, row.created_at) <= job.now,
                or_(row.handed_over_at.is_(None), row.handed_over_at <= job.now - LEFT_BEHIND),
                or_(row.claimed_until.is_(None), row.claimed_until <= job.now),
            )
            .limit(AT_A_TIME)
            .with_for_update(skip_locked=True)
        )
        handed_over = (
            update(notifications)
            .where(row.id == any_(func.array(due.scalar_subquery())))  # made once, where IN may be planned as a loop
            .values(handed_over_at=job.now, updated_at=job.now)
            .returning(row.id, row.priority, row.handed_over_at)
            .cte("handed_over")
        )
        sent = job.outbox.send_from(connection, messages_for(handed_over, job.now.isoformat()))
        return Chunk(cursor=(cursor or 0) + 1, items=sent) if sent else None

    return HandedOver(messages=job.in_chunks(next_ones).items)
