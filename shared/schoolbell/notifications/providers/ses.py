"""Amazon SES: emails.

https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html
"""

from datetime import timedelta
from typing import Any

from schoolbell import aws
from schoolbell.gateways.errors import Uncertain
from schoolbell.notifications.addresses import email_address, subject_line
from schoolbell.notifications.aws_errors import asking
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing
from schoolbell.settings import Settings

OF_THE_MESSAGE = frozenset({"MessageRejected", "BadRequestException", "ValidationException", "InvalidParameterValue"})


class Ses:
    """Sends emails.

    Args:
        sender: the address that they come from, which SES has verified.
        configuration_set: its events and reputation are kept there; none if empty.
        patience: how long one call may take.
    """

    name = "ses"
    channel = Channel.EMAIL
    honours_key = False

    def __init__(self, sender: str, configuration_set: str, patience: timedelta) -> None:
        self._sender = sender
        self._configuration_set = configuration_set
        self._patience = patience

    def send(self, message: Outgoing) -> str:
        request = self._request(message)
        client = aws.hasty_client("sesv2", self._patience)
        # SES answers with the same code when it does not know our sender as when it dislikes the message.
        answer = asking("ses", lambda: client.send_email(**request), OF_THE_MESSAGE, our_own=self._sender)
        message_id = answer.get("MessageId")
        if not isinstance(message_id, str) or not message_id:
            raise Uncertain("ses: success without an id")
        return message_id

    def _request(self, message: Outgoing) -> dict[str, Any]:
        body = {"Text": _utf8(message.text)}
        if message.html:
            body["Html"] = _utf8(message.html)
        request: dict[str, Any] = {
            "FromEmailAddress": self._sender,
            "Destination": {"ToAddresses": [email_address(message.address)]},
            "Content": {"Simple": {"Subject": _utf8(subject_line(message.subject)), "Body": body}},
        }
        if self._configuration_set:
            request["ConfigurationSetName"] = self._configuration_set
        return request


def _utf8(text: str) -> dict[str, str]:
    return {"Data": text, "Charset": "UTF-8"}


def provider(settings: Settings) -> Ses:
    """The provider, by the settings."""
    return Ses(settings.email_from, settings.ses_configuration_set, settings.provider_timeout)
