"""The state of the stack at one moment: queues from SQS, the rest from the database, both asked at the same time."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from schoolbell.database import Database
from schoolbell.operations import history, statistics
from schoolbell.operations.catalogue import JobInfo
from schoolbell.operations.queues import QueueDepth, depths_of
from schoolbell.operations.statistics import Statistics
from schoolbell.settings import Settings


@dataclass(frozen=True, slots=True)
class State:
    """What there is to tell."""

    jobs: Sequence[JobInfo]
    queues: Mapping[str, QueueDepth]
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


_STANDING = text("SELECT severity, count(*) FROM platform.alerts WHERE status = 'triggered' GROUP BY severity")


def state_of(jobs: Sequence[JobInfo], database: Database, settings: Settings) -> State:
    """Asks SQS and the database, and puts together what they say.

    Raises:
        botocore.exceptions.ClientError: SQS refused.
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    queues = sorted(queue for job in jobs for queue in job.queues)
    others = sorted({job.name for job in jobs}.difference(queues))
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(depths_of, queues, settings, others)
        with database.transaction(read_only=True) as connection:
            told = _ask(connection, [job.name for job in jobs if job.queues])
        depths = asked.result()
    return State(
        jobs=jobs,
        queues={queue: depths[queue] for queue in queues},
        dead={name: depths[name].dead for name in sorted(depths)},
        **told,
    )


def _ask(connection: Connection, queue_jobs: Sequence[str]) -> dict[str, Any]:
    return {
        "oldest_dead": min((each.oldest for each in history.unresolved(connection).values()), default=None),
        "last_events": history.last_starts(connection, queue_jobs),
        "statistics": statistics.read(connection),
        "running": history.running(connection),
        "standing_alerts": dict(tuple(row) for row in connection.execute(_STANDING)),
    }
