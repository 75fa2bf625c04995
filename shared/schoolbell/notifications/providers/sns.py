"""Amazon SNS: text messages.

https://docs.aws.amazon.com/sns/latest/dg/sms_sending-overview.html
"""

from datetime import timedelta

from schoolbell import aws
from schoolbell.gateways.errors import Uncertain
from schoolbell.notifications.addresses import phone_number, sms_text
from schoolbell.notifications.aws_errors import asking
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.providers import Outgoing
from schoolbell.settings import Settings

OF_THE_MESSAGE = frozenset(
    {"InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "ValidationException", "OptedOut"}
)


class Sns:
    """Sends text messages.

    Args:
        patience: how long one call may take.
    """

    name = "sns"
    channel = Channel.SMS
    honours_key = False

    def __init__(self, patience: timedelta) -> None:
        self._patience = patience

    def send(self, message: Outgoing) -> str:
        number, text = phone_number(message.address), sms_text(message.text)
        # What is urgent goes the most reliable way; the rest goes the cheapest.
        kind = "Transactional" if message.is_urgent else "Promotional"
        client = aws.hasty_client("sns", self._patience)
        answer = asking(
            "sns",
            lambda: client.publish(
                PhoneNumber=number,
                Message=text,
                MessageAttributes={"AWS.SNS.SMS.SMSType": {"DataType": "String", "StringValue": kind}},
            ),
            OF_THE_MESSAGE,
        )
        message_id = answer.get("MessageId")
        if not isinstance(message_id, str) or not message_id:
            raise Uncertain("sns: success without an id")
        return message_id


def provider(settings: Settings) -> Sns:
    """The provider, by the settings."""
    return Sns(settings.provider_timeout)
