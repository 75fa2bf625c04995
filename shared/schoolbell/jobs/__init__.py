"""The job runtime: decorators that make a plain function the Lambda handler of a job.

What a job may say about a message: it returns (done), raises `Snooze` (not now), raises `Discard` (can never pass), or
raises anything else (failed, may pass later). The state of a message and of a run is drawn in docs/states.md.
"""

from schoolbell.jobs.context import Chunk, JobContext, Progress
from schoolbell.jobs.messages import Message
from schoolbell.jobs.outcomes import Deleted, Discard, JobError, Payload, Result, Snooze
from schoolbell.jobs.queues import Batch, batch_job, queue_job
from schoolbell.jobs.runs import Cursor
from schoolbell.jobs.scheduled import scheduled_job
from schoolbell.jobs.tasks import task_job

__all__ = [
    "Batch",
    "Chunk",
    "Cursor",
    "Deleted",
    "Discard",
    "JobContext",
    "JobError",
    "Message",
    "Payload",
    "Progress",
    "Result",
    "Snooze",
    "batch_job",
    "queue_job",
    "scheduled_job",
    "task_job",
]
