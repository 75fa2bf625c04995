"""Redriving and dropping dead letters, one by its record or all of a job.

One: the record is resolved and a copy of the message is in the outbox, in one transaction; then the message itself is
taken off its dead-letter queue. A process that ends in between leaves it there, and whoever comes next takes it away:
the copy in the outbox tells that it has been sent again, so it is never sent a second time.

All of a queue: SQS moves the messages (a message move task), and then the records are resolved. A process that ends in
between leaves open records whose messages have gone; the next redrive or the sweep resolves them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Label, bindparam, func, literal, literal_column, select, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell import aws
from schoolbell.database import Database
from schoolbell.domains.platform.tables.dead_letters import dead_letters
from schoolbell.jobs.messages import RECORDED_AS
from schoolbell.jobs.outbox import Outbox
from schoolbell.jobs.outcomes import JobError
from schoolbell.settings import Settings

PAGE: Final = 10  # messages a call, SQS's limit
HIDDEN: Final = 60
"""Seconds that a message which is looked at is hidden from others, if this process ends before it hands it back."""

LOOK_FOR: Final = 20.0
"""Seconds after which a search of a dead-letter queue ends; what it has not come to is taken away by the next."""

# A letter that dies anew has another time of death, so it may be sent again; one that was reopened may not.
_KEY = "'redrive/' || letter.id || '/' || to_char(letter.dead_at AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')"

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

_DONE_WITH = text(
    f"""
    SELECT message_id FROM platform.dead_letters AS letter
    WHERE queue = :queue AND message_id IN (SELECT jsonb_array_elements_text(:ids))
      AND (resolution = 'dropped' OR EXISTS (SELECT FROM platform.outbox WHERE dedup_key = {_KEY}))
    """  # noqa: S608 - made of this module's constants
).bindparams(bindparam("ids", type_=JSONB))


class Overtaken(JobError):
    """Somebody else has just begun to redrive the dead letters of this queue."""


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


def is_moving(settings: Settings, queue: str) -> bool:
    """Whether SQS is moving the dead letters of a queue; it takes one such task at a time."""
    arn = settings.dead_letter_queue_arn(queue)
    tasks = aws.client("sqs").list_message_move_tasks(SourceArn=arn, MaxResults=1).get("Results", [])
    return any(task.get("Status") in ("RUNNING", "CANCELLING") for task in tasks)


def move_all(settings: Settings, queue: str) -> None:
    """Has SQS move what is on a dead-letter queue to the queue.

    The destination is named, since SQS does not know where a discarded message came from: a job put it there.

    Raises:
        Overtaken: SQS has begun to do so for somebody else; it has no error code of its own for that.
    """
    try:
        aws.client("sqs").start_message_move_task(
            SourceArn=settings.dead_letter_queue_arn(queue), DestinationArn=settings.queue_arn(queue)
        )
    except Exception:
        if not is_moving(settings, queue):
            raise
        raise Overtaken(queue) from None


def take_away(
    database: Database,
    settings: Settings,
    queue: str,
    only: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Deletes messages from a dead-letter queue that were dropped, or sent again as a copy; returns how many.

    Args:
        database: where the records are.
        settings: the stack's.
        queue: as jobs are named; a scheduled job's own name.
        only: the message id of the one record that is looked for; without it the whole queue is looked through.
        clock: seconds; the search ends after `LOOK_FOR`.
    """
    url = settings.dead_letter_queue_url(queue)
    taken = 0
    receipts: list[str] = []
    try:
        for page in _pages(url, clock):
            ids = {_record_id(message) for message in page}
            with database.transaction(read_only=True) as connection:
                values = {"queue": settings.resource_name(queue), "ids": sorted(ids)}
                done_with = set(connection.execute(_DONE_WITH, values).scalars())
            gone = [message["ReceiptHandle"] for message in page if _record_id(message) in done_with]
            receipts += [message["ReceiptHandle"] for message in page if _record_id(message) not in done_with]
            _delete(url, gone)
            taken += len(gone)
            if only in done_with:
                break
    finally:
        _hand_back(url, receipts)
    return taken


def _pages(url: str, clock: Callable[[], float]) -> Iterator[list[dict[str, Any]]]:
    """The messages of a queue, each once, until there are no more or the time is up."""
    end = clock() + LOOK_FOR
    seen: set[str] = set()
    while clock() < end:
        page = _receive(url)
        if not page or seen.issuperset(message["MessageId"] for message in page):
            return
        seen.update(message["MessageId"] for message in page)
        yield page


def _receive(url: str) -> list[dict[str, Any]]:
    try:
        answer = aws.client("sqs").receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=PAGE,
            WaitTimeSeconds=1,  # even a second makes SQS ask all of its servers: an empty answer means an empty queue
            VisibilityTimeout=HIDDEN,
            MessageAttributeNames=["All"],
            AttributeNames=["All"],
        )
    except Exception as error:
        if not aws.is_no_such_queue(error):
            raise
        return []  # a deployment has taken the job away, and its messages with it
    return list(answer.get("Messages", []))


def _record_id(message: dict[str, Any]) -> str:
    """Under which message id a message is recorded: a discarded one is a copy that says so itself."""
    if "DeadLetterQueueSourceArn" in message.get("Attributes", {}):
        return str(message["MessageId"])
    return str(message.get("MessageAttributes", {}).get(RECORDED_AS, {}).get("StringValue") or message["MessageId"])


def _delete(url: str, receipts: Sequence[str]) -> None:
    for some in batched(receipts, PAGE, strict=False):
        entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(some)]
        aws.client("sqs").delete_message_batch(QueueUrl=url, Entries=entries)


def _hand_back(url: str, receipts: Sequence[str]) -> None:
    for some in batched(receipts, PAGE, strict=False):
        entries = [
            {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": 0} for number, receipt in enumerate(some)
        ]
        aws.client("sqs").change_message_visibility_batch(QueueUrl=url, Entries=entries)
