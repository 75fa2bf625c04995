"""What a provider says of a message that it did not take. Texts name no person, address or token: they are stored."""

from datetime import timedelta


class DeliveryError(Exception):
    """The root of what providers raise."""


class Rejected(DeliveryError):
    """This message can never pass; the text says why."""


class Unregistered(Rejected):
    """The device no longer has the application: its push token is to be forgotten."""


class NotNow(DeliveryError):
    """The provider takes no more for the moment (429), and did not take this message."""

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__(f"the provider takes more in {retry_after.total_seconds():.0f} s")
        self.retry_after = retry_after


class Unwell(DeliveryError):
    """No answer, a 5xx or garbage: the provider may have accepted the message or not."""
