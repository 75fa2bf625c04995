"""Each queue rings its function, and what that does is committed; each role is enough for it."""

from datetime import UTC, datetime, timedelta

from schoolbell.domains.tutoring.schema import contact_log, credit_ledger, scheduled_messages, sessions
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make


def test_auto_complete_takes_due_lessons_off_its_queue(stack: Stack, make: Make) -> None:
    lesson = make.session(credit_cost=2)
    stack.drop("tutoring.auto-complete", {"session_id": str(lesson.id)})
    assert stack.becomes(sessions, lesson.id, status="completed").completed_at is not None
    assert stack.row(credit_ledger, session_id=lesson.id).amount == -2


def test_session_events_sets_moves_and_deletes_the_schedule_of_a_lesson(stack: Stack, make: Make) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    lesson = make.session(ends_at=end, grace_period_minutes=30)
    name = f"session-{lesson.id}"

    stack.drop("tutoring.session-events", {"type": "session.scheduled", "session_id": str(lesson.id)})
    made = eventually(lambda: stack.one_shot(name), "schedule")
    assert made is not None
    assert made["ScheduleExpression"] == f"at({end + timedelta(minutes=30):%Y-%m-%dT%H:%M:%S})"
    assert made["ActionAfterCompletion"] == "DELETE"

    moved = f"at({end + timedelta(hours=3):%Y-%m-%dT%H:%M:%S})"
    stack.change(sessions, lesson.id, ends_at=end + timedelta(hours=2, minutes=30))
    stack.drop("tutoring.session-events", {"type": "session.rescheduled", "session_id": str(lesson.id)})
    eventually(lambda: (stack.one_shot(name) or {}).get("ScheduleExpression") == moved, "schedule at the new time")

    stack.change(sessions, lesson.id, status="cancelled")
    stack.drop("tutoring.session-events", {"type": "session.cancelled", "session_id": str(lesson.id)})
    eventually(lambda: stack.one_shot(name) is None, "end of the schedule")


def test_message_events_sets_and_deletes_the_schedule_of_a_message(stack: Stack, make: Make) -> None:
    send_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    message = make.message(send_at=send_at)
    name = f"message-{message.id}"

    stack.drop("tutoring.message-events", {"type": "message.scheduled", "message_id": str(message.id)})
    made = eventually(lambda: stack.one_shot(name), "schedule")
    assert made is not None
    assert made["ScheduleExpression"] == f"at({send_at:%Y-%m-%dT%H:%M:%S})"

    stack.change(scheduled_messages, message.id, status="cancelled")
    stack.drop("tutoring.message-events", {"type": "message.cancelled", "message_id": str(message.id)})
    eventually(lambda: stack.one_shot(name) is None, "end of the schedule")


def test_scheduled_messages_fires_a_due_message_once(stack: Stack, make: Make) -> None:
    message = make.message()
    body = {"message_id": str(message.id)}
    stack.drop("tutoring.scheduled-messages", body, body)
    stack.becomes(scheduled_messages, message.id, status="fired")
    eventually(lambda: stack.waiting("tutoring.scheduled-messages") == 0, "end of the second message")
    assert len(stack.rows(contact_log, scheduled_message_id=message.id)) == 1
