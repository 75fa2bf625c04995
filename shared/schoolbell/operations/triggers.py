"""Triggers: what applications and operators ask for, by key, so that what is asked for twice is done once.

    asked for ──▶ sent at once, or arranged ──▶ begun ──▶ …
        │          as a one-shot schedule
        └──────────────────┴──▶ cancelled, as long as it has not begun

What goes at once, or within a minute and a half, is a message of the outbox: committed with the trigger, and sent once.
What goes later is a one-shot schedule with a name made from the key. When a process ends between the commit and the
call of EventBridge Scheduler, asking again with the same key arranges what is missing.

The run of a scheduled job has the trigger's id. Whoever writes that row first has it: the job, which begins, or the
cancellation, which ends the run before it began. A queue job has no row for a message, so its trigger can be cancelled
as long as it has not been sent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, text

from schoolbell import aws
from schoolbell.jobs import one_time_schedules
from schoolbell.jobs.one_time_schedules import OneShot
from schoolbell.operations.catalogue import group
from schoolbell.operations.models import Refused
from schoolbell.settings import Settings

CANCELLED: Final = "cancelled before it began"

LARGEST_DATA: Final = 250_000
"""Bytes: EventBridge Scheduler takes 256 KiB with what is around the data, SQS and Lambda take more."""

LONGEST_DELAY: Final = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A row of `platform.triggers`."""

    id: UUID
    key: str
    job: str
    queue: str | None
    due_at: datetime | None
    schedule: str | None
    arranged_at: datetime | None
    cancelled_at: datetime | None


_COLUMNS = "id, key, job, queue, due_at, schedule, arranged_at, cancelled_at"

# A key whose trigger was cancelled is free again; a key in use keeps the trigger that it has.
_ASK = text(
    f"""
    INSERT INTO platform.triggers AS known (id, key, job, queue, requested_by, due_at, schedule, created_at)
    VALUES (:id, :key, :job, :queue, :requested_by, :due_at, :schedule, :now)
    ON CONFLICT (key) DO UPDATE
    SET id = excluded.id, job = excluded.job, queue = excluded.queue, requested_by = excluded.requested_by,
        due_at = excluded.due_at, schedule = excluded.schedule, created_at = excluded.created_at,
        arranged_at = NULL, cancelled_at = NULL
    WHERE known.cancelled_at IS NOT NULL
    RETURNING {_COLUMNS}
    """  # noqa: S608 - made of this module's constants
)

_FIND = text(f"SELECT {_COLUMNS} FROM platform.triggers WHERE key = :key FOR UPDATE")  # noqa: S608
_READ = text(f"SELECT {_COLUMNS} FROM platform.triggers WHERE key = :key")  # noqa: S608


def ask(
    connection: Connection,
    trigger: Trigger,
    requested_by: str,
    now: datetime,
) -> bool:
    """Writes a trigger, and says whether it is new: its key may be taken."""
    values = {
        "id": trigger.id,
        "key": trigger.key,
        "job": trigger.job,
        "queue": trigger.queue,
        "requested_by": requested_by,
        "due_at": trigger.due_at,
        "schedule": trigger.schedule,
        "now": now,
    }
    return connection.execute(_ASK, values).first() is not None


def find(connection: Connection, key: str, *, for_change: bool = False) -> Trigger | None:
    """The trigger of a key, locked until the transaction's end if it is to be changed."""
    row = connection.execute(_FIND if for_change else _READ, {"key": key}).first()
    return Trigger(*row) if row else None


def mark_arranged(connection: Connection, trigger: UUID, now: datetime) -> None:
    """Notes that the one-shot schedule of a trigger has been made."""
    connection.execute(
        text("UPDATE platform.triggers SET arranged_at = :now WHERE id = :id"), {"id": trigger, "now": now}
    )


def mark_cancelled(connection: Connection, trigger: UUID, now: datetime) -> None:
    """Notes that a trigger is not to happen, which frees its key."""
    connection.execute(
        text("UPDATE platform.triggers SET cancelled_at = :now WHERE id = :id"), {"id": trigger, "now": now}
    )


_TAKE_BACK = text(
    """
    DELETE FROM platform.outbox
    WHERE dedup_key = :dedup_key AND sent_at IS NULL AND (claimed_until IS NULL OR claimed_until <= :now)
    """
)

_END_BEFORE_IT_BEGINS = text(
    """
    INSERT INTO platform.job_runs (id, job, trigger, started_at, finished_at, status, error, counted)
    VALUES (:id, :job, :trigger, :now, :now, 'completed', :cancelled, 1)
    ON CONFLICT (id) DO NOTHING
    """
)


def take_back(connection: Connection, trigger: Trigger, now: datetime) -> bool:
    """Removes a message that has not been sent from the outbox, and says whether there was one."""
    values = {"dedup_key": dedup_key(trigger.id), "now": now}
    return connection.execute(_TAKE_BACK, values).rowcount > 0


def end_before_it_begins(connection: Connection, trigger: Trigger, now: datetime) -> bool:
    """Takes a scheduled job's run before the job does, and says whether that was in time."""
    kind = "delayed" if trigger.due_at else "manual"
    values = {"id": trigger.id, "job": trigger.job, "trigger": kind, "now": now, "cancelled": CANCELLED}
    return connection.execute(_END_BEFORE_IT_BEGINS, values).rowcount > 0


def dedup_key(trigger: UUID) -> str:
    """Under which key a trigger's message is in the outbox."""
    return f"trigger/{trigger}"


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
