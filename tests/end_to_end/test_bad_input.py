"""What nobody should send: recorded with a reason that names the field, and dead at once."""

import json
from itertools import chain
from typing import Any
from uuid import uuid4

import pytest

from schoolbell.domains.tutoring.schema import credit_ledger, sessions
from tests.end_to_end.stack import FunctionFailed, Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

KIB = 1024
ID = "{id}"

QUEUES: dict[str, tuple[dict[str, Any], str]] = {
    "tutoring.session-events": ({"type": "session.scheduled", "session_id": ID}, "session_id"),
    "tutoring.auto-complete": ({"session_id": ID}, "session_id"),
    "tutoring.drive-copy": ({"resource_id": ID, "student_id": ID}, "resource_id"),
    "tutoring.drive-verify": ({"teacher_id": ID}, "teacher_id"),
    "tutoring.waitlist-openings": ({"waitlist_id": ID, "seats": 1}, "waitlist_id"),
    "tutoring.waitlist-answers": ({"entry_id": ID, "answer": "accept"}, "entry_id"),
    "tutoring.message-events": ({"type": "message.scheduled", "message_id": ID}, "message_id"),
    "tutoring.scheduled-messages": ({"message_id": ID}, "message_id"),
}
"""Each queue, a message for it, and the field that says what it is about."""


def bad_messages(message: dict[str, Any], field: str) -> dict[str, str]:
    """Messages that can never pass, with what their reason must begin with."""
    good = {name: str(uuid4()) if value == ID else value for name, value in message.items()}
    about = good.pop(field)
    mark = str(uuid4())  # so that each body is this test's own
    return {
        f"no JSON {mark}": "message: Invalid JSON",
        json.dumps([mark]): "message: Input should be an object",
        json.dumps(mark): "message: Input should be an object",
        json.dumps({**good, "more": mark, field: about}): "more: Extra inputs are not permitted",
        json.dumps({**good, field: [mark]}): f"{field}: UUID input should be",
        json.dumps({**good, field: mark[:-1]}): f"{field}: Input should be a valid UUID",
        json.dumps({**good, "more": mark}): f"{field}: Field required",
        json.dumps({**good, field: about}): f"{field}: ",  # there is none of that id
        json.dumps({**good, field: about, "more": "x" * (1_000 * KIB)}): "more: Extra inputs are not permitted",
    }


@pytest.mark.parametrize("job", QUEUES)
def test_bad_message_is_recorded_with_the_field_and_is_dead_at_once(stack: Stack, job: str) -> None:
    bodies = bad_messages(*QUEUES[job])
    for body in bodies:  # one by one: ten may not be over 1 MiB together
        stack.drop(job, body)
    for body, reason in bodies.items():
        letter = stack.dead_letter(job, body)
        assert letter.error.startswith(reason)
        assert "\n" not in letter.error
        assert (letter.reason, letter.attempts) == ("discarded", 1)
        assert stack.buried(job, body)["MessageAttributes"]["reason"]["StringValue"] == letter.error


SQS_RECORD = {"eventSource": "aws:sqs", "messageId": "1", "body": "{}"}

WRONG_EVENTS: dict[str, tuple[Any, str]] = {
    "another service's": ({"source": "aws.ec2", "time": "2026-03-02T10:00:00Z"}, "source: expected one of aws.events"),
    "a clock's without a time": ({"source": "aws.events"}, "time: Field required"),
    "a queue's": ({"Records": [SQS_RECORD]}, "source: expected one of aws.events"),
    "unknown field": ({"tier": "all"}, "tier: Extra inputs are not permitted"),
    "no object": ([], "expected a JSON object"),
    "no zone": ({"scheduled_for": "2026-03-02T10:00:00"}, "scheduled_for: Input should have timezone info"),
    "no date": ({"scheduled_for": "tomorrow"}, "scheduled_for: Input should be a valid datetime"),
    "no flag": ({"dry_run": "perhaps"}, "dry_run: Input should be a valid boolean"),
    "no dry run": ({"dry_run": True}, "dry_run: this job has no dry run"),
}
"""Events that no clock sends, and what is said of each."""


@pytest.mark.parametrize("kind", WRONG_EVENTS)
def test_scheduled_job_refuses_an_event_that_no_clock_sends(stack: Stack, kind: str) -> None:
    event, named = WRONG_EVENTS[kind]
    with pytest.raises(FunctionFailed, match=rf"^tutoring\.content-analytics: {named}"):
        stack.invoke("tutoring.content-analytics", event)


def test_queue_job_refuses_an_event_that_no_queue_sends(stack: Stack) -> None:
    events: list[Any] = [
        {},
        [],
        {"session_id": str(uuid4())},
        {"Records": "all"},
        {"Records": [{"eventSource": "aws:s3", "s3": {}}]},
        {"Records": [{"eventSource": "aws:sqs"}]},
        stack.event_of("tutoring.session-sweep"),
    ]
    for event in events:
        with pytest.raises(FunctionFailed, match=r"^tutoring\.auto-complete: Records: "):
            stack.invoke("tutoring.auto-complete", event)


def test_task_refuses_what_the_machine_would_not_give(stack: Stack) -> None:
    with pytest.raises(FunctionFailed, match=r"^tutoring\.waitlist-offer: seat_id: Field required"):
        stack.invoke("tutoring.waitlist-offer", {"round": 0})


def test_one_bad_message_among_ten_thousand_leaves_the_others_done(stack: Stack, make: Make) -> None:
    student = make.student()
    lessons = [str(row) for row in stack.many_lessons(student, 9_999)]
    bodies = [json.dumps({"session_id": lesson}) for lesson in lessons]
    bad = f"no JSON {uuid4()}"
    job = "tutoring.auto-complete"
    with stack.held(job):
        stack.drop(job, *chain(bodies[:6_000], [bad], bodies[6_000:]))
    assert stack.dead_letter(job, bad, patience=120).error.startswith("message: Invalid JSON")
    eventually(
        lambda: stack.count(sessions, student_id=student.id, status="completed") == 9_999,
        "end of them all",
        patience=120,
    )
    assert stack.count(credit_ledger, student_id=student.id, kind="CONSUME") == 9_999
    assert max(run.items_total for run in stack.runs(job)) > 1_000, "they came in small batches"
