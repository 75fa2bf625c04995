"""How jobs are looked after: triggered, shown, paused, rescheduled, redriven, counted, started when they were missed.

`JobClient` is what applications, the admin page and the command line use; docs/client.md describes it.

A name is imported when it is first asked for: what only counts runs or reads a schedule starts sooner without the rest.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schoolbell.operations.catalogue import JobInfo, ScheduleInfo
    from schoolbell.operations.client import JobClient
    from schoolbell.operations.expressions import InvalidExpression
    from schoolbell.operations.models import (
        Cancellation,
        Change,
        DeadLetterInfo,
        Health,
        JobClientError,
        LogRecord,
        NotFound,
        Outcome,
        Refused,
        RunHandle,
        RunInfo,
    )
    from schoolbell.operations.queues import QueueDepth
else:
    from importlib import import_module

    _NAMES = {
        "catalogue": ("JobInfo", "ScheduleInfo"),
        "client": ("JobClient",),
        "expressions": ("InvalidExpression",),
        "models": (
            "Cancellation",
            "Change",
            "DeadLetterInfo",
            "Health",
            "JobClientError",
            "LogRecord",
            "NotFound",
            "Outcome",
            "Refused",
            "RunHandle",
            "RunInfo",
        ),
        "queues": ("QueueDepth",),
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
