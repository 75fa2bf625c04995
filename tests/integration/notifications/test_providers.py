"""SendGrid, Twilio and Firebase over real HTTP: messages go out as they are wanted, and failures are told apart."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.sandbox import keys
from schoolbell import aws
from schoolbell.gateways.errors import GatewayError, Gone, Misconfigured, NeverWorks, Throttled, Unavailable, Uncertain
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing, Provider, provider_of
from schoolbell.settings import Settings
from tests.fixtures.services import Services

pytestmark = pytest.mark.usefixtures("keys_of_services")

CHANNELS = {"sendgrid": Channel.EMAIL, "twilio": Channel.SMS, "fcm": Channel.PUSH}
ADDRESSES = {"sendgrid": "ada@example.org", "twilio": "+4930901820", "fcm": "token-of-adas-telephone"}
PERSONAL = (*ADDRESSES.values(), "Ada", "at five", keys.SENDGRID, keys.TWILIO_ACCOUNT)
each_service = pytest.mark.parametrize("service", CHANNELS)


@pytest.fixture
def settings(settings: Settings, services: Services) -> Settings:
    """Settings that lead to the sandbox, with SendGrid and Twilio switched on."""
    chosen = settings.model_copy(update={"email_provider": "sendgrid", "sms_provider": "twilio"})
    return services.settings_of(chosen)


def provider(service: str, settings: Settings) -> Provider:
    return provider_of(CHANNELS[service], settings)


def message(service: str, **fields: Any) -> Outgoing:
    """A message to Ada."""
    usual = Outgoing(
        channel=CHANNELS[service],
        address=ADDRESSES[service],
        subject=None if service == "twilio" else "Ada's lesson",
        text="Ada, your lesson is at five",
        html="<p>Ada, your lesson is at five</p>" if service == "sendgrid" else None,
        key="notification-1",
        data={"lesson": "7"} if service == "fcm" else {},
    )
    return replace(usual, **fields)


def raised(service: str, settings: Settings, sent: Outgoing | None = None) -> GatewayError:
    """What sending ends in; it names nobody."""
    with pytest.raises(GatewayError) as error:
        provider(service, settings).send(sent or message(service))
    assert not [part for part in PERSONAL if part in repr(error.value)]
    return error.value


# ---- what is sent


def test_an_email_goes_out_as_text_and_html(services: Services, settings: Settings) -> None:
    sent_as = provider("sendgrid", settings).send(message("sendgrid"))
    (mail,) = services.sent("sendgrid")
    assert mail["personalizations"] == [{"to": [{"email": "ada@example.org"}]}]
    assert mail["from"] == {"email": "no-reply@example.com"}
    assert mail["subject"] == "Ada's lesson"
    assert mail["content"] == [
        {"type": "text/plain", "value": "Ada, your lesson is at five"},
        {"type": "text/html", "value": "<p>Ada, your lesson is at five</p>"},
    ]
    assert mail["custom_args"] == {"key": "notification-1"}
    assert sent_as


def test_an_email_without_html_is_text_alone(services: Services, settings: Settings) -> None:
    provider("sendgrid", settings).send(message("sendgrid", html=None))
    assert [part["type"] for part in services.sent("sendgrid")[0]["content"]] == ["text/plain"]


def test_a_text_message_goes_out_from_the_accounts_number(services: Services, settings: Settings) -> None:
    sent_as = provider("twilio", settings).send(message("twilio", text="Ünïcode & ampersand + plus"))
    sent = {"To": "+4930901820", "From": keys.TWILIO_SENDER, "Body": "Ünïcode & ampersand + plus"}
    assert services.sent("twilio") == [sent]
    assert sent_as.startswith("SM")


def test_a_messaging_service_chooses_the_number(services: Services, settings: Settings) -> None:
    service = f"MG{'a' * 32}"
    services.set_key("twilio", account_sid=keys.TWILIO_ACCOUNT, auth_token="x", sender=service)
    provider("twilio", settings).send(message("twilio"))
    (sent,) = services.sent("twilio")
    assert (sent["MessagingServiceSid"], "From" in sent) == (service, False)


def test_a_push_message_carries_its_data(services: Services, settings: Settings) -> None:
    sent_as = provider("fcm", settings).send(message("fcm"))
    (sent,) = services.sent("fcm")
    assert sent["notification"] == {"title": "Ada's lesson", "body": "Ada, your lesson is at five"}
    assert sent["data"] == {"lesson": "7"}
    assert sent_as.startswith("projects/")


def test_a_push_message_takes_the_place_of_the_one_with_its_key(services: Services, settings: Settings) -> None:
    for key in ("one", "one", "two"):
        provider("fcm", settings).send(message("fcm", key=key))
    tags = [sent["android"]["notification"]["tag"] for sent in services.sent("fcm")]
    assert tags == [sent["apns"]["headers"]["apns-collapse-id"] for sent in services.sent("fcm")]
    assert tags[0] == tags[1] != tags[2]
    assert len(tags[0]) <= 64  # Apple's limit


def test_an_urgent_push_message_wakes_the_device(services: Services, settings: Settings) -> None:
    for is_urgent in (True, False):
        provider("fcm", settings).send(message("fcm", is_urgent=is_urgent))
    assert [sent["android"].get("priority") for sent in services.sent("fcm")] == ["HIGH", None]


# ---- what is not


@each_service
@pytest.mark.parametrize("address", ["", "ada", "ada@\nexample.org", "030 901820", "ada@example.org\r\nBcc: x@y.zz"])
def test_an_address_that_cannot_be_right_is_rejected_without_asking(
    services: Services, settings: Settings, service: str, address: str
) -> None:
    assert type(raised(service, settings, message(service, address=address))) is NeverWorks
    assert services.requests().get(f"{service} mail.send") is None
    assert services.sent(service) == []


@pytest.mark.parametrize(
    ("service", "fields"),
    [
        ("sendgrid", {"subject": " \n "}),
        ("sendgrid", {"text": "", "html": None}),
        ("twilio", {"text": " "}),
        ("twilio", {"text": "x" * 1_601}),
        ("fcm", {"data": {"google.x": "1"}}),
        ("fcm", {"text": "x" * 5_000}),
    ],
)
def test_a_message_that_can_never_pass_is_rejected(settings: Settings, service: str, fields: dict[str, Any]) -> None:
    assert type(raised(service, settings, message(service, **fields))) is NeverWorks


@each_service
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 429, "retry_after": 42}, Throttled),
        ({"status": 429}, Throttled),
        ({"status": 500}, Unavailable),
        ({"status": 503, "retry_after": 7}, Unavailable),
        ({"status": 504}, Uncertain),
        ({"status": 400}, NeverWorks),
        ({"status": 413}, NeverWorks),
        ({"status": 404}, Misconfigured),
        ({"status": 405}, Misconfigured),
        ({"status": 401}, Misconfigured),
        ({"disconnect": True}, Uncertain),
        ({"disconnect": True, "effect": True}, Uncertain),
        ({"garbage": True}, Uncertain),
    ],
    ids=str,
)
def test_failures_are_told_apart(
    services: Services, settings: Settings, service: str, fault: dict[str, int], kind: type[GatewayError]
) -> None:
    services.fail(service, **fault)
    error = raised(service, settings)
    assert type(error) is kind
    if isinstance(error, Throttled | Unavailable):
        default = 60 if isinstance(error, Throttled) else 0
        assert error.retry_after == timedelta(seconds=fault.get("retry_after", default))


@each_service
def test_a_provider_that_is_well_again_takes_the_message_once(
    services: Services, settings: Settings, service: str
) -> None:
    services.fail(service, status=503, times=1)
    raised(service, settings)
    provider(service, settings).send(message(service))
    assert len(services.sent(service)) == 1


@each_service
def test_an_answer_is_waited_for_as_long_as_the_setting_says(
    services: Services, settings: Settings, service: str
) -> None:
    provider(service, settings).send(message(service))
    services.fail(service, delay=3)
    hasty = settings.model_copy(update={"provider_timeout": timedelta(seconds=1)})  # for FCM's token it is enough
    error = raised(service, hasty)
    assert type(error) is Uncertain
    assert "ReadTimeoutError" in str(error)


def test_a_provider_has_five_seconds(settings: Settings) -> None:
    assert settings.provider_timeout == timedelta(seconds=5)  # source 001


@pytest.mark.parametrize(
    ("service", "setting"), [("sendgrid", "sendgrid_url"), ("twilio", "twilio_url"), ("fcm", "fcm_url")]
)
def test_where_nobody_is_nothing_can_have_been_sent(settings: Settings, service: str, setting: str) -> None:
    error = raised(service, settings.model_copy(update={setting: "http://127.0.0.1:9"}))
    assert type(error) is Unavailable


@pytest.mark.parametrize(
    ("service", "setting"), [("sendgrid", "sendgrid_url"), ("twilio", "twilio_url"), ("fcm", "fcm_url")]
)
def test_keys_are_not_sent_in_the_clear(settings: Settings, service: str, setting: str) -> None:
    with pytest.raises(ValueError, match="https"):
        provider(service, settings.model_copy(update={setting: "http://example.org"}))


# ---- keys


@each_service
def test_without_a_secret_it_is_for_an_operator_to_mend(settings: Settings, service: str) -> None:
    aws.client("secretsmanager").delete_secret(
        SecretId=settings.provider_secret(service), ForceDeleteWithoutRecovery=True
    )
    error = raised(service, settings)
    assert isinstance(error, Misconfigured)
    assert str(error) == f"{service}: the secret does not exist: ResourceNotFoundException"


@each_service
def test_a_secret_that_cannot_be_read_is_for_an_operator_to_mend(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    denied = ClientError(
        {"Error": {"Code": "AccessDeniedException", "Message": "Access to KMS is not allowed"}}, "GetSecretValue"
    )

    def call(*_: object) -> None:
        raise denied

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", call)
    error = raised(service, settings)
    assert type(error) is Misconfigured
    assert str(error) == f"{service}: the secret can't be read: AccessDeniedException"


@each_service
def test_a_secret_that_lacks_a_field_is_refused_by_the_fields_name(
    services: Services, settings: Settings, service: str
) -> None:
    services.set_key(service, project_id="p")
    field = {"sendgrid": "api_key", "twilio": "account_sid", "fcm": "client_email"}[service]
    error = raised(service, settings)
    assert isinstance(error, Misconfigured)
    assert field in str(error)


def test_a_private_key_that_is_none_is_refused(services: Services, settings: Settings) -> None:
    services.set_key("fcm", **{**keys.keys(services.url)["fcm"], "private_key": "Ada"})
    assert "private_key" in str(raised("fcm", settings))


@each_service
def test_the_secret_is_read_once(services: Services, settings: Settings, service: str) -> None:
    provider(service, settings).send(message(service))
    aws.client("secretsmanager").delete_secret(
        SecretId=settings.provider_secret(service), ForceDeleteWithoutRecovery=True
    )
    provider(service, settings).send(message(service))
    assert len(services.sent(service)) == 2


@each_service
def test_a_key_that_was_replaced_is_read_again(services: Services, settings: Settings, service: str) -> None:
    old = keys.keys(services.url)
    services.set_key(service, **old[service])
    provider(service, settings).send(message(service))
    services.revoke(
        {"sendgrid": keys.SENDGRID, "twilio": keys.TWILIO_ACCOUNT, "fcm": old["fcm"]["client_email"]}[service]
    )
    new = {
        "sendgrid": {"api_key": "SG.another-key.of-the-same-account"},
        "twilio": {"account_sid": f"AC{'6' * 32}", "auth_token": "x", "sender": keys.TWILIO_SENDER},
        "fcm": keys.keys(services.url)["fcm"],
    }
    services.set_key(service, **new[service])
    provider(service, settings).send(message(service))
    assert len(services.sent(service)) == 2


@each_service
def test_a_key_that_was_revoked_is_for_an_operator_to_mend(
    services: Services, settings: Settings, service: str
) -> None:
    old = keys.keys(services.url)
    services.set_key(service, **old[service])
    provider(service, settings).send(message(service))
    services.revoke(
        {"sendgrid": keys.SENDGRID, "twilio": keys.TWILIO_ACCOUNT, "fcm": old["fcm"]["client_email"]}[service]
    )
    assert type(raised(service, settings)) is Misconfigured


# ---- SendGrid


def test_a_sender_that_sendgrid_does_not_know_is_no_fault_of_the_message(settings: Settings) -> None:
    for sender in ("school@unverified.example.com", "none"):
        assert type(raised("sendgrid", settings.model_copy(update={"email_from": sender}))) is Misconfigured


def test_sendgrids_own_header_says_when_it_takes_more(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from local.sandbox import sendgrid

    reset = int(datetime.now(UTC).timestamp()) + 3_000
    limited = sendgrid.error(429, "too many requests", headers={"X-RateLimit-Reset": str(reset)})
    monkeypatch.setattr(sendgrid, "fault", lambda *_: limited)
    services.fail("sendgrid", status=429)
    error = raised("sendgrid", settings)
    assert isinstance(error, Throttled)
    assert timedelta(seconds=2_900) < error.retry_after <= timedelta(seconds=3_000)


def test_a_mail_that_was_only_looked_at_was_not_sent(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from local.sandbox import sendgrid
    from local.sandbox.messages import Reply

    monkeypatch.setattr(sendgrid, "fault", lambda *_: Reply(200, b"", {"X-Message-Id": "x"}))
    services.fail("sendgrid", status=500)
    assert type(raised("sendgrid", settings)) is Uncertain


# ---- Twilio, by the numbers that it keeps for tests


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("+15005550001", 21211),
        ("+15005550002", 21612),
        ("+15005550003", 21408),
        ("+15005550004", 21610),
        ("+15005550009", 21614),
    ],
)
def test_a_number_that_cannot_be_reached_is_rejected(settings: Settings, number: str, code: int) -> None:
    error = raised("twilio", settings, message("twilio", address=number))
    assert type(error) is NeverWorks
    assert str(code) in str(error)


@pytest.mark.parametrize(
    ("sender", "kind"), [("+15005550001", Misconfigured), ("+15005550007", Misconfigured), ("+15005550008", Throttled)]
)
def test_a_sender_that_twilio_does_not_take_is_no_fault_of_the_message(
    services: Services, settings: Settings, sender: str, kind: type[GatewayError]
) -> None:
    services.set_key("twilio", account_sid=keys.TWILIO_ACCOUNT, auth_token="x", sender=sender)
    assert type(raised("twilio", settings)) is kind


# ---- Firebase


def test_a_device_without_the_application_is_told_apart(services: Services, settings: Settings) -> None:
    services.ask("POST", "unregister", {"token": ADDRESSES["fcm"]})
    assert type(raised("fcm", settings)) is Gone


def test_a_device_of_another_sender_is_rejected(settings: Settings) -> None:
    error = raised("fcm", settings, message("fcm", address="foreign:token-of-another-project"))
    assert type(error) is NeverWorks
    assert "SENDER_ID_MISMATCH" in str(error)


def test_a_project_that_is_not_there_makes_no_device_forgotten(services: Services, settings: Settings) -> None:
    services.set_key("fcm", **{**keys.keys(services.url)["fcm"], "project_id": "another"})
    assert type(raised("fcm", settings)) is Misconfigured
    services.fail("fcm", status=404)
    assert type(raised("fcm", settings)) is Misconfigured


def test_a_spent_quota_waits(services: Services, settings: Settings) -> None:
    services.fail("fcm", status=429, reason="QUOTA_EXCEEDED", retry_after=90)
    error = raised("fcm", settings)
    assert isinstance(error, Throttled)
    assert error.retry_after == timedelta(seconds=90)


def test_a_wrong_certificate_of_apples_waits_for_an_operator(services: Services, settings: Settings) -> None:
    services.fail("fcm", status=401, reason="THIRD_PARTY_AUTH_ERROR")
    error = raised("fcm", settings)
    assert isinstance(error, Misconfigured)
    assert error.retry_after == timedelta(minutes=15)
    assert services.requests()["token"] == 1


def test_a_token_serves_many_messages(services: Services, settings: Settings) -> None:
    for _ in range(3):
        provider("fcm", settings).send(message("fcm"))
    assert services.requests()["token"] == 1


def test_a_token_that_ended_before_its_time_is_renewed(services: Services, settings: Settings) -> None:
    provider("fcm", settings).send(message("fcm"))
    services.sandbox.store.world.tokens.clear()
    provider("fcm", settings).send(message("fcm"))
    assert services.requests()["token"] == 2
    assert len(services.sent("fcm")) == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 429, "retry_after": 42}, Throttled),
        ({"status": 503}, Unavailable),
        ({"status": 504}, Unavailable),
        ({"disconnect": True}, Unavailable),
        ({"garbage": True}, Unavailable),
        ({"status": 400}, Misconfigured),
    ],
    ids=str,
)
def test_without_a_token_nothing_can_have_been_sent(
    services: Services, settings: Settings, fault: dict[str, int], kind: type[GatewayError]
) -> None:
    services.ask("POST", "faults", {"path": "^/token", **fault})
    assert type(raised("fcm", settings)) is kind
    assert services.sent("fcm") == []


@each_service
def test_many_threads_send_at_once(services: Services, settings: Settings, service: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as threads:
        ids = list(threads.map(lambda number: provider(service, settings).send(message(service)), range(32)))
    assert len(set(ids)) == 32
    assert services.requests().get("token", 0) <= 1
