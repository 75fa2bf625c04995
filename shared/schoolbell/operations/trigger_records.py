"""Triggers as rows of `platform.triggers`, with their message in the outbox and their run."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

CANCELLED: Final = "cancelled before it began"
"""The error of a run that was cancelled: it is completed, and had nothing to do."""


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


# A message that is not due yet is nobody's, so that it can be taken back.
_LEAVE_TO_RELAY = text(
    "UPDATE platform.outbox SET claimed_by = NULL, claimed_until = NULL WHERE dedup_key = :dedup_key"
)


def leave_to_relay(connection: Connection, trigger: UUID) -> None:
    """Has `platform.outbox-relay` send a trigger's message when it is due."""
    connection.execute(_LEAVE_TO_RELAY, {"dedup_key": dedup_key(trigger)})


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


def message_of(connection: Connection, trigger: Trigger) -> Row[Any] | None:
    """How far the message of a trigger is: `handled_at`, and `dead_at` and `error` of its dead letter."""
    return connection.execute(_MESSAGE, {"dedup_key": dedup_key(trigger.id), "job": trigger.job}).first()
