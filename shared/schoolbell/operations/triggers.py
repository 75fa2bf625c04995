"""Triggers: what applications and operators ask for, by key, so that what is asked for twice is done once.

    asked for ──▶ sent at once, or arranged ──▶ begun ──▶ …
        │          as a one-time schedule
        └──────────────────┴──▶ cancelled, as long as it has not begun

What goes at once, or within a minute and a half, is a message of the outbox: committed with the trigger, and sent once.
What goes later is a one-time schedule with a name made from the key. When a process ends between the commit and the
call of EventBridge Scheduler, asking again with the same key arranges what is missing.

The run of a scheduled job has the trigger's id. Whoever writes that row first has it: the job, which begins, or the
cancellation, which ends the run before it began. A queue job has no row for a message, so its trigger can be cancelled
as long as it has not been sent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import Connection

from schoolbell import aws
from schoolbell.jobs import one_time_schedules
from schoolbell.jobs.one_time_schedules import TOO_LATE, OneShot
from schoolbell.jobs.outbox import Outbox
from schoolbell.operations import history, trigger_records
from schoolbell.operations.catalogue import JobInfo, group
from schoolbell.operations.models import Cancellation, NotFound, Outcome, Refused, RunHandle, RunInfo, State
from schoolbell.operations.stack import Stack
from schoolbell.operations.trigger_records import CANCELLED, Trigger
from schoolbell.settings import Settings

LARGEST_DATA: Final = 250_000
"""Bytes: EventBridge Scheduler takes 256 KiB with what is around the data, SQS and Lambda take more."""

LONGEST_DELAY: Final = timedelta(days=366)
LONGEST_KEY: Final = 200


@dataclass(frozen=True, slots=True)
class _Asked:
    """What somebody asks for."""

    job: JobInfo
    queue: str | None
    """Where its message goes; `None` for a scheduled job, which is invoked."""
    data: Mapping[str, Any]
    key: str | None
    due_at: datetime | None
    dry_run: bool

    def trigger(self, now: datetime) -> Trigger:
        """A trigger of it, which gets a schedule unless it is due too soon for one."""
        id_ = uuid4()
        key = self.key or str(id_)
        is_soon = self.due_at is None or self.due_at - now < TOO_LATE
        return Trigger(
            id=id_,
            key=key,
            job=self.job.name,
            queue=self.queue,
            due_at=self.due_at,
            schedule=None if is_soon else schedule_name(self.job.name, key),
            arranged_at=None,
            cancelled_at=None,
        )

    def payload(self, trigger: UUID) -> dict[str, Any]:
        """What the job is given.

        Raises:
            Refused: the data are no JSON object, or too many.
        """
        run = None if self.queue else trigger
        return event_of(self.data, run, dry_run=self.dry_run, is_delayed=self.due_at is not None)


def trigger(
    stack: Stack,
    job: str,
    data: Mapping[str, Any] | None,
    *,
    delay: timedelta | None,
    at: datetime | None,
    key: str | None,
    dry_run: bool,
) -> RunHandle:
    """Has a job run once; `JobClient.trigger` says how.

    Raises:
        NotFound: no job is called so.
        Refused: it can't be triggered so; the text says why.
    """
    info, queue = _target(stack, job)
    now = stack.clock()
    asked = _Asked(info, queue, data or {}, key, due_at(now, delay, at), dry_run)
    _refuse(asked)
    wanted = asked.trigger(now)
    payload = asked.payload(wanted.id)
    role = stack.scheduler_role_arn if wanted.schedule else ""
    outbox = stack.outbox()
    with stack.database.transaction() as connection:
        is_new = trigger_records.ask(connection, wanted, stack.actor, now)
        if is_new:
            _write(stack, connection, outbox, wanted, payload, dry_run=dry_run)
        found = wanted if is_new else trigger_records.find(connection, wanted.key)
    if found is None:
        raise Refused(f"the key {wanted.key} is being cancelled; try again")
    if found.job != info.name:
        raise Refused(f"the key {wanted.key} is that of a trigger of {found.job}")
    if found.schedule and not found.arranged_at:
        late = replace(asked, due_at=found.due_at)
        _arrange(stack, found, late.payload(found.id), role or stack.scheduler_role_arn, now)
    if asked.due_at is None:
        stack.flush(outbox)
    return RunHandle(found.id, found.job, found.key, is_new, found.due_at, found.schedule)


def _target(stack: Stack, name: str) -> tuple[JobInfo, str | None]:
    """The job of this name, or with a queue of this name, and the queue that its messages go to."""
    for job in stack.functions():
        if name in job.queues:
            return job, name
    job = stack.function(name)
    if job.trigger == "called":
        raise Refused(f"{name} answers those who call it, and can't be triggered")
    if len(job.queues) > 1:
        raise Refused(f"{name} has several queues; say which: {', '.join(job.queues)}")
    return job, job.queues[0] if job.queues else None


def _refuse(asked: _Asked) -> None:
    if asked.dry_run and not asked.job.has_dry_run:
        raise Refused(f"{asked.job.name} has no dry run")
    if asked.key is not None and not 0 < len(asked.key) <= LONGEST_KEY:
        raise Refused(f"a key has 1 to {LONGEST_KEY} characters")


def _write(
    stack: Stack, connection: Connection, outbox: Outbox, trigger: Trigger, payload: Mapping[str, Any], *, dry_run: bool
) -> None:
    """Writes what belongs to a new trigger: its audit record, and its message where it gets no schedule."""
    stack.audit(
        connection, "job.triggered", trigger.job, {"run": str(trigger.id), "key": trigger.key, "dry_run": dry_run}
    )
    if trigger.schedule:
        return
    destination = trigger.queue or f"function/{trigger.job}"
    key = trigger_records.dedup_key(trigger.id)
    outbox.send(connection, destination, payload, dedup_key=key, available_at=trigger.due_at)
    if trigger.due_at:
        trigger_records.leave_to_relay(connection, trigger.id)


def _arrange(stack: Stack, trigger: Trigger, payload: Mapping[str, Any], role: str, now: datetime) -> None:
    if trigger.due_at and trigger.due_at <= now:  # the process that asked for it ended before it was arranged
        trigger = replace(trigger, due_at=now + TOO_LATE)
    arrange(trigger, payload, stack.settings, role)
    with stack.database.transaction() as connection:
        trigger_records.mark_arranged(connection, trigger.id, now)


def cancel(stack: Stack, key: str) -> Cancellation:
    """Cancels what has not begun. Asking twice does no harm."""
    now = stack.clock()
    with stack.database.transaction() as connection:
        found = trigger_records.find(connection, key, for_change=True)
        if found is None:
            return Cancellation(is_cancelled=False, message=f"nothing was triggered with the key {key}")
        if found.cancelled_at:
            return Cancellation(is_cancelled=True, message=f"{found.job} with the key {key} was cancelled already")
        is_cancelled = _cancel_unsent(connection, found, now)
    if found.schedule:
        is_deleted = remove_schedule(found.schedule, stack.settings)
        # A schedule that is gone before its time was deleted by a cancellation that did not come to its end.
        is_early = found.due_at is not None and found.due_at > now
        is_cancelled = is_cancelled if found.queue is None else is_deleted or is_early
    if not is_cancelled:
        return Cancellation(is_cancelled=False, message=f"{found.job} with the key {key} has begun or was sent")
    with stack.database.transaction() as connection:
        trigger_records.mark_cancelled(connection, found.id, now)
        stack.audit(connection, "job.cancelled", found.job, {"key": key})
    return Cancellation(is_cancelled=True, message=f"{found.job} with the key {key} will not run")


def _cancel_unsent(connection: Connection, trigger: Trigger, now: datetime) -> bool:
    is_taken_back = trigger_records.take_back(connection, trigger, now)
    if trigger.queue:
        return is_taken_back
    if trigger_records.end_before_it_begins(connection, trigger, now):
        return True
    run = history.run(connection, trigger.id, RunInfo)
    return run is not None and run.error == CANCELLED


def outcome(stack: Stack, handle: RunHandle) -> Outcome:
    """How far something that was triggered is.

    Raises:
        NotFound: it is longer ago than what is remembered.
    """
    with stack.database.transaction(read_only=True) as connection:
        found = trigger_records.find(connection, handle.key)
        if found is None:
            raise NotFound(f"nothing was triggered with the key {handle.key}")
        if found.cancelled_at:
            return Outcome("cancelled")
        if found.queue:
            return _outcome_of_message(connection, found, stack.clock())
        run = history.run(connection, found.id, RunInfo)
    if run is None:
        return Outcome("waiting")
    return Outcome("cancelled" if run.error == CANCELLED else _state(run.status), run, run.error)


def _outcome_of_message(connection: Connection, trigger: Trigger, now: datetime) -> Outcome:
    if trigger.schedule:
        is_due = trigger.due_at is not None and trigger.due_at <= now
        return Outcome("sent" if is_due else "waiting")
    message = trigger_records.message_of(connection, trigger)
    if message is None:
        return Outcome("sent")
    if message.handled_at:
        return Outcome("completed")
    return Outcome("failed", error=message.error) if message.dead_at else Outcome("waiting")


def _state(status: str) -> State:
    states: dict[str, State] = {"completed": "completed", "failed": "failed", "timed_out": "timed_out"}
    return states.get(status, "running")


def schedule_name(job: str, key: str) -> str:
    """The name of a trigger's one-shot schedule: the same for the same key, and no longer than AWS's 64 characters."""
    return f"trigger-{job.replace('.', '-')[:38]}-{sha256(key.encode()).hexdigest()[:16]}"


def arrange(trigger: Trigger, payload: Mapping[str, Any], settings: Settings, role_arn: str) -> None:
    """Makes a trigger's one-time schedule, or makes the one of that name this trigger's.

    Raises:
        Refused: others make and delete it at the same time.
    """
    if trigger.schedule is None or trigger.due_at is None:
        raise ValueError(f"trigger {trigger.id} is not due later")
    one_shot = OneShot(
        trigger.due_at,
        trigger.queue or trigger.job,
        payload,
        target="queue" if trigger.queue else "function",
        description=f"Trigger {trigger.id} of {trigger.job}",
        role_arn=role_arn,
    )
    try:
        one_time_schedules.put(aws.client("scheduler"), trigger.schedule, one_shot, settings)
    except one_time_schedules.ScheduleContended as error:
        raise Refused(f"{error}; try again") from None


def remove_schedule(name: str, settings: Settings) -> bool:
    """Deletes a trigger's one-shot schedule, and says whether it was there: else it has gone off, or never was."""
    try:
        aws.client("scheduler").delete_schedule(Name=name, GroupName=group(settings))
    except Exception as error:
        if aws.error_code(error) != "ResourceNotFoundException":
            raise
        return False
    return True


def due_at(now: datetime, delay: timedelta | None, at: datetime | None) -> datetime | None:
    """When a trigger is due, by a delay or a time; `None` for at once.

    Raises:
        Refused: it would be in the past, is said twice, or has no time zone.
    """
    if delay is None and at is None:
        return None
    if delay is not None and at is not None:
        raise Refused("give a delay or a time, not both")
    if at is not None and at.tzinfo is None:
        raise Refused("the time has no time zone")
    due = at.astimezone(UTC) if at is not None else now + (delay or timedelta(0))
    if due <= now and at is not None:
        raise Refused(f"{due:%Y-%m-%d %H:%M:%S} UTC has passed")
    if due < now:
        raise Refused("a delay can't be negative")
    if due > now + LONGEST_DELAY:
        raise Refused("more than a year ahead is further than a trigger is remembered")
    return due if due > now else None


def event_of(data: Mapping[str, Any], run: UUID | None, *, dry_run: bool, is_delayed: bool) -> dict[str, Any]:
    """The message of a queue job, or the event of a scheduled one, which names its run.

    Raises:
        Refused: the data are no JSON object, or too many.
    """
    if run and "run" in data:
        raise Refused("data: run: this name is taken")
    payload: dict[str, Any] = {**data, **({"dry_run": True} if dry_run else {})}
    if run:
        payload["run"] = {"id": str(run), "trigger": "delayed" if is_delayed else "manual"}
    try:
        size = len(json.dumps(payload, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise Refused(f"data: not a JSON object: {error}") from None
    if not all(isinstance(name, str) for name in data):
        raise Refused("data: not a JSON object: its names are texts")
    if size > LARGEST_DATA:
        raise Refused(f"data: {size:,} bytes; {LARGEST_DATA:,} are the most")
    return payload
