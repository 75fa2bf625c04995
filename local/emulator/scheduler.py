"""EventBridge Scheduler: time zones, context attributes, the target's role."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from ministack.core.responses import set_request_account_id, set_request_region
from ministack.services import eventbridge, scheduler

from local.emulator.roles import role_may

TICK = 1.0  # seconds between two looks at the schedules and rules; ministack's own is 10
CALLS = {"sqs": "sqs:SendMessage", "lambda": "lambda:InvokeFunction", "states": "states:StartExecution"}


def next_occurrence(schedule: dict[str, Any], last: float | None) -> float | None:
    """When a schedule is next due after `last` (seconds since the epoch), in the schedule's own time zone."""
    expression = schedule["ScheduleExpression"].strip()
    zone = ZoneInfo(schedule.get("ScheduleExpressionTimezone") or "UTC")
    if expression.startswith("at("):
        moment = moment_of(expression, zone)
        return None if moment == last else moment
    since = schedule["CreationDate"] if last is None else last
    interval = eventbridge._parse_rate_seconds(expression)
    if interval is not None:
        return float(since + interval)
    fields = eventbridge._parse_cron_fields(expression)
    return None if fields is None else next_cron(fields, datetime.fromtimestamp(since, zone), zone)


@lru_cache(maxsize=200_000)
def moment_of(expression: str, zone: ZoneInfo) -> float:
    """The moment of a one-time schedule, of which there may be tens of thousands to look at in each tick."""
    return datetime.fromisoformat(expression[3:-1].strip()).replace(tzinfo=zone).timestamp()


def next_cron(fields: tuple[Any, ...], after: datetime, zone: ZoneInfo) -> float | None:
    """The next moment that matches. As on AWS, a local time that does not exist is skipped; a double one fires once."""
    wall = after.replace(tzinfo=UTC, fold=0)  # the calendar arithmetic is done on the wall clock
    while (wall := eventbridge._cron_next_fire(fields, wall)) is not None:
        moment = wall.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=UTC, fold=0) == wall and moment > after:
            return float(moment.timestamp())
    return None


def fire_due_schedules() -> None:
    """Send each schedule that is due to its target, once for each occurrence."""
    now = time.time()
    for key, schedule in list(scheduler._schedules._data.items()):
        ends = scheduler._to_epoch(schedule.get("EndDate"))
        starts = scheduler._to_epoch(schedule.get("StartDate"))
        if schedule["State"] != "ENABLED" or (ends and now > ends) or (starts and now < starts):
            continue
        due = next_occurrence(schedule, scheduler._schedule_last_fired.get(key))
        if due is None or due > now:
            continue
        scheduler._schedule_last_fired[key] = due
        fire(key, schedule, datetime.fromtimestamp(due, UTC))
        if schedule["ScheduleExpression"].startswith("at(") and schedule["ActionAfterCompletion"] == "DELETE":
            scheduler._schedules._data.pop(key, None)
            scheduler._schedule_last_fired.pop(key, None)


def fire(key: tuple[str, str, str], schedule: dict[str, Any], due: datetime) -> None:
    """Deliver one occurrence, with the context attributes of the target's input filled in."""
    account, region, _ = key
    target = dict(schedule["Target"])
    action = CALLS.get(target["Arn"].split(":")[2], "")
    if not role_may(target["RoleArn"], action, target["Arn"]):
        scheduler.logger.error("%s: its role may not %s on %s", schedule["Name"], action, target["Arn"])
        return
    attributes = {
        "schedule-arn": schedule["Arn"],
        "scheduled-time": due.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "execution-id": str(uuid4()),
        "attempt-number": "1",
    }
    for name, value in attributes.items():
        if target.get("Input"):
            target["Input"] = target["Input"].replace(f"<aws.scheduler.{name}>", value)
    set_request_account_id(account)
    set_request_region(region)
    event = {
        "EventId": attributes["execution-id"],
        "Source": "aws.scheduler",
        "DetailType": "Scheduled Event",
        "Detail": "{}",
        "Time": due.timestamp(),
        "Resources": [schedule["Arn"]],
        "Account": account,
        "Region": region,
    }
    eventbridge._invoke_target(target, event, schedule)


def install() -> None:
    """Have schedules go off as on AWS, and schedules and rules within a second of their time."""
    scheduler._SCHEDULE_TICK_INTERVAL = eventbridge._SCHEDULER_TICK_INTERVAL = TICK
    scheduler._tick_schedules = fire_due_schedules
