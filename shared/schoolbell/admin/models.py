"""What the admin API tells and takes, in JSON; the page shows the same."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer

Seconds = Annotated[timedelta, PlainSerializer(lambda took: round(took.total_seconds(), 3), return_type=float)]
"""A duration; a number of seconds in JSON."""

RunStatus = Literal["running", "completed", "failed", "timed_out"]
LetterReason = Literal["failed", "discarded", "timed_out", "unknown"]


class Told(BaseModel):
    """What the API answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Asked(BaseModel):
    """What the API takes: nothing but the fields that are written here."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, defer_build=True)


class Severity(StrEnum):
    """How bad a problem is, and so what comes first."""

    BAD = "bad"
    WARNING = "warning"


class Problem(Told):
    """Why a job needs somebody to look at it."""

    severity: Severity
    text: str


class Schedule(Told):
    """When a job runs, as EventBridge says now."""

    kind: Literal["rule", "scheduler"]
    name: str
    expression: str
    words: str = Field(description="The expression in words")
    timezone: str
    enabled: bool
    next_run: datetime | None


class LastRun(Told):
    """How a job's newest run stands."""

    id: UUID
    status: RunStatus
    started_at: datetime
    finished_at: datetime | None
    error: str | None


class Day(Told):
    """Runs that began on one day, in UTC."""

    runs: int
    failures: int


class Month(Told):
    """A job's runs of the last 30 days. Dry runs count too."""

    runs: int = 0
    failures: int = 0
    average: Seconds | None = None
    p95: Seconds | None = Field(default=None, description="95 of 100 runs took no longer than this")
    days: tuple[Day, ...] = Field(default=(), description="The oldest day first, today last")


class Queue(Told):
    """What waits on a job's queue, as SQS says now; its counts are approximate."""

    name: str
    waiting: int
    in_flight: int
    delayed: int
    oldest: Seconds | None = Field(default=None, description="How long the oldest message has waited, if that is known")


class DeadLetters(Told):
    """A job's messages that nobody has redriven or dropped."""

    count: int = 0
    oldest: datetime | None = None


class Job(Told):
    """A job with all that the list shows of it."""

    name: str
    description: str
    trigger: Literal["schedule", "queue", "called"]
    is_critical: bool
    has_dry_run: bool
    timeout: Seconds
    schedule: Schedule | None
    last_run: LastRun | None
    month: Month
    queues: tuple[Queue, ...]
    dead_letters: DeadLetters
    problems: tuple[Problem, ...]

    @property
    def domain(self) -> str:
        """The part of its name before the dot."""
        return self.name.partition(".")[0]

    @property
    def is_paused(self) -> bool:
        """Whether its schedule is switched off."""
        return self.schedule is not None and not self.schedule.enabled


class Run(Told):
    """One run: of a scheduled time, of an invocation with messages, or by hand."""

    id: UUID
    job: str
    trigger: str
    status: RunStatus
    scheduled_for: datetime | None
    started_at: datetime
    finished_at: datetime | None
    attempt: int
    items_total: int | None
    items_done: int
    items_failed: int
    dry_run: bool
    error: str | None

    @property
    def took(self) -> timedelta | None:
        """How long it took, if it is over."""
        return self.finished_at - self.started_at if self.finished_at else None


class RunInFull(Run):
    """A run with what it was given and what came of it."""

    request_id: str | None
    data: dict[str, Any] | None
    result: dict[str, Any] | None
    traceback: str | None


class LogLine(Told):
    """A record of the function's log."""

    at: datetime
    level: str
    message: str
    fields: dict[str, JsonValue] = Field(description="What else the record says")


class RunWithLog(Told):
    """A run and what its function logged."""

    run: RunInFull
    log: tuple[LogLine, ...]
    log_problem: str | None = Field(default=None, description="Why the log could not be read")


class Runs(Told):
    """Some of a job's runs, the newest first."""

    runs: tuple[Run, ...]
    next: str | None = Field(description="Give this as `before` for older ones; null when there are none")


class Letter(Told):
    """A message that won't be tried again by itself."""

    id: UUID
    job: str
    queue: str
    message_id: str
    reason: LetterReason
    error: str | None
    attempts: int
    dead_at: datetime
    resolved_at: datetime | None
    resolution: Literal["redriven", "dropped"] | None


class LetterInFull(Letter):
    """A dead letter with the message itself."""

    payload: str | None
    attributes: dict[str, Any] | None
    traceback: str | None
    resolved_by: str | None


class Letters(Told):
    """Some of a job's dead letters, the newest first."""

    letters: tuple[Letter, ...]
    next: str | None = Field(description="Give this as `before` for older ones; null when there are none")


class Preview(Told):
    """What a schedule would do."""

    expression: str
    timezone: str
    words: str
    next_runs: tuple[datetime, ...] = Field(description="The next five times, in UTC")
    skipped: tuple[str, ...] = Field(
        description="Local times of the next year that a change of clocks removes; they do not run at their own time"
    )


class Done(Told):
    """What came of a change."""

    message: str
    changed: int = Field(default=1, description="How many were changed; 0 when there was nothing to change")


class Triggered(Told):
    """A job that was rung."""

    message: str
    id: UUID = Field(description="Of a scheduled job also the id of its run")


class Trigger(Asked):
    """How to run a job now."""

    data: dict[str, JsonValue] | None = Field(
        default=None, description="What the job is given; for a queue, the message"
    )
    queue: str | None = Field(default=None, description="Which queue, of a job with several")
    dry_run: bool = Field(default=False, description="Tell what would be done, and do nothing")


class Reschedule(Asked):
    """When a job shall run."""

    expression: str = Field(min_length=1, max_length=256, description="A rate or a cron, as EventBridge takes it")
    timezone: str = Field(default="UTC", min_length=1, max_length=50, examples=["Europe/Berlin"])
