"""Runs that take too long: near their time limit, or far over what their job usually takes."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.alerts import Alert, Severity, open_alerts
from schoolbell.jobs import JobContext
from schoolbell.operations import statistics
from schoolbell.operations.catalogue import JobInfo

ALERTS: Final = "slow-run/"

NOTICEABLE: Final = timedelta(seconds=10)  # a run of milliseconds may take thrice as long
RUNS_TO_KNOW: Final = 5  # before there is talk of a usual duration
USUAL_SINCE: Final = timedelta(days=30)
LOOK_AT: Final = timedelta(minutes=10)  # two rounds: what ended since


def warn_of_slow_runs(job: JobContext, jobs: Mapping[str, JobInfo]) -> int:
    """Warns of runs near their time limit or over twice their usual duration, and returns of how many jobs."""
    with job.transaction() as connection:
        usual = statistics.read(connection, job.now - USUAL_SINCE)
        limits = [
            {
                "job": info.name,
                "limit": info.timeout.total_seconds(),
                "usual": known.average if (known := usual.get(info.name)) and known.timed >= RUNS_TO_KNOW else None,
            }
            for info in jobs.values()
        ]
        values = {
            "limits": limits,
            "now": job.now,
            "since": job.now - LOOK_AT,
            "near": job.settings.time_limit_percent / 100,
            "times": job.settings.usual_duration_factor,
            "noticeable": NOTICEABLE.total_seconds(),
        }
        worst = connection.execute(_SLOW, values).all()
        wrong = [_alert(run) for run in worst if run.is_near or run.is_unusual]
        over = {f"{ALERTS}{run.job}" for run in worst if run.has_ended}
        unknown = open_alerts.standing(connection, ALERTS).keys() - over
        open_alerts.keep_in_step(job.outbox, connection, ALERTS, wrong, job.now, unknown=unknown)
    return len(wrong)


def _alert(run: Row[Any]) -> Alert:
    against = f"of {run.limit:.0f} that it may take" if run.is_near else f"instead of the usual {run.usual:.0f}"
    return Alert(
        key=f"{ALERTS}{run.job}",
        severity=Severity.WARNING,
        summary=f"A run of {run.job} {'took' if run.has_ended else 'has taken'} {run.took:.0f} seconds {against}",
        source=run.job,
        details={"run": str(run.id), "seconds": round(run.took)},
    )


# A run in chunks is no nearer to its limit than it likes: it hands on in time. One that was tried again or found an
# earlier run at work tells nothing, and batches of messages are of all sizes.
_SLOW = text(
    """
    WITH run AS (
        SELECT run.id, run.job, limits."limit", limits.usual, run.status <> 'running' AS has_ended, run.cursor,
               run.trigger, extract(epoch FROM coalesce(finished_at, :now) - started_at)::float8 AS took
        FROM platform.job_runs AS run
        JOIN jsonb_to_recordset(:limits) AS limits (job text, "limit" float8, usual float8) USING (job)
        WHERE (run.status = 'running' OR run.status = 'completed' AND run.finished_at > :since)
          AND run.attempt = 1 AND run.error IS NULL
    ),
    judged AS (
        SELECT *, cursor IS NULL AND took > :near * "limit" AND took <= "limit" AS is_near,
               trigger NOT IN ('queue', 'task') AND took > :noticeable
                   AND coalesce(took > :times * usual, false) AS is_unusual
        FROM run
    )
    SELECT DISTINCT ON (job) * FROM judged ORDER BY job, (is_near OR is_unusual) DESC, has_ended DESC, took DESC
    """
).bindparams(bindparam("limits", type_=JSONB))
