"""Delete notifications that have been over for 90 days, hourly, in batches.

One that still waits is left alone however old it is: it may be planned for later, or its queue may be paused. What has
waited for so long without a plan is told of, since deleting it would be losing it.
"""

from datetime import timedelta

from sqlalchemy import delete, func, select

from schoolbell.domains.platform.tables.notifications import notifications
from schoolbell.jobs import JobContext, Result, scheduled_job

KEEP = timedelta(days=90)  # source 004: cleanupExpiredNotifications(90)


class Cleaned(Result):
    """How many notifications were deleted, and how many were due before the same time and have not been sent."""

    rows: int
    left_waiting: int


@scheduled_job("platform.notification-cleanup")
def handler(job: JobContext) -> Cleaned:
    row = notifications.c
    is_queued, before = row.status == "queued", job.now - KEEP
    is_over = func.greatest(row.created_at, row.scheduled_for, row.sent_at) < before
    rows = job.in_batches(delete(notifications).where(~is_queued, is_over))
    waiting = select(func.count()).where(is_queued, func.coalesce(row.scheduled_for, row.created_at) < before)
    with job.transaction() as connection:
        left_waiting = connection.execute(waiting).scalar_one()
    if left_waiting:
        job.logger.warning("notifications have waited for 90 days", count=left_waiting)
    return Cleaned(rows=rows, left_waiting=left_waiting)
