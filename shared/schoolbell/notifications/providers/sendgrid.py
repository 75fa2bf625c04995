"""SendGrid: emails.

https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
"""

from datetime import UTC, datetime, timedelta
from functools import cache

from pydantic import SecretStr

from schoolbell.gateways.errors import GatewayError, Misconfigured, Throttled, throttled
from schoolbell.gateways.https import Answer, Http, checked_url
from schoolbell.notifications.addresses import email_address, subject_line
from schoolbell.notifications.calls import Request, Service, as_json, hasty_http, json_of
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing
from schoolbell.notifications.secrets import Key, Secret
from schoolbell.settings import Settings

LONGEST_WAIT = timedelta(hours=1)


class SendGridKey(Key):
    """The secret `<stack>/providers/sendgrid`."""

    api_key: SecretStr
    """One that may send mail, and nothing else."""


class SendGrid:
    """Sends emails.

    Args:
        base_url: where SendGrid is; HTTPS, or this machine.
        sender: the address that they come from, which SendGrid has verified.
        secret: holds the key.
        http: sends the requests.
    """

    name = "sendgrid"
    channel = Channel.EMAIL
    honours_key = False

    def __init__(self, base_url: str, sender: str, secret: Secret[SendGridKey], http: Http) -> None:
        self._url = f"{checked_url(base_url)}/v3/mail/send"
        self._sender = sender
        self._service = Service(self.name, secret, http)

    def send(self, message: Outgoing) -> str:
        body = as_json(
            {
                "personalizations": [{"to": [{"email": email_address(message.address)}]}],
                "from": {"email": self._sender},
                "subject": subject_line(message.subject),
                "content": [
                    {"type": kind, "value": value}
                    for kind, value in (("text/plain", message.text), ("text/html", message.html))
                    if value
                ],
                "custom_args": {"key": message.key},  # comes back in SendGrid's events
            }
        )

        def request(key: SendGridKey) -> Request:
            authorization = f"Bearer {key.api_key.get_secret_value()}"
            return Request(self._url, {"Authorization": authorization, "Content-Type": "application/json"}, body)

        answer = self._service.post(request, lambda answer: answer.status in (401, 403))
        if answer.status >= 300:
            raise self._error_of(answer)
        message_id = answer.headers.get("x-message-id", "")
        if answer.status != 202 or not message_id:  # 200 is that of a mail which was looked at and not sent
            raise self._service.garbage(answer)
        return message_id

    def _error_of(self, answer: Answer) -> GatewayError:
        field = _field(answer)
        if answer.status == 400 and field.startswith("from"):
            return Misconfigured(f"{self.name}: 400 {field}")
        error = self._service.error_of(answer, field)
        if isinstance(error, Throttled) and "retry-after" not in answer.headers:
            return throttled(_until_reset(answer) or error.retry_after)
        return error


def _field(answer: Answer) -> str:
    """The field that SendGrid takes exception to, e.g. `from.email`."""
    errors = json_of(answer).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    field = first.get("field") if isinstance(first, dict) else None
    return field if isinstance(field, str) else ""


def _until_reset(answer: Answer) -> timedelta:
    """How long until SendGrid takes more: it says so in a header of its own, in seconds since 1970."""
    reset = answer.headers.get("x-ratelimit-reset", "")
    if not reset.isdigit():
        return timedelta(0)
    left = timedelta(seconds=int(reset[:12]) - datetime.now(UTC).timestamp())
    return max(timedelta(0), min(left, LONGEST_WAIT))


@cache
def provider(settings: Settings) -> SendGrid:
    """The provider, kept with its connections and its key."""
    secret = Secret(settings.provider_secret("sendgrid"), SendGridKey)
    return SendGrid(settings.sendgrid_url, settings.email_from, secret, hasty_http(settings.provider_timeout))
