"""What the platform does about itself: dead letters nobody recorded, runs that died or never were, zones in use."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from sqlalchemy import update

from schoolbell.domains.platform.schema import dead_letters, job_runs, seen_schedules, standing_alerts
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

SWEEP, WATCHDOG, SYNC = "platform.dead-letter-sweep", "platform.run-watchdog", "platform.schedule-sync"
QUEUED, RULED, DAILY = "tutoring.auto-complete", "tutoring.message-sweep", "tutoring.lifecycle-detection"
CHUNKED = "tutoring.content-analytics"
MINUTE = timedelta(minutes=1)


def ring(stack: Stack, job: str) -> dict[str, Any]:
    """Has a sweep run now, and returns its result; its own schedule may be at it."""

    def run() -> dict[str, Any] | None:
        answer = stack.invoke(job, {})
        return dict(answer["result"]) if answer["status"] == "completed" else None

    return eventually(run, f"run of {job}") or {}


def test_dead_letters_are_recorded_once_stay_on_their_queue_and_raise_one_alert(stack: Stack) -> None:
    discarded = json.dumps({"session_id": str(uuid4())})
    stack.drop(QUEUED, discarded)
    letter = stack.dead_letter(QUEUED, discarded)
    unsaid = json.dumps({"session_id": str(uuid4()), "dropped": "by hand"})
    url = stack.queue_url(QUEUED, dead=True)
    by_hand = stack.sqs.send_message(QueueUrl=url, MessageBody=unsaid)["MessageId"]
    for _ in range(2):
        assert ring(stack, SWEEP)["unreadable"] == 0
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
        ring(stack, SWEEP)
        letters = stack.rows(dead_letters, job=DAILY)
        return any(json.loads(letter.payload) == event and letter.reason == "failed" for letter in letters)

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
    ring(stack, WATCHDOG)
    run = stack.becomes(job_runs, died.id, status="completed", patience=120)
    assert (run.attempt, run.error) == (2, None)
    ring(stack, WATCHDOG)
    assert stack.rows(standing_alerts, key=f"timed-out-run/{CHUNKED}") == []


def test_a_time_that_passed_without_a_run_is_made_good(stack: Stack) -> None:
    rules, name = stack.client("events"), stack.resource(RULED)
    due = datetime.now(UTC).replace(second=0, microsecond=0) - 8 * MINUTE
    was = rules.describe_rule(Name=name)["ScheduleExpression"]
    rules.put_rule(Name=name, ScheduleExpression=f"cron({due.minute} {due.hour} * * ? *)", State="ENABLED")
    try:
        ring(stack, WATCHDOG)  # which notes that the schedule has changed
        with stack.database.transaction() as connection:  # as if it had been so for an hour
            before = update(seen_schedules).where(seen_schedules.c.name == name)
            connection.execute(before.values(checked_to=due - 60 * MINUTE))
        ring(stack, WATCHDOG)
        (run,) = eventually(
            lambda: [run for run in stack.runs(RULED, trigger="catch-up") if run.scheduled_for == due], "catch-up run"
        )
        stack.becomes(job_runs, run.id, status="completed")
        (alert,) = stack.rows(standing_alerts, key=f"missed-run/{RULED}")
        assert alert.severity == "critical"
    finally:
        rules.put_rule(Name=name, ScheduleExpression=was, State="ENABLED")
    ring(stack, WATCHDOG)
    assert stack.rows(standing_alerts, key=f"missed-run/{RULED}") == [], "its schedule is another now"


def test_each_time_zone_in_use_has_a_schedule_that_rings_the_job_for_it(stack: Stack, make: Make) -> None:
    make.teacher(timezone="Europe/Madrid")
    name = f"{stack.resource(DAILY)}-europe-madrid"
    soon = datetime.now(UTC).replace(second=0, microsecond=0) + 2 * MINUTE
    local = soon.astimezone(ZoneInfo("Europe/Madrid"))
    with by_time_zone(stack, DAILY), changed_schedule(stack, DAILY, f"cron({local.minute} {local.hour} * * ? *)"):
        assert ring(stack, SYNC)["failed"] == 0
        made = stack.scheduler.get_schedule(Name=name, GroupName=stack.name)
        assert (made["ScheduleExpressionTimezone"], made["State"]) == ("Europe/Madrid", "ENABLED")
        (run,) = eventually(lambda: stack.runs(DAILY, time_zone="Europe/Madrid"), "run for Madrid", patience=240)
        assert (run.scheduled_for, run.trigger) == (soon, "schedule")
    assert ring(stack, SYNC)["deleted"] >= 1
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
