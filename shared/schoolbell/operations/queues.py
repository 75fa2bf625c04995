"""How many messages are on queues, as SQS counts them: about. All queues are asked at once.

Whether a queue is behind is judged as its alarms do: by the messages that wait, and by how long the oldest has.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from schoolbell import aws
from schoolbell.settings import Settings

CALLS_AT_ONCE: Final = 20
"""As many as `schoolbell.aws` keeps connections."""

METRICS_LATE: Final = timedelta(minutes=10)
"""CloudWatch's newest figure of a queue is no older than this."""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many messages a queue and its dead-letter queue hold, about (SQS counts no closer)."""

    name: str
    """As jobs are named: `platform.notifications-high`."""
    waiting: int
    delayed: int
    """Those whose time has not come."""
    in_flight: int
    """Received, and neither done nor given back."""
    dead: int

    @property
    def unreceived(self) -> int:
        """Those that wait or are delayed."""
        return self.waiting + self.delayed

    @property
    def pending(self) -> int:
        """All messages that are still to be handled."""
        return self.unreceived + self.in_flight


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on a queue is behind."""

    waiting: int
    """More messages than this."""
    oldest: timedelta
    """The oldest message has waited longer."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of a function's environment, which the template gives to it and to the alarms."""
        return cls(settings.queue_backlog_messages, timedelta(seconds=settings.oldest_message_seconds))

    def are_exceeded(self, depth: QueueDepth, oldest: timedelta | None) -> bool:
        """Whether a queue is behind; `None` is an age that is not known."""
        return depth.waiting > self.waiting or (oldest is not None and oldest > self.oldest)


def depths_of(
    queues: Sequence[str], settings: Settings, jobs_without_queue: Sequence[str] = ()
) -> dict[str, QueueDepth]:
    """The depth of each queue, by its name. A queue that has been deleted meanwhile holds nothing.

    Args:
        queues: as jobs are named.
        settings: the stack's name, region and account.
        jobs_without_queue: jobs that have only a dead-letter queue.

    Raises:
        botocore.exceptions.ClientError: SQS refused.
        botocore.exceptions.BotoCoreError: SQS does not answer.
    """
    known = _count_all([*_urls_of(queues, settings), *map(settings.dead_letter_queue_url, jobs_without_queue)])
    for count in known.values():
        if isinstance(count, Exception):
            raise count
    found = {queue: _depth(queue, known, settings) for queue in (*queues, *jobs_without_queue)}
    return {name: depth for name, depth in found.items() if depth}


def readable_depths(queues: Sequence[str], settings: Settings) -> dict[str, QueueDepth]:
    """The same, where a queue that can't be read is left out."""
    known = _count_all(_urls_of(queues, settings))
    found = {queue: _depth(queue, known, settings) for queue in queues}
    return {name: depth for name, depth in found.items() if depth}


def depth_of(queue: str, settings: Settings) -> QueueDepth:
    """The depth of one queue.

    Raises:
        botocore.exceptions.ClientError: SQS refused.
        botocore.exceptions.BotoCoreError: SQS does not answer.
    """
    return depths_of([queue], settings)[queue]


def oldest_messages(depths: Iterable[QueueDepth], settings: Settings, now: datetime) -> dict[str, timedelta]:
    """How long the oldest message of each queue has waited, as CloudWatch knows it: it is some minutes late.

    A queue on which nothing waits is not asked for, since each answer is paid for. Where CloudWatch does not answer, or
    may not be asked, nothing is known.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    """
    names = [depth.name for depth in depths if depth.waiting]
    if not names:
        return {}
    queries = [
        {
            "Id": f"q{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/SQS",
                    "MetricName": "ApproximateAgeOfOldestMessage",
                    "Dimensions": [{"Name": "QueueName", "Value": settings.resource_name(name)}],
                },
                "Period": 60,
                "Stat": "Maximum",
            },
        }
        for number, name in enumerate(names)
    ]
    try:
        answer = aws.client("cloudwatch").get_metric_data(
            MetricDataQueries=queries,
            StartTime=now - METRICS_LATE,
            EndTime=now,
            ScanBy="TimestampDescending",
        )
    except Exception:
        return {}
    latest = {result["Id"]: result["Values"][0] for result in answer["MetricDataResults"] if result["Values"]}
    return {
        name: timedelta(seconds=latest[f"q{number}"]) for number, name in enumerate(names) if latest.get(f"q{number}")
    }


type _Count = tuple[int, int, int]
"""Messages that wait, that are delayed and that are in flight."""

_NOTHING: Final[_Count] = (0, 0, 0)


def _urls_of(queues: Iterable[str], settings: Settings) -> list[str]:
    return [url for queue in queues for url in (settings.queue_url(queue), settings.dead_letter_queue_url(queue))]


def _depth(queue: str, known: Mapping[str, _Count | Exception], settings: Settings) -> QueueDepth | None:
    held = known.get(settings.queue_url(queue), _NOTHING)
    dead = known[settings.dead_letter_queue_url(queue)]
    if isinstance(held, Exception) or isinstance(dead, Exception):
        return None
    return QueueDepth(queue, *held, dead=sum(dead))


def _count_all(urls: Sequence[str]) -> dict[str, _Count | Exception]:
    """The count of each queue, or why there is none. Where SQS does not answer, the others are not asked for long."""
    if not urls:
        return {}
    client = aws.client("sqs")
    unreachable: list[Exception] = []

    def count(url: str) -> _Count | Exception:
        if unreachable:
            return unreachable[0]
        try:
            return _count(client, url)
        except Exception as error:
            if aws.is_no_such_queue(error):
                return _NOTHING
            if aws.is_unreachable(error):
                unreachable.append(error)
            return error

    with ThreadPoolExecutor(min(CALLS_AT_ONCE, len(urls))) as callers:
        return dict(zip(urls, callers.map(count, urls), strict=True))


def _count(client: Any, url: str) -> _Count:
    names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "Delayed", "NotVisible")]
    answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    waiting, delayed, in_flight = (int(answer[name]) for name in names)
    return waiting, delayed, in_flight
