"""What the platform does about itself: dead letters nobody recorded, runs that died or never were, zones in use."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

from sqlalchemy import update

from schoolbell.domains.platform.schema import dead_letters, job_runs, seen_schedules, standing_alerts
from schoolbell.operations.missed_runs import GRACE
from tests.end_to_end.stack import SWEEP, Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

WATCHDOG, SYNC = "platform.run-watchdog", "platform.schedule-sync"
QUEUED, DAILY, CHUNKED = "tutoring.auto-complete", "tutoring.lifecycle-detection", "tutoring.content-analytics"
RULED = "tutoring.waitlist-expiry"
"""A job that its rule triggers hourly, which is seldom: a run by its schedule would end the alert of a missed one."""
MINUTE = timedelta(minutes=1)


def test_dead_letters_are_recorded_once_stay_on_their_queue_and_raise_one_alert(stack: Stack) -> None:
    discarded = json.dumps({"session_id": str(uuid4())})
    stack.drop(QUEUED, discarded)
    letter = stack.dead_letter(QUEUED, discarded)
    unsaid = json.dumps({"session_id": str(uuid4()), "dropped": "by hand"})
    url = stack.queue_url(QUEUED, dead=True)
    by_hand = stack.sqs.send_message(QueueUrl=url, MessageBody=unsaid)["MessageId"]
    for _ in range(2):
        assert stack.run(SWEEP)["unreadable"] == 0
    (seen,) = stack.rows(dead_letters, job=QUEUED, payload=discarded)
    assert (seen.id, seen.reason) == (letter.id, "discarded")
    assert seen.last_seen_at
    (found,) = stack.rows(dead_letters, job=QUEUED, payload=unsaid)
    assert (found.message_id, found.reason) == (by_hand, "unknown")
    (alert,) = stack.rows(standing_alerts, key=f"dead-letters/{QUEUED}")
    assert alert.details["number"] >= 2
    assert stack.buried(QUEUED, unsaid)
    assert stack.buried(QUEUED, discarded)


def test_a_failed_invocation_is_recorded_with_its_event_and_its_reason(stack: Stack) -> None:
    event = {"scheduled_for": "2026-03-02T03:00:00Z", "mistaken": str(uuid4())}
    stack.functions.invoke(
        FunctionName=stack.resource(DAILY), InvocationType="Event", Payload=json.dumps(event).encode()
    )

    def found() -> bool:
        stack.run(SWEEP)
        mine = [letter for letter in stack.rows(dead_letters, job=DAILY) if event["mistaken"] in letter.payload]
        return any(json.loads(letter.payload) == event and letter.reason == "failed" for letter in mine)

    eventually(found, f"dead letter of {DAILY}", patience=300)


def test_a_run_that_died_goes_on_and_its_alert_ends_with_it(stack: Stack, make: Make, now: datetime) -> None:
    died = make.row(
        job_runs,
        job=CHUNKED,
        trigger="manual",
        status="running",
        started_at=now - 30 * MINUTE,
        locked_until=now - 20 * MINUTE,
        heartbeat_at=now - 25 * MINUTE,
        cursor={},
        request_id=str(uuid4()),
    )
    stack.run(WATCHDOG)
    run = stack.becomes(job_runs, died.id, status="completed", patience=120)
    assert (run.attempt, run.error) == (2, None)
    stack.run(WATCHDOG)
    assert stack.rows(standing_alerts, key=f"timed-out-run/{CHUNKED}") == []


def test_a_time_that_passed_without_a_run_is_made_good(stack: Stack) -> None:
    due = minute_without_a_run(stack, RULED)
    with changed_rule(stack, RULED, f"cron({due.minute} {due.hour} * * ? *)"):
        stack.run(WATCHDOG)  # which notes that the schedule has changed
        with stack.database.transaction() as connection:  # as if it had been so for an hour
            before = update(seen_schedules).where(seen_schedules.c.name == stack.resource(RULED))
            connection.execute(before.values(checked_to=due - 60 * MINUTE))
        stack.run(WATCHDOG)
        (run,) = eventually(lambda: stack.runs(RULED, trigger="catch-up", scheduled_for=due), "catch-up run")
        stack.becomes(job_runs, run.id, status="completed")
        (alert,) = stack.rows(standing_alerts, key=f"missed-run/{RULED}")
        assert alert.severity == "critical"
    stack.run(WATCHDOG)
    assert stack.rows(standing_alerts, key=f"missed-run/{RULED}") == [], "its schedule is another now"


def minute_without_a_run(stack: Stack, job: str) -> datetime:
    """The latest minute for which a job has no run, of those that are past the grace a schedule has."""
    taken = {run.scheduled_for.replace(second=0) for run in stack.runs(job) if run.scheduled_for}
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - GRACE - MINUTE
    while minute in taken:
        minute -= MINUTE
    return minute


@contextmanager
def changed_rule(stack: Stack, job: str, expression: str) -> Iterator[None]:
    """Gives a job's rule another schedule."""
    rules, name = stack.client("events"), stack.resource(job)
    was = rules.describe_rule(Name=name)["ScheduleExpression"]
    rules.put_rule(Name=name, ScheduleExpression=expression, State="ENABLED")
    try:
        yield
    finally:
        rules.put_rule(Name=name, ScheduleExpression=was, State="ENABLED")


def test_each_time_zone_in_use_has_a_schedule_that_rings_the_job_for_it(stack: Stack, make: Make) -> None:
    """A zone in which an hour is half over when one begins in UTC, and in which no clock is ever changed."""
    zone = ZoneInfo("Asia/Kolkata")
    make.teacher(timezone=zone.key)
    name = f"{stack.resource(DAILY)}-asia-kolkata"
    # Of this hour and the next, each minute: then it does not matter how long it takes until the schedule is there.
    now = datetime.now(zone)
    hours = f"{now.hour},{(now + timedelta(hours=1)).hour}"
    with by_time_zone(stack, DAILY), changed_schedule(stack, DAILY, f"cron(* {hours} * * ? *)"):
        assert stack.run(SYNC)["failed"] == 0
        made = stack.scheduler.get_schedule(Name=name, GroupName=stack.name)
        assert (made["ScheduleExpressionTimezone"], made["State"]) == (zone.key, "ENABLED")
        run, *_ = eventually(
            lambda: [run for run in stack.runs(DAILY, time_zone=zone.key) if run.scheduled_for > now],
            f"run for {zone.key}",
            patience=180,
        )
        assert run.trigger == "schedule"
        assert timedelta() < run.scheduled_for - made["LastModificationDate"] <= MINUTE
    assert stack.run(SYNC)["deleted"] >= 1
    names = [each["Name"] for each in stack.scheduler.list_schedules(GroupName=stack.name)["Schedules"]]
    assert name not in names


@contextmanager
def changed_schedule(stack: Stack, job: str, expression: str) -> Iterator[None]:
    """Has a job's schedule be a pattern: off, and with another expression."""
    client, name = stack.scheduler, stack.resource(job)
    found = client.get_schedule(Name=name, GroupName=stack.name)
    keys = ("Name", "GroupName", "ScheduleExpressionTimezone", "FlexibleTimeWindow", "Target")
    kept = {key: found[key] for key in keys}
    client.update_schedule(**kept, ScheduleExpression=expression, State="DISABLED")
    try:
        yield
    finally:
        client.update_schedule(**kept, ScheduleExpression=found["ScheduleExpression"], State=found["State"])


@contextmanager
def by_time_zone(stack: Stack, job: str) -> Iterator[None]:
    """Has a job run by time zone, as its template would say."""
    function = stack.resource(job)
    variables = stack.functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
    zoned = {**variables, "JOB_BY_TIME_ZONE": "true"}
    stack.functions.update_function_configuration(FunctionName=function, Environment={"Variables": zoned})
    try:
        yield
    finally:
        stack.functions.update_function_configuration(FunctionName=function, Environment={"Variables": variables})
