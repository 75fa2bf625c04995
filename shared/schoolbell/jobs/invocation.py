"""What Lambda tells a function about the invocation, and what the function leaves behind when its time is up."""

import faulthandler
import gc
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from importlib import import_module
from typing import Any, Final, Protocol

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


def handler_of(module: str) -> Callable[[Any, LambdaContext], Any]:
    """Imports a function's module, and returns its `handler`, `explained`.

    What is imported stays until the process ends. The garbage collector would go through it again and again in vain,
    as it is imported (a tenth of a cold start's time) and then as batches of thousands are worked off; so it is
    switched off until all is there, and looks at none of it from then on.
    """
    gc.disable()
    try:
        handler = import_module(module).handler
    finally:
        gc.freeze()
        gc.enable()
    return explained(handler)


def explained[R](handler: Callable[[Any, LambdaContext], R]) -> Callable[[Any, LambdaContext], R]:
    """Makes a Lambda handler log where each of its threads is, if it is still at work when its time is nearly up.

    Of an invocation that hangs there is else nothing but "Task timed out" to go by.
    """

    @wraps(handler)
    def watched(event: Any, context: LambdaContext) -> R:
        patience = remaining_time(context) - LAST_WORDS
        if patience <= timedelta(0):
            return handler(event, context)
        faulthandler.dump_traceback_later(patience.total_seconds(), file=STDERR)
        try:
            return handler(event, context)
        finally:
            faulthandler.cancel_dump_traceback_later()

    return watched
