"""The schedules of jobs that run by time zone: one a zone in use, like the pattern that the template gives the job.

What is to be is written down before a schedule is made, and struck out after it is deleted, so nothing is forgotten.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell import aws
from schoolbell.alerts import Alert, Severity, open_alerts
from schoolbell.jobs import JobContext
from schoolbell.settings import Settings

ALERTS: Final = "schedule-sync/"
KEPT_UNUSED: Final = timedelta(days=1)
"""How long a zone keeps its schedule after the last tenant has left it, who may have left it by mistake."""

CALLS_AT_ONCE: Final = 10
LONGEST_NAME: Final = 64  # characters, of EventBridge Scheduler
DIGITS: Final = 8  # of a digest, where a name would be longer
ROUNDS: Final = 5
"""How often a job may be paused and resumed while it gets a new zone."""

type Done = Literal["created", "updated", "unchanged", "deleted"]
type State = Literal["ENABLED", "DISABLED"]
type Json = Any


@dataclass(frozen=True, slots=True)
class Zone:
    """A job in a time zone."""

    job: str
    time_zone: str
    is_wanted: bool


# What is to be


def patterns_of(jobs: Iterable[str], settings: Settings) -> dict[str, dict[str, Json]]:
    """The schedules that the template gives these jobs, by job."""
    return {name: pattern for name in jobs if (pattern := schedule(settings.resource_name(name), settings))}


def zones_in_use(job: JobContext, connection: Connection) -> list[str]:
    """The tenants' time zones. A name that is no time zone counts as UTC, so that nobody is left out."""
    rows = connection.execute(_ZONES).all()
    strange = [row.time_zone for row in rows if not row.is_known]
    if strange:
        job.logger.warning("unknown time zones taken as UTC", number=len(strange), zones=strange[:20])
    return sorted({row.time_zone if row.is_known else "UTC" for row in rows})


_ZONES = text(
    """
    SELECT zone.time_zone, known.name IS NOT NULL AS is_known
    FROM platform.time_zones AS zone LEFT JOIN pg_timezone_names AS known ON known.name = zone.time_zone
    """
)


def plan(connection: Connection, job: JobContext, jobs: Sequence[str], zones: Sequence[str]) -> list[Zone]:
    """Writes down which zones are in use, and returns which schedules there are to be, and which no longer."""
    values = {"jobs": list(jobs), "zones": list(zones), "now": job.now, "unused": job.now - KEPT_UNUSED}
    connection.execute(_IN_USE, values)
    return [Zone(*row) for row in connection.execute(_PLANNED, values)]


_IN_USE = text(
    """
    INSERT INTO platform.zone_schedules AS planned (job, time_zone, in_use_at)
    SELECT job, time_zone, :now
    FROM jsonb_array_elements_text(:jobs) AS job, jsonb_array_elements_text(:zones) AS time_zone
    ON CONFLICT (job, time_zone) DO UPDATE SET in_use_at = greatest(planned.in_use_at, excluded.in_use_at)
    """
).bindparams(bindparam("jobs", type_=JSONB), bindparam("zones", type_=JSONB))

_PLANNED = text(
    """
    SELECT job, time_zone, :jobs ? job AND in_use_at > :unused AS is_wanted
    FROM platform.zone_schedules
    ORDER BY job, time_zone
    """
).bindparams(bindparam("jobs", type_=JSONB))


# Making the schedules what they are to be


def sync(
    patterns: Mapping[str, Mapping[str, Json]], planned: Sequence[Zone], settings: Settings
) -> list[Done | Exception]:
    """Makes, mends and deletes the schedules of zones, several at a time; what became of each, or why nothing did."""
    client = aws.client("scheduler")  # made here, since making one is not what threads should race for

    def look(zone: Zone) -> Json | Exception | None:
        try:
            return schedule(name_of(zone, settings), settings)
        except Exception as error:
            return error

    def state_of_new(zone: Zone) -> State:
        return "DISABLED" if zone.job in paused else "ENABLED"

    def bring_about(zone: Zone, found: Json | Exception | None) -> Done | Exception:
        if isinstance(found, Exception):
            return found
        try:
            if not zone.is_wanted:
                return remove(zone, settings)
            return keep(client, patterns[zone.job], zone, found, settings, state_of_new(zone))
        except Exception as error:
            return error

    with ThreadPoolExecutor(CALLS_AT_ONCE) as callers:
        found = list(callers.map(look, planned))
        paused = paused_jobs(planned, found)
        outcomes = list(callers.map(bring_about, planned, found))
        new = [zone for zone, outcome in zip(planned, outcomes, strict=True) if outcome == "created"]
        others = [zone for zone in planned if zone not in new]
        for _ in range(ROUNDS if new else 0):  # whoever pauses a job just now may not see its new schedules
            before, paused = paused, paused_jobs(others, list(callers.map(look, others)))
            if paused == before:
                break
            for zone in new:
                put(client, patterns[zone.job], zone, settings, state_of_new(zone))
    return outcomes


def paused_jobs(planned: Sequence[Zone], found: Sequence[Json | Exception | None]) -> set[str]:
    """The jobs whose schedules are all off: somebody has paused them."""
    states: dict[str, set[str]] = {}
    for zone, there in zip(planned, found, strict=True):
        if isinstance(there, dict):
            states.setdefault(zone.job, set()).add(there["State"])
    return {job for job, those in states.items() if those == {"DISABLED"}}


def keep(
    client: Json,
    pattern: Mapping[str, Json],
    zone: Zone,
    found: Mapping[str, Json] | None,
    settings: Settings,
    state_if_new: State,
) -> Done:
    """Makes the schedule of a zone like the pattern; whether one that is there is on is left to whoever paused it."""
    wanted = like(pattern, zone)
    if found is None:
        name = name_of(zone, settings)
        client.create_schedule(Name=name, GroupName=settings.schedule_group, State=state_if_new, **wanted)
        return "created"
    if all(found.get(key) == value for key, value in wanted.items()):
        return "unchanged"
    put(client, pattern, zone, settings, found["State"])
    return "updated"


def put(client: Json, pattern: Mapping[str, Json], zone: Zone, settings: Settings, state: State) -> None:
    """Makes the schedule of a zone, which is there, like the pattern, on or off."""
    name = name_of(zone, settings)
    client.update_schedule(Name=name, GroupName=settings.schedule_group, State=state, **like(pattern, zone))


def like(pattern: Mapping[str, Json], zone: Zone) -> dict[str, Json]:
    """What a zone's schedule has of the pattern, and what of its own."""
    told = {"scheduled_for": "<aws.scheduler.scheduled-time>", "time_zone": zone.time_zone}
    return {
        "ScheduleExpression": pattern["ScheduleExpression"],
        "ScheduleExpressionTimezone": zone.time_zone,
        "FlexibleTimeWindow": pattern["FlexibleTimeWindow"],
        "Target": {**pattern["Target"], "Input": json.dumps(told)},
    }


def remove(zone: Zone, settings: Settings) -> Done:
    """Deletes the schedule of a zone, if there is one."""
    try:
        aws.client("scheduler").delete_schedule(Name=name_of(zone, settings), GroupName=settings.schedule_group)
    except Exception as error:
        if aws.error_code(error) != "ResourceNotFoundException":
            raise
    return "deleted"


def schedule(name: str, settings: Settings) -> dict[str, Json] | None:
    """A schedule as it is; `None` if there is none."""
    try:
        found: dict[str, Json] = aws.client("scheduler").get_schedule(Name=name, GroupName=settings.schedule_group)
    except Exception as error:
        if aws.error_code(error) != "ResourceNotFoundException":
            raise
        return None
    return found


def name_of(zone: Zone, settings: Settings) -> str:
    """The name of a zone's schedule: the job's, and the zone in letters that a name may have.

    >>> name_of(Zone("tutoring.chime", "America/New_York", True), Settings(schoolbell_stack="prod"))
    'prod-tutoring-chime-america-new-york'
    """
    slug = zone.time_zone.lower().replace("/", "-").replace("_", "-").replace("+", "plus")
    name = f"{settings.resource_name(zone.job)}-{slug}"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(zone.time_zone.encode()).hexdigest()[:DIGITS]
    return f"{name[: LONGEST_NAME - DIGITS - 1]}-{digest}"


# What became of it


def settle(job: JobContext, planned: Sequence[Zone], outcomes: Sequence[Done | Exception]) -> None:
    """Strikes out what is deleted, and tells which jobs lack a schedule."""
    both = list(zip(planned, outcomes, strict=True))
    deleted = [{"job": zone.job, "time_zone": zone.time_zone} for zone, outcome in both if outcome == "deleted"]
    failed: dict[str, list[str]] = {}
    for zone, outcome in both:
        if isinstance(outcome, Exception):
            reason = aws.error_code(outcome) or type(outcome).__name__
            job.logger.error("schedule not kept", job=zone.job, time_zone=zone.time_zone, error=reason)
            failed.setdefault(zone.job, []).append(f"{zone.time_zone}: {reason}")
    with job.transaction() as connection:
        if deleted:
            connection.execute(_STRIKE_OUT, {"deleted": deleted})
        wrong = [_lacking(name, zones) for name, zones in failed.items()]
        open_alerts.keep_in_step(job.outbox, connection, ALERTS, wrong, job.now)


def _lacking(name: str, zones: Sequence[str]) -> Alert:
    return Alert(
        key=f"{ALERTS}{name}",
        severity=Severity.WARNING,
        summary=f"{len(zones)} schedules of {name} could not be kept, the first for {zones[0]}",
        source=name,
        details={"zones": len(zones)},
    )


_STRIKE_OUT = text(
    """
    DELETE FROM platform.zone_schedules AS planned
    USING jsonb_to_recordset(:deleted) AS deleted (job text, time_zone text)
    WHERE planned.job = deleted.job AND planned.time_zone = deleted.time_zone
    """
).bindparams(bindparam("deleted", type_=JSONB))
