"""Pausing, resuming, changing and deleting the schedule of a job: each change is audited and answered in words."""

from concurrent.futures import ThreadPoolExecutor

from schoolbell.operations import catalogue, schedule_control
from schoolbell.operations.expressions import InvalidExpression, parse
from schoolbell.operations.models import Change, Refused
from schoolbell.operations.stack import Stack, why_unscheduled


def switch(stack: Stack, job: str, *, enable: bool) -> Change:
    """Lets a job's schedule trigger it, or stops it; that of all its time zones, where it runs by time zone.

    Raises:
        NotFound: no job is called so.
        Refused: it has no schedule.
    """
    info, schedule = stack.scheduled(job)
    if info.is_by_time_zone and not info.zones:
        raise Refused(f"{job} has no schedule in any time zone yet: platform.schedule-sync makes them")
    others = [each for each in info.zones or [schedule] if each.enabled is not enable]
    if not others:
        return Change(is_changed=False, message=f"{job} was {'not paused' if enable else 'paused already'}")
    details = {
        "schedule": schedule.name,
        **({"time_zones": [each.timezone for each in others]} if info.zones else {}),
    }
    action = "job.resumed" if enable else "job.paused"
    with stack.audited(action, job, details), ThreadPoolExecutor(catalogue.CALLS_AT_ONCE) as callers:
        list(callers.map(lambda each: schedule_control.switch(each, stack.settings, enable=enable), others))
    if info.zones:  # platform.schedule-sync may have made another meanwhile
        switch(stack, job, enable=enable)
    return Change(is_changed=True, message=f"{job} is {'resumed' if enable else 'paused'}")


def reschedule(stack: Stack, job: str, expression: str, timezone: str | None) -> Change:
    """Changes when a job runs.

    Raises:
        InvalidExpression: AWS would reject it, or it would never go off.
        NotFound: no job is called so.
        Refused: it has no schedule, or its tenants' time zones are what it runs by.
    """
    info, schedule = stack.scheduled(job)
    if info.is_by_time_zone and timezone not in (None, schedule.timezone):
        raise Refused(f"{job} runs in the time zones of its tenants; leave {schedule.timezone} as it is")
    read = parse(expression, timezone or schedule.timezone, schedule.kind)
    if read.moment:
        raise InvalidExpression("a job's schedule is rate() or cron(); to run it once, trigger it with a time")
    read.refuse_past(stack.clock())
    if (schedule.expression, schedule.timezone) == (read.text, read.timezone):
        return Change(is_changed=False, message=f"{job} runs so already: {info.words}")
    before = {"expression": schedule.expression, "timezone": schedule.timezone}
    after = {"expression": read.text, "timezone": read.timezone}
    with stack.audited("job.rescheduled", job, {"before": before, "after": after}):
        schedule_control.change(schedule, stack.settings, read.text, read.timezone)
    since = "from the next platform.schedule-sync on" if info.is_by_time_zone else "from now on"
    return Change(is_changed=True, message=f"{job} runs {since}: {read.in_words(info.zone_in_words)}")


def unschedule(stack: Stack, job: str) -> Change:
    """Deletes a job's schedule.

    Raises:
        NotFound: no job is called so.
        Refused: it is not triggered by a schedule.
    """
    info = stack.job(job)
    if info.trigger != "schedule":
        raise Refused(why_unscheduled(info))
    if info.schedule is None:
        return Change(is_changed=False, message=f"{job} has no schedule any more")
    schedule = info.schedule
    details = {"schedule": schedule.name, "expression": schedule.expression, "timezone": schedule.timezone}
    with stack.audited("job.unscheduled", job, details):
        for each in (schedule, *info.zones):
            schedule_control.remove(each, stack.settings)
    return Change(
        is_changed=True,
        message=f"{job} has no schedule any more ({schedule.expression}, {schedule.timezone}); "
        "a deployment that changes it in the template brings it back",
    )
