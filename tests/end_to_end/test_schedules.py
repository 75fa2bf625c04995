"""Clocks that really go off: rules, schedules of the template, and the one-shots that jobs make."""

import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row

from local.expansion import expand_template
from local.home import CHECKOUT
from schoolbell.domains.platform.schema import outbox
from schoolbell.domains.tutoring.schema import (
    contact_log,
    credit_ledger,
    scheduled_messages,
    sessions,
    teacher_notifications,
)
from tests.end_to_end.begun import PATIENCE, SCHEDULED, Copied, Lessons, tell
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make


def test_deployment_rings_message_sweep(stack: Stack) -> None:
    job = "tutoring.message-sweep"
    of_event_file = datetime.fromisoformat(stack.event_of(job)["time"])  # which another test sends

    def rung() -> list[Row[Any]]:
        runs = stack.runs(job, trigger="schedule", status="completed")
        return [run for run in runs if run.scheduled_for - of_event_file > timedelta(hours=1)]

    assert eventually(rung, f"completed run of {job}")


# A rule: every minute


def test_rule_of_the_outbox_relay_sends_what_a_crash_left(stack: Stack, begun_outbox_row: Row[Any]) -> None:
    stack.becomes(sessions, begun_outbox_row.payload["session_id"], status="completed", patience=PATIENCE)
    assert stack.row(outbox, id=begun_outbox_row.id).sent_at is not None
    eventually(lambda: stack.row(outbox, id=begun_outbox_row.id).handled_at, "mark on the row")
    runs = stack.runs("platform.outbox-relay", status="completed", trigger="schedule")
    assert all(run.scheduled_for is not None for run in runs)
    assert len({run.scheduled_for for run in runs}) == len(runs) > 0


# A schedule of the template, at a time that an operator has changed


def test_schedule_rings_its_function_with_the_time_it_was_for(stack: Stack, begun_schedule: datetime) -> None:
    (run,) = eventually(
        lambda: stack.runs(SCHEDULED, scheduled_for=begun_schedule, status="completed"),
        f"run of {SCHEDULED}",
        patience=PATIENCE,
    )
    assert run.trigger == "schedule"
    assert run.started_at >= begun_schedule


# Every schedule of the templates, as its own role


def test_every_schedule_of_the_templates_may_reach_its_target_and_its_dead_letters(
    stack: Stack, begun_copies: list[Copied]
) -> None:
    schedules = {
        (template.parent.name, name)
        for template in CHECKOUT.glob("functions/*/template.yaml")
        for name, resource in expand_template(template)["Resources"].items()
        if resource["Type"] == "AWS::Scheduler::Schedule"
    }
    assert len(begun_copies) == len(schedules) > 0
    for copy in begun_copies:
        eventually(
            lambda copy=copy: stack.runs(copy.job, scheduled_for=copy.at, trigger="schedule", status="completed"),  # type: ignore[misc]
            f"run of {copy.job}, as the role of its schedule",
        )
        assert stack.buried(copy.job, copy.dead)


# One-shots of lessons


def test_one_shot_goes_off_and_completes_its_lesson(stack: Stack, begun_lessons: Lessons) -> None:
    lesson = begun_lessons.held
    done = stack.becomes(sessions, lesson.id, status="completed", patience=PATIENCE)
    assert done.completed_at >= lesson.ends_at
    assert stack.row(credit_ledger, session_id=lesson.id).kind == "CONSUME"
    eventually(lambda: stack.one_shot(f"session-{lesson.id}") is None, "end of the schedule")


def test_moved_lesson_is_left_alone_until_its_new_time(stack: Stack, begun_lessons: Lessons) -> None:
    stack.becomes(sessions, begun_lessons.held.id, status="completed", patience=PATIENCE)  # the old time has come
    _assert_tomorrow(stack, begun_lessons, begun_lessons.moved)


def test_one_shot_that_goes_off_too_early_is_set_again(stack: Stack, begun_lessons: Lessons) -> None:
    stack.becomes(sessions, begun_lessons.held.id, status="completed", patience=PATIENCE)
    _assert_tomorrow(stack, begun_lessons, begun_lessons.moved_untold)


def _assert_tomorrow(stack: Stack, lessons: Lessons, lesson: Row[Any]) -> None:
    wanted = f"at({lessons.tomorrow:%Y-%m-%dT%H:%M:%S})"
    name = f"session-{lesson.id}"
    eventually(lambda: (stack.one_shot(name) or {}).get("ScheduleExpression") == wanted, "schedule for tomorrow")
    assert stack.row(sessions, id=lesson.id).status == "scheduled"
    assert not stack.rows(credit_ledger, session_id=lesson.id)


def test_cancelled_lesson_consumes_nothing(stack: Stack, begun_lessons: Lessons) -> None:
    stack.becomes(sessions, begun_lessons.held.id, status="completed", patience=PATIENCE)
    assert stack.one_shot(f"session-{begun_lessons.cancelled.id}") is None
    assert stack.row(sessions, id=begun_lessons.cancelled.id).status == "cancelled"
    assert not stack.rows(credit_ledger, session_id=begun_lessons.cancelled.id)


# One-shots of messages


def test_one_shot_goes_off_and_fires_its_message_once(stack: Stack, begun_message: Row[Any]) -> None:
    fired = stack.becomes(scheduled_messages, begun_message.id, status="fired", patience=PATIENCE)
    assert fired.fired_at >= begun_message.send_at
    assert stack.row(contact_log, scheduled_message_id=begun_message.id).student_id == begun_message.student_id
    assert stack.row(teacher_notifications, subject_id=begun_message.id).teacher_id == begun_message.teacher_id
    eventually(lambda: stack.one_shot(f"message-{begun_message.id}") is None, "end of the schedule")


# What is due too soon for a schedule goes by the outbox


def test_lesson_that_is_over_already_is_completed_when_it_is_told(stack: Stack, make: Make) -> None:
    lesson = make.session()
    tell(stack, "session.scheduled", lesson)
    stack.becomes(sessions, lesson.id, status="completed")
    assert stack.one_shot(f"session-{lesson.id}") is None
    message = make.message()
    stack.drop("tutoring.message-events", json.dumps({"type": "message.scheduled", "message_id": str(message.id)}))
    stack.becomes(scheduled_messages, message.id, status="fired")
