"""What lies on the dead-letter queues: messages are looked at and handed back, and their records follow them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any, Final

from sqlalchemy import text

from schoolbell import aws
from schoolbell.alerts import Alert, Severity, open_alerts
from schoolbell.jobs import JobContext
from schoolbell.operations import dead_letters
from schoolbell.operations.dead_letters import SETTLED, Found
from schoolbell.settings import Settings

ALERTS: Final = "dead-letters/"
MESSAGES_A_QUEUE: Final = 10_000
"""More than that are counted, but not all looked at in one run."""

HIDDEN: Final = timedelta(minutes=2)
"""How long a message that is looked at is hidden from others if this process ends before it hands it back."""

WAIT: Final = 1  # seconds; a wait makes SQS ask all of its servers, so that an empty answer means an empty queue
STOP_BELOW: Final = timedelta(seconds=60)
PAGE: Final = 10  # messages a call, SQS's limit
PAGES_A_TRANSACTION: Final = 5


@dataclass(slots=True)
class Look:
    """What is seen of one dead-letter queue in a run."""

    url: str
    queue: str
    """The name of the queue that its messages came from; a scheduled job has none, but dead letters all the same."""
    job: str
    kept: timedelta = timedelta(days=14)
    counted: int = 0
    """About how many messages there are, those that others look at included."""
    first: list[dict[str, Any]] = field(default_factory=list)
    receipts: dict[str, str] = field(default_factory=dict)
    """How to hand back each message that was received, by message id."""
    is_whole: bool = False
    """Whether every message on the queue was seen."""
    is_readable: bool = True

    @property
    def number(self) -> int:
        """How many messages there are, as far as can be told."""
        return len(self.receipts) if self.is_whole else max(self.counted, len(self.receipts))


def addresses(settings: Settings) -> list[str]:
    """The addresses of the stack's dead-letter queues. Another stack's names may begin with this one's."""
    listed = aws.client("sqs").get_paginator("list_queues")
    # SQS tells of further pages only if it is asked for pages.
    pages = listed.paginate(QueueNamePrefix=f"{settings.schoolbell_stack}-", PaginationConfig={"PageSize": 1000})
    urls = [url for page in pages for url in page.get("QueueUrls", [])]
    return sorted(url for url in urls if url.endswith("-dlq") and settings.job_of(_queue(url)))


def begin(job: JobContext, url: str) -> Look:
    """Counts a queue's messages and takes the first of them; called in several threads at once."""
    queue = _queue(url)
    look = Look(url, queue, job.settings.job_of(queue) or queue)
    try:
        answer = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        look.kept = timedelta(seconds=int(answer["MessageRetentionPeriod"]))
        look.counted = sum(int(count) for name, count in answer.items() if name.startswith("ApproximateNumber"))
        look.first = _receive(look)
        if look.first or look.counted:
            look.job = reader_of(job.settings, look.job) or look.job
    except Exception as error:  # one queue that is away keeps nobody from the others
        job.logger.error("dead-letter queue not read", queue=queue, error=aws.error_code(error) or type(error).__name__)
        look.is_readable = False
    return look


def reader_of(settings: Settings, name: str) -> str | None:
    """The job that reads the queue of this name, of which it may have several; `None` if nobody reads it."""
    arn = settings.queue_arn(name)
    mappings = aws.client("lambda").list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
    functions = [mapping["FunctionArn"].split(":function:")[1].partition(":")[0] for mapping in mappings]
    return next(filter(None, map(settings.job_of, functions)), None)


def record_what_is_there(job: JobContext, look: Look) -> Found:
    """Goes through a queue's messages, records those that have no record, and hands all of them back."""
    recorded = reopened = 0
    try:
        for messages in batched(_messages(job, look), PAGES_A_TRANSACTION * PAGE, strict=False):
            letters = [dead_letters.letter_of(message, job.now, job.settings.max_receive_count) for message in messages]
            with job.transaction() as connection:
                new = dead_letters.found(connection, look.job, look.queue, letters, job.now)
            recorded, reopened = recorded + new.recorded, reopened + new.reopened
    finally:
        _hand_back(job, look)
    return Found(recorded, reopened)


def _messages(job: JobContext, look: Look) -> Iterator[dict[str, Any]]:
    """Every message of a queue once, as far as this run may look."""
    page = look.first
    look.first = []
    while page:
        fresh = [message for message in page if message["MessageId"] not in look.receipts]
        look.receipts |= {message["MessageId"]: message["ReceiptHandle"] for message in page}
        yield from fresh
        if not fresh or len(look.receipts) >= MESSAGES_A_QUEUE or job.remaining() < STOP_BELOW:
            return
        page = _receive(look)
    look.is_whole = look.is_readable and len(look.receipts) >= look.counted


def _receive(look: Look) -> list[dict[str, Any]]:
    answer = aws.client("sqs").receive_message(
        QueueUrl=look.url,
        MaxNumberOfMessages=PAGE,
        WaitTimeSeconds=WAIT,
        VisibilityTimeout=round(HIDDEN.total_seconds()),
        MessageAttributeNames=["All"],
        AttributeNames=["All"],
    )
    return list(answer.get("Messages", []))


def _hand_back(job: JobContext, look: Look) -> None:
    """Shows the messages to others again at once; those that this fails for show themselves when their time is up."""
    client = aws.client("sqs")
    try:
        for receipts in batched(look.receipts.values(), PAGE, strict=False):
            entries = [
                {"Id": str(position), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                for position, receipt in enumerate(receipts)
            ]
            client.change_message_visibility_batch(QueueUrl=look.url, Entries=entries)
    except Exception as error:
        job.logger.warning("dead letters not handed back", queue=look.queue, error=aws.error_code(error))


# Records whose messages have gone


def resolve_what_has_gone(job: JobContext, look: Look) -> tuple[int, int]:
    """Resolves records whose messages have certainly left the queue: how many by a redrive, how many by their age.

    A message that is not seen may be hidden by somebody who looks at it, so that alone means nothing.
    """
    with job.transaction() as connection:
        expired = dead_letters.expired(connection, look.queue, look.kept, job.now)
        are_missing = dead_letters.are_missing(connection, look.queue, job.now)
    moved_at = last_redrive(job, look) if look.is_whole and are_missing else None
    if moved_at is None:
        return 0, expired
    with job.transaction() as connection:
        return dead_letters.moved_away(connection, look.queue, moved_at, job.now), expired


def last_redrive(job: JobContext, look: Look) -> datetime | None:
    """When the last redrive began that has ended, took messages along, and was seen by a sweep or two since."""
    arn = job.settings.dead_letter_queue_arn(job.settings.job_of(look.queue) or look.job)
    try:
        tasks = aws.client("sqs").list_message_move_tasks(SourceArn=arn, MaxResults=10).get("Results", [])
    except Exception as error:
        job.logger.warning("redrives not listed", queue=look.queue, error=aws.error_code(error))
        return None
    began = [
        datetime.fromtimestamp(task["StartedTimestamp"] / 1000, UTC)
        for task in tasks
        if task.get("Status") == "COMPLETED" and task.get("ApproximateNumberOfMessagesMoved", 0) > 0
    ]
    return max((at for at in began if at <= job.now - SETTLED), default=None)


# Alerts


def raise_alerts(job: JobContext, looks: Sequence[Look]) -> None:
    """One alert for each job that has dead letters, told once, when their number changes, and when there are none."""
    unknown = {f"{ALERTS}{look.job}" for look in looks if not look.is_readable}
    with job.transaction() as connection:
        known = {row.job: row for row in connection.execute(_UNRESOLVED)}
        numbers: Counter[str] = Counter()
        for look in looks:
            numbers[look.job] += look.number
        wrong = [alert_of(name, number, known.get(name)) for name, number in numbers.items() if number]
        open_alerts.keep_in_step(job.outbox, connection, ALERTS, wrong, job.now, unknown=unknown)


def alert_of(name: str, number: int, known: Any) -> Alert:
    """What is said of a job's dead letters: how many there are, of what kinds, and since when."""
    kinds = {kind: getattr(known, kind, 0) for kind in ("failed", "discarded", "timed_out", "unknown")}
    listed = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in kinds.items() if count)
    oldest = known.oldest.astimezone(UTC).isoformat(timespec="seconds") if known else ""
    noun = "dead letter" if number == 1 else "dead letters"
    return Alert(
        key=f"{ALERTS}{name}",
        severity=Severity.WARNING,
        summary=f"{number} {noun} of {name}" + (f" ({listed})" if listed else ""),
        source=name,
        details={"number": number, **kinds, "oldest": oldest},
    )


_UNRESOLVED = text(
    """
    SELECT job, min(dead_at) AS oldest,
           count(*) FILTER (WHERE reason = 'failed') AS failed,
           count(*) FILTER (WHERE reason = 'discarded') AS discarded,
           count(*) FILTER (WHERE reason = 'timed_out') AS timed_out,
           count(*) FILTER (WHERE reason = 'unknown') AS unknown
    FROM platform.dead_letters
    WHERE resolved_at IS NULL
    GROUP BY job
    """
)


def _queue(url: str) -> str:
    """The name of the queue whose dead letters are at an address."""
    return url.rpartition("/")[2].removesuffix("-dlq")
