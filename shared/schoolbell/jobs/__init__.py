"""The job runtime: decorators that make a plain function the Lambda handler of a job.

What a job may say about a message: it returns (done), raises `Snooze` (not now), raises `Discard` (can never pass), or
raises anything else (failed, may pass later). The state of a message and of a run is drawn in docs/states.md.

A name is imported when it is first asked for: a scheduled job starts sooner without what only queue jobs need.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schoolbell.jobs.context import Chunk, JobContext, Progress
    from schoolbell.jobs.messages import Message
    from schoolbell.jobs.outcomes import Deleted, Discard, JobError, Payload, Result, Snooze
    from schoolbell.jobs.queues import Batch, batch_job, queue_job
    from schoolbell.jobs.runs import Cursor
    from schoolbell.jobs.scheduled import scheduled_job
    from schoolbell.jobs.tasks import task_job
else:
    from importlib import import_module

    _NAMES = {
        "context": ("Chunk", "JobContext", "Progress"),
        "messages": ("Message",),
        "outcomes": ("Deleted", "Discard", "JobError", "Payload", "Result", "Snooze"),
        "queues": ("Batch", "batch_job", "queue_job"),
        "runs": ("Cursor",),
        "scheduled": ("scheduled_job",),
        "tasks": ("task_job",),
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
