"""Delete notifications that teachers have read, after 90 days."""

from datetime import timedelta
from typing import Final

from sqlalchemy import delete

from schoolbell.domains.tutoring.tables.teacher_notifications import teacher_notifications
from schoolbell.jobs import Deleted, JobContext, scheduled_job

KEEP: Final = timedelta(days=90)


@scheduled_job("tutoring.notification-cleanup")
def handler(job: JobContext) -> Deleted:
    read = teacher_notifications.c.read_at < job.now - KEEP
    return Deleted(rows=job.in_batches(delete(teacher_notifications).where(read)))
