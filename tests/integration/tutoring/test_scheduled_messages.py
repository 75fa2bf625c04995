"""A planned message that is due goes into the contact log and to its teacher, once; the teacher sends it by hand."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import pytest
from sqlalchemy import text

from schoolbell.domains.platform.schema import job_runs, notifications
from schoolbell.domains.tutoring.schema import contact_log, scheduled_messages, teacher_notifications
from tests.fakes.one_shots import OneShotWorld
from tests.fixtures.database import Stored

OVERDUE = timedelta(minutes=-1)
LATER = timedelta(hours=2)
EVENT = Path(__file__).parents[3] / "events/tutoring/scheduled_messages.json"


@pytest.mark.parametrize("channel", ["whatsapp", "email", "phone"])
def test_a_message_that_is_due_goes_into_the_contact_log_and_its_teacher_is_told(
    world: OneShotWorld, stored: Stored, channel: str
) -> None:
    message = world.message(OVERDUE, channel=channel, body="Bring your book.")
    assert world.ring(message) == []

    after = world.now_in_database(message)
    assert (after.status, after.fired_at) == ("fired", world.clock.now)
    (logged,) = stored(contact_log)
    assert (logged.student_id, logged.teacher_id) == (message.student_id, message.teacher_id)
    assert (logged.channel, logged.direction, logged.body) == (channel, "outbound", "Bring your book.")
    assert (logged.occurred_at, logged.scheduled_message_id) == (world.clock.now, message.id)
    (told,) = stored(teacher_notifications)
    assert (told.teacher_id, told.student_id, told.subject_id) == (message.teacher_id, message.student_id, message.id)
    assert told.kind == "scheduled_message"


@pytest.mark.parametrize("channel", ["whatsapp", "email", "phone"])
def test_nothing_is_sent_to_the_student(world: OneShotWorld, stored: Stored, channel: str) -> None:
    """The teacher makes the contact by hand; the notification is a reminder of it."""
    student = world.make.student(email="ben@example.org", phone="+33612345678")
    message = world.message(OVERDUE, student_id=student.id, teacher_id=student.teacher_id, channel=channel)
    world.ring(message)
    assert [row.recipient for row in stored(notifications)] == [f"teacher/{message.teacher_id}"]


def test_a_message_that_was_fired_has_no_schedule_any_more(world: OneShotWorld) -> None:
    message = world.message(LATER)
    world.tell(message, "scheduled")
    world.pass_time(LATER)
    assert world.now_in_database(message).scheduled_for is None


def test_the_notification_does_not_repeat_the_message(world: OneShotWorld, stored: Stored) -> None:
    """It would keep a personal text in a second place."""
    world.ring(world.message(OVERDUE, body="About your exam, Maria"))
    (told,) = stored(teacher_notifications)
    assert "Maria" not in f"{told.title} {told.body}"


def test_a_second_delivery_logs_and_tells_nothing_more(world: OneShotWorld, stored: Stored) -> None:
    message = world.message(OVERDUE)
    for _ in range(2):
        assert world.ring(message, message) == []
    assert len(stored(contact_log)) == len(stored(teacher_notifications)) == 1
    assert [run.result for run in stored(job_runs)] == [{"fired": 1}, {"fired": 0}]


def test_a_message_that_was_made_pending_again_is_not_logged_a_second_time(world: OneShotWorld, stored: Stored) -> None:
    message = world.message(OVERDUE)
    world.ring(message)
    world.write(scheduled_messages, message.id, status="pending")
    world.ring(message)
    assert world.status(message) == "fired"
    assert len(stored(contact_log)) == len(stored(teacher_notifications)) == 1


@pytest.mark.parametrize("status", ["cancelled", "fired"])
def test_a_message_that_is_not_pending_is_left_alone(world: OneShotWorld, stored: Stored, status: str) -> None:
    message = world.message(OVERDUE, status=status)
    assert world.ring(message) == []
    assert world.now_in_database(message) == message
    assert not stored(contact_log)
    assert not stored(teacher_notifications)


def test_a_message_that_was_put_off_has_its_schedule_set_again(world: OneShotWorld, stored: Stored) -> None:
    message = world.message(LATER)
    assert world.ring(message) == []
    assert world.on_queue("message-events") == [{"type": "message.scheduled", "message_id": str(message.id)}]
    assert not stored(contact_log)

    world.settle()
    assert world.scheduled(message) == message.send_at
    world.pass_time(LATER)
    assert world.status(message) == "fired"


def test_a_message_that_is_nearly_due_waits_on_the_queue(world: OneShotWorld) -> None:
    message = world.message(timedelta(seconds=30))
    world.ring(message)
    assert not world.on_queue("message-events")
    world.pass_time(timedelta(seconds=30))
    assert world.status(message) == "fired"


def test_an_unknown_message_is_discarded_and_takes_no_other_with_it(world: OneShotWorld) -> None:
    message, unknown = world.message(OVERDUE), uuid4()
    failed = world.deliver("scheduled-messages", {"message_id": str(unknown)}, {"message_id": str(message.id)})
    assert failed == []
    assert world.dead("scheduled-messages") == [f"message_id: no message {unknown}"]
    assert world.status(message) == "fired"


@pytest.mark.parametrize(
    ("body", "reason"),
    [("no", "message: Invalid JSON"), ("{}", "message_id: Field required"), ('{"message_id": 7}', "message_id: ")],
)
def test_what_can_never_pass_is_discarded_with_the_reason(world: OneShotWorld, body: str, reason: str) -> None:
    assert world.deliver("scheduled-messages", body) == []
    (said,) = world.dead("scheduled-messages")
    assert said.startswith(reason)


def test_a_message_that_cannot_be_fired_takes_no_other_with_it_and_nothing_of_it_is_done(
    world: OneShotWorld, stored: Stored
) -> None:
    """Its entry in the contact log is refused, so it must not count as fired, and its teacher must not be told."""
    good, poisoned = world.message(OVERDUE), world.message(OVERDUE)
    _alter(world, f"ADD CONSTRAINT refused CHECK (scheduled_message_id <> '{poisoned.id}') NOT VALID")
    try:
        assert len(world.ring(good, poisoned)) == 1
    finally:
        _alter(world, "DROP CONSTRAINT refused")

    assert (world.status(good), world.status(poisoned)) == ("fired", "pending")
    assert [told.subject_id for told in stored(teacher_notifications)] == [good.id]
    world.ring(poisoned)
    assert world.status(poisoned) == "fired"


def test_two_that_fire_the_same_messages_at_the_same_time_tell_the_teacher_once(
    world: OneShotWorld, stored: Stored
) -> None:
    student = world.make.student()
    messages = [world.make.message(student) for _ in range(60)]
    start = Barrier(2)

    def ring(rows: list[object]) -> list[str]:
        start.wait()
        return world.ring(*rows)  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ring, (messages, messages[::-1]))) == [[], []]
    assert len(stored(contact_log)) == len(stored(teacher_notifications)) == 60
    assert sum(run.result["fired"] for run in stored(job_runs)) == 60


def test_its_event_file_is_understood(world: OneShotWorld) -> None:
    (record,) = json.loads(EVENT.read_text())["Records"]
    message = world.message(OVERDUE, id=json.loads(record["body"])["message_id"])
    world.deliver("scheduled-messages", record["body"])
    assert world.status(message) == "fired"


def _alter(world: OneShotWorld, change: str) -> None:
    with world.database.transaction() as connection:
        connection.execute(text(f"ALTER TABLE tutoring.contact_log {change}"))
