"""EventBridge Scheduler: time zones, context attributes, the target's role."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from ministack.core.responses import set_request_account_id, set_request_region
from ministack.services import eventbridge, scheduler
from ministack.services.cloudformation import provisioners

from local.emulator.eventbridge import TICK
from local.emulator.roles import role_may

CALLS = {"sqs": "sqs:SendMessage", "lambda": "lambda:InvokeFunction", "states": "states:StartExecution"}


def next_occurrence(schedule: dict[str, Any], last: float | None) -> float | None:
    """When a schedule is next due after `last` (seconds since the epoch), in the schedule's own time zone.

    What passed before a schedule was changed or resumed is not made up for.
    """
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
    since = max(since, schedule["LastModificationDate"])
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


# Schedules of a template


def create_of_template(original: Callable[..., Any]) -> Callable[..., Any]:
    """A schedule of a template has the time zone that the template gives it, which ministack takes for UTC."""

    def create(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        name, attributes = original(logical_id, properties, stack)
        set_time_zone(name, properties)
        return name, attributes

    return create


def update_of_template(original: Callable[..., Any]) -> Callable[..., Any]:
    """So has one that is updated, and what passed before the update is not made up for."""

    def update(physical_id: str, old: dict[str, Any], new: dict[str, Any], stack: str) -> Any:
        name, attributes = original(physical_id, old, new, stack)
        set_time_zone(name, new)["LastModificationDate"] = time.time()
        return name, attributes

    return update


def set_time_zone(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Give a schedule the time zone of its template, and return it."""
    schedule: dict[str, Any] = scheduler._schedules[f"{properties.get('GroupName', 'default')}/{name}"]
    schedule["ScheduleExpressionTimezone"] = properties.get("ScheduleExpressionTimezone", "UTC")
    return schedule


def install() -> None:
    """Have schedules trigger when and as they would on AWS."""
    of_template = provisioners._RESOURCE_HANDLERS["AWS::Scheduler::Schedule"]
    of_template["create"] = create_of_template(of_template["create"])
    of_template["update"] = update_of_template(of_template["update"])
    scheduler._SCHEDULE_TICK_INTERVAL = TICK
    scheduler._tick_schedules = fire_due_schedules
