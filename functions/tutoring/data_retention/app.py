"""Keep what teachers hold about their students no longer than they have set: weekly, for all teachers.

In this order: overdue erasure requests raise an alert and are carried out; students who have been inactive for too long
are erased; the content of old lessons is cleared, with old entries of the contact log and the texts of old messages.
What that means for each table, and what stays, is in docs/data-protection.md.
"""

from collections import Counter

from schoolbell.domains.tutoring import clearing, erasure, retention
from schoolbell.jobs import JobContext, Result, scheduled_job


class Retained(Result):
    """What went, or would go in a dry run."""

    requests_overdue: int
    """Erasure requests that became overdue since the last run, and raised an alert."""
    requests_done: int
    students_erased: int
    rows_erased: dict[str, int]
    """Rows in which something personal was replaced, by table."""
    sessions_cleared: int
    contacts_deleted: int
    messages_cleared: int


@scheduled_job("tutoring.data-retention", singleton=True, dry_run=True)
def handler(job: JobContext) -> Retained:
    overdue = job.in_chunks(retention.raise_alert(job), "overdue requests")
    erased: Counter[str] = Counter()
    erased.update(job.in_chunks(retention.erase_requested(job), "requested").counts)
    erased.update(job.in_chunks(retention.erase_inactive(job), "inactive").counts)
    erased.update(job.in_chunks(retention.erase_late_writes(job), "late writes").counts)
    for table in erasure.tables_of_mentions():
        erased.update(job.in_chunks(retention.erase_mentions(job, table), f"mentions in {table.fullname}").counts)
    retained = Retained(
        requests_overdue=overdue.items,
        requests_done=erased.pop("requests", 0),
        students_erased=erased.pop("students", 0),
        rows_erased=dict(erased),
        sessions_cleared=job.in_chunks(clearing.clear(job, clearing.LESSON_CONTENT), "lesson content").items,
        contacts_deleted=job.in_chunks(clearing.clear(job, clearing.CONTACTS), "contact log").items,
        messages_cleared=job.in_chunks(clearing.clear(job, clearing.MESSAGES), "messages").items,
    )
    if overdue.items and not job.dry_run:
        with job.transaction() as connection:
            retention.tell_operators(job, connection, "resolve", "the overdue erasure requests have been carried out")
    return retained
