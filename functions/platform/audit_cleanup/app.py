"""Archive audit records that are older than a year, and delete those whose tier's time is over, monthly.

Where a record is:

    database ──a year──▶ database and archive ──its tier's time──▶ archive
        └── fallback tier: half a year, before it would be archived ──▶ gone

An archive object is named after its content (how many records, and its SHA-256), and a record in it names it
in `archived_to`. An object is read back before the database forgets a record of it.
"""

from schoolbell.alerts import Alert, Severity, is_standing, send_alert
from schoolbell.domains.platform import audit_archive
from schoolbell.jobs import JobContext, Result, scheduled_job
from schoolbell.jobs.observability import count_alert


class Cleaned(Result):
    """Records by tier: newly archived, and deleted."""

    archived: dict[str, int]
    deleted: dict[str, int]
    unverified: int
    """Records whose archive object was missing or damaged: they stay, and the next run archives them afresh."""


@scheduled_job("platform.audit-cleanup", singleton=True, dry_run=True)
def handler(job: JobContext) -> Cleaned:
    if job.dry_run:
        return what_would_go(job)
    archived, deleted, unverified = {}, {}, 0
    for tier in audit_archive.TIERS:
        young = job.in_batches(audit_archive.due_before_archived(job, tier), phase=f"{tier.name}: delete unarchived")
        new = job.in_prepared_chunks(
            audit_archive.archive_some(job, tier), audit_archive.mark_or_delete(job, tier), f"{tier.name}: archive"
        )
        old = job.in_prepared_chunks(
            audit_archive.verify_some(job, tier), audit_archive.delete_or_unmark(job, tier), f"{tier.name}: delete"
        )
        archived[tier.name] = new.counts.get("archived", 0)
        deleted[tier.name] = young + new.counts.get("deleted", 0) + old.counts.get("deleted", 0)
        unverified += new.counts.get("unverified", 0) + old.counts.get("unverified", 0)
    if unverified:
        count_alert(job.name, "UnverifiedAuditRecords", unverified)
    tell_of_damage(job, unverified)
    return Cleaned(archived=archived, deleted=deleted, unverified=unverified)


def tell_of_damage(job: JobContext, unverified: int) -> None:
    """Raises an alert when archive objects were missing or damaged, and ends one that stands when none was."""
    alert = Alert(
        action="trigger" if unverified else "resolve",
        key=f"audit-archive-damaged/{job.name}",
        severity=Severity.CRITICAL,
        summary=f"{unverified} audit records were not in the archive as they should be, and are archived afresh",
        source=job.name,
        details={"records": unverified},
    )
    with job.transaction() as connection:
        if unverified or is_standing(connection, alert.key):
            dedup_key = f"{alert.key}/{alert.action}/{job.scheduled_for or job.run_id}"
            send_alert(job.outbox, connection, alert, dedup_key=dedup_key)


def what_would_go(job: JobContext) -> Cleaned:
    """What a run would do, from counts alone."""
    archived, deleted = {}, {}
    with job.transaction() as connection:
        for tier in audit_archive.TIERS:
            counted = audit_archive.counted(job, connection, tier)
            archived[tier.name], deleted[tier.name] = counted.archived, counted.deleted
    return Cleaned(archived=archived, deleted=deleted, unverified=0)
