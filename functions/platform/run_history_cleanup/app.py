"""Delete old history, daily: completed runs after 30 days; after 90 failed ones, what is resolved, and triggers.

What runs came to stays in the statistics, so only runs that are counted there go. A run that is not over stays, and so
does a dead letter that nobody has resolved, and an alert that stands.
"""

from datetime import timedelta

from sqlalchemy import delete, func

from schoolbell.domains.platform.tables.alerts import alerts
from schoolbell.domains.platform.tables.dead_letters import dead_letters
from schoolbell.domains.platform.tables.runs import job_runs, triggers
from schoolbell.jobs import JobContext, Result, scheduled_job

KEEP_COMPLETED = timedelta(days=30)
KEEP_FAILED = timedelta(days=90)
KEEP_RESOLVED = timedelta(days=90)  # they hold what somebody dropped on a queue, so they are not kept for history
KEEP_ALERTS = timedelta(days=90)  # far longer than SQS keeps a message that is older than the end it would undo
KEEP_TRIGGERS = timedelta(days=90)  # as long as a key is remembered after its time, so that it starts nothing twice


class Cleaned(Result):
    """How many rows went, or would go in a dry run."""

    completed: int
    failed: int
    dead_letters: int
    alerts: int
    triggers: int


@scheduled_job("platform.run-history-cleanup")
def handler(job: JobContext) -> Cleaned:
    completed = delete(job_runs).where(
        job_runs.c.is_counted,
        job_runs.c.status == "completed",
        job_runs.c.finished_at < job.now - KEEP_COMPLETED,
    )
    failed = delete(job_runs).where(
        job_runs.c.is_counted,
        job_runs.c.status.in_(("failed", "timed_out")),
        job_runs.c.finished_at < job.now - KEEP_FAILED,
    )
    resolved = delete(dead_letters).where(dead_letters.c.resolved_at < job.now - KEEP_RESOLVED)
    over = delete(alerts).where(alerts.c.status == "resolved", alerts.c.resolved_at < job.now - KEEP_ALERTS)
    asked_before = job.now - KEEP_TRIGGERS
    forgotten = delete(triggers).where(
        triggers.c.created_at < asked_before, func.coalesce(triggers.c.due_at, triggers.c.created_at) < asked_before
    )
    return Cleaned(
        completed=job.in_batches(completed, phase="completed runs"),
        failed=job.in_batches(failed, phase="failed runs"),
        dead_letters=job.in_batches(resolved),
        alerts=job.in_batches(over),
        triggers=job.in_batches(forgotten),
    )
