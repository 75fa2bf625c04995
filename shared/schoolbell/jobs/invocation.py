"""What Lambda tells a function about the invocation, and what the function leaves behind when its time is up."""

import faulthandler
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Final, Protocol

LAST_WORDS: Final = timedelta(seconds=2)
"""How long before Lambda ends an invocation it tells what it waits for."""

STDERR: Final = 2  # the number, since `sys.stderr` need be no file


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


def explained[*Before, R](
    handler: Callable[[*Before, LambdaContext], R],
) -> Callable[[*Before, LambdaContext], R]:
    """Makes a Lambda handler log where each of its threads is, if it is still at work when its time is nearly up.

    Of an invocation that hangs there is else nothing but "Task timed out" to go by.
    """

    @wraps(handler)
    def watched(*given: *tuple[*Before, LambdaContext]) -> R:
        patience = remaining_time(given[-1]) - LAST_WORDS
        if patience <= timedelta(0):
            return handler(*given)
        faulthandler.dump_traceback_later(patience.total_seconds(), file=STDERR)
        try:
            return handler(*given)
        finally:
            faulthandler.cancel_dump_traceback_later()

    return watched
