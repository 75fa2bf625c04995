"""SES and SNS: what they are sent, and what AWS's error codes mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ses.models import ses_backends
from moto.sns.models import sns_backends

from local.sandbox.server import Sandbox, serving
from local.sandbox.world import Fault
from schoolbell import aws as clients
from schoolbell.gateways.errors import GatewayError, Misconfigured, NeverWorks, Throttled, Unavailable, Uncertain
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing, provider_of
from schoolbell.settings import Settings

EMAIL = Outgoing(Channel.EMAIL, "ada@example.org", "Ada's lesson", "At five", "<p>At five</p>", "key")
SMS = Outgoing(Channel.SMS, "+4930901820", None, "At five, Ada", None, "key")
SENDER = "no-reply@example.com"


@pytest.fixture
def account(aws: None) -> str:
    """The account, for which SES has verified the sender."""
    clients.client("sesv2").create_email_identity(EmailIdentity=SENDER)
    return DEFAULT_ACCOUNT_ID


@contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, answer: Any = None) -> Iterator[None]:
    """AWS answers every call so."""

    def call(*_: object, **__: object) -> Any:
        if error is not None:
            raise error
        return answer

    with monkeypatch.context() as patch:
        patch.setattr("botocore.client.BaseClient._make_api_call", call)
        yield


def refusal(code: str, status: int = 400, text: str = "ada@example.org, +4930901820") -> ClientError:
    """An error as AWS answers it: its text repeats addresses."""
    return ClientError(
        {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "Send",
    )


def raised(message: Outgoing, settings: Settings) -> GatewayError:
    """What sending ends in; it names nobody."""
    with pytest.raises(GatewayError) as error:
        provider_of(message.channel, settings).send(message)
    assert not [part for part in ("ada", "Ada", "+49", SENDER) if part in repr(error.value)]
    return error.value


def test_the_defaults_are_ses_and_sns(settings: Settings) -> None:
    assert [provider_of(channel, settings).name for channel in (Channel.EMAIL, Channel.SMS)] == ["ses", "sns"]


def test_an_email_goes_out_as_text_and_html(account: str, settings: Settings) -> None:
    sent_as = provider_of(Channel.EMAIL, settings).send(EMAIL)
    (mail,) = ses_backends[account]["us-east-1"].sent_messages
    assert mail.id == sent_as
    assert (mail.source, mail.destinations["ToAddresses"]) == (SENDER, ["ada@example.org"])
    assert (mail.subject, mail.body) == ("Ada's lesson", "<p>At five</p>")


def test_the_configuration_set_is_named_if_there_is_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def call(_client: object, _operation: str, request: dict[str, Any]) -> Any:
        asked.append(request)
        return {"MessageId": "1"}

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", call)
    for name in ("", "platform"):
        settings = settings.model_copy(update={"ses_configuration_set": name})
        provider_of(Channel.EMAIL, settings).send(replace(EMAIL, html=None))
    assert [request.get("ConfigurationSetName") for request in asked] == [None, "platform"]
    assert asked[0]["Content"]["Simple"] == {
        "Subject": {"Data": "Ada's lesson", "Charset": "UTF-8"},
        "Body": {"Text": {"Data": "At five", "Charset": "UTF-8"}},
    }


def test_a_text_message_goes_to_its_number(account: str, settings: Settings) -> None:
    sent_as = provider_of(Channel.SMS, settings).send(SMS)
    assert sns_backends[account]["us-east-1"].sms_messages[sent_as] == ("+4930901820", "At five, Ada")


@pytest.mark.parametrize(("is_urgent", "kind"), [(True, "Transactional"), (False, "Promotional")])
def test_what_is_urgent_goes_the_more_reliable_way(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, is_urgent: bool, kind: str
) -> None:
    asked: list[dict[str, Any]] = []

    def call(_client: object, _operation: str, request: dict[str, Any]) -> Any:
        asked.append(request)
        return {"MessageId": "1"}

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", call)
    provider_of(Channel.SMS, settings).send(replace(SMS, is_urgent=is_urgent))
    wanted = {"AWS.SNS.SMS.SMSType": {"DataType": "String", "StringValue": kind}}
    assert asked[0]["MessageAttributes"] == wanted


@pytest.mark.parametrize(
    "message",
    [replace(EMAIL, address="ada"), replace(EMAIL, subject=""), replace(SMS, address="030"), replace(SMS, text="")],
)
def test_what_cannot_be_right_is_rejected_without_asking(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, message: Outgoing
) -> None:
    with answering(monkeypatch, AssertionError("asked")):
        assert type(raised(message, settings)) is NeverWorks


@pytest.mark.parametrize(
    ("message", "code", "status", "kind"),
    [
        (EMAIL, "MessageRejected", 400, NeverWorks),
        (EMAIL, "BadRequestException", 400, NeverWorks),
        (EMAIL, "ValidationException", 400, NeverWorks),
        (EMAIL, "TooManyRequestsException", 429, Throttled),
        (EMAIL, "ThrottlingException", 400, Throttled),
        (EMAIL, "LimitExceededException", 400, Throttled),
        (EMAIL, "AccountSuspendedException", 400, Misconfigured),
        (EMAIL, "SendingPausedException", 400, Misconfigured),
        (EMAIL, "MailFromDomainNotVerifiedException", 400, Misconfigured),
        (EMAIL, "NotFoundException", 404, Misconfigured),
        (EMAIL, "AccessDeniedException", 403, Misconfigured),
        (EMAIL, "InternalServiceError", 500, Unavailable),
        (EMAIL, "ServiceUnavailable", 503, Unavailable),
        (EMAIL, "GatewayTimeout", 504, Uncertain),
        (SMS, "InvalidParameter", 400, NeverWorks),
        (SMS, "ParameterValueInvalid", 400, NeverWorks),
        (SMS, "OptedOut", 400, NeverWorks),
        (SMS, "Throttling", 400, Throttled),
        (SMS, "KMSThrottling", 400, Throttled),
        (SMS, "AuthorizationError", 403, Misconfigured),
        (SMS, "InternalError", 500, Unavailable),
    ],
)
def test_error_codes_are_told_apart(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    message: Outgoing,
    code: str,
    status: int,
    kind: type[GatewayError],
) -> None:
    with answering(monkeypatch, refusal(code, status)):
        assert type(raised(message, settings)) is kind


def test_a_sender_that_ses_has_not_verified_is_no_fault_of_the_message(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"Email address is not verified. The following identities failed the check: {SENDER}"
    with answering(monkeypatch, refusal("MessageRejected", text=text)):
        assert type(raised(EMAIL, settings)) is Misconfigured


@pytest.mark.parametrize("message", [EMAIL, SMS])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectTimeoutError(endpoint_url="https://x"), Unavailable),
        (EndpointConnectionError(endpoint_url="https://x"), Unavailable),
        (ReadTimeoutError(endpoint_url="https://x"), Uncertain),
        (ConnectionClosedError(endpoint_url="https://x"), Uncertain),
    ],
    ids=str,
)
def test_no_connection_is_told_from_no_answer(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    message: Outgoing,
    error: Exception,
    kind: type[GatewayError],
) -> None:
    with answering(monkeypatch, error):
        assert type(raised(message, settings)) is kind


@pytest.mark.parametrize("message", [EMAIL, SMS])
@pytest.mark.parametrize("answer", [{}, {"MessageId": ""}, {"MessageId": None}])
def test_success_without_an_id_is_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, message: Outgoing, answer: dict[str, Any]
) -> None:
    with answering(monkeypatch, answer=answer):
        assert type(raised(message, settings)) is Uncertain


@pytest.mark.parametrize(("message", "service"), [(EMAIL, "sesv2"), (SMS, "sns")])
@pytest.mark.parametrize("fault", [{"delay": 3}, {"garbage": True}, {"disconnect": True}, {"status": 500}], ids=str)
def test_a_call_is_made_once_and_given_up_in_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, message: Outgoing, service: str, fault: dict[str, int]
) -> None:
    hasty = settings.model_copy(update={"provider_timeout": timedelta(seconds=1)})
    sandbox = Sandbox()
    with serving(sandbox) as url:
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service.upper()}", url)
        clients.forget_clients()
        sandbox.store.world.faults.append(Fault(**fault))
        error = raised(message, hasty)
        clients.forget_clients()
    assert isinstance(error, Unavailable)
    assert isinstance(error, Uncertain) or "status" in fault
    assert sandbox.store.world.requests.total() == 1  # botocore would make it up to five times
