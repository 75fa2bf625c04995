"""Notifications by SendGrid, Twilio and Firebase, on the deployed stack, with IAM enforced."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from sqlalchemy import Row

from schoolbell.domains.platform.schema import notifications, push_tokens
from tests.end_to_end.google import Google
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

DELIVERY = "platform.notification-delivery"
QUEUE = "platform.notifications-normal"


@pytest.fixture(scope="module")
def _switched(stack: Stack) -> Iterator[None]:
    """Emails go by SendGrid and text messages by Twilio, as if the parameters said so."""
    function = stack.resource(DELIVERY)
    before = stack.functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
    chosen = {**before, "EMAIL_PROVIDER": "sendgrid", "SMS_PROVIDER": "twilio"}
    stack.functions.update_function_configuration(FunctionName=function, Environment={"Variables": chosen})
    yield
    stack.functions.update_function_configuration(FunctionName=function, Environment={"Variables": before})


@pytest.fixture
def sandbox(stack: Stack, make: Make, _switched: None) -> Google:
    """The sandbox, with whose Google the other services are."""
    return Google(stack, make)


def sent(sandbox: Google, service: str, address: str) -> list[dict[str, Any]]:
    """What a service has sent to an address."""
    listed: list[dict[str, Any]] = sandbox.ask("GET", f"messages?service={service}&to={quote(address)}")
    return [each["content"] for each in listed]


def fail(sandbox: Google, address: str, **fault: Any) -> None:
    """Makes SendGrid fail for emails to one address, since others may be on their way."""
    sandbox.ask("POST", "faults", {"path": "^/sendgrid/", "method": "POST", "body": address, **fault})


def deliver(stack: Stack, row: Row[Any]) -> None:
    stack.drop(QUEUE, {"notification_ids": [str(row.id)]})


def test_an_email_goes_by_sendgrid_once_however_often_it_is_asked_for(
    stack: Stack, make: Make, sandbox: Google
) -> None:
    address = f"{uuid4()}@example.org"
    row = make.to_deliver(make.student(email=address))
    for _ in range(3):
        deliver(stack, row)
    after = stack.becomes(notifications, row.id, status="sent")
    assert (after.provider, after.attempts) == ("sendgrid", 1)
    eventually(lambda: stack.waiting(QUEUE) == 0, "empty queue")
    (mail,) = sent(sandbox, "sendgrid", address)
    assert mail["from"] == {"email": "no-reply@example.com"}


def test_a_text_message_goes_by_twilio(stack: Stack, make: Make, sandbox: Google) -> None:
    number = f"+4930{uuid4().int % 10**8:08}"
    row = make.to_deliver(make.student(phone=number), channel="sms")
    deliver(stack, row)
    after = stack.becomes(notifications, row.id, status="sent")
    assert after.provider_message_id.startswith("SM")
    (text,) = sent(sandbox, "twilio", number)
    assert text["Body"]


def test_a_push_message_goes_by_firebase_and_a_device_that_is_gone_is_forgotten(
    stack: Stack, make: Make, sandbox: Google
) -> None:
    student = make.student()
    gone, here = (f"token-{uuid4()}" for _ in range(2))
    make.push_token(student, gone)
    sandbox.ask("POST", "unregister", {"token": gone})
    lost = make.to_deliver(student, channel="push")
    deliver(stack, lost)
    stack.becomes(notifications, lost.id, status="suppressed")
    assert not stack.rows(push_tokens, token=gone)
    make.push_token(student, here)
    row = make.to_deliver(student, channel="push")
    deliver(stack, row)
    stack.becomes(notifications, row.id, status="sent", provider="fcm")
    assert len(sent(sandbox, "fcm", here)) == 1
    assert not sent(sandbox, "fcm", gone)


def test_an_email_whose_answer_was_lost_arrives_twice_at_most(stack: Stack, make: Make, sandbox: Google) -> None:
    address = f"{uuid4()}@example.org"
    fail(sandbox, address, disconnect=True, effect=True, times=1)
    row = make.to_deliver(make.student(email=address))
    deliver(stack, row)
    after = stack.becomes(notifications, row.id, status="sent")
    assert (after.attempts, after.uncertain) == (2, 1)
    assert len(sent(sandbox, "sendgrid", address)) == 2


def test_a_provider_that_has_had_enough_is_left_alone_and_costs_no_attempt(
    stack: Stack, make: Make, sandbox: Google
) -> None:
    address = f"{uuid4()}@example.org"
    fail(sandbox, address, status=429, retry_after=2, times=2)
    row = make.to_deliver(make.student(email=address))
    deliver(stack, row)
    after = stack.becomes(notifications, row.id, status="sent", patience=90)
    assert after.attempts == 1
    assert len(sent(sandbox, "sendgrid", address)) == 1


def test_an_address_that_cannot_be_right_fails_with_the_reason(stack: Stack, make: Make, sandbox: Google) -> None:
    row = make.to_deliver(make.student(phone="+15005550004"), channel="sms")
    deliver(stack, row)
    after = stack.becomes(notifications, row.id, status="failed")
    assert after.error == "twilio: 400 21610"
