"""Notifications on the stack: from the job that gives rise to one to the provider that takes it."""

import json
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

from sqlalchemy import Row

from schoolbell.domains.platform.schema import dead_letters, notifications
from schoolbell.domains.tutoring.schema import students
from tests.end_to_end.stack import Stack
from tests.end_to_end.test_waitlist import Waitlist
from tests.end_to_end.waiting import eventually
from tests.factories import Make

NORMAL = "platform.notifications-normal"


def emails(stack: Stack, address: str) -> int:
    """How many emails the emulator's SES has sent to an address."""
    messages = recorded(stack, "ses/messages")["messages"].values()
    return sum(address in message["To"] for of_an_account in messages for message in of_an_account)


def recorded(stack: Stack, what: str) -> Any:
    """What the emulator's SES or SNS was asked to send."""
    port = stack.home.state().ports["emulator"]
    with urlopen(f"http://127.0.0.1:{port}/_ministack/{what}") as answer:
        return json.load(answer)


def sent(stack: Stack, **columns: Any) -> Row[Any]:
    """The notification with these columns, once it has been sent."""
    rows = eventually(lambda: stack.rows(notifications, status="sent", **columns), f"sent: {columns}", patience=120)
    (row,) = rows
    return row


def test_the_offer_of_a_seat_reaches_the_student_by_email(stack: Stack, make: Make) -> None:
    waitlist = Waitlist(stack, make, students=1)
    (entry,) = waitlist.entries()
    address = f"{uuid4()}@example.org"
    stack.change(students, entry.student_id, email=address)
    waitlist.open()
    row = sent(stack, recipient=f"student/{entry.student_id}")
    assert (row.channel, row.sent_by, row.provider, row.attempts) == ("email", "email", "ses", 1)
    assert emails(stack, address) == 1


def test_what_an_application_inserts_is_sent_within_a_minute_or_two(stack: Stack, make: Make) -> None:
    address, phone = f"{uuid4()}@example.org", f"+336{uuid4().int % 10**8:08}"
    student = make.student(email=address, phone=phone)
    email = make.to_deliver(student, template="session_review", data={})
    text = make.to_deliver(student, channel="sms", template="session_review", data={})
    for row in (email, text):
        assert sent(stack, id=row.id).provider_message_id
    assert emails(stack, address) == 1
    assert phone in json.dumps(recorded(stack, "sns/sms-messages"))


def test_one_with_a_field_missing_is_put_right_and_sent_again(stack: Stack, make: Make) -> None:
    address = f"{uuid4()}@example.org"
    row = make.to_deliver(make.student(email=address), data={})
    stack.drop(NORMAL, {"notification_ids": [str(row.id)]})
    failed = stack.becomes(notifications, row.id, status="failed")
    assert failed.error == "data: expires_at: missing"
    letter = eventually(lambda: stack.rows(dead_letters, message_id=str(row.id)), "dead letter")[0]
    assert letter.queue == f"{stack.name}-platform-notifications-normal"
    stack.change(notifications, row.id, data={"expires_at": "2026-03-04T10:00:00+00:00"})
    stack.redrive(NORMAL, letter.payload)
    stack.becomes(notifications, row.id, status="sent")
    assert emails(stack, address) == 1
