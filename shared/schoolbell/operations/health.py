"""Whether a stack does its work: database and AWS answer, nothing piles up, nothing is dead, no critical job failed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from schoolbell import aws
from schoolbell.alerts.wording import duration
from schoolbell.database import is_unavailable
from schoolbell.jobs.outcomes import in_one_line
from schoolbell.operations import history
from schoolbell.operations.catalogue import JobInfo
from schoolbell.operations.models import Health
from schoolbell.operations.queues import QueueDepth, depths_of, oldest_messages
from schoolbell.operations.stack import Stack


@dataclass(slots=True)
class _Findings:
    """What is known so far: an answer that fails to come leaves the rest as it is."""

    jobs: list[JobInfo] = field(default_factory=list)
    queues: list[QueueDepth] = field(default_factory=list)
    dead: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def check(stack: Stack) -> Health:
    """Asks AWS and the database; that one of them does not answer is a finding and no error."""
    found = _Findings()
    try:
        _look(stack, found)
    except Exception as error:
        if isinstance(error, DBAPIError) or is_unavailable(error):
            found.problems.append(f"the database does not answer: {in_one_line(error)}")
        else:
            found.problems.append(f"AWS does not answer: {aws.error_code(error) or type(error).__name__}")
    return Health(
        is_healthy=not found.problems,
        queue_size=sum(queue.pending for queue in found.queues),
        dead_letters=sum(found.dead.values()),
        jobs=len(found.jobs),
        paused=tuple(job.name for job in found.jobs if job.schedule and not job.schedule.enabled),
        problems=tuple(found.problems),
    )


def _look(stack: Stack, found: _Findings) -> None:
    found.jobs = stack.jobs()
    names = [queue for job in found.jobs for queue in job.queues]
    found.queues = list(depths_of(names, stack.settings).values())
    with stack.database.transaction(read_only=True) as connection:
        found.dead = {job: each.count for job, each in history.unresolved(connection).items()}
        failed = history.failed_last(connection, [job.name for job in found.jobs if job.is_critical])
    found.problems += _behind(stack, found.queues)
    found.problems += [f"{job}: {_dead_letters(count)}" for job, count in sorted(found.dead.items())]
    found.problems += [f"{job}: its last run failed" for job in failed]


def _behind(stack: Stack, queues: Sequence[QueueDepth]) -> Iterator[str]:
    thresholds = stack.thresholds()
    ages = oldest_messages(queues, stack.settings, stack.clock())
    for queue in queues:
        if queue.waiting > thresholds.waiting:
            yield f"{queue.name}: {queue.waiting:,} messages"
        if (age := ages.get(queue.name)) and age > thresholds.oldest:
            yield f"{queue.name}: its oldest message has waited {duration(age)}"


def _dead_letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"
