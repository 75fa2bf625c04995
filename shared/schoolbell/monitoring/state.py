"""The state of the stack at one moment: queues from SQS, the rest from the database, both asked at the same time."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, text

from schoolbell import aws
from schoolbell.database import Database
from schoolbell.operations import statistics
from schoolbell.operations.catalogue import JobInfo
from schoolbell.operations.queue_sizes import QueueSize, size_of
from schoolbell.operations.statistics import Statistics
from schoolbell.settings import Settings

CALLS_AT_ONCE: Final = 20
"""As many as `schoolbell.aws` keeps connections."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """How many messages a queue holds; SQS's own numbers, which are approximate."""

    waiting: int
    """Not received yet, those included whose time has not come."""
    active: int
    """Received, and neither done nor given back."""
    dead: int
    """On its dead-letter queue."""

    @property
    def pending(self) -> int:
        """Still to be done."""
        return self.waiting + self.active


@dataclass(frozen=True, slots=True)
class State:
    """What there is to tell."""

    jobs: Sequence[JobInfo]
    queues: Mapping[str, QueueState]
    """By name as jobs are named: `platform.notifications-high`."""
    dead: Mapping[str, int]
    """Messages on every dead-letter queue, those of jobs without a queue included, by what they are the dead of."""
    oldest_dead: datetime | None
    """When the oldest dead letter that is not resolved died."""
    last_events: Mapping[str, datetime]
    """When the last invocation of a queue job began, by job."""
    statistics: Mapping[str, Statistics]
    """By job, of all runs."""
    running: Mapping[str, int]
    """Runs under way, by job; a queue job's are not written down before they end."""
    standing_alerts: Mapping[str, int]
    """Alerts that stand, by severity."""


_OLDEST_DEAD = text("SELECT min(dead_at) FROM platform.dead_letters WHERE resolved_at IS NULL")
_LAST_EVENTS = text(
    """
    SELECT job, (SELECT max(started_at) FROM platform.job_runs AS run WHERE run.job = asked.job)
    FROM unnest(cast(:jobs AS text[])) AS asked (job)
    """
)
_RUNNING = text("SELECT job, count(*) FROM platform.job_runs WHERE status = 'running' GROUP BY job")
_STANDING = text("SELECT severity, count(*) FROM platform.alerts WHERE status = 'triggered' GROUP BY severity")


def state_of(jobs: Sequence[JobInfo], database: Database, settings: Settings) -> State:
    """Asks SQS and the database, and puts together what they say.

    Raises:
        botocore.exceptions.ClientError: SQS refused.
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    queues = sorted(queue for job in jobs for queue in job.queues)
    letters = sorted({*queues, *(job.name for job in jobs)})
    urls = [*map(settings.queue_url, queues), *map(settings.dead_letter_queue_url, letters)]
    client = aws.client("sqs")  # made here, since making one is not what threads should race for
    with ThreadPoolExecutor(CALLS_AT_ONCE) as callers:
        asked = callers.map(partial(_size, client), urls)
        with database.transaction(read_only=True) as connection:
            told = _ask(connection, [job.name for job in jobs if job.queues])
        sizes = dict(zip(urls, asked, strict=True))
    dead = {name: sum(sizes[settings.dead_letter_queue_url(name)]) for name in letters}
    found = {queue: sizes[settings.queue_url(queue)] for queue in queues}
    return State(
        jobs=jobs,
        queues={
            queue: QueueState(size.waiting + size.delayed, size.in_flight, dead[queue]) for queue, size in found.items()
        },
        dead=dead,
        **told,
    )


def _ask(connection: Connection, queue_jobs: Iterable[str]) -> dict[str, Any]:
    last = connection.execute(_LAST_EVENTS, {"jobs": list(queue_jobs)}).all()
    return {
        "oldest_dead": connection.scalar(_OLDEST_DEAD),
        "last_events": {job: at for job, at in last if at},
        "statistics": statistics.read(connection),
        "running": dict(tuple(row) for row in connection.execute(_RUNNING)),
        "standing_alerts": dict(tuple(row) for row in connection.execute(_STANDING)),
    }


def _size(client: Any, url: str) -> QueueSize:
    """A queue's size: nothing, where it has been deleted meanwhile."""
    try:
        return size_of(client, url)
    except Exception as error:
        if not aws.is_no_such_queue(error):
            raise
        return QueueSize(0, 0, 0)
