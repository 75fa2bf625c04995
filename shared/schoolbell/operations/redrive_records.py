"""The records of dead letters as they are redriven and dropped, and the copies of their messages in the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Label, bindparam, func, literal, literal_column, select, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.domains.platform.tables.dead_letters import dead_letters
from schoolbell.jobs.outbox import Outbox

_OPEN = text(
    """
    SELECT id FROM platform.dead_letters
    WHERE resolved_at IS NULL AND (id = cast(:id AS uuid) OR (job = :job AND dead_at <= :now))
    ORDER BY id
    FOR UPDATE
    """
)

_RESOLVE = text(
    """
    UPDATE platform.dead_letters SET resolved_at = :now, resolution = :resolution, resolved_by = :actor
    WHERE id IN (SELECT value::uuid FROM jsonb_array_elements_text(:ids))
    """
).bindparams(bindparam("ids", type_=JSONB))

_RESOLVE_QUEUE = text(
    """
    UPDATE platform.dead_letters SET resolved_at = :now, resolution = 'redriven', resolved_by = :actor
    WHERE queue = :queue AND resolved_at IS NULL AND dead_at <= :started
    """
)


@dataclass(frozen=True, slots=True)
class Letter:
    """What is known of a dead letter, without what is in it."""

    id: UUID
    job: str
    queue: str
    """The name of the queue that its message came from; a scheduled job has dead letters without one."""
    message_id: str
    resolution: str | None
    has_payload: bool


def letter(connection: Connection, letter_id: UUID) -> Letter | None:
    """A dead letter by the id of its record."""
    c = dead_letters.c
    has_payload = c.payload.is_not(None).label("has_payload")
    query = select(c.id, c.job, c.queue, c.message_id, c.resolution, has_payload).where(c.id == letter_id)
    row = connection.execute(query).first()
    return Letter(*row) if row else None


def open_letters(
    connection: Connection, now: datetime, *, letter_id: UUID | None = None, job: str | None = None
) -> list[UUID]:
    """The unresolved letters of a job, or the one letter if it is unresolved; locked until the transaction's end."""
    return list(connection.execute(_OPEN, {"id": letter_id, "job": job, "now": now}).scalars())


def has_open(connection: Connection, queue: str) -> bool:
    """Whether there are unresolved letters of a queue, by its full name."""
    c = dead_letters.c
    query = select(func.count()).where(c.queue == queue, c.resolved_at.is_(None))
    return connection.execute(query).scalar_one() > 0


# A copy keeps its message's attributes, and the id by which jobs know a message that is sent again. SQS takes ten.
_ATTRIBUTES: Final[Label[Any]] = literal_column(
    """
    CASE WHEN (SELECT count(*) FROM jsonb_object_keys(coalesce(attributes, '{}'))) > 8 THEN '{}'
         ELSE jsonb_strip_nulls(coalesce(attributes, '{}')) - ARRAY['outbox-id', 'reason', 'recorded-as'] END
    || jsonb_build_object('first-message-id', coalesce(attributes ->> 'first-message-id', message_id))
    """
).label("attributes")


def send_copies(connection: Connection, outbox: Outbox, letters: Sequence[UUID], destination: str) -> int:
    """Writes copies of the messages of letters to the outbox, to the letter; returns how many were not sent before."""
    c = dead_letters.c
    stamp = func.to_char(func.timezone("UTC", c.dead_at), "YYYYMMDDHH24MISSUS")
    return outbox.send_from(
        connection,
        select(
            literal(destination).label("destination"),
            func.to_jsonb(c.payload).label("payload"),
            func.concat("redrive/", c.id, "/", stamp).label("dedup_key"),
            _ATTRIBUTES,
        ).where(c.id.in_(list(letters)), c.payload.is_not(None)),
    )


def resolve(connection: Connection, letters: Sequence[UUID], resolution: str, actor: str, now: datetime) -> None:
    """Marks letters as redriven or dropped."""
    ids = [str(each) for each in letters]
    connection.execute(_RESOLVE, {"ids": ids, "resolution": resolution, "actor": actor, "now": now})


def resolve_moved(connection: Connection, queue: str, started: datetime, actor: str, now: datetime) -> int:
    """Marks the letters of a queue whose messages SQS moves, as far as they were dead before; returns how many."""
    values = {"queue": queue, "started": started, "actor": actor, "now": now}
    return connection.execute(_RESOLVE_QUEUE, values).rowcount
