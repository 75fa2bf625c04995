"""The delivery with the real providers over real HTTP: what they answer decides what becomes of a notification."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row

from functions.platform.notification_delivery.app import handler
from local.sandbox import keys
from schoolbell.domains.platform.schema import notifications, push_tokens
from schoolbell.notifications.provider_channels import provider_channel_of
from schoolbell.resilience.circuit import forget_circuits
from schoolbell.settings import Settings
from tests.conftest import Queues
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.fixtures.notifications import HIGH, LOW, NORMAL
from tests.fixtures.services import Services
from tests.performing import Performer

pytestmark = pytest.mark.usefixtures("keys_of_services")

type Deliver = Callable[..., Row[Any]]


@pytest.fixture
def settings(settings: Settings, services: Services) -> Settings:
    """Settings that lead to the sandbox, with SendGrid and Twilio switched on."""
    chosen = settings.model_copy(update={"email_provider": "sendgrid", "sms_provider": "twilio"})
    return services.settings_of(chosen)


@pytest.fixture
def deliver(perform: Performer, queues: Queues, stored: Stored, now: datetime) -> Iterator[Deliver]:
    """Hands a notification over, after so long, and returns its row as it is then."""
    queues.make(HIGH, NORMAL, LOW)
    provider_channel_of.cache_clear()
    forget_circuits()

    def hand_over(row: Row[Any], after: timedelta = timedelta(0)) -> Row[Any]:
        perform(handler, {"notification_ids": [str(row.id)]}, queue=NORMAL, now=now + after)
        return stored(notifications, id=row.id)[0]

    yield hand_over
    provider_channel_of.cache_clear()
    forget_circuits()


def test_each_channel_goes_by_its_provider(make: Make, services: Services, deliver: Deliver) -> None:
    student = make.student(email="ben@example.org", phone="+33612345678")
    make.push_token(student, "token-of-bens-telephone")
    for channel, service in (("email", "sendgrid"), ("sms", "twilio"), ("push", "fcm")):
        row = deliver(make.to_deliver(student, channel=channel))
        assert (row.status, row.provider, len(services.sent(service))) == ("sent", service, 1)


def test_a_key_that_was_revoked_holds_messages_until_the_secret_has_another(
    make: Make, services: Services, deliver: Deliver
) -> None:
    row = make.to_deliver(make.student(email="ben@example.org"))
    services.revoke(keys.SENDGRID)
    waiting = deliver(row)
    assert (waiting.status, waiting.attempts, waiting.error) == ("queued", 0, "sendgrid: 401")
    services.set_key("sendgrid", api_key="SG.another-key.of-the-account")
    assert deliver(row, after=timedelta(minutes=1)).status == "sent"
    assert len(services.sent("sendgrid")) == 1


def test_a_message_whose_answer_was_lost_is_sent_twice_at_most(
    make: Make, services: Services, deliver: Deliver
) -> None:
    row = make.to_deliver(make.student(email="ben@example.org"))
    services.fail("sendgrid", disconnect=True, effect=True)
    assert deliver(row).status == "queued"
    assert deliver(row, after=timedelta(minutes=1)).status == "failed"
    assert deliver(row, after=timedelta(minutes=2)).status == "failed"
    assert len(services.sent("sendgrid")) == 2


def test_too_many_requests_cost_no_attempt(make: Make, services: Services, deliver: Deliver, now: datetime) -> None:
    row = make.to_deliver(make.student(email="ben@example.org"))
    services.fail("sendgrid", status=429, retry_after=120, times=1)
    waiting = deliver(row)
    assert (waiting.attempts, waiting.scheduled_for) == (0, now + timedelta(seconds=120))
    assert deliver(row, after=timedelta(seconds=130)).status == "sent"


def test_a_device_without_the_application_is_forgotten(
    make: Make, services: Services, deliver: Deliver, stored: Stored
) -> None:
    student = make.student()
    make.push_token(student, "token-of-bens-telephone")
    services.ask("POST", "unregister", {"token": "token-of-bens-telephone"})
    assert deliver(make.to_deliver(student, channel="push")).status == "suppressed"
    assert stored(push_tokens) == []


def test_a_number_that_is_not_reached_fails_by_twilios_code(make: Make, services: Services, deliver: Deliver) -> None:
    row = deliver(make.to_deliver(make.student(phone="+15005550009"), channel="sms"))
    assert (row.status, row.error) == ("failed", "twilio: 400 21614")
