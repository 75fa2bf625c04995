"""A planned message's schedule matches the message's row. How races end is tested with lessons: it is the same code."""

import json
from datetime import timedelta
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest

from schoolbell.domains.platform.schema import job_runs
from schoolbell.settings import Settings
from tests.fakes.one_shots import OneShotWorld
from tests.fakes.scheduler import refused
from tests.fixtures.database import Stored

HOUR = timedelta(hours=1)
ID = "5d0e8a1b-3c7f-4f29-9b64-2a8d6c1e0f77"
EVENT = Path(__file__).parents[3] / "events/tutoring/message_events.json"


def test_a_planned_message_gets_a_schedule_at_its_time(world: OneShotWorld, settings: Settings, stored: Stored) -> None:
    message = world.message(HOUR)
    assert world.tell(message, "scheduled") == []

    schedule = world.scheduler.schedules[f"message-{message.id}"]
    assert schedule["ScheduleExpression"] == "at(2026-03-02T11:00:00)"
    assert schedule["GroupName"] == "schoolbell"
    assert schedule["ActionAfterCompletion"] == "DELETE"
    assert schedule["Target"]["Arn"] == settings.queue_arn("tutoring.scheduled-messages")
    assert schedule["Target"]["DeadLetterConfig"]["Arn"].endswith("-tutoring-scheduled-messages-dlq")
    assert schedule["Target"]["Input"] == f'{{"message_id":"{message.id}"}}'
    assert world.now_in_database(message).scheduled_for == message.send_at
    assert stored(job_runs)[0].result == {"scheduled": 1, "unscheduled": 0, "sent": 0}


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["later", "earlier"])
def test_a_message_that_is_put_off_or_brought_forward_fires_at_its_new_time(world: OneShotWorld, by: timedelta) -> None:
    message = world.message(2 * HOUR)
    world.tell(message, "scheduled")
    world.move(message, 2 * HOUR + by)
    world.tell(message, "scheduled")

    world.pass_time(2 * HOUR + by - timedelta(seconds=1))
    assert world.status(message) == "pending"
    world.pass_time(timedelta(seconds=1))
    assert world.status(message) == "fired"
    assert not world.scheduler.schedules


def test_a_cancelled_message_loses_its_schedule_and_never_fires(world: OneShotWorld) -> None:
    message = world.message(HOUR)
    world.tell(message, "scheduled")
    world.cancel(message)
    assert world.tell(message, "cancelled") == []

    assert world.scheduled(message) is None
    world.pass_time(2 * HOUR)
    assert world.status(message) == "cancelled"


def test_the_row_counts_and_not_what_the_event_says(world: OneShotWorld) -> None:
    cancelled, pending = world.message(HOUR), world.message(HOUR)
    world.tell(cancelled, "scheduled")
    world.cancel(cancelled)
    world.tell(cancelled, "cancelled", "scheduled")
    world.tell(pending, "scheduled", "cancelled", "cancelled")

    assert world.scheduled(cancelled) is None
    assert world.scheduled(pending) == pending.send_at


def test_a_message_that_is_overdue_fires_at_once(world: OneShotWorld) -> None:
    message = world.message(-HOUR)
    world.tell(message, "scheduled")
    assert world.scheduled(message) is None
    assert world.on_queue("scheduled-messages") == [{"message_id": str(message.id)}]
    world.settle()
    assert world.status(message) == "fired"


def test_a_message_that_is_cancelled_while_its_schedule_is_set_has_none(world: OneShotWorld) -> None:
    message = world.message(HOUR)
    was_set = Event()

    def cancel(operation: str, name: str) -> None:
        if not was_set.is_set():
            was_set.set()
            world.cancel(message)

    world.scheduler.after = cancel
    world.tell(message, "scheduled")
    assert world.scheduled(message) is None
    assert world.now_in_database(message).scheduled_for is None


def test_throttled_events_wait_without_counting_an_attempt(world: OneShotWorld) -> None:
    message = world.message(HOUR)

    def throttle(operation: str, name: str) -> None:
        raise refused(operation, "ThrottlingException", "Rate exceeded")

    world.scheduler.before = throttle
    assert world.tell(message, "scheduled") == []
    world.scheduler.before = lambda operation, name: None
    world.pass_time(timedelta(minutes=1))
    assert world.scheduled(message) == message.send_at


def test_an_unknown_message_is_discarded_and_takes_no_other_with_it(world: OneShotWorld) -> None:
    message, unknown = world.message(HOUR), uuid4()
    events = [{"type": "message.scheduled", "message_id": str(each)} for each in (unknown, message.id)]
    assert world.deliver("message-events", *events) == []
    assert world.dead("message-events") == [f"message_id: no message {unknown}"]
    assert world.scheduled(message) == message.send_at


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"type": "session.scheduled", "message_id": ID}, "type: Input should be 'message.scheduled'"),
        ({"type": "message.scheduled", "session_id": ID}, "message_id: Field required"),
    ],
)
def test_an_event_that_can_never_pass_is_discarded_with_the_reason(
    world: OneShotWorld, body: dict[str, str], reason: str
) -> None:
    assert world.deliver("message-events", body) == []
    (said,) = world.dead("message-events")
    assert reason in said


def test_its_event_file_is_understood(world: OneShotWorld) -> None:
    (record,) = json.loads(EVENT.read_text())["Records"]
    message = world.message(HOUR, id=json.loads(record["body"])["message_id"])
    world.deliver("message-events", record["body"])
    assert world.scheduled(message) == message.send_at
