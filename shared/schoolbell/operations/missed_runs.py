"""Missed runs: which times of a schedule should have had a run by now, as values, and the catch-up runs for those.

A time that passed without a run gets one catch-up run, under its own name. Of an interval (`rate`) only the latest time
does: such a job does whatever has come up since, and each of its times replaces the one before. Paused schedules are
left alone, and so is what was due before a schedule was changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.alerts import Alert, Severity, open_alerts
from schoolbell.jobs import JobContext
from schoolbell.operations import catalogue
from schoolbell.operations.catalogue import JobInfo, ScheduleInfo
from schoolbell.operations.expressions import Expression, InvalidExpression, parse

ALERTS: Final = "missed-run/"

GRACE: Final = timedelta(minutes=5)
"""How late a schedule may be. EventBridge Scheduler is precise to a minute, and Lambda's queue takes its time."""

LOOK_BACK: Final = timedelta(days=1)
"""What was missed longer ago than this stays so: a day's work is not done a week late, when it has been done since."""

STARTED_AT_MOST: Final = 24
"""Of one schedule in one check: an hour's work for each hour of `LOOK_BACK`."""


@dataclass(frozen=True, slots=True)
class Due:
    """A time at which a job should have run."""

    at: datetime
    is_left_out: bool = False
    """The spring change of clocks removes it from the wall clock, so EventBridge skips it: nothing is wrong."""


def due(expression: Expression, checked_to: datetime, now: datetime) -> list[Due]:
    """The times of a `cron()` or `at()` to look for, oldest first; not those of an interval, see `overdue`.

    Args:
        expression: the schedule's.
        checked_to: up to when it was checked before; where it was changed or resumed since, that time.
        now: the time of this check.
    """
    start, end = max(checked_to, now - LOOK_BACK), now - GRACE
    if expression.interval or end <= start:
        return []
    triggered = {at: Due(at) for at in expression.between(start, end)}
    left_out = {at: Due(at, is_left_out=True) for at in expression.skipped_between(start, end)}
    both = left_out | triggered  # a time that is left out may fall on one that is not
    return [both[at] for at in sorted(both)]


def overdue(interval: timedelta, last: datetime, now: datetime) -> datetime | None:
    """The latest time that an interval should have triggered; `None` while it is not late.

    An interval has no times of its own: it goes on from whenever it triggered last, so it is late when it has been
    silent for longer than an interval and the grace.

    Args:
        interval: between two times.
        last: when it triggered last; where it was made, changed or resumed since, that time.
        now: the time of this check.
    """
    if now - last < interval + GRACE:
        return None
    return last + interval * ((now - GRACE - last) // interval)


def checked_to(now: datetime) -> datetime:
    """Up to when a check at `now` has checked: what is not late yet is left to the next."""
    return now - GRACE


# Catch-up runs


@dataclass(frozen=True, slots=True)
class JobSchedule:
    """A schedule of a job, or of a job in one time zone."""

    job: str
    time_zone: str
    """Empty, unless the job runs by time zone."""
    info: ScheduleInfo
    expression: Expression

    @property
    def shape(self) -> str:
        """What the schedule is like; times before a change of it are not missed."""
        return f"{self.info.expression} {self.info.timezone} {'on' if self.info.enabled else 'off'}"


@dataclass(frozen=True, slots=True)
class Missed:
    """The times of a schedule that have no run."""

    schedule: JobSchedule
    missed: Sequence[datetime]
    started: Sequence[datetime]
    """What is started now: the missed ones, but not too many, and those that a change of clocks left out."""


def start_missed_runs(job: JobContext, jobs: Mapping[str, JobInfo]) -> list[Missed]:
    """Starts a catch-up run for each missed run, and raises alerts."""
    schedules = {schedule.info.name: schedule for schedule in job_schedules(job, jobs)}
    with job.transaction() as connection:
        checks = _check(connection, schedules, job.now)
        missed = [*_missed_times(connection, checks, job.now), *_missed_intervals(connection, checks, job.now)]
        for each in missed:
            for at in each.started:
                _start(job, connection, each.schedule, at)
        wrong = {alert.key: alert for alert in _still_missed(connection, checks)}
        wrong |= {f"{ALERTS}{each.schedule.job}": _alert(each) for each in missed if each.missed}
        open_alerts.keep_in_step(job.outbox, connection, ALERTS, [*wrong.values()], job.now)
    return missed


def job_schedules(job: JobContext, jobs: Mapping[str, JobInfo]) -> Iterator[JobSchedule]:
    """The schedules of the stack's jobs, as EventBridge has them at the moment."""
    known = catalogue.schedules(job.settings)
    for name, owner in catalogue.owners(known, jobs.values(), job.settings).items():
        info = known[name]
        zone = "" if name == job.settings.resource_name(owner) else info.timezone
        try:
            yield JobSchedule(owner, zone, info, parse(info.expression, info.timezone))
        except InvalidExpression as error:  # EventBridge has taken it, so it is this program that can't read it
            job.logger.error("schedule not understood", schedule=name, error=str(error))


@dataclass(frozen=True, slots=True)
class ScheduleCheck:
    """A schedule that is on, and up to when it was checked before, or since when it is as it is."""

    schedule: JobSchedule
    checked_to: datetime
    has_changed: bool


def _check(connection: Connection, schedules: Mapping[str, JobSchedule], now: datetime) -> list[ScheduleCheck]:
    """Notes the schedules as they are now. One that is new, or has changed, has missed nothing."""
    given = [
        {"name": name, "shape": schedule.shape, "is_interval": schedule.expression.interval is not None}
        for name, schedule in schedules.items()
    ]
    values = {"given": given, "now": now, "checked_to": checked_to(now)}
    rows = connection.execute(_CHECK, values)
    checks = [
        ScheduleCheck(schedule, _since(schedule, row.checked_to), row.has_changed)
        for row in rows
        for schedule in [schedules[row.name]]
    ]
    return [check for check in checks if check.schedule.info.enabled]


def _since(schedule: JobSchedule, checked_to: datetime) -> datetime:
    """From when on a schedule's times count: paused and resumed between two checks, it missed nothing in between."""
    return max(checked_to, schedule.info.changed_at or checked_to)


_CHECK = text(
    """
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(:given) AS schedule (name text, shape text, is_interval boolean)
    ),
    before AS MATERIALIZED (SELECT * FROM platform.seen_schedules),
    gone AS (DELETE FROM platform.seen_schedules WHERE name NOT IN (SELECT name FROM given)),
    noted AS (
        INSERT INTO platform.seen_schedules AS seen (name, shape, checked_to)
        SELECT name, shape, :now FROM given
        ON CONFLICT (name) DO UPDATE
        SET shape = excluded.shape,
            checked_to = CASE
                WHEN seen.shape <> excluded.shape THEN excluded.checked_to
                WHEN (SELECT is_interval FROM given WHERE given.name = seen.name) THEN seen.checked_to
                ELSE greatest(seen.checked_to, :checked_to)
            END
    )
    SELECT given.name, CASE WHEN before.shape = given.shape THEN before.checked_to ELSE :now END AS checked_to,
           before.shape IS DISTINCT FROM given.shape AS has_changed
    FROM given LEFT JOIN before USING (name)
    """
).bindparams(bindparam("given", type_=JSONB))


def _missed_times(connection: Connection, checks: Sequence[ScheduleCheck], now: datetime) -> Iterator[Missed]:
    """The times of `cron()` and `at()` that have no run."""
    times = {check.schedule.info.name: due(check.schedule.expression, check.checked_to, now) for check in checks}
    given = [
        {
            "name": check.schedule.info.name,
            "job": check.schedule.job,
            "time_zone": check.schedule.time_zone,
            "at": each.at.isoformat(),
        }
        for check in checks
        for each in times[check.schedule.info.name]
    ]
    without = {(row.name, row.at) for row in connection.execute(_WITHOUT_RUN, {"due": given})} if given else set()
    for check in checks:
        name = check.schedule.info.name
        silent = [each for each in times[name] if (name, each.at) in without]
        if silent:
            started = [each.at for each in silent[-STARTED_AT_MOST:]]
            yield Missed(check.schedule, [each.at for each in silent if not each.is_left_out], started)


# A rule's event carries the time at which it triggered the job, which may be some seconds after the one it was due at.
_WITHOUT_RUN = text(
    """
    SELECT due.name, due.at
    FROM jsonb_to_recordset(:due) AS due (name text, job text, time_zone text, at timestamptz)
    WHERE NOT EXISTS (
        SELECT FROM platform.job_runs AS run
        WHERE run.job = due.job AND run.time_zone = due.time_zone
          AND run.scheduled_for >= due.at AND run.scheduled_for < due.at + interval '1 minute'
    )
    """
).bindparams(bindparam("due", type_=JSONB))


def _missed_intervals(connection: Connection, checks: Sequence[ScheduleCheck], now: datetime) -> Iterator[Missed]:
    """The latest time of each interval that has been silent for too long."""
    intervals = [check for check in checks if check.schedule.expression.interval]
    given = [{"job": check.schedule.job, "time_zone": check.schedule.time_zone} for check in intervals]
    latest = {(row.job, row.time_zone): row.at for row in connection.execute(_LATEST_RUNS, {"asked": given})}
    for check in intervals:
        schedule = check.schedule
        last = max(check.checked_to, latest.get((schedule.job, schedule.time_zone)) or check.checked_to)
        at = overdue(schedule.expression.interval or timedelta(days=1), last, now)
        if at:
            yield Missed(schedule, [at], [at])


_LATEST_RUNS = text(
    """
    SELECT asked.job, asked.time_zone, last.at
    FROM jsonb_to_recordset(:asked) AS asked (job text, time_zone text)
    CROSS JOIN LATERAL (
        SELECT max(scheduled_for) AS at FROM platform.job_runs AS run
        WHERE run.job = asked.job AND run.time_zone = asked.time_zone
    ) AS last
    """
).bindparams(bindparam("asked", type_=JSONB))


def _start(job: JobContext, connection: Connection, schedule: JobSchedule, at: datetime) -> None:
    moment = at.astimezone(UTC).isoformat()
    event = {"scheduled_for": moment, "trigger": "catch-up"}
    if schedule.time_zone:
        event["time_zone"] = schedule.time_zone
    key = f"catch-up/{schedule.job}/{schedule.time_zone}/{moment}"
    job.outbox.send(connection, f"function/{schedule.job}", event, dedup_key=key)


def _alert(missed: Missed) -> Alert:
    last, number = missed.missed[-1], len(missed.missed)
    others = f" and {number - 1} times before" if number > 1 else ""
    schedule = missed.schedule
    return Alert(
        key=f"{ALERTS}{schedule.job}",
        severity=Severity.CRITICAL,
        summary=f"{schedule.job} missed its run at {_iso(last)}{others}; catch-up runs were started",
        source=schedule.job,
        details={"scheduled_for": _iso(last), "missed": number, "schedule": schedule.info.name},
    )


def _still_missed(connection: Connection, checks: Sequence[ScheduleCheck]) -> Iterator[Alert]:
    """Alerts of schedules that are on and as they were, and have not triggered a run since."""
    unchanged = {check.schedule.info.name for check in checks if not check.has_changed}
    for alert in open_alerts.still_open(connection, ALERTS, _TRIGGERED_SINCE):
        if alert.details["schedule"] in unchanged:
            yield alert


_TRIGGERED_SINCE = text(
    """
    SELECT key FROM jsonb_to_recordset(:standing) AS alert (key text, source text, details jsonb)
    WHERE EXISTS (
        SELECT FROM platform.job_runs AS run
        WHERE run.job = alert.source AND run.trigger = 'schedule'
          AND run.scheduled_for > (alert.details ->> 'scheduled_for')::timestamptz
    )
    """
).bindparams(bindparam("standing", type_=JSONB))


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
