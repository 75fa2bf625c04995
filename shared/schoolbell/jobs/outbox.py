"""The outbox: what a transaction wants sent, written in that transaction and sent after it.

A job that called SQS inside its transaction could send what is then rolled back; one that called it afterwards could
die in between and send nothing. So the message is a row, committed with the change that caused it, sent right after the
commit by the job itself, and a minute later by `platform.outbox-relay` if the job died. Delivery is at least once; each
message carries its row's id, by which consumers drop what they have handled already. Only a copy of a message that was
as large as SQS takes them has no room for it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4

from aws_lambda_powertools import Logger
from sqlalchemy import Connection, Select, bindparam, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from schoolbell import aws
from schoolbell.database import Database
from schoolbell.domains.platform.tables.outbox import outbox
from schoolbell.jobs.message_attributes import FIRST_ID, OUTBOX_ID, Attributes, as_attribute, size_of, that_fit
from schoolbell.settings import Settings

CLAIM = timedelta(minutes=1)
"""How long a sender has a row for itself. One that needs longer loses it to the relay: sent twice, never lost."""

SEND_AT_ONCE = 1_000
"""Rows read, sent and marked at a time; bounds memory, and what is sent twice when a sender dies."""

SENDERS = 8
"""Batches in flight at a time: an SQS call waits on the network, not on this processor."""

MESSAGES_A_BATCH = 10
BYTES_A_BATCH = 1_000_000
"""SQS and SNS take 10 entries a call, and 1 MiB (1,048,576 bytes) with their attributes."""

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A row of the outbox on its way."""

    id: str
    destination: str
    body: str
    tenant: str | None
    attributes: Mapping[str, str] | None = None


class Outbox:
    """The outbox of one run: collects what its transactions write, and sends it after they commit."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._claim = uuid4()
        self._written = 0
        self._oldest = NEVER

    def now(self) -> datetime:
        """The time as the run's invocation goes on."""
        return self._clock()

    def send(
        self,
        connection: Connection,
        destination: str,
        payload: Mapping[str, Any],
        *,
        dedup_key: str,
        tenant: UUID | None = None,
        available_at: datetime | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Writes one message; a second one with the same `dedup_key` is not sent.

        Args:
            connection: the transaction that the message belongs to.
            destination: a queue job's name (`tutoring.drive-verify`), `topic/<name>` or `function/<job name>`.
            payload: the message's body, JSON; ids, nothing personal.
            dedup_key: names the event, e.g. `waitlist-offer/<entry id>`.
            tenant: whose work it is, where the queue is fair between tenants.
            available_at: not sent before; at once if not given.
            attributes: go with the message beside its body; ids and reasons, nothing personal.
        """
        row = {
            "destination": destination,
            "payload": dict(payload),
            "dedup_key": dedup_key,
            "tenant": str(tenant) if tenant else None,
            "attributes": attributes and dict(attributes),
            **self._claiming(available_at),
        }
        statement = insert(outbox).values(row).on_conflict_do_nothing(index_elements=["dedup_key"])
        self._written += connection.execute(statement).rowcount

    def send_from(self, connection: Connection, messages: Select[Any]) -> int:
        """Writes the messages that a query yields, in the database, and returns how many were new.

        Args:
            connection: the transaction that the messages belong to.
            messages: selects `destination`, `payload` (jsonb), `dedup_key` and optionally `tenant` (text), under these
                names.
        """
        rows = messages.subquery("messages")
        ours = self._claiming()
        names = [column.name for column in rows.c]
        columns = [*rows.c, *(bindparam(name, value) for name, value in ours.items())]
        statement = (
            insert(outbox)
            .from_select([*names, *ours], Select(*columns))
            .on_conflict_do_nothing(index_elements=["dedup_key"])
        )
        written = connection.execute(statement).rowcount
        self._written += written
        return written

    def flush(self, database: Database, settings: Settings, logger: Logger) -> int:
        """Sends what was written and committed, and returns how many. What can't be sent is left to the relay."""
        if not self._written:
            return 0
        self._written = 0
        try:
            sent = self._send_written(database, settings)
        except Exception as error:  # the rows are safe; the relay sends them
            logger.warning("outbox left to the relay", extra={"error": type(error).__name__})
            return 0
        self._oldest = NEVER
        return sent

    def _claiming(self, available_at: datetime | None = None) -> dict[str, Any]:
        """What makes a row this run's. Remembers the oldest, where the reading of them begins."""
        now = self._clock()
        due = available_at or now
        self._oldest = min(self._oldest, due)
        return {"available_at": due, "claimed_by": self._claim, "claimed_until": now + CLAIM}

    def _send_written(self, database: Database, settings: Settings) -> int:
        sent, now = 0, self._clock()
        begin: Mapping[str, Any] = {"since": self._oldest.isoformat(), "after": 0}
        while True:
            with database.transaction(read_only=True) as connection:
                rows = connection.execute(
                    _READ_CLAIMED, {"claim": self._claim, "now": now, "size": SEND_AT_ONCE, **begin}
                ).all()
            if not rows:
                return sent
            begin = {"since": rows[-1].due, "after": int(rows[-1].id)}
            sent += deliver(database, settings, [Outgoing(*row[1:]) for row in rows], now)


# A payload that is a text and no object is a message's body as it is, to the letter.
_OUTGOING = """
    id::text, destination,
    CASE jsonb_typeof(payload) WHEN 'string' THEN payload #>> '{}' ELSE payload::text END AS body,
    tenant, attributes
"""

# By the index of what is unsent, from where the claim begins: an index of claims would cost each message more to write.
_READ_CLAIMED = text(
    f"""
    SELECT available_at::text AS due, {_OUTGOING}
    FROM platform.outbox AS row
    WHERE sent_at IS NULL AND available_at <= :now AND claimed_by = :claim
        AND (available_at, id) > (CAST(:since AS timestamptz), :after)
    ORDER BY row.available_at, row.id  -- by themselves: without a table, these are the texts that are selected
    LIMIT :size
    """  # noqa: S608 - made of constants
)

_CLAIM_OLDEST = text(
    f"""
    WITH claimed AS (
        UPDATE platform.outbox
        SET claimed_by = :claim, claimed_until = :until, attempts = attempts + 1
        WHERE id = ANY (ARRAY(  -- made once, where a plan with IN might look for the oldest again and again
            SELECT id FROM platform.outbox
            WHERE sent_at IS NULL AND available_at <= :now AND (claimed_until IS NULL OR claimed_until <= :now)
            ORDER BY available_at, id
            LIMIT :size
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING *
    )
    SELECT {_OUTGOING} FROM claimed ORDER BY claimed.available_at, claimed.id
    """  # noqa: S608 - made of constants
)


def claim_oldest(connection: Connection, now: datetime, size: int = SEND_AT_ONCE) -> list[Outgoing]:
    """Takes the oldest rows that nobody is sending, and returns them; two relays never take the same row."""
    values = {"claim": uuid4(), "now": now, "until": now + CLAIM, "size": size}
    return [Outgoing(*row) for row in connection.execute(_CLAIM_OLDEST, values)]


def deliver(database: Database, settings: Settings, messages: Sequence[Outgoing], now: datetime) -> int:
    """Sends rows that are committed and claimed, and returns how many went.

    A row that its destination refuses stays unsent with the error on it, and the relay tries it again.
    """
    refused = _send(messages, settings)
    delivered = [int(message.id) for message in messages if message.id not in refused]
    with database.transaction() as connection:
        _mark_sent(connection, delivered, now)
        _mark_refused(connection, refused)
    return len(delivered)


def _mark_sent(connection: Connection, ids: Sequence[int], now: datetime) -> None:
    connection.execute(
        text(
            "UPDATE platform.outbox SET sent_at = :now, last_error = NULL "
            "WHERE id IN (SELECT value::bigint FROM jsonb_array_elements_text(:ids))"
        ).bindparams(bindparam("ids", type_=JSONB)),
        {"now": now, "ids": list(ids)},
    )


def _mark_refused(connection: Connection, refused: Mapping[str, str]) -> None:
    for row, error in refused.items():
        connection.execute(update(outbox).where(outbox.c.id == int(row)).values(last_error=error, claimed_by=None))


def _send(messages: Iterable[Outgoing], settings: Settings) -> dict[str, str]:
    """Sends messages to where they go, and returns the error of each that was refused, by id."""
    batches: list[list[Outgoing]] = []
    for _, group in groupby(sorted(messages, key=lambda m: m.destination), key=lambda m: m.destination):
        batches.extend(_batches(group))
    if len(batches) == 1:
        return _send_batch(batches[0], settings)
    refused: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=min(SENDERS, max(1, len(batches)))) as senders:
        for errors in senders.map(lambda batch: _send_batch(batch, settings), batches):
            refused.update(errors)
    return refused


def _batches(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    batch: list[Outgoing] = []
    size = 0
    for message in messages:
        length = size_of(message.body, _attributes(message)) if message.attributes else len(message.body.encode()) + 200
        if batch and (len(batch) == MESSAGES_A_BATCH or size + length > BYTES_A_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += length
    if batch:
        yield batch


def _send_batch(batch: Sequence[Outgoing], settings: Settings) -> dict[str, str]:
    kind, _, name = batch[0].destination.rpartition("/")
    try:
        if kind == "topic":
            return _publish(batch, settings.topic_arn(name))
        if kind == "function":
            return _invoke(batch, settings.resource_name(name))
        return _enqueue(batch, settings.queue_url(name))
    except Exception as error:
        return {message.id: f"{type(error).__name__}: {aws.error_code(error)}" for message in batch}


def _enqueue(batch: Sequence[Outgoing], queue_url: str) -> dict[str, str]:
    entries = [
        {
            "Id": message.id,
            "MessageBody": message.body,
            "MessageAttributes": _attributes(message),
            **({"MessageGroupId": message.tenant} if message.tenant else {}),
        }
        for message in batch
    ]
    answer = aws.client("sqs").send_message_batch(QueueUrl=queue_url, Entries=entries)
    return {failed["Id"]: failed["Code"] for failed in answer.get("Failed", [])}


def _publish(batch: Sequence[Outgoing], topic_arn: str) -> dict[str, str]:
    entries = [
        {"Id": message.id, "Message": message.body, "MessageAttributes": _attributes(message)} for message in batch
    ]
    answer = aws.client("sns").publish_batch(TopicArn=topic_arn, PublishBatchRequestEntries=entries)
    return {failed["Id"]: failed["Code"] for failed in answer.get("Failed", [])}


def _invoke(batch: Sequence[Outgoing], function: str) -> dict[str, str]:
    for message in batch:
        aws.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=message.body.encode())
    return {}


def _attributes(message: Outgoing) -> Attributes:
    """Its ids first: a copy of a message that was as large as SQS takes them may have no room for more, or for any."""
    named = {**(message.attributes or {}), OUTBOX_ID: message.id}
    ids_first = sorted(named, key=lambda name: (name != OUTBOX_ID, name != FIRST_ID))
    return that_fit({name: as_attribute(named[name]) for name in ids_first}, message.body)


_HANDLED = text(
    """
    SELECT id::text FROM platform.outbox
    WHERE handled_at IS NOT NULL AND id IN (SELECT value::bigint FROM jsonb_array_elements_text(:ids))
    """
).bindparams(bindparam("ids", type_=JSONB))

_MARK_HANDLED = text(
    """
    UPDATE platform.outbox SET handled_at = :now
    WHERE handled_at IS NULL AND id IN (SELECT value::bigint FROM jsonb_array_elements_text(:ids))
    """
).bindparams(bindparam("ids", type_=JSONB))


def already_handled(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Which of these outbox ids a consumer has handled before."""
    return set(connection.execute(_HANDLED, {"ids": list(ids)}).scalars()) if ids else set()


def mark_handled(connection: Connection, ids: Sequence[str], now: datetime) -> None:
    """Records that the messages of these outbox ids have been handled, so that a second delivery is dropped."""
    if ids:
        connection.execute(_MARK_HANDLED, {"ids": list(ids), "now": now})


def body(payload: Mapping[str, Any]) -> str:
    """A payload as a message's body."""
    return json.dumps(payload, separators=(",", ":"), default=str)
