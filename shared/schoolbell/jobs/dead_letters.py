"""Dead letters: why a message can't pass, recorded before it reaches its dead-letter queue.

A message on a dead-letter queue doesn't say why it is there, so the reason is a row in `platform.dead_letters`, written
by the worker. What no worker could record is found on the queue later: `schoolbell.operations.dead_letters`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

type Reason = Literal["failed", "discarded", "timed_out", "unknown"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that won't be tried again."""

    message_id: str
    payload: str
    attributes: dict[str, Any]
    attempts: int
    reason: Reason
    error: str
    traceback: str | None = None
    dead_at: datetime | None = None
    """When it died; when it is recorded, if not given."""


_RECORD = text(
    """
    INSERT INTO platform.dead_letters AS letter
        (job, queue, message_id, payload, attributes, attempts, reason, error, traceback, dead_at)
    SELECT :job, :queue, message_id, payload, attributes, attempts, reason, error, traceback, :now
    FROM jsonb_to_recordset(:letters) AS dead (
        message_id text, payload text, attributes jsonb, attempts integer, reason text, error text, traceback text
    )
    ON CONFLICT (queue, message_id) DO UPDATE
    SET attempts = excluded.attempts, reason = excluded.reason, error = excluded.error,
        traceback = excluded.traceback, dead_at = excluded.dead_at,
        resolved_at = NULL, resolution = NULL, resolved_by = NULL
    """
).bindparams(bindparam("letters", type_=JSONB))


def record(connection: Connection, job: str, queue: str, letters: Sequence[DeadLetter], now: datetime) -> None:
    """Records dead letters; one that died before (it was redriven) is dead anew."""
    rows = [row_of(letter) for letter in letters]
    connection.execute(_RECORD, {"job": job, "queue": queue, "letters": rows, "now": now})


def row_of(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as the JSON object that the statements take."""
    return {
        "message_id": letter.message_id,
        # PostgreSQL's text and jsonb can't hold a NUL; everything else of the body stays as it came.
        "payload": letter.payload.replace("\x00", "�"),
        "attributes": letter.attributes,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "error": letter.error,
        "traceback": letter.traceback,
        "dead_at": letter.dead_at.isoformat() if letter.dead_at else None,
    }
