"""Runs whose invocation was killed, out of time or memory: they are marked as timed out, and resumed where they can be.

A run that had got further since it was last resumed goes on from its cursor. What it had done is not done again, and
one that is killed at the same spot is left there.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.alerts import Alert, Severity, open_alerts
from schoolbell.alerts.run_notices import tell_of_runs
from schoolbell.jobs import JobContext
from schoolbell.operations.catalogue import JobInfo

ALERTS: Final = "timed-out-run/"
ERROR: Final = "its invocation ended without a word: out of time or memory"

TIMED_OUT_AFTER: Final = timedelta(minutes=5)
"""Lambda tries an invocation that was killed again, a minute and two minutes later; until then the run may recover."""

LOST_AFTER: Final = timedelta(minutes=15)
"""A run that handed on to itself is picked up within seconds; after this, nobody will."""


def mark_timed_out_runs(job: JobContext, jobs: Mapping[str, JobInfo]) -> Sequence[Row[Any]]:
    """Marks runs whose invocation was killed, and resumes those that had got further since they were last resumed."""
    values = {
        "now": job.now,
        "dead_before": job.now - TIMED_OUT_AFTER,
        "lost": job.now - LOST_AFTER,
        "error": ERROR,
    }
    with job.transaction() as connection:
        timed_out = connection.execute(_MARK_TIMED_OUT, values).all()
        for run in timed_out:
            if run.resumes:
                key = f"resume/{run.id}/{run.attempt}"
                job.outbox.send(connection, f"function/{run.job}", {"run_id": str(run.id)}, dedup_key=key)
        if told := [run.id for run in timed_out if run.job in job.settings.slack_runs]:
            tell_of_runs(job.outbox, connection, told)
        wrong = [
            *open_alerts.still_open(connection, ALERTS, _COMPLETED_SINCE),
            *(_alert(run, jobs, job.now) for run in timed_out),
        ]
        open_alerts.keep_in_step(job.outbox, connection, ALERTS, wrong, job.now)
    return timed_out


def _alert(run: Row[Any], jobs: Mapping[str, JobInfo], now: datetime) -> Alert:
    is_critical = run.job in jobs and jobs[run.job].is_critical
    what_next = "it goes on from where it was" if run.resumes else "it is not tried again"
    return Alert(
        key=f"{ALERTS}{run.job}",
        severity=Severity.CRITICAL if is_critical else Severity.WARNING,
        summary=f"A run of {run.job} ended without a word, out of time or memory; {what_next}",
        source=run.job,
        details={
            "run": str(run.id),
            "scheduled_for": _iso(run.scheduled_for),
            "items_done": run.items_done,
            "found_at": _iso(now),
        },
    )


# The cursor and `heartbeat_at` are written with each chunk: a run that wrote one since it was resumed has got further.
_MARK_TIMED_OUT = text(
    """
    WITH timed_out AS (
        SELECT id, cursor IS NOT NULL AND heartbeat_at IS NOT NULL
                   AND heartbeat_at > coalesce(resumed_at, '-infinity') AS resumes
        FROM platform.job_runs AS run
        WHERE status = 'running'
          AND (
              locked_until <= :dead_before
              OR locked_until IS NULL AND updated_at <= :lost AND started_at <= :lost AND NOT EXISTS (
                  SELECT FROM platform.outbox
                  WHERE sent_at IS NULL AND destination = 'function/' || run.job
                    AND payload ->> 'run_id' = run.id::text
              )
          )
        FOR UPDATE SKIP LOCKED
    )
    UPDATE platform.job_runs AS run
    SET status = 'timed_out', finished_at = coalesce(locked_until, :now), locked_until = NULL,
        resumed_at = CASE WHEN timed_out.resumes THEN :now ELSE resumed_at END,
        error = :error
    FROM timed_out
    WHERE run.id = timed_out.id
    RETURNING run.id, run.job, run.attempt, run.scheduled_for, run.items_done, timed_out.resumes
    """
)

_COMPLETED_SINCE = text(
    """
    SELECT key FROM jsonb_to_recordset(:standing) AS alert (key text, source text, details jsonb)
    WHERE EXISTS (
        SELECT FROM platform.job_runs AS run
        WHERE run.job = alert.source AND run.status = 'completed'
          AND run.finished_at > (alert.details ->> 'found_at')::timestamptz
    )
    """
).bindparams(bindparam("standing", type_=JSONB))


def _iso(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat() if moment else ""
