"""What Lambda tells a function about the invocation."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol


class LambdaContext(Protocol):
    """The part of Lambda's context object that jobs use."""

    @property
    def aws_request_id(self) -> str:
        """The id of the invocation; Lambda's own retry of an event keeps it."""

    @property
    def invoked_function_arn(self) -> str:
        """The ARN that was invoked."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends the invocation."""


def remaining_time(context: LambdaContext) -> timedelta:
    """How long the invocation may still take."""
    return timedelta(milliseconds=context.get_remaining_time_in_millis())


def clock_of(context: LambdaContext, started: datetime) -> Callable[[], datetime]:
    """The time as the invocation goes on, told by what Lambda says is left of it."""
    given = remaining_time(context)
    return lambda: started + (given - remaining_time(context))
