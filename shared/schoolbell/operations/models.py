"""What the job client answers: about jobs, runs, queues and dead letters, and about what it was asked to do."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from schoolbell.jobs.outcomes import JobError

type State = Literal["waiting", "sent", "running", "completed", "failed", "timed_out", "cancelled"]
"""How far a trigger is. `sent` is the last that is known of a delayed message: nothing tells which run took it."""

FINAL_STATES: Final = frozenset({"completed", "failed", "timed_out", "cancelled", "sent"})


class JobClientError(JobError):
    """The root of what the client raises, besides what boto3 and the database do."""


class NotFound(JobClientError):
    """There is no such job, run or dead letter."""


class Refused(JobClientError):
    """What was asked for can't be done, for the reason that the text gives."""


@dataclass(frozen=True, slots=True)
class RunHandle:
    """What was triggered."""

    id: UUID
    """Also the id of the run, where a scheduled job was triggered."""
    job: str
    key: str
    """By which it can be cancelled; the id, if no key was given."""
    is_new: bool
    """False when this key had been used already: then nothing was started."""
    due_at: datetime | None
    """When it will be; `None` for at once."""
    schedule: str | None = None
    """The one-shot schedule that rings it, in the stack's group."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Whether a trigger was cancelled, and why not."""

    is_cancelled: bool
    message: str


@dataclass(frozen=True, slots=True)
class Change:
    """What an operator's command changed: it says so, also when nothing was to be changed."""

    is_changed: bool
    message: str
    count: int = 0
    """How many messages or records it was about, where it is about those."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A row of `platform.job_runs`."""

    id: UUID
    job: str
    trigger: str
    status: str
    scheduled_for: datetime | None
    started_at: datetime
    finished_at: datetime | None
    attempt: int
    items_total: int | None
    items_done: int
    items_failed: int
    dry_run: bool
    result: dict[str, Any] | None
    data: dict[str, Any] | None
    error: str | None
    traceback: str | None
    request_id: str | None

    @property
    def duration(self) -> timedelta | None:
        """How long it took, its waiting for other invocations included."""
        return self.finished_at - self.started_at if self.finished_at else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far something that was triggered is."""

    state: State
    run: RunInfo | None = None
    error: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will become known of it."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """A row of `platform.dead_letters`."""

    id: UUID
    job: str
    queue: str
    message_id: str
    payload: str | None
    attempts: int
    reason: str
    error: str | None
    traceback: str | None
    dead_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    resolved_by: str | None


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A line of a run's log."""

    at: datetime
    level: str
    message: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the stack does its work."""

    is_healthy: bool
    queue_size: int
    """Messages that are still to be handled, on all queues."""
    dead_letters: int
    jobs: int
    paused: tuple[str, ...]
    problems: tuple[str, ...]
