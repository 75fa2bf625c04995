"""Notices of runs: Slack is told that a run begins and how it ends, of the jobs that the parameter `SlackRuns` names.

A notice is written to the outbox in the transaction that begins or ends the run, and says what the run's row says. It
goes to the queue of `platform.alert-router` and not to the topic of alerts, whose subscribers asked for trouble only.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import Connection, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB

if TYPE_CHECKING:  # the job runtime writes notices itself
    from schoolbell.jobs.outbox import Outbox


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
