"""The job client: what applications, the admin API and the command line do with jobs (source 004's scheduler).

    client = JobClient(database, settings, actor="ada@example.org")
    handle = client.trigger("tutoring.drive-sync", key="after the import")
    client.pause("tutoring.metric-alerts")

What it does to AWS needs these permissions, on the stack's resources (`<stack>-*`) where AWS takes resources at all:

* reading: `lambda:ListFunctions`, `lambda:ListEventSourceMappings` and `events:ListRules` (they take no resources),
  `scheduler:ListSchedules`, `scheduler:GetSchedule`, `sqs:GetQueueAttributes`, `logs:FilterLogEvents`
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

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final, Literal
from uuid import UUID, uuid4

from aws_lambda_powertools import Logger
from sqlalchemy import Connection, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from schoolbell import aws
from schoolbell.database import Database, is_unavailable
from schoolbell.domains.platform.tables.dead_letters import dead_letters
from schoolbell.jobs.one_time_schedules import TOO_LATE
from schoolbell.jobs.outbox import Outbox
from schoolbell.jobs.outcomes import in_one_line
from schoolbell.operations import catalogue, history, redrives, schedule_control, triggers
from schoolbell.operations.catalogue import JobInfo, ScheduleInfo
from schoolbell.operations.expressions import InvalidExpression, parse
from schoolbell.operations.models import (
    Cancellation,
    Change,
    DeadLetterInfo,
    Health,
    LogRecord,
    NotFound,
    Outcome,
    Refused,
    RunHandle,
    RunInfo,
    State,
)
from schoolbell.operations.queues import QueueDepth, depth_of, depths_of
from schoolbell.operations.triggers import CANCELLED, Trigger
from schoolbell.settings import Settings

KNOWN_FOR: Final = timedelta(minutes=1)
"""How long a trigger trusts what AWS said about the jobs there are; schedules are asked for each time."""

BACKLOG: Final = 1_000
"""Messages that a healthy queue does not exceed (the alarm's threshold)."""


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
    _known: dict[str, tuple[datetime, list[JobInfo]]] = field(default_factory=dict, repr=False)

    def acting_as(self, actor: str) -> "JobClient":
        """The same client for another operator."""
        return replace(self, actor=actor)

    # The catalogue

    def jobs(self) -> list[JobInfo]:
        """Every job with its schedule, as AWS has them at this moment, by name."""
        return catalogue.scheduled(self._functions(fresh=True), self.database, self.settings, self.clock())

    def job(self, name: str) -> JobInfo:
        """One job with its schedule.

        Raises:
            NotFound: no job is called so.
        """
        return self._named(self.jobs(), name)

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
        info, queue = self._target(job)
        now = self.clock()
        due_at = triggers.due_at(now, delay, at)
        if dry_run and not info.has_dry_run:
            raise Refused(f"{info.name} has no dry run")
        if key is not None and not 0 < len(key) <= 200:
            raise Refused("a key has 1 to 200 characters")
        run = uuid4()
        payload = triggers.event_of(data or {}, None if queue else run, dry_run=dry_run, is_delayed=due_at is not None)
        is_soon = due_at is None or due_at - now < TOO_LATE
        asked = Trigger(
            id=run,
            key=key or str(run),
            job=info.name,
            queue=queue,
            due_at=due_at,
            schedule=None if is_soon else triggers.schedule_name(info.name, key or str(run)),
            arranged_at=None,
            cancelled_at=None,
        )
        role = "" if is_soon else self._role_of_one_shots
        outbox = Outbox(self.clock)
        with self.database.transaction() as connection:
            is_new = triggers.ask(connection, asked, self.actor, now)
            found = asked if is_new else triggers.find(connection, asked.key)
            if is_new:
                self._audit(
                    connection, "job.triggered", info.name, {"run": str(run), "key": asked.key, "dry_run": dry_run}
                )
            if is_new and is_soon:
                destination = queue or f"function/{info.name}"
                outbox.send(connection, destination, payload, dedup_key=triggers.dedup_key(run), available_at=due_at)
                if due_at:
                    connection.execute(_LEAVE_TO_RELAY, {"dedup_key": triggers.dedup_key(run)})
        if found is None:
            raise Refused(f"the key {asked.key} is being cancelled; try again")
        if not is_new and found.job != info.name:
            raise Refused(f"the key {asked.key} is that of a trigger of {found.job}")
        if found.schedule and not found.arranged_at:
            named = triggers.event_of(data or {}, None if queue else found.id, dry_run=dry_run, is_delayed=True)
            self._arrange(found, named, role or self._role_of_one_shots, now)
        if due_at is None:
            outbox.flush(self.database, self.settings, self.logger)
        return RunHandle(found.id, found.job, found.key, is_new, found.due_at, found.schedule)

    def _arrange(self, trigger: Trigger, payload: Mapping[str, Any], role: str, now: datetime) -> None:
        if trigger.due_at and trigger.due_at <= now:  # the process that asked for it ended before it was arranged
            trigger = replace(trigger, due_at=now + TOO_LATE)
        triggers.arrange(trigger, payload, self.settings, role)
        with self.database.transaction() as connection:
            triggers.mark_arranged(connection, trigger.id, now)

    def cancel(self, key: str) -> Cancellation:
        """Cancels what has not begun. Asking twice does no harm.

        Args:
            key: of the trigger, or its handle's `key`.
        """
        now = self.clock()
        with self.database.transaction() as connection:
            trigger = triggers.find(connection, key, for_change=True)
            if trigger is None:
                return Cancellation(is_cancelled=False, message=f"nothing was triggered with the key {key}")
            if trigger.cancelled_at:
                return Cancellation(
                    is_cancelled=True, message=f"{trigger.job} with the key {key} was cancelled already"
                )
            is_cancelled = self._cancel_unsent(connection, trigger, now)
        if trigger.schedule:
            is_deleted = triggers.remove_schedule(trigger.schedule, self.settings)
            # A schedule that is gone before its time was deleted by a cancellation that did not come to its end.
            is_early = trigger.due_at is not None and trigger.due_at > now
            is_cancelled = is_cancelled if trigger.queue is None else is_deleted or is_early
        if not is_cancelled:
            return Cancellation(is_cancelled=False, message=f"{trigger.job} with the key {key} has begun or was sent")
        with self.database.transaction() as connection:
            triggers.mark_cancelled(connection, trigger.id, now)
            self._audit(connection, "job.cancelled", trigger.job, {"key": key})
        return Cancellation(is_cancelled=True, message=f"{trigger.job} with the key {key} will not run")

    def _cancel_unsent(self, connection: Connection, trigger: Trigger, now: datetime) -> bool:
        is_taken_back = triggers.take_back(connection, trigger, now)
        if trigger.queue:
            return is_taken_back
        if triggers.end_before_it_begins(connection, trigger, now):
            return True
        run = history.run(connection, trigger.id, RunInfo)
        return run is not None and run.error == CANCELLED

    def outcome(self, handle: RunHandle) -> Outcome:
        """How far something that was triggered is.

        Raises:
            NotFound: it is longer ago than what is remembered.
        """
        with self.database.transaction(read_only=True) as connection:
            trigger = triggers.find(connection, handle.key)
            if trigger is None:
                raise NotFound(f"nothing was triggered with the key {handle.key}")
            if trigger.cancelled_at:
                return Outcome("cancelled")
            if trigger.queue:
                return self._outcome_of_message(connection, trigger)
            run = history.run(connection, trigger.id, RunInfo)
        if run is None:
            return Outcome("waiting")
        return Outcome("cancelled" if run.error == CANCELLED else _state(run.status), run, run.error)

    def _outcome_of_message(self, connection: Connection, trigger: Trigger) -> Outcome:
        if trigger.schedule:
            is_due = trigger.due_at is not None and trigger.due_at <= self.clock()
            return Outcome("sent" if is_due else "waiting")
        row = connection.execute(_MESSAGE, {"dedup_key": triggers.dedup_key(trigger.id), "job": trigger.job}).first()
        if row is None:
            return Outcome("sent")
        if row.handled_at:
            return Outcome("completed")
        return Outcome("failed", error=row.error) if row.dead_at else Outcome("waiting")

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
        return self._switch(job, enable=False)

    def resume(self, job: str) -> Change:
        """Lets a job's schedule ring again. What was missed meanwhile is not made up for.

        Raises:
            NotFound: no job is called so.
            Refused: it has no schedule.
        """
        return self._switch(job, enable=True)

    def _switch(self, job: str, *, enable: bool) -> Change:
        info, schedule = self._scheduled(job)
        if info.is_by_time_zone and not info.zones:
            raise Refused(f"{job} has no schedule in any time zone yet: platform.schedule-sync makes them")
        others = [each for each in info.zones or [schedule] if each.enabled is not enable]
        if not others:
            return Change(is_changed=False, message=f"{job} was {'not paused' if enable else 'paused already'}")
        details = {
            "schedule": schedule.name,
            **({"time_zones": [each.timezone for each in others]} if info.zones else {}),
        }
        action = "job.resumed" if enable else "job.paused"
        with self._audited(action, job, details), ThreadPoolExecutor(catalogue.CALLS_AT_ONCE) as callers:
            list(callers.map(lambda each: schedule_control.switch(each, self.settings, enable=enable), others))
        if info.zones:  # platform.schedule-sync may have made another meanwhile
            self._switch(job, enable=enable)
        return Change(is_changed=True, message=f"{job} is {'resumed' if enable else 'paused'}")

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
        info, schedule = self._scheduled(job)
        if info.is_by_time_zone and timezone not in (None, schedule.timezone):
            raise Refused(f"{job} runs in the time zones of its tenants; leave {schedule.timezone} as it is")
        read = parse(expression, timezone or schedule.timezone, schedule.kind)
        if read.moment:
            raise InvalidExpression("a job's schedule is rate() or cron(); to run it once, trigger it with a time")
        read.refuse_past(self.clock())
        if (schedule.expression, schedule.timezone) == (read.text, read.timezone):
            return Change(is_changed=False, message=f"{job} runs so already: {info.words}")
        before = {"expression": schedule.expression, "timezone": schedule.timezone}
        after = {"expression": read.text, "timezone": read.timezone}
        with self._audited("job.rescheduled", job, {"before": before, "after": after}):
            schedule_control.change(schedule, self.settings, read.text, read.timezone)
        since = "from the next platform.schedule-sync on" if info.is_by_time_zone else "from now on"
        return Change(is_changed=True, message=f"{job} runs {since}: {read.in_words(info.zone_in_words)}")

    def unschedule(self, job: str) -> Change:
        """Deletes a job's schedule. CloudFormation makes it again when a deployment changes it.

        Raises:
            NotFound: no job is called so.
            Refused: no clock rings it.
        """
        info = self.job(job)
        if info.trigger != "schedule":
            raise Refused(_unscheduled(info))
        if info.schedule is None:
            return Change(is_changed=False, message=f"{job} has no schedule any more")
        schedule = info.schedule
        details = {"schedule": schedule.name, "expression": schedule.expression, "timezone": schedule.timezone}
        with self._audited("job.unscheduled", job, details):
            for each in (schedule, *info.zones):
                schedule_control.remove(each, self.settings)
        return Change(
            is_changed=True,
            message=f"{job} has no schedule any more ({schedule.expression}, {schedule.timezone}); "
            "a deployment that changes it in the template brings it back",
        )

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
        found = self._functions()
        asked = found if job is None else [self._named(found, job)]
        return list(depths_of([queue for info in asked for queue in info.queues], self.settings).values())

    def health(self) -> Health:
        """Whether database and AWS answer, nothing piles up and nothing is dead."""
        problems: list[str] = []
        jobs: list[JobInfo] = []
        queues: list[QueueDepth] = []
        letters: dict[str, int] = {}
        try:
            jobs = self.jobs()
            queues = self.queues()
            with self.database.transaction(read_only=True) as connection:
                letters = {job: each.count for job, each in history.unresolved(connection).items()}
                failed = history.failed_last(connection, [job.name for job in jobs if job.is_critical])
            problems += [f"{queue.name}: {queue.pending:,} messages" for queue in queues if queue.pending > BACKLOG]
            problems += [f"{job}: {_letters(count)}" for job, count in sorted(letters.items())]
            problems += [f"{job}: its last run failed" for job in failed]
        except Exception as error:
            if isinstance(error, DBAPIError) or is_unavailable(error):
                problems.append(f"the database does not answer: {in_one_line(error)}")
            else:
                problems.append(f"AWS does not answer: {aws.error_code(error) or type(error).__name__}")
        return Health(
            is_healthy=not problems,
            queue_size=sum(queue.pending for queue in queues),
            dead_letters=sum(letters.values()),
            jobs=len(jobs),
            paused=tuple(job.name for job in jobs if job.schedule and not job.schedule.enabled),
            problems=tuple(problems),
        )

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
        names = [self._named(self._functions(), job).name] if job else [each.name for each in self._functions()]
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
        run = self.run(run_id)
        margin = timedelta(minutes=1)
        request = {
            "logGroupName": f"/aws/lambda/{self.settings.resource_name(run.job)}",
            "filterPattern": f'"{run_id}"',
            "startTime": _millis(run.started_at - margin),
        }
        if run.finished_at:
            request["endTime"] = _millis(run.finished_at + margin)
        pages = aws.client("logs").get_paginator("filter_log_events").paginate(**request)
        try:
            found = [_log_record(event) for page in pages for event in page["events"]][:limit]
        except Exception as error:
            if aws.error_code(error) != "ResourceNotFoundException":
                raise
            return []
        return sorted(found, key=lambda record: record.at)

    # Dead letters

    def dead_letters(self, job: str | None = None, *, resolved: bool = False, limit: int = 100) -> list[DeadLetterInfo]:
        """Dead letters, the latest first: of a job or of all; those that are resolved too if asked for.

        Raises:
            NotFound: no job is called so.
        """
        if job is not None:
            self._named(self._functions(), job)
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
        if isinstance(what, UUID):
            return self._redrive_one(what)
        info = self._named(self._functions(), what)
        if info.queues:
            changes = [self._redrive_queue(info.name, queue) for queue in info.queues]
        else:
            changes = [self._redrive_invocations(info.name)]
        done = [change for change in changes if change.is_changed]
        return Change(
            is_changed=bool(done),
            message="; ".join(change.message for change in done or changes),
            count=sum(change.count for change in done),
        )

    def _redrive_one(self, letter_id: UUID) -> Change:
        letter = self._letter(letter_id)
        queue = self._queue_of(letter)
        if queue is None and all(job.name != letter.job for job in self._functions()):
            raise Refused(f"there is no job {letter.job} any more: its dead letters can only be dropped")
        outbox = Outbox(self.clock)
        now = self.clock()
        sent = 0
        with self.database.transaction() as connection:
            if redrives.open_letters(connection, now, letter_id=letter_id):
                if not letter.has_payload:
                    raise Refused(f"nobody recorded the message of this dead letter; redrive all of {letter.job}")
                sent = redrives.send_copies(connection, outbox, [letter_id], queue or f"function/{letter.job}")
                redrives.resolve(connection, [letter_id], "redriven", self.actor, now)
                self._audit(connection, "dead-letter.redriven", letter.job, {"dead_letter": str(letter_id)})
        outbox.flush(self.database, self.settings, self.logger)
        redrives.take_away(self.database, self.settings, queue or letter.job, letter.message_id)
        if sent:
            return Change(is_changed=True, message=f"a message of {letter.job} is sent again", count=1)
        how = letter.resolution or "redriven"
        return Change(is_changed=False, message=f"this dead letter of {letter.job} was {how} already")

    def _redrive_queue(self, job: str, queue: str) -> Change:
        # What was dropped or sent again by itself must not go with the others, should it still lie there.
        redrives.take_away(self.database, self.settings, queue)
        is_moving = Change(is_changed=False, message=f"the dead letters of {queue} are being redriven already")
        if redrives.is_moving(self.settings, queue):
            return is_moving
        started = self.clock()
        dead = depth_of(queue, self.settings).dead
        if not dead and not self._has_open(self.settings.resource_name(queue)):
            return Change(is_changed=False, message=f"{queue} has no dead letters")
        try:
            with self._audited("dead-letters.redriven", job, {"queue": queue, "messages": dead}):
                redrives.move_all(self.settings, queue)
                with self.database.transaction() as connection:
                    name = self.settings.resource_name(queue)
                    records = redrives.resolve_moved(connection, name, started, self.actor, self.clock())
        except redrives.Overtaken:
            return is_moving
        count = max(dead, records)
        return Change(is_changed=True, message=f"{_messages(count)} of {queue} {_are(count)} sent again", count=count)

    def _redrive_invocations(self, job: str) -> Change:
        """Invokes a scheduled job anew with what it was invoked with: the same occurrence goes on with the same run."""
        outbox = Outbox(self.clock)
        now = self.clock()
        with self.database.transaction() as connection:
            letters = redrives.open_letters(connection, now, job=job)
            count = redrives.send_copies(connection, outbox, letters, f"function/{job}")
            redrives.resolve(connection, letters, "redriven", self.actor, now)
            if letters:
                self._audit(connection, "dead-letters.redriven", job, {"messages": count})
        outbox.flush(self.database, self.settings, self.logger)
        redrives.take_away(self.database, self.settings, job)
        if not count:
            return Change(is_changed=False, message=f"{job} has no dead letters")
        return Change(is_changed=True, message=f"{_messages(count)} of {job} {_are(count)} sent again", count=count)

    def drop(self, what: str | UUID) -> Change:
        """Gives dead letters up: all of a job by its name, or one by its id. The record stays, the message goes.

        Raises:
            NotFound: there is no such job or dead letter.
        """
        letter = self._letter(what) if isinstance(what, UUID) else None
        if letter:
            job = letter.job
            queues: Sequence[str] = [self._queue_of(letter) or job]
        else:
            job = str(what)
            queues = self._named(self._functions(), job).queues or [job]
        now = self.clock()
        with self.database.transaction() as connection:
            letters = (
                redrives.open_letters(connection, now, letter_id=letter.id)
                if letter
                else redrives.open_letters(connection, now, job=job)
            )
            redrives.resolve(connection, letters, "dropped", self.actor, now)
            if letters:
                details = {"dead_letters": [str(each) for each in letters[:100]], "count": len(letters)}
                self._audit(connection, "dead-letters.dropped", job, details)
        for queue in queues:
            redrives.take_away(self.database, self.settings, queue, letter.message_id if letter else None)
        if not letters and letter:
            return Change(is_changed=False, message=f"this dead letter of {job} was {letter.resolution} already")
        if not letters:
            return Change(is_changed=False, message=f"{job} has no dead letters")
        count = len(letters)
        return Change(is_changed=True, message=f"{_messages(count)} of {job} {_are(count)} dropped", count=count)

    def _letter(self, letter_id: UUID) -> redrives.Letter:
        with self.database.transaction(read_only=True) as connection:
            found = redrives.letter(connection, letter_id)
        if found is None:
            raise NotFound(f"there is no dead letter {letter_id}")
        return found

    def _has_open(self, queue: str) -> bool:
        with self.database.transaction(read_only=True) as connection:
            c = dead_letters.c
            query = select(func.count()).where(c.queue == queue, c.resolved_at.is_(None))
            return connection.execute(query).scalar_one() > 0

    def _queue_of(self, letter: redrives.Letter) -> str | None:
        """The queue of a dead letter as jobs are named; `None` for a scheduled job's, which came from none."""
        queues = {self.settings.resource_name(queue): queue for job in self._functions() for queue in job.queues}
        return queues.get(letter.queue)

    # What all of it stands on

    def _functions(self, *, fresh: bool = False) -> list[JobInfo]:
        now = self.clock()
        known = self._known.get("functions")
        if known and not fresh and now - known[0] < KNOWN_FOR:
            return known[1]
        found = catalogue.functions(self.settings)
        self._known["functions"] = (now, found)
        return found

    def _named(self, jobs: Sequence[JobInfo], name: str) -> JobInfo:
        found = next((job for job in jobs if job.name == name), None)
        if found is None:
            raise NotFound(f"there is no job {name}")
        return found

    def _target(self, name: str) -> tuple[JobInfo, str | None]:
        """The job of this name, or with a queue of this name, and the queue that its messages go to."""
        for job in self._functions():
            if name in job.queues:
                return job, name
        job = self._named(self._functions(), name)
        if job.trigger == "called":
            raise Refused(f"{name} answers those who call it, and can't be triggered")
        if len(job.queues) > 1:
            raise Refused(f"{name} has several queues; say which: {', '.join(job.queues)}")
        return job, job.queues[0] if job.queues else None

    def _scheduled(self, job: str) -> tuple[JobInfo, ScheduleInfo]:
        info = self.job(job)
        if info.schedule is None:
            raise Refused(_unscheduled(info))
        return info, info.schedule

    @cached_property
    def _role_of_one_shots(self) -> str:
        if self.settings.scheduler_role_arn:
            return self.settings.scheduler_role_arn
        stacks = aws.client("cloudformation").describe_stacks(StackName=self.settings.schoolbell_stack)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
        return str(outputs["DelayedTriggerRoleArn"])

    @contextmanager
    def _audited(self, action: str, subject: str, details: Mapping[str, Any]) -> Iterator[None]:
        """Writes down what is about to be changed in AWS, and then how that ended: no change is without its record."""
        with self.database.transaction() as connection:
            record = self._audit(connection, action, subject, {**details, "outcome": "begun"})
        outcome = "failed"
        try:
            yield
            outcome = "done"
        except Exception as error:
            outcome = f"failed: {aws.error_code(error) or type(error).__name__}"
            raise
        finally:
            with self.database.transaction() as connection:
                connection.execute(_AUDIT_OUTCOME, {"id": record, "outcome": outcome})

    def _audit(self, connection: Connection, action: str, subject: str, details: Mapping[str, Any]) -> UUID:
        values = {
            "action": action,
            "actor": self.actor,
            "subject": subject,
            "details": dict(details),
            "now": self.clock(),
        }
        record: UUID = connection.execute(_AUDIT, values).scalar_one()
        return record


_AUDIT = text(
    """
    INSERT INTO platform.audit_logs (action, actor, subject, details, occurred_at)
    VALUES (:action, :actor, :subject, :details, :now)
    RETURNING id
    """
).bindparams(bindparam("details", type_=JSONB))

_AUDIT_OUTCOME = text(
    "UPDATE platform.audit_logs SET details = details || jsonb_build_object('outcome', cast(:outcome AS text)) "
    "WHERE id = :id"
)

# A message that is not due yet is nobody's, so that it can be taken back.
_LEAVE_TO_RELAY = text(
    "UPDATE platform.outbox SET claimed_by = NULL, claimed_until = NULL WHERE dedup_key = :dedup_key"
)

_MESSAGE = text(
    """
    SELECT row.handled_at, letter.dead_at, letter.error
    FROM platform.outbox AS row
    LEFT JOIN LATERAL (
        SELECT dead_at, error FROM platform.dead_letters
        WHERE job = :job AND resolved_at IS NULL AND dead_at >= row.created_at
          AND attributes ->> 'outbox-id' = row.id::text
        LIMIT 1
    ) AS letter ON true
    WHERE row.dedup_key = :dedup_key
    """
)


def _state(status: str) -> State:
    states: dict[str, State] = {"completed": "completed", "failed": "failed", "timed_out": "timed_out"}
    return states.get(status, "running")


def _unscheduled(job: JobInfo) -> str:
    if job.trigger == "schedule":
        return f"{job.name} has no schedule any more; a deployment that changes it brings it back"
    if job.trigger == "queue":
        return f"{job.name} has no schedule: its queue rings it"
    return f"{job.name} has no schedule: it answers those who call it"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"


def _are(count: int) -> Literal["is", "are"]:
    return "is" if count == 1 else "are"


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _log_record(event: Mapping[str, Any]) -> LogRecord:
    """A record of a function's log: JSON as the jobs write it, or a text of Lambda's own."""
    at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
    try:
        content = json.loads(event["message"])
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return LogRecord(at, "", str(event["message"]).strip(), {})
    left_out = {"level", "message", "timestamp", "service", "location", "run_id", "xray_trace_id"}
    fields = {name: value for name, value in content.items() if name not in left_out}
    return LogRecord(at, str(content.get("level", "")), str(content.get("message", "")), fields)
