"""What lies on dead-letter queues, and how the records of it are kept in step.

The worker records why a message can't pass (`schoolbell.jobs.dead_letters`). What no worker could record,
`platform.dead-letter-sweep` finds on the queue and records from what the message itself tells; and it resolves the
records of messages that have gone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.jobs.dead_letters import DeadLetter, Reason, row_of
from schoolbell.jobs.messages import REASON, RECORDED_AS


class _Request(BaseModel):
    request_id: str = Field(alias="requestId")
    condition: str
    attempts: int = Field(default=1, alias="approximateInvokeCount")


class _Destination(BaseModel):
    """What Lambda puts on a queue about an invocation that failed and that nobody waited for.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
    """

    timestamp: AwareDatetime
    request: _Request = Field(alias="requestContext")
    payload: Any = Field(alias="requestPayload")
    response: Any = Field(default=None, alias="responsePayload")


SILENT: Final = "its function ended without saying why: out of time or memory, or the database was away"
UNEXPLAINED: Final = "nobody said why; it was perhaps put here by hand"
_TIMED_OUT: Final = ("Sandbox.Timedout", "Task timed out after")
_UNSAID: Final = ("Runtime.ExitError", "Runtime.OutOfMemory", "Sandbox.", "Extension.")
"""How the error types begin that Lambda gives to a process that ended without a word: out of memory, or a crash."""


def record_id(message: Mapping[str, Any]) -> str:
    """Under which message id a message that was received from a dead-letter queue is recorded.

    SQS moves a message with the id it had on its queue, under which the worker has recorded it. A discarded message is
    there as a copy with an id of its own, and an attribute that says under which it is recorded. A copy that was
    redriven keeps that attribute, and may come back by SQS, as another death with a record of its own.
    """
    is_moved = "DeadLetterQueueSourceArn" in message.get("Attributes", {})
    return message["MessageId"] if is_moved else _attribute(message, RECORDED_AS) or message["MessageId"]


def letter_of(message: Mapping[str, Any], now: datetime, tries: int) -> DeadLetter:
    """What a message that was received from a dead-letter queue tells of its death, where no worker has recorded it.

    Args:
        message: as `ReceiveMessage` answers it, with all attributes.
        now: when it was found there; when it died, where nothing says so.
        tries: after how many receives SQS moves a message.
    """
    body = message["Body"]
    attributes = {name: value.get("StringValue") for name, value in message.get("MessageAttributes", {}).items()}
    letter = DeadLetter(
        message_id=record_id(message),
        payload=body,
        attributes=attributes,
        attempts=tries,
        reason="unknown",
        error=SILENT,
        traceback=None,
        dead_at=now,
    )
    if "DeadLetterQueueSourceArn" in message.get("Attributes", {}):
        return letter
    letter = replace(letter, attempts=1, dead_at=min(_sent_at(message) or now, now))
    if RECORDED_AS in attributes:
        return replace(letter, reason="discarded", error=attributes.get(REASON) or UNEXPLAINED)
    if code := attributes.get("ERROR_CODE"):  # from a rule or a schedule that could not deliver it
        retries = attributes.get("RETRY_ATTEMPTS") or ""
        attempts = int(retries) + 1 if retries.isdecimal() else 1
        return replace(letter, reason="failed", error=f"not delivered: {code}", attempts=attempts)
    return _unwrapped(letter, body) or replace(letter, error=UNEXPLAINED)


def _unwrapped(letter: DeadLetter, body: str) -> DeadLetter | None:
    """The invocation that a record of Lambda's is about; `None` if the body is no such record."""
    try:
        destination = _Destination.model_validate_json(body)
    except ValidationError:
        return None
    response = destination.response if isinstance(destination.response, dict) else {}
    kind, said = str(response.get("errorType") or ""), str(response.get("errorMessage") or "")
    reason: Reason = "failed"
    if any(mark in f"{kind} {said}" for mark in _TIMED_OUT):
        reason = "timed_out"
    elif not response or kind.startswith(_UNSAID):
        reason = "unknown"
    return replace(
        letter,
        payload=json.dumps(destination.payload, separators=(",", ":"), ensure_ascii=False),
        attributes={
            "request_id": destination.request.request_id,
            "condition": destination.request.condition,
            "error_type": kind,
        },
        attempts=destination.request.attempts,
        reason=reason,
        error=" ".join(said.split())[:500] or destination.request.condition,
        dead_at=destination.timestamp,
    )


def _attribute(message: Mapping[str, Any], name: str) -> str | None:
    value = message.get("MessageAttributes", {}).get(name, {}).get("StringValue")
    return str(value) if value else None


def _sent_at(message: Mapping[str, Any]) -> datetime | None:
    sent = str(message.get("Attributes", {}).get("SentTimestamp", ""))
    return datetime.fromtimestamp(int(sent) / 1000, UTC) if sent.isdecimal() else None


_FOUND = text(
    """
    WITH found AS (
        SELECT * FROM jsonb_to_recordset(:letters) AS dead (
            message_id text, payload text, attributes jsonb, attempts integer, reason text, error text,
            dead_at timestamptz
        )
    ),
    known AS (
        SELECT letter.id, letter.message_id, letter.resolved_at < :settled AS is_reopened
        FROM found JOIN platform.dead_letters AS letter ON letter.queue = :queue
             AND letter.message_id = found.message_id
        FOR UPDATE OF letter
    ),
    seen AS (
        UPDATE platform.dead_letters AS letter
        SET last_seen_at = :now,
            resolved_at = CASE WHEN known.is_reopened THEN NULL ELSE letter.resolved_at END,
            resolution = CASE WHEN known.is_reopened THEN NULL ELSE letter.resolution END,
            resolved_by = CASE WHEN known.is_reopened THEN NULL ELSE letter.resolved_by END
        FROM known WHERE letter.id = known.id
    ),
    new AS (
        INSERT INTO platform.dead_letters
            (job, queue, message_id, payload, attributes, attempts, reason, error, dead_at, last_seen_at)
        SELECT :job, :queue, message_id, payload, attributes, attempts, reason, error, dead_at, :now
        FROM found
        ON CONFLICT (queue, message_id) DO NOTHING
        RETURNING message_id
    )
    SELECT (SELECT count(*) FROM new) AS recorded, (SELECT count(*) FROM known WHERE is_reopened) AS reopened
    """
).bindparams(bindparam("letters", type_=JSONB))

SETTLED: Final = timedelta(minutes=10)
"""A message may lie on its dead-letter queue this long after its record was resolved: it is being taken away."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at messages on a dead-letter queue changed."""

    recorded: int = 0
    reopened: int = 0


def found(connection: Connection, job: str, queue: str, letters: Sequence[DeadLetter], now: datetime) -> Found:
    """Notes that these messages lie on a dead-letter queue, and records those of which there is no record.

    A record that was resolved a while ago is open again: its message has not gone after all.
    """
    by_id = {letter.message_id: letter for letter in letters}  # a discard that was tried again left two copies
    values = {"job": job, "queue": queue, "letters": [row_of(letter) for letter in by_id.values()], "now": now}
    return Found(*connection.execute(_FOUND, {**values, "settled": now - SETTLED}).one())


_MISSING = text(
    """
    SELECT EXISTS (
        SELECT FROM platform.dead_letters
        WHERE queue = :queue AND resolved_at IS NULL AND coalesce(last_seen_at, dead_at) < :now
    )
    """
)

_REDRIVEN = text(
    """
    UPDATE platform.dead_letters SET resolved_at = :now, resolution = 'redriven', resolved_by = 'console'
    WHERE queue = :queue AND resolved_at IS NULL
      AND dead_at < :moved_at AND (last_seen_at IS NULL OR last_seen_at < :moved_at)
    """
)

_EXPIRED = text(
    """
    UPDATE platform.dead_letters SET resolved_at = :now, resolution = 'dropped', resolved_by = 'retention'
    WHERE queue = :queue AND resolved_at IS NULL
      AND dead_at < :expired AND (last_seen_at IS NULL OR last_seen_at < :now)
    """
)


def are_missing(connection: Connection, queue: str, now: datetime) -> bool:
    """Whether there are open records of a queue whose messages the look at `now` has not found there."""
    return bool(connection.scalar(_MISSING, {"queue": queue, "now": now}))


def moved_away(connection: Connection, queue: str, moved_at: datetime, now: datetime) -> int:
    """Resolves the records of messages that a redrive took along which began at `moved_at`, and counts them.

    Only for a redrive that has ended, after a look that found everything that is left: whatever was dead before it
    began, and has not been seen on the queue since, went with it.
    """
    return connection.execute(_REDRIVEN, {"queue": queue, "moved_at": moved_at, "now": now}).rowcount


def expired(connection: Connection, queue: str, kept: timedelta, now: datetime) -> int:
    """Resolves the records of messages that SQS no longer keeps, and counts them.

    Args:
        connection: the transaction.
        queue: the queue that the messages were on before they died.
        kept: how long SQS keeps a message on the dead-letter queue, counted from when it was first sent.
        now: when the look began.
    """
    return connection.execute(_EXPIRED, {"queue": queue, "expired": now - kept - SETTLED, "now": now}).rowcount
