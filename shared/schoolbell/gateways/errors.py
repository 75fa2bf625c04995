"""What a call to an outside service can end in, other than an answer. All gateways share these, whatever the service.

    GatewayError
    ├── NeverWorks       the service refuses this call, and would refuse it again
    │   ├── Gone         what it is about does not exist
    │   └── Conflict     what it would make exists
    ├── Revoked          the credentials of the person on whose behalf it was made
    └── NotNow           it may work later; says after how long
        ├── Throttled    too many calls: the service is well
        └── Unavailable  the service is unwell, or can't be reached
            ├── Uncertain      it may have done what it was asked for
            └── Misconfigured  it refuses us: our key, sender or address

Messages name the service, the operation, the status and the service's code for the reason: never its prose, an address,
an id that somebody chose, or a token. They are logged and stored.
"""

from datetime import timedelta


class GatewayError(Exception):
    """The root of what gateways raise."""


class NeverWorks(GatewayError):
    """The service refuses this call, and would refuse it again; the text says why."""


class Gone(NeverWorks):
    """What the call is about does not exist, or no longer: a file, or the application on a device."""


class Conflict(NeverWorks):
    """What the call would make exists."""


class Revoked(GatewayError):
    """A person's credentials no longer work; only that person can change that, by connecting again."""


class NotNow(GatewayError):
    """The call may work later."""

    def __init__(self, message: str, retry_after: timedelta = timedelta(0)) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """How long the service asked to be left alone; zero if it did not say."""


class Throttled(NotNow):
    """Too many calls (429): a quota is used up, and the service is well. It did not do what it was asked for."""


class Unavailable(NotNow):
    """The service is unwell: an error of its own (5xx), no answer in time, or no connection."""


class Uncertain(Unavailable):
    """Nobody knows whether the service did what it was asked for: no answer once it was asked, or one that is garbage.

    Asked again it may do it twice, unless it honours an idempotency key.
    """


class Misconfigured(Unavailable):
    """The service refuses us, not the call: a key, a sender or an address of ours is wrong.

    It takes no call until an operator has put that right. So it counts as a failure of the service: the circuit opens,
    which alarms, and work waits rather than fail call by call.
    """


def throttled(retry_after: timedelta) -> Throttled:
    """The error of a service that has said how long it wants to be left alone."""
    return Throttled(f"the provider takes more in {retry_after.total_seconds():.0f} s", retry_after)
