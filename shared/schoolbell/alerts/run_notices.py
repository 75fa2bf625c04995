"""Notices of runs: Slack is told that a run begins and how it ends, of the jobs that the parameter `SlackRuns` names.

A notice is written to the outbox in the transaction that begins or ends the run, and says what the run's row says. It
goes to the queue of `platform.alert-router` and not to the topic of alerts, whose subscribers asked for trouble only.
A name in `SlackRuns` that is no scheduled job's is an alert of `platform.run-watchdog`, which knows all jobs.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import Connection, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB

if TYPE_CHECKING:  # the job runtime writes notices itself
    from schoolbell.jobs.context import JobContext
    from schoolbell.jobs.outbox import Outbox

UNKNOWN: Final = "slack-runs/"
"""What the keys of alerts of unknown names begin with."""


class RunNotice(BaseModel):
    """How a run stands, as its row in `platform.job_runs` has it. Nothing personal: it is read outside the platform."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: UUID
    job: str
    status: Literal["running", "completed", "failed", "timed_out"]
    attempt: int
    dry_run: bool
    scheduled_for: AwareDatetime | None
    """None of a run that somebody asked for."""
    time_zone: str
    started_at: AwareDatetime
    """When the first attempt began."""
    finished_at: AwareDatetime | None
    items_done: int
    result: dict[str, Any] | None
    error: str | None
    """Why it failed, or why a completed run had nothing to do."""


# An attempt is told once in each state: a run that hands on to itself goes on with the same one.
_NOTICES = text(
    """
    SELECT 'platform.alert-router' AS destination,
           concat_ws('/', 'run', id, attempt, status) AS dedup_key,
           jsonb_build_object(
               'run_id', id, 'job', job, 'status', status, 'attempt', attempt, 'dry_run', dry_run,
               'scheduled_for', scheduled_for, 'time_zone', time_zone, 'started_at', started_at,
               'finished_at', finished_at, 'items_done', items_done, 'result', result, 'error', error
           ) AS payload
    FROM platform.job_runs
    WHERE id IN (SELECT value::uuid FROM jsonb_array_elements_text(:runs))
    """
).bindparams(bindparam("runs", type_=JSONB))


def tell_of_runs(outbox: "Outbox", connection: Connection, runs: Collection[UUID]) -> None:
    """Writes notices of how runs stand to the outbox.

    Args:
        outbox: that of the run that found it out.
        connection: the transaction that changed the runs' rows.
        runs: those to be told of.
    """
    notices = _NOTICES.bindparams(runs=[str(run) for run in runs])
    outbox.send_from(
        connection, select(notices.columns(destination=Text, dedup_key=Text, payload=JSONB).subquery("notices"))
    )


def refuse_unknown_jobs(job: "JobContext", scheduled: Collection[str]) -> None:
    """Raises an alert for each name in `SlackRuns` that no scheduled job has, and resolves those that are mended.

    Args:
        job: the job that looks.
        scheduled: the names of the scheduled jobs that are deployed.
    """
    from schoolbell.alerts import Alert, Severity, open_alerts  # of no use to the runtime

    wrong = [
        Alert(
            key=f"{UNKNOWN}{name}",
            severity=Severity.WARNING,
            summary=f"SlackRuns names {name}, which is not a scheduled job of this stack; correct the parameter",
            source=job.name,
        )
        for name in sorted(job.settings.slack_runs.difference(scheduled))
    ]
    with job.transaction() as connection:
        open_alerts.keep_in_step(job.outbox, connection, UNKNOWN, wrong, job.now)
