"""The job client: what applications, the admin API and the command line do with jobs (source 004's scheduler).

    client = JobClient(database, settings, actor="ada@example.org")
    handle = client.trigger("tutoring.drive-sync", key="after the import")
    client.pause("tutoring.metric-alerts")

What it does to AWS needs these permissions, on the stack's resources (`<stack>-*`) where AWS takes resources at all:

* reading: `lambda:ListFunctions`, `lambda:ListEventSourceMappings` and `events:ListRules` (they take no resources),
  `scheduler:ListSchedules`, `scheduler:GetSchedule`, `sqs:GetQueueAttributes`, `logs:FilterLogEvents`, and for how long
  messages have waited `cloudwatch:GetMetricData`
* `trigger`: `sqs:SendMessage` and `lambda:InvokeFunction` (without them the outbox relay sends), and for a delayed one
  `scheduler:CreateSchedule`, `iam:PassRole` on the stack's DelayedTriggerRole, and `cloudformation:DescribeStacks`
  unless `SCHEDULER_ROLE_ARN` names that role (in a function it must: the layers do not know CloudFormation)
* `cancel`, `unschedule`: `scheduler:DeleteSchedule`, and for rules `events:ListTargetsByRule`, `events:RemoveTargets`,
  `events:DeleteRule`
* `pause`, `resume`, `reschedule`: `events:DescribeRule`, `events:EnableRule`, `events:DisableRule`, `events:PutRule`,
  `scheduler:UpdateSchedule`, `iam:PassRole` on the role of the schedule
* `redrive`, `drop`: `sqs:StartMessageMoveTask`, `sqs:ListMessageMoveTasks`, `sqs:ReceiveMessage`,
  `sqs:DeleteMessage`, `sqs:ChangeMessageVisibility` and `sqs:GetQueueAttributes` on the dead-letter queues,
  `sqs:SendMessage` on the queues

and SELECT, INSERT, UPDATE and DELETE on the tables of the schema `platform`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from aws_lambda_powertools import Logger

from schoolbell.database import Database
from schoolbell.operations import health, history, logs, redrives, schedules, triggers
from schoolbell.operations.catalogue import JobInfo
from schoolbell.operations.expressions import parse
from schoolbell.operations.models import (
    Cancellation,
    Change,
    DeadLetterInfo,
    Health,
    LogRecord,
    NotFound,
    Outcome,
    RunHandle,
    RunInfo,
)
from schoolbell.operations.queues import QueueDepth, depths_of
from schoolbell.operations.stack import KnownJobs, Stack
from schoolbell.settings import Settings


def _logger() -> Logger:
    return Logger(service="schoolbell.client", stream=sys.stderr)


@dataclass(frozen=True)
class JobClient:
    """Works on the jobs of one stack.

    Args:
        database: the stack's database.
        settings: the stack's name, region and account.
        actor: who asks, for the audit log: an operator's login, or the application's name.
        clock: tells the time, timezone-aware.
    """

    database: Database
    settings: Settings
    actor: str = "application"
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    logger: Logger = field(default_factory=_logger, repr=False)
    _known: KnownJobs = field(default_factory=dict, repr=False)

    def acting_as(self, actor: str) -> "JobClient":
        """The same client for another operator."""
        return replace(self, actor=actor)

    @cached_property
    def _stack(self) -> Stack:
        return Stack(self.database, self.settings, self.actor, self.clock, self.logger, self._known)

    # The catalogue

    def jobs(self) -> list[JobInfo]:
        """Every job with its schedule, as AWS has them at this moment, by name."""
        return self._stack.jobs()

    def job(self, name: str) -> JobInfo:
        """One job with its schedule.

        Raises:
            NotFound: no job is called so.
        """
        return self._stack.job(name)

    def next_occurrences(self, expression: str, timezone: str = "UTC", count: int = 5) -> list[datetime]:
        """When an expression would go off next.

        Raises:
            InvalidExpression: AWS would reject it.
        """
        return parse(expression, timezone).occurrences(self.clock(), count)

    # Triggering

    def trigger(
        self,
        job: str,
        data: Mapping[str, Any] | None = None,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        key: str | None = None,
        dry_run: bool = False,
    ) -> RunHandle:
        """Has a job run once: a queue job gets a message, a scheduled job an invocation.

        Args:
            job: a job's name, or that of one of its queues where it has several.
            data: what it is given, a JSON object.
            delay: how much later; together with `at` it is refused.
            at: when, timezone-aware.
            key: names what is asked for: a second trigger with the same key starts nothing.
            dry_run: for jobs that have one: says what would be done and does nothing.

        Raises:
            NotFound: no job is called so.
            Refused: it can't be triggered so; the text says why.
        """
        return triggers.trigger(self._stack, job, data, delay=delay, at=at, key=key, dry_run=dry_run)

    def cancel(self, key: str) -> Cancellation:
        """Cancels what has not begun. Asking twice does no harm.

        Args:
            key: of the trigger, or its handle's `key`.
        """
        return triggers.cancel(self._stack, key)

    def outcome(self, handle: RunHandle) -> Outcome:
        """How far something that was triggered is.

        Raises:
            NotFound: it is longer ago than what is remembered.
        """
        return triggers.outcome(self._stack, handle)

    def watch(
        self, handle: RunHandle, timeout: timedelta, every: timedelta = timedelta(seconds=1)
    ) -> Iterator[Outcome]:
        """Looks at what was triggered until it is over, or the time is up; yields what it sees each time."""
        end = time.monotonic() + timeout.total_seconds()
        while True:
            outcome = self.outcome(handle)
            yield outcome
            if outcome.is_final or time.monotonic() >= end:
                return
            time.sleep(every.total_seconds())

    # Schedules

    def pause(self, job: str) -> Change:
        """Stops a job's schedule, or those of all its time zones. What runs goes on; what is asked for by hand runs.

        Raises:
            NotFound: no job is called so.
            Refused: it has no schedule.
        """
        return schedules.switch(self._stack, job, enable=False)

    def resume(self, job: str) -> Change:
        """Lets a job's schedule ring again. What was missed meanwhile is not made up for.

        Raises:
            NotFound: no job is called so.
            Refused: it has no schedule.
        """
        return schedules.switch(self._stack, job, enable=True)

    def reschedule(self, job: str, expression: str, timezone: str | None = None) -> Change:
        """Changes when a job runs, until the template says otherwise in the next deployment that changes its schedule.

        Args:
            job: a scheduled job.
            expression: `rate(...)` or `cron(...)`.
            timezone: an IANA name; as it was, if not given.

        Raises:
            InvalidExpression: AWS would reject it, or it would never go off.
            NotFound: no job is called so.
            Refused: it has no schedule, or its tenants' time zones are what it runs by.
        """
        return schedules.reschedule(self._stack, job, expression, timezone)

    def unschedule(self, job: str) -> Change:
        """Deletes a job's schedule. CloudFormation makes it again when a deployment changes it.

        Raises:
            NotFound: no job is called so.
            Refused: no clock rings it.
        """
        return schedules.unschedule(self._stack, job)

    # Queues and health

    def queue_size(self, job: str) -> int:
        """How many messages of a job are still to be handled, those included that are delayed or in flight.

        Raises:
            NotFound: no job is called so.
        """
        return sum(queue.pending for queue in self.queues(job))

    def queues(self, job: str | None = None) -> list[QueueDepth]:
        """The queues of a job, or of all jobs, with their dead letters.

        Raises:
            NotFound: no job is called so.
        """
        asked = self._stack.functions() if job is None else [self._stack.function(job)]
        return list(depths_of([queue for info in asked for queue in info.queues], self.settings).values())

    def health(self) -> Health:
        """Whether database and AWS answer, nothing piles up and nothing is dead."""
        return health.check(self._stack)

    # Runs

    def runs(
        self, job: str | None = None, *, status: str | None = None, limit: int = 20, before: datetime | None = None
    ) -> list[RunInfo]:
        """Runs, the latest first: of a job or of all, of a status or of all.

        Args:
            job: whose.
            status: running, completed, failed or timed_out.
            limit: how many at most.
            before: only those that started before, which is how to read on.

        Raises:
            NotFound: no job is called so.
        """
        asked = [self._stack.function(job)] if job else self._stack.functions()
        names = [each.name for each in asked]
        with self.database.transaction(read_only=True) as connection:
            return history.runs(connection, names, RunInfo, status=status, before=before, limit=limit)

    def run(self, run_id: UUID) -> RunInfo:
        """One run.

        Raises:
            NotFound: there is none, or no longer.
        """
        with self.database.transaction(read_only=True) as connection:
            found = history.run(connection, run_id, RunInfo)
        if found is None:
            raise NotFound(f"there is no run {run_id}")
        return found

    def logs(self, run_id: UUID, limit: int = 1_000) -> list[LogRecord]:
        """What a run has written to its function's log, oldest first.

        Raises:
            NotFound: there is no such run.
        """
        return logs.logs_of(self.run(run_id), self.settings, limit)

    # Dead letters

    def dead_letters(self, job: str | None = None, *, resolved: bool = False, limit: int = 100) -> list[DeadLetterInfo]:
        """Dead letters, the latest first: of a job or of all; those that are resolved too if asked for.

        Raises:
            NotFound: no job is called so.
        """
        if job is not None:
            self._stack.function(job)
        wanted = None if resolved else False
        with self.database.transaction(read_only=True) as connection:
            return history.letters(connection, DeadLetterInfo, job=job, resolved=wanted, limit=limit)

    def dead_letter(self, letter: UUID) -> DeadLetterInfo:
        """One dead letter.

        Raises:
            NotFound: there is none.
        """
        with self.database.transaction(read_only=True) as connection:
            found = history.letter(connection, letter, DeadLetterInfo)
        if found is None:
            raise NotFound(f"there is no dead letter {letter}")
        return found

    def redrive(self, what: str | UUID) -> Change:
        """Sends dead letters again: all of a job by its name, or one by its id. Twice sends once.

        Raises:
            NotFound: there is no such job or dead letter.
            Refused: the message itself is not known, so only all of its queue can be redriven; or its job is gone.
        """
        return redrives.redrive(self._stack, what)

    def drop(self, what: str | UUID) -> Change:
        """Gives dead letters up: all of a job by its name, or one by its id. The record stays, the message goes.

        Raises:
            NotFound: there is no such job or dead letter.
        """
        return redrives.drop(self._stack, what)
