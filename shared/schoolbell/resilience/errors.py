"""What keeps a call from being made."""

from datetime import timedelta


class ResilienceError(Exception):
    """The root of what this package raises."""


class Withheld(ResilienceError):
    """The call was not made: nothing failed and nothing was spent. Try again after a while."""

    def __init__(self, message: str, retry_after: timedelta) -> None:
        super().__init__(f"{message}, again in {retry_after.total_seconds():.0f} s")
        self.retry_after = retry_after


class CircuitOpen(Withheld):
    """The service has been failing, and is left in peace for a while."""


class NoBudget(Withheld):
    """The tenant, or all tenants together, have spent what the window allows."""
