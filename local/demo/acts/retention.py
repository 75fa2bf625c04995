"""A dry run of data retention: what would go, and that nothing has."""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Table

from local.demo.display import Act
from local.demo.running import Running, array, count
from local.generator import Term
from schoolbell.database.tables import all_tables
from schoolbell.domains.platform.schema import notifications

TITLE: Final = "What data retention would erase: a dry run"
JOB: Final = "tutoring.data-retention"

# What the run itself writes (its own row), what other runs are about, and what schedules leave on a row.
BOOKKEEPING: Final = ("job_runs", "leases", "outbox", "watermarks", "alembic_version")
MOVING: Final = ("updated_at", "scheduled_for")
# What the delivery of notifications writes, which goes on all the while: emails leave at the pace of their provider.
OF_DELIVERY: Final = (
    *("status", "attempts", "uncertain", "error", "provider", "provider_message_id", "sent_at", "sent_by"),
    *("handed_over_at", "claimed_by", "claimed_until"),
)
TRIES: Final = 3

_DUE = """
SELECT count(*) FROM tutoring.students AS student
LEFT JOIN tutoring.retention_settings AS setting ON setting.teacher_id = student.teacher_id
WHERE student.status <> 'erased' AND (
    EXISTS (SELECT FROM tutoring.erasure_requests
            WHERE student_id = student.id AND status = 'open' AND due_at < now())
    OR coalesce(student.last_activity_at, student.created_at)
       < now() - make_interval(days => coalesce(setting.inactive_student_days, 730))
       AND NOT EXISTS (SELECT FROM tutoring.sessions
                       WHERE student_id = student.id AND status <> 'cancelled'
                         AND starts_at >= now() - make_interval(days => coalesce(setting.inactive_student_days, 730))))
"""
_FINGERPRINT = """
SELECT count(*) || ' ' || md5(coalesce(string_agg(digest, '' ORDER BY digest), '')) FROM (
    SELECT md5(cast(to_jsonb(line) - cast(:moving AS text[]) AS text)) AS digest FROM {table} AS line
) AS lines
"""
_OTHERS = """
SELECT job FROM platform.job_runs
WHERE job <> 'tutoring.data-retention' AND (finished_at IS NULL OR finished_at >= :began)
"""
_OVERDUE = "SELECT count(*) FROM tutoring.erasure_requests WHERE status = 'open' AND due_at < now()"


def perform(act: Act, running: Running, term: Term) -> None:  # noqa: ARG001 - all acts are called alike
    """Take the fingerprint of every table, run, and take it again."""
    act.say('a fingerprint of every table is taken; data-retention runs with {"dry_run": true}')
    due, overdue = running.number(_DUE), running.number(_OVERDUE)
    for _ in range(TRIES):
        began = datetime.now(UTC)
        before = fingerprints(running)
        result: dict[str, Any] = running.invoke(JOB, {"dry_run": True}).get("result") or {}
        changed = [name for name, digest in fingerprints(running).items() if digest != before[name]]
        others = running.rows(_OTHERS, began=began)
        if not changed or not others:
            break
        act.say(f"{others[0].job} was rung meanwhile, so the fingerprints say nothing: once more")
    act.say(
        f"{count(result['requests_overdue'], 'erasure request')} overdue; {result['requests_done']} would be closed"
    )
    act.say(f"{count(result['students_erased'], 'student')} would be erased, and what is personal about them:")
    for table, rows in sorted(result["rows_erased"].items(), key=lambda item: -item[1]):
        act.say(f"  {rows:>7,}  {table}")
    act.say(
        f"too old: the notes of {count(result['sessions_cleared'], 'lesson')}, "
        f"{count(result['contacts_deleted'], 'entry', 'entries')} of the contact log, "
        f"the text of {count(result['messages_cleared'], 'message')}"
    )
    unchanged = f"all {len(before)} tables are as they were, to the last row"
    act.say(f"changed: {', '.join(changed)}" if changed else unchanged)

    act.check("students whose time is over", due, result["students_erased"])
    act.check("erasure requests overdue", overdue, result["requests_overdue"])
    act.check("tables that the dry run changed", 0, len(changed))


def fingerprints(running: Running) -> dict[str, str]:
    """A digest of every row of every table, but for bookkeeping."""
    return {
        table.fullname: running.row(_FINGERPRINT.format(table=table.fullname), moving=array(moving(table)))[0]
        for table in all_tables()
        if table.name not in BOOKKEEPING
    }


def moving(table: Table) -> tuple[str, ...]:
    """The columns of a table that others may write meanwhile."""
    return (*MOVING, *OF_DELIVERY) if table is notifications else MOVING
