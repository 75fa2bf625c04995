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
    """The provider can't take messages: no connection, or a 5xx. It did not accept this one."""

    def __init__(self, message: str, retry_after: timedelta = timedelta(0)) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """How long the provider asked to be left alone; zero if it did not say."""


class Uncertain(Unwell):
    """Nobody knows whether the provider accepted the message: no answer once it was sent, or one that is garbage.

    Sent again it may arrive twice, unless the provider honours the key; so that is done once, and no more.
    """


class Refused(Unwell):
    """The provider refuses us, not the message: a key, a sender or an address of ours is wrong.

    It takes none until an operator has put that right. So it counts as a failure of the provider: the circuit opens,
    which alarms, and messages wait rather than fail one by one.
    """


class Unrenderable(Rejected):
    """The template and the data don't fit: the text names the field, or says that there is no such template."""
