"""Dead-letter queues in SQS: having all of one moved back, and taking away what was dropped or sent again as a copy."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import batched
from typing import Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell import aws
from schoolbell.database import Database
from schoolbell.jobs.outcomes import JobError
from schoolbell.operations.dead_letters import record_id
from schoolbell.settings import Settings

PAGE: Final = 10  # messages a call, SQS's limit
HIDDEN: Final = 60
"""Seconds that a message which is looked at is hidden from others, if this process ends before it hands it back."""

LOOK_FOR: Final = 20.0
"""Seconds after which a search of a dead-letter queue ends; what it has not come to is taken away by the next."""

# A letter that dies anew has another time of death, so it may be sent again; one that was reopened may not.
_KEY = "'redrive/' || letter.id || '/' || to_char(letter.dead_at AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')"

_DONE_WITH = text(
    f"""
    SELECT message_id FROM platform.dead_letters AS letter
    WHERE queue = :queue AND message_id IN (SELECT jsonb_array_elements_text(:ids))
      AND (resolution = 'dropped' OR EXISTS (SELECT FROM platform.outbox WHERE dedup_key = {_KEY}))
    """  # noqa: S608 - made of this module's constants
).bindparams(bindparam("ids", type_=JSONB))


class Overtaken(JobError):
    """Somebody else has just begun to redrive the dead letters of this queue."""


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
            ids = {record_id(message) for message in page}
            with database.transaction(read_only=True) as connection:
                values = {"queue": settings.resource_name(queue), "ids": sorted(ids)}
                done_with = set(connection.execute(_DONE_WITH, values).scalars())
            gone = [message["ReceiptHandle"] for message in page if record_id(message) in done_with]
            receipts += [message["ReceiptHandle"] for message in page if record_id(message) not in done_with]
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
