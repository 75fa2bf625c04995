"""The catalogue of jobs, read from AWS at the moment it is asked for: what EventBridge and Lambda say is what is true.

A change made in the EventBridge console shows here too. One-shot schedules are no part of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell import aws
from schoolbell.database import Database
from schoolbell.operations.expressions import InvalidExpression, parse
from schoolbell.settings import Settings

CALLS_AT_ONCE: Final = 10


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """What rings a scheduled job."""

    kind: Literal["rule", "scheduler"]
    name: str
    expression: str
    timezone: str
    """An IANA name; a rule is always in UTC."""
    enabled: bool
    next_run: datetime | None
    """`None` when it is paused, or when nothing is known of the last time a rate went off."""
    changed_at: datetime | None = None
    """When it was last made, changed, paused or resumed; of a rule, AWS does not say."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as it is deployed."""

    name: str
    """As in `tutoring.calendar-sync`."""
    description: str
    trigger: Literal["schedule", "queue", "called"]
    """What rings it: a clock, a queue, or else the deployment, a state machine, a topic or a browser."""
    schedule: ScheduleInfo | None
    """`None` for a scheduled job means that its schedule was deleted."""
    queues: tuple[str, ...]
    """As jobs are named: `platform.notifications-high`."""
    has_dry_run: bool
    is_critical: bool
    timeout: timedelta
    """How long an invocation may take."""
    is_by_time_zone: bool = False
    """Whether it runs in each of its tenants' time zones; its schedule is then the pattern of theirs."""
    zones: tuple[ScheduleInfo, ...] = ()
    """What rings it, where it runs by time zone: a schedule a zone, by the zones' names."""

    @property
    def zone_in_words(self) -> str | None:
        """What is said in place of its schedule's time zone, where that is only a pattern's."""
        return "by time zone" if self.is_by_time_zone else None

    @property
    def words(self) -> str:
        """When its schedule goes off, e.g. `At 03:00, Europe/Berlin` or `At 06:00, by time zone`."""
        if self.schedule is None:
            return ""
        try:
            return parse(self.schedule.expression, self.schedule.timezone).in_words(self.zone_in_words)
        except InvalidExpression:  # AWS takes it all the same, or it was changed elsewhere
            return self.schedule.expression


def listed(database: Database, settings: Settings, now: datetime) -> list[JobInfo]:
    """Every job with its schedule, as AWS has them at this moment, by name."""
    return scheduled(functions(settings), database, settings, now)


def scheduled(found: Sequence[JobInfo], database: Database, settings: Settings, now: datetime) -> list[JobInfo]:
    """The same for jobs that were listed before."""
    known = schedules(settings)
    by_job = {job.name: known.get(settings.resource_name(job.name)) for job in found}
    zones: dict[str, list[ScheduleInfo]] = {job.name: [] for job in found}
    for name, owner in owners(known, found, settings).items():
        if known[name] is not by_job[owner]:
            zones[owner].append(known[name])
    rated = [name for name, schedule in by_job.items() if schedule and schedule.expression.startswith("rate(")]
    with database.transaction(read_only=True) as connection:
        last = last_times(connection, rated)
    return [with_schedules(job, by_job[job.name], zones[job.name], last.get(job.name), now) for job in found]


def functions(settings: Settings) -> list[JobInfo]:
    """The stack's jobs by name, without their schedules.

    The environment tells whose function it is, since another stack's names may begin with this one's.
    """
    listed = _deployed(settings)
    queues: dict[str, list[str]] = {}
    for page in aws.client("lambda").get_paginator("list_event_source_mappings").paginate():
        for mapping in page["EventSourceMappings"]:
            function = mapping["FunctionArn"].split(":")[6]
            queues.setdefault(function, []).append(mapping["EventSourceArn"].rpartition(":")[2])
    found = (_job(function, queues.get(function["FunctionName"], ()), settings) for function in listed)
    return sorted(found, key=lambda job: job.name)


def environment_of(job: str, settings: Settings) -> Mapping[str, str]:
    """The environment of a job's function as it is deployed; empty if it has none, or is not there."""
    name = settings.resource_name(job)
    found = (each["Environment"]["Variables"] for each in _deployed(settings) if each["FunctionName"] == name)
    return next(found, {})


def _deployed(settings: Settings) -> list[Mapping[str, Any]]:
    return [
        function
        for page in aws.client("lambda").get_paginator("list_functions").paginate()
        for function in page["Functions"]
        if function.get("Environment", {}).get("Variables", {}).get("SCHOOLBELL_STACK") == settings.schoolbell_stack
    ]


def _job(function: Mapping[str, Any], queues: Iterable[str], settings: Settings) -> JobInfo:
    variables = function["Environment"]["Variables"]
    start, domain = f"{settings.schoolbell_stack}-", variables.get("SCHOOLBELL_DOMAIN", "")

    def named(resource: str) -> str:
        return f"{domain}.{resource.removeprefix(start).removeprefix(f'{domain}-')}"

    own = tuple(sorted(named(queue) for queue in queues if queue.startswith(start)))
    trigger: Literal["schedule", "queue", "called"] = "queue" if own else "schedule"
    return JobInfo(
        name=named(function["FunctionName"]),
        description=function.get("Description", ""),
        trigger="called" if variables.get("JOB_TRIGGER") == "called" else trigger,
        schedule=None,
        queues=own,
        has_dry_run=variables.get("JOB_DRY_RUN") == "true",
        is_critical=variables.get("JOB_CRITICAL") == "true",
        timeout=timedelta(seconds=function.get("Timeout", 3)),
        is_by_time_zone=variables.get("JOB_BY_TIME_ZONE") == "true",
    )


def schedules(settings: Settings) -> dict[str, ScheduleInfo]:
    """The schedules of the stack's jobs, by name. They have no `next_run` yet."""
    return {schedule.name: schedule for schedule in (*_rules(settings), *_scheduled(settings))}


def _rules(settings: Settings) -> list[ScheduleInfo]:
    pages = aws.client("events").get_paginator("list_rules").paginate(NamePrefix=f"{settings.schoolbell_stack}-")
    return [
        ScheduleInfo("rule", rule["Name"], rule["ScheduleExpression"], "UTC", rule["State"] == "ENABLED", None)
        for page in pages
        for rule in page["Rules"]
        if rule.get("ScheduleExpression")
    ]


def _scheduled(settings: Settings) -> list[ScheduleInfo]:
    # One-shots, of which there may be tens of thousands in the group, have names that begin with something else.
    client = aws.client("scheduler")
    pages = client.get_paginator("list_schedules").paginate(
        GroupName=group(settings), NamePrefix=f"{settings.schoolbell_stack}-"
    )
    names = [schedule["Name"] for page in pages for schedule in page["Schedules"]]
    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        found = list(pool.map(lambda name: _read(client, name, settings), names))
    return [info_of(schedule) for schedule in found if schedule]


def _read(client: Any, name: str, settings: Settings) -> dict[str, Any] | None:
    """A schedule; `None` when it was deleted since it was listed."""
    try:
        found: dict[str, Any] = client.get_schedule(GroupName=group(settings), Name=name)
    except Exception as error:
        if aws.error_code(error) != "ResourceNotFoundException":
            raise
        return None
    return found


def info_of(schedule: Mapping[str, Any]) -> ScheduleInfo:
    """A schedule of EventBridge Scheduler, as `GetSchedule` answers it."""
    return ScheduleInfo(
        kind="scheduler",
        name=schedule["Name"],
        expression=schedule["ScheduleExpression"],
        timezone=schedule.get("ScheduleExpressionTimezone") or "UTC",
        enabled=schedule["State"] == "ENABLED",
        next_run=None,
        changed_at=schedule.get("LastModificationDate"),
    )


def owners(schedules: Iterable[str], jobs: Iterable[JobInfo], settings: Settings) -> dict[str, str]:
    """The job that each schedule is of, by the schedule's name; those of no job are left out.

    A time zone's schedule is named after its job, and the zone follows.
    """
    by_resource = {settings.resource_name(job.name): job for job in jobs}
    by_zone = sorted((name for name, job in by_resource.items() if job.is_by_time_zone), reverse=True)
    found = {}
    for name in schedules:
        pattern = next((each for each in by_zone if name.startswith(f"{each}-")), "")
        if owner := by_resource.get(name) or by_resource.get(pattern):
            found[name] = owner.name
    return found


def group(settings: Settings) -> str:
    """The stack's schedule group."""
    return settings.schedule_group or settings.schoolbell_stack


_LAST_TIMES = text(
    """
    SELECT job, (SELECT max(scheduled_for) FROM platform.job_runs AS run
                 WHERE run.job = asked.job AND run.trigger = 'schedule')
    FROM jsonb_array_elements_text(:jobs) AS asked (job)
    """
).bindparams(bindparam("jobs", type_=JSONB))


def last_times(connection: Connection, jobs: Iterable[str]) -> dict[str, datetime]:
    """When the clock last rang each job that it ever rang."""
    rows = connection.execute(_LAST_TIMES, {"jobs": list(jobs)})
    return {job: at for job, at in rows if at}


def with_schedules(
    job: JobInfo, schedule: ScheduleInfo | None, zones: Iterable[ScheduleInfo], last: datetime | None, now: datetime
) -> JobInfo:
    """A job with what rings it. A pattern is told to be on where one of its zones is on, or there is no zone yet."""
    if schedule is None or not job.is_by_time_zone:
        return replace(job, schedule=schedule and with_next_run(schedule, last, now))
    rung = tuple(with_next_run(zone, last, now) for zone in sorted(zones, key=lambda zone: zone.timezone))
    is_on = not rung or any(zone.enabled for zone in rung)
    following = min((zone.next_run for zone in rung if zone.next_run), default=None)
    return replace(job, schedule=replace(schedule, enabled=is_on, next_run=following), zones=rung)


def with_next_run(schedule: ScheduleInfo, last: datetime | None, now: datetime) -> ScheduleInfo:
    """A schedule with its next time; a rate counts from the last time it went off, as AWS does."""
    if not schedule.enabled:
        return schedule
    try:
        read = parse(schedule.expression, schedule.timezone)
    except InvalidExpression:  # AWS has it, so it is only this program that cannot read it
        return schedule
    if read.interval is None:
        return replace(schedule, next_run=next(iter(read.occurrences(now, 1)), None))
    if last is None:
        return schedule
    passed = max(0, (now - last) // read.interval)
    return replace(schedule, next_run=last.astimezone(UTC) + read.interval * (passed + 1))
