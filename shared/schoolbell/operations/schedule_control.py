"""Changing the rules and schedules that ring jobs, where they are: each change leaves everything else as it was."""

from typing import Any, Final

from schoolbell import aws
from schoolbell.operations.catalogue import ScheduleInfo, group
from schoolbell.settings import Settings

# What UpdateSchedule takes; GetSchedule answers more.
_FIELDS: Final = (
    "ActionAfterCompletion",
    "Description",
    "EndDate",
    "FlexibleTimeWindow",
    "GroupName",
    "KmsKeyArn",
    "Name",
    "ScheduleExpression",
    "ScheduleExpressionTimezone",
    "StartDate",
    "State",
    "Target",
)
_RULE_FIELDS: Final = ("Name", "ScheduleExpression", "EventPattern", "State", "Description", "RoleArn", "EventBusName")


def switch(schedule: ScheduleInfo, settings: Settings, *, enable: bool) -> None:
    """Lets a schedule ring, or stops it."""
    if schedule.kind == "scheduler":
        _update_schedule(schedule.name, settings, State="ENABLED" if enable else "DISABLED")
        return
    client = aws.client("events")
    (client.enable_rule if enable else client.disable_rule)(Name=schedule.name)


def change(schedule: ScheduleInfo, settings: Settings, expression: str, timezone: str) -> None:
    """Changes when a schedule rings. A rule has no time zone."""
    if schedule.kind == "rule":
        _update_rule(schedule.name, ScheduleExpression=expression)
    else:
        changes = {"ScheduleExpression": expression, "ScheduleExpressionTimezone": timezone}
        _update_schedule(schedule.name, settings, **changes)


def remove(schedule: ScheduleInfo, settings: Settings) -> None:
    """Deletes a schedule; one that is gone is gone."""
    try:
        if schedule.kind == "rule":
            _delete_rule(schedule.name)
        else:
            aws.client("scheduler").delete_schedule(Name=schedule.name, GroupName=group(settings))
    except Exception as error:
        if aws.error_code(error) != "ResourceNotFoundException":
            raise


def _update_schedule(name: str, settings: Settings, **changes: Any) -> None:
    # UpdateSchedule replaces all of a schedule: what is left out gets its default. Scheduler has no way to say
    # "only if nobody changed it since", so of two changes at the same moment the later wins.
    client = aws.client("scheduler")
    found = client.get_schedule(GroupName=group(settings), Name=name)
    client.update_schedule(**{field: found[field] for field in _FIELDS if field in found} | changes)


def _update_rule(name: str, **changes: Any) -> None:
    # PutRule replaces a rule but for its targets and tags.
    client = aws.client("events")
    found = client.describe_rule(Name=name)
    client.put_rule(**{field: found[field] for field in _RULE_FIELDS if found.get(field)} | changes)


def _delete_rule(name: str) -> None:
    client = aws.client("events")
    targets = [target["Id"] for target in client.list_targets_by_rule(Rule=name)["Targets"]]
    if targets:
        client.remove_targets(Rule=name, Ids=targets)
    client.delete_rule(Name=name)
