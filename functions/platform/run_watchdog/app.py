"""Watch over the runs, every 5 minutes: what died, what should have run and did not, and what takes too long.

* A run whose invocation ended without a word is marked as timed_out; where it had got further since it was last sent
  on, it goes on from its cursor. What it had done is not done again, and one that dies at the same spot is left there.
* A time that passed without a run is made good, once, under its own name, as a catch-up; see
  `schoolbell.operations.missed_runs`. Paused schedules are left alone, and so is what was due before a schedule was
  changed.
* An alert a job stands until the trouble is over. When each is raised and resolved is told in docs/runbook.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.alerts import Alert, Severity, open_alerts
from schoolbell.alerts.open_alerts import Standing
from schoolbell.alerts.run_notices import refuse_unknown_jobs, tell_of_runs
from schoolbell.jobs import JobContext, Result, scheduled_job
from schoolbell.operations import catalogue, missed_runs, statistics
from schoolbell.operations.catalogue import JobInfo, ScheduleInfo
from schoolbell.operations.expressions import Expression, InvalidExpression, parse

MISSED: Final = "missed-run/"
TIMED_OUT: Final = "timed-out-run/"
SLOW: Final = "slow-run/"

DEAD_AFTER: Final = timedelta(minutes=5)
"""Lambda tries an invocation that died again, a minute and two minutes later; until then the run is not dead."""

LOST_AFTER: Final = timedelta(minutes=15)
"""A run that handed on to itself is picked up within seconds; after this, nobody will."""

NOTICEABLE: Final = timedelta(seconds=10)  # a run of milliseconds may take thrice as long
RUNS_TO_KNOW: Final = 5  # before there is talk of a usual duration
USUAL_SINCE: Final = timedelta(days=30)
LOOK_AT: Final = timedelta(minutes=10)  # two rounds: what ended since


class Watched(Result):
    """Counts of runs."""

    died: int
    sent_on: int
    missed: int
    """Times that passed without a run."""
    made_good: int
    """Those of them that were fired now, and those that a change of clocks left out."""
    counted: int
    """Runs that were added to the statistics."""
    slow: int


@scheduled_job("platform.run-watchdog", singleton=True)
def handler(job: JobContext) -> Watched:
    counted = count_runs(job)
    jobs = {info.name: info for info in catalogue.functions(job.settings)}
    died = mark_dead_runs(job, jobs)
    missed = make_good_what_was_missed(job, jobs)
    refuse_unknown_jobs(job, [name for name, info in jobs.items() if info.trigger == "schedule"])
    return Watched(
        died=len(died),
        sent_on=sum(run.goes_on for run in died),
        missed=sum(len(each.missed) for each in missed),
        made_good=sum(len(each.fired) for each in missed),
        counted=counted,
        slow=warn_of_slow_runs(job, jobs),
    )


def count_runs(job: JobContext) -> int:
    """Adds the runs that have ended to the statistics, as long as there is time."""
    counted = 0
    while job.remaining() > timedelta(minutes=1):
        with job.transaction() as connection:
            new = statistics.roll_up(connection, job.now)
        counted += new
        if new < statistics.RUNS_A_CALL:
            break
    return counted


# Runs that died


def mark_dead_runs(job: JobContext, jobs: Mapping[str, JobInfo]) -> Sequence[Row[Any]]:
    """Marks runs whose invocation has ended without a word, and sends on those that had got further."""
    moments = {"now": job.now, "dead": job.now - DEAD_AFTER, "lost": job.now - LOST_AFTER}
    with job.transaction() as connection:
        died = connection.execute(_MARK_DEAD, moments).all()
        for run in died:
            if run.goes_on:
                key = f"resume/{run.id}/{run.attempt}"
                job.outbox.send(connection, f"function/{run.job}", {"run_id": str(run.id)}, dedup_key=key)
        if told := [run.id for run in died if run.job in job.settings.slack_runs]:
            tell_of_runs(job.outbox, connection, told)
        wrong = [*_still_wrong(connection, TIMED_OUT, _COMPLETED_SINCE), *(_dead(run, jobs, job.now) for run in died)]
        open_alerts.keep_in_step(job.outbox, connection, TIMED_OUT, wrong, job.now)
    return died


def _dead(run: Row[Any], jobs: Mapping[str, JobInfo], now: datetime) -> Alert:
    is_critical = run.job in jobs and jobs[run.job].is_critical
    what_next = "it goes on from where it was" if run.goes_on else "it is not tried again"
    return Alert(
        key=f"{TIMED_OUT}{run.job}",
        severity=Severity.CRITICAL if is_critical else Severity.WARNING,
        summary=f"A run of {run.job} ended without a word, out of time or memory; {what_next}",
        source=run.job,
        details={
            "run": str(run.id),
            "scheduled_for": _told(run.scheduled_for),
            "items_done": run.items_done,
            "found_at": _told(now),
        },
    )


# The cursor and `heartbeat_at` are written with each chunk: who has written one since the run was sent on has got on.
_MARK_DEAD = text(
    """
    WITH dead AS (
        SELECT id, cursor IS NOT NULL AND heartbeat_at IS NOT NULL
                   AND heartbeat_at > coalesce(resumed_at, '-infinity') AS goes_on
        FROM platform.job_runs AS run
        WHERE status = 'running'
          AND (
              locked_until <= :dead
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
        resumed_at = CASE WHEN dead.goes_on THEN :now ELSE resumed_at END,
        error = 'its invocation ended without a word: out of time or memory'
    FROM dead
    WHERE run.id = dead.id
    RETURNING run.id, run.job, run.attempt, run.scheduled_for, run.items_done, dead.goes_on
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


# Times that passed without a run


@dataclass(frozen=True, slots=True)
class Clock:
    """A schedule of a job, or of a job in one time zone."""

    job: str
    time_zone: str
    """Empty, unless the job runs by time zone."""
    schedule: ScheduleInfo
    expression: Expression

    @property
    def shape(self) -> str:
        """What the schedule is like; times before a change of it are not missed."""
        return f"{self.schedule.expression} {self.schedule.timezone} {'on' if self.schedule.enabled else 'off'}"


@dataclass(frozen=True, slots=True)
class Missed:
    """What a schedule has not rung."""

    clock: Clock
    missed: Sequence[datetime]
    fired: Sequence[datetime]
    """What is fired now: the missed ones, but not too many, and those that a change of clocks left out."""


def make_good_what_was_missed(job: JobContext, jobs: Mapping[str, JobInfo]) -> list[Missed]:
    """Fires what should have run by now and has not, and says so."""
    clocks = {clock.schedule.name: clock for clock in clocks_of(job, jobs)}
    with job.transaction() as connection:
        looked = _look(connection, clocks, job.now)
        missed = [*_missed_times(connection, looked, job.now), *_missed_intervals(connection, looked, job.now)]
        for each in missed:
            for at in each.fired:
                _fire(job, connection, each.clock, at)
        wrong = {alert.key: alert for alert in _still_missed(connection, looked)}
        wrong |= {f"{MISSED}{each.clock.job}": _silent(each) for each in missed if each.missed}
        open_alerts.keep_in_step(job.outbox, connection, MISSED, [*wrong.values()], job.now)
    return missed


def clocks_of(job: JobContext, jobs: Mapping[str, JobInfo]) -> Iterator[Clock]:
    """The schedules of the stack's jobs, as EventBridge has them at the moment."""
    schedules = catalogue.schedules(job.settings)
    for name, owner in catalogue.owners(schedules, jobs.values(), job.settings).items():
        schedule = schedules[name]
        zone = "" if name == job.settings.resource_name(owner) else schedule.timezone
        try:
            yield Clock(owner, zone, schedule, parse(schedule.expression, schedule.timezone))
        except InvalidExpression as error:  # EventBridge has taken it, so it is this program that can't read it
            job.logger.error("schedule not understood", schedule=name, error=str(error))


@dataclass(frozen=True, slots=True)
class Look:
    """A schedule that is on, and up to when it was looked at before, or since when it is as it is."""

    clock: Clock
    checked_to: datetime
    has_changed: bool


def _look(connection: Connection, clocks: Mapping[str, Clock], now: datetime) -> list[Look]:
    """Notes the schedules as they are now. One that is new, or has changed, has missed nothing."""
    given = [
        {"name": name, "shape": clock.shape, "is_interval": clock.expression.interval is not None}
        for name, clock in clocks.items()
    ]
    values = {"given": given, "now": now, "checked_to": missed_runs.checked_to(now)}
    rows = connection.execute(_LOOK, values)
    looked = [Look(clocks[row.name], _since(clocks[row.name], row.checked_to), row.has_changed) for row in rows]
    return [look for look in looked if look.clock.schedule.enabled]


def _since(clock: Clock, checked_to: datetime) -> datetime:
    """From when on a schedule's times count: paused and resumed between two looks, it missed nothing in between."""
    return max(checked_to, clock.schedule.changed_at or checked_to)


_LOOK = text(
    """
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(:given) AS clock (name text, shape text, is_interval boolean)
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


def _missed_times(connection: Connection, looked: Sequence[Look], now: datetime) -> Iterator[Missed]:
    """The times of `cron()` and `at()` that have no run."""
    due = {look.clock.schedule.name: missed_runs.due(look.clock.expression, look.checked_to, now) for look in looked}
    given = [
        {
            "name": look.clock.schedule.name,
            "job": look.clock.job,
            "time_zone": look.clock.time_zone,
            "at": each.at.isoformat(),
        }
        for look in looked
        for each in due[look.clock.schedule.name]
    ]
    without = {(row.name, row.at) for row in connection.execute(_WITHOUT_RUN, {"due": given})} if given else set()
    for look in looked:
        name = look.clock.schedule.name
        silent = [each for each in due[name] if (name, each.at) in without]
        if silent:
            fired = [each.at for each in silent[-missed_runs.MADE_GOOD_AT_MOST :]]
            yield Missed(look.clock, [each.at for each in silent if not each.is_left_out], fired)


# A rule's event carries the time at which the rule rang, which may be some seconds after the one it was due at.
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


def _missed_intervals(connection: Connection, looked: Sequence[Look], now: datetime) -> Iterator[Missed]:
    """The latest time of each interval that has been silent for too long."""
    intervals = [look for look in looked if look.clock.expression.interval]
    given = [{"job": look.clock.job, "time_zone": look.clock.time_zone} for look in intervals]
    rung = {(row.job, row.time_zone): row.at for row in connection.execute(_RUNG_LAST, {"asked": given})}
    for look in intervals:
        clock = look.clock
        last = max(look.checked_to, rung.get((clock.job, clock.time_zone)) or look.checked_to)
        at = missed_runs.overdue(clock.expression.interval or timedelta(days=1), last, now)
        if at:
            yield Missed(clock, [at], [at])


_RUNG_LAST = text(
    """
    SELECT asked.job, asked.time_zone, last.at
    FROM jsonb_to_recordset(:asked) AS asked (job text, time_zone text)
    CROSS JOIN LATERAL (
        SELECT max(scheduled_for) AS at FROM platform.job_runs AS run
        WHERE run.job = asked.job AND run.time_zone = asked.time_zone
    ) AS last
    """
).bindparams(bindparam("asked", type_=JSONB))


def _fire(job: JobContext, connection: Connection, clock: Clock, at: datetime) -> None:
    moment = at.astimezone(UTC).isoformat()
    event = {"scheduled_for": moment, "trigger": "catch-up"}
    if clock.time_zone:
        event["time_zone"] = clock.time_zone
    key = f"catch-up/{clock.job}/{clock.time_zone}/{moment}"
    job.outbox.send(connection, f"function/{clock.job}", event, dedup_key=key)


def _silent(missed: Missed) -> Alert:
    last, number = missed.missed[-1], len(missed.missed)
    others = f" and {number - 1} times before" if number > 1 else ""
    clock = missed.clock
    return Alert(
        key=f"{MISSED}{clock.job}",
        severity=Severity.CRITICAL,
        summary=f"{clock.job} was not rung at {_told(last)}{others}; what can be made good was fired",
        source=clock.job,
        details={"scheduled_for": _told(last), "missed": number, "schedule": clock.schedule.name},
    )


def _still_missed(connection: Connection, looked: Sequence[Look]) -> Iterator[Alert]:
    """Alerts of schedules that are on and as they were, and have not rung by themselves since."""
    unchanged = {look.clock.schedule.name for look in looked if not look.has_changed}
    for alert in _still_wrong(connection, MISSED, _RUNG_SINCE):
        if alert.details["schedule"] in unchanged:
            yield alert


_RUNG_SINCE = text(
    """
    SELECT key FROM jsonb_to_recordset(:standing) AS alert (key text, source text, details jsonb)
    WHERE EXISTS (
        SELECT FROM platform.job_runs AS run
        WHERE run.job = alert.source AND run.trigger = 'schedule'
          AND run.scheduled_for > (alert.details ->> 'scheduled_for')::timestamptz
    )
    """
).bindparams(bindparam("standing", type_=JSONB))


# Runs that take too long


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
        wrong = [_slow(run) for run in worst if run.is_near or run.is_unusual]
        over = {f"{SLOW}{run.job}" for run in worst if run.has_ended}
        unknown = open_alerts.standing(connection, SLOW).keys() - over
        open_alerts.keep_in_step(job.outbox, connection, SLOW, wrong, job.now, unknown=unknown)
    return len(wrong)


def _slow(run: Row[Any]) -> Alert:
    against = f"of {run.limit:.0f} that it may take" if run.is_near else f"instead of the usual {run.usual:.0f}"
    return Alert(
        key=f"{SLOW}{run.job}",
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


# Alerts that stand


def _still_wrong(connection: Connection, prefix: str, is_over: Any) -> Iterator[Alert]:
    """The alerts of a kind that stand and of which a query does not say that they are over, as they were told."""
    told = open_alerts.standing(connection, prefix)
    given = [_as_json(alert) for alert in told.values()]
    over = set(connection.execute(is_over, {"standing": given}).scalars()) if given else set()
    for key, alert in told.items():
        if key not in over:
            yield Alert(
                key=key,
                severity=Severity(alert.severity),
                summary=alert.summary,
                source=alert.source,
                details=dict(alert.details),
            )


def _as_json(alert: Standing) -> dict[str, Any]:
    return {"key": alert.key, "source": alert.source, "details": dict(alert.details)}


def _told(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat() if moment else ""
