"""SQS messages as a function gets them, and what it does to them: wait, send again, put on the dead-letter queue."""

import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import batched
from typing import Any, NamedTuple

from schoolbell import aws
from schoolbell.jobs.message_attributes import (
    BYTES_A_MESSAGE,
    FIRST_ID,
    OUTBOX_ID,
    Attributes,
    as_attribute,
    size_of,
    that_fit,
)
from schoolbell.jobs.outbox import MESSAGES_A_BATCH, SENDERS
from schoolbell.jobs.outcomes import InvalidEvent, Payload
from schoolbell.resilience.backoff import Backoff

RETRY = Backoff(base=timedelta(seconds=5), cap=timedelta(minutes=15))
"""How long a failed message waits: up to 5, 10, 20, 40 seconds; source 004 starts at 5."""

REASON = "reason"
"""The attribute of a discarded message's copy that says why it can never pass."""

RECORDED_AS = "recorded-as"
"""The attribute of a discarded message's copy that names its record in `platform.dead_letters` by its message id."""


class Received(NamedTuple):
    """One record of an SQS event."""

    id: str
    body: str
    receipt_handle: str
    attempt: int
    """How often it has been received, this time included."""
    group: str | None
    attributes: Attributes
    queue: str
    """The name of the queue that it came from, of which a job may have several."""

    @property
    def first_id(self) -> str:
        """The id it had when it was dropped, however often a job has sent it again since."""
        return str(self.attributes.get(FIRST_ID, {}).get("StringValue") or self.id)

    @property
    def outbox_id(self) -> str | None:
        """The outbox row it came from, if a job sent it."""
        value = self.attributes.get(OUTBOX_ID, {}).get("StringValue")
        return value if value and value.isdecimal() and len(value) < 19 else None


class Message[P: Payload](NamedTuple):
    """A valid message."""

    received: Received
    payload: P

    @property
    def id(self) -> str:
        """The SQS message id."""
        return self.received.id

    @property
    def attempt(self) -> int:
        """How often it has been received, this time included."""
        return self.received.attempt


def received_from(event: Any, job: str) -> list[Received]:
    """The messages of an SQS event.

    Raises:
        InvalidEvent: the event comes from something other than SQS.
    """
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records
    ):
        raise InvalidEvent(f"{job}: Records: expected an SQS event")
    try:
        return [_received(record) for record in records]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidEvent(f"{job}: Records: {type(error).__name__}: {error}") from None


def _received(record: dict[str, Any]) -> Received:
    attributes = record.get("attributes", {})
    return Received(
        id=record["messageId"],
        body=record["body"],
        receipt_handle=record["receiptHandle"],
        attempt=int(attributes.get("ApproximateReceiveCount", 1)),
        group=attributes.get("MessageGroupId"),
        attributes={name: _attribute(value) for name, value in record.get("messageAttributes", {}).items()},
        queue=record["eventSourceARN"].rpartition(":")[2],
    )


def _attribute(value: dict[str, Any]) -> dict[str, str]:
    names = {"dataType": "DataType", "stringValue": "StringValue", "binaryValue": "BinaryValue"}
    return {names[name]: content for name, content in value.items() if name in names and content is not None}


def backoff(message: Received) -> timedelta:
    """How long a message waits after a failure."""
    return RETRY.delay(message.attempt, random.random())  # noqa: S311 - jitter


def wait_before_retry(queue_url: str, messages: Iterable[tuple[Received, bool]]) -> None:
    """Makes failed messages invisible for their backoff; those on their last attempt go on to the DLQ at once.

    Args:
        queue_url: the queue they came from.
        messages: each with whether this was its last attempt.
    """
    entries = [
        {
            "Id": str(position),
            "ReceiptHandle": message.receipt_handle,
            "VisibilityTimeout": 0 if last else _seconds(backoff(message)),
        }
        for position, (message, last) in enumerate(messages)
    ]
    _in_batches(
        entries, lambda batch: aws.client("sqs").change_message_visibility_batch(QueueUrl=queue_url, Entries=batch)
    )


def send_again(queue_url: str, messages: Iterable[tuple[Received, timedelta]]) -> set[str]:
    """Puts copies of messages on their queue with a delay, and returns the ids of those that it took."""
    return _send(
        queue_url,
        [
            (message, {"DelaySeconds": _seconds(delay), "MessageAttributes": _with_first_id(message)})
            for message, delay in messages
        ],
    )


def _with_first_id(message: Received) -> Attributes:
    return that_fit({**message.attributes, FIRST_ID: as_attribute(message.first_id)}, message.body)


def send_to_dead_letter_queue(queue_url: str, messages: Iterable[tuple[Received, str]]) -> set[str]:
    """Puts copies of messages on the dead-letter queue with the reason, and returns the ids of those that it took.

    A message so large that no copy could name its record is left out.
    """
    return _send(
        queue_url,
        [
            (message, {"MessageAttributes": _with_reason(message, reason)})
            for message, reason in messages
            if can_be_copied(message)
        ],
    )


def can_be_copied(message: Received) -> bool:
    """Whether SQS would take a copy of a message that names its record."""
    return RECORDED_AS in _with_reason(message, "")


def _with_reason(message: Received, reason: str) -> Attributes:
    """A message's attributes as its dead copy has them: what names its record, the reason, and of its own what fits."""
    why = {RECORDED_AS: as_attribute(message.id), REASON: as_attribute(reason)}
    return that_fit(why | {name: value for name, value in message.attributes.items() if name not in why}, message.body)


def _send(queue_url: str, messages: Sequence[tuple[Received, dict[str, Any]]]) -> set[str]:
    entries = [
        {
            "Id": str(position),
            "MessageBody": message.body,
            **({"MessageGroupId": message.group} if message.group else {}),
            **more,
        }
        for position, (message, more) in enumerate(messages)
    ]
    answers = _in_batches(
        entries, lambda batch: aws.client("sqs").send_message_batch(QueueUrl=queue_url, Entries=batch)
    )
    return {messages[int(sent["Id"])][0].id for answer in answers for sent in answer.get("Successful", [])}


def _in_batches(entries: Sequence[dict[str, Any]], call: Any) -> list[dict[str, Any]]:
    """Calls for ten entries at a time, or one where ten would be over SQS's 1 MiB a request."""
    if not entries:
        return []
    sizes = [size_of(entry.get("MessageBody", ""), entry.get("MessageAttributes", {})) for entry in entries]
    most = BYTES_A_MESSAGE // MESSAGES_A_BATCH
    large = [entry for entry, size in zip(entries, sizes, strict=True) if size > most]
    small = [entry for entry, size in zip(entries, sizes, strict=True) if size <= most]
    batches = [*batched(small, MESSAGES_A_BATCH, strict=False), *((entry,) for entry in large)]
    if len(batches) == 1:
        return [call(list(batches[0]))]
    with ThreadPoolExecutor(max_workers=min(SENDERS, len(batches))) as senders:
        return list(senders.map(lambda batch: call(list(batch)), batches))


def _seconds(delay: timedelta) -> int:
    return max(0, round(delay.total_seconds()))
