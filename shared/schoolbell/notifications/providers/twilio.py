"""Twilio: text messages.

https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource
"""

import re
from base64 import b64encode
from functools import cache
from typing import Annotated
from urllib.parse import urlencode

from pydantic import SecretStr, StringConstraints

from schoolbell.gateways.errors import GatewayError, Misconfigured, NeverWorks, throttled
from schoolbell.gateways.https import Answer, Http, checked_url
from schoolbell.notifications.addresses import phone_number, sms_text
from schoolbell.notifications.calls import AFTER_THROTTLING, Request, Service, as_code, hasty_http, json_of
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing
from schoolbell.notifications.secrets import Key, Secret
from schoolbell.settings import Settings

_SID = re.compile(r"[SM]M[0-9a-f]{32}")
_NOT_SENT = frozenset({"failed", "undelivered", "canceled"})

# Bad requests by Twilio's codes, which are not about the person. https://www.twilio.com/docs/api/errors
OF_THE_SENDER = frozenset(
    {
        20005,  # the account is not active
        21212,  # not a valid sender
        21603,  # no sender
        21606,  # the number is not ours
        21659,  # the number is not Twilio's
        21660,  # the number is another account's
        21661,  # the number sends no text messages
        21701,  # no such messaging service
        21703,  # the messaging service has no numbers
        21704,  # nor has it
        21705,  # the messaging service is not valid
    }
)
OF_MESSAGES = range(21_200, 21_700)
"""Codes about numbers and texts. Some come with a 403, e.g. that of a country to which the account may not send."""
NOT_AUTHENTICATED = 20003
QUEUE_FULL = 21611
"""The sender has as many messages in its queue as Twilio takes."""


class TwilioKey(Key):
    """The secret `<stack>/providers/twilio`."""

    account_sid: Annotated[str, StringConstraints(pattern=r"^AC[0-9a-f]{32}$")]
    auth_token: SecretStr
    sender: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    """A telephone number in E.164, a name, a short code, or the messaging service `MG…` that chooses one."""


class Twilio:
    """Sends text messages.

    Args:
        base_url: where Twilio is; HTTPS, or this machine.
        secret: holds the account.
        http: sends the requests.
    """

    name = "twilio"
    channel = Channel.SMS
    honours_key = False

    def __init__(self, base_url: str, secret: Secret[TwilioKey], http: Http) -> None:
        self._url = checked_url(base_url)
        self._service = Service(self.name, secret, http)

    def send(self, message: Outgoing) -> str:
        wanted = {"To": phone_number(message.address), "Body": sms_text(message.text)}

        def request(key: TwilioKey) -> Request:
            sender = "MessagingServiceSid" if re.fullmatch(r"MG[0-9a-f]{32}", key.sender) else "From"
            credentials = f"{key.account_sid}:{key.auth_token.get_secret_value()}"
            return Request(
                f"{self._url}/2010-04-01/Accounts/{key.account_sid}/Messages.json",
                {
                    "Authorization": f"Basic {b64encode(credentials.encode()).decode()}",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
                urlencode({**wanted, sender: key.sender}).encode(),
            )

        answer = self._service.post(request, _refuses_key)
        if answer.status >= 300:
            raise self._error_of(answer)
        created = json_of(answer)
        sid = created.get("sid")
        if not isinstance(sid, str) or not _SID.fullmatch(sid):
            raise self._service.garbage(answer)
        if created.get("status") in _NOT_SENT:
            raise NeverWorks(f"{self.name}: {created['status']} {as_code(created.get('error_code'))}".rstrip())
        return sid

    def _error_of(self, answer: Answer) -> GatewayError:
        code = json_of(answer).get("code")
        if code == QUEUE_FULL:
            return throttled(AFTER_THROTTLING)
        if code in OF_THE_SENDER:
            return Misconfigured(f"{self.name}: {answer.status} {code}")
        if answer.status < 500 and isinstance(code, int) and code in OF_MESSAGES:
            return NeverWorks(f"{self.name}: {answer.status} {code}")
        return self._service.error_of(answer, code)


def _refuses_key(answer: Answer) -> bool:
    return answer.status == 401 or (answer.status == 403 and json_of(answer).get("code") == NOT_AUTHENTICATED)


@cache
def provider(settings: Settings) -> Twilio:
    """The provider, kept with its connections and its key."""
    secret = Secret(settings.provider_secret("twilio"), TwilioKey)
    return Twilio(settings.twilio_url, secret, hasty_http(settings.provider_timeout))
