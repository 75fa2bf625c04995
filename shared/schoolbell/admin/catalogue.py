"""The jobs with all that the list shows: put together from AWS, the statistics, the runs and the dead letters."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from schoolbell.admin.models import Day, DeadLetters, Job, LastRun, Month, Problem, Queue, Schedule, Severity
from schoolbell.alerts.wording import counted, duration
from schoolbell.database import Database
from schoolbell.operations import history, statistics
from schoolbell.operations.catalogue import JobInfo, ScheduleInfo
from schoolbell.operations.queues import QueueDepth, Thresholds, oldest_messages, readable_depths
from schoolbell.operations.statistics import Day as RunsOfDay
from schoolbell.operations.statistics import Statistics
from schoolbell.settings import Settings

DAYS: Final = 30
NEARLY: Final = 0.8
"""A running job that has used this much of its time needs somebody to look."""

KEPT: Final = timedelta(seconds=15)
"""How long what AWS said is believed, except by whoever has just changed something."""

STATISTICS_KEPT: Final = timedelta(minutes=1)
"""Nobody sees a minute in the figures of thirty days, and adding those up takes longer than all the rest."""


@dataclass
class Kept[T]:
    """Something that is asked for often and may be some seconds old.

    Threads that want it at once ask once, and where that fails, it fails for all of them.
    """

    ask: Callable[[], T]
    lives: timedelta = KEPT
    clock: Callable[[], float] = time.monotonic
    _known: T | None = None
    _asked_at: float = field(default=float("-inf"))
    _asking: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _failures: int = 0
    _failure: Exception | None = None

    @property
    def last(self) -> T:
        """What it was when it was last asked for, however long ago; that is known while it is being asked for anew."""
        return self.get() if self._known is None else self._known

    def get(self, *, fresh: bool = False) -> T:
        """What it is; asked for anew when that is wanted, or was long ago."""
        failures = self._failures
        with self._asking:
            now = self.clock()
            if fresh or self._known is None or now - self._asked_at > self.lives.total_seconds():
                if self._failure and failures != self._failures:  # while this thread waited
                    raise self._failure
                self._known, self._asked_at = self._ask(), now
            return self._known

    def _ask(self) -> T:
        try:
            answer = self.ask()
        except Exception as failure:
            self._failure = failure
            self._failures += 1
            raise
        self._failure = None
        return answer


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database says of all jobs."""

    last: dict[str, LastRun]
    months: dict[str, Month]
    letters: dict[str, DeadLetters]


def facts(database: Database, jobs: Sequence[str], months: dict[str, Month]) -> Facts:
    """Reads how jobs stand now."""
    with database.transaction(read_only=True) as connection:
        last, dead = history.last_runs(connection, jobs, LastRun), history.unresolved(connection)
    letters = {job: DeadLetters(count=each.count, oldest=each.oldest) for job, each in dead.items()}
    return Facts(last, months, letters)


def months_of(database: Database, now: datetime) -> dict[str, Month]:
    """Reads the figures of the last 30 days of each job that ran."""
    since = first_day(now)
    with database.transaction(read_only=True) as connection:
        known, days = statistics.read(connection, since), statistics.by_day(connection, since)
    return {job: _month(found, days.get(job, ()), now) for job, found in known.items()}


def first_day(now: datetime) -> datetime:
    """When the first of the days began that the charts show."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=DAYS - 1)


def put_together(
    infos: Sequence[JobInfo], known: Facts, queues: dict[str, Queue], thresholds: Thresholds, now: datetime
) -> tuple[Job, ...]:
    """The jobs for the list, those that need somebody first."""
    jobs = (_job(info, known, queues, thresholds, now) for info in infos)
    return tuple(sorted(jobs, key=lambda job: (rank(job), job.name)))


def rank(job: Job) -> int:
    """How early a job stands in the list: failures before warnings before the rest."""
    return list(Severity).index(job.problems[0].severity) if job.problems else len(Severity)


def _job(info: JobInfo, known: Facts, queues: dict[str, Queue], thresholds: Thresholds, now: datetime) -> Job:
    letters = known.letters.get(info.name, DeadLetters())
    last = known.last.get(info.name)
    waiting = tuple(queues[name] for name in info.queues if name in queues)
    return Job(
        name=info.name,
        description=info.description,
        trigger=info.trigger,
        is_critical=info.is_critical,
        has_dry_run=info.has_dry_run,
        timeout=info.timeout,
        schedule=_schedule(info.schedule, info.words) if info.schedule else None,
        last_run=last,
        month=known.months.get(info.name, Month()),
        queues=waiting,
        dead_letters=letters,
        problems=problems_of(last, letters, waiting, thresholds, info.timeout, now),
    )


def problems_of(
    last: LastRun | None,
    letters: DeadLetters,
    queues: Sequence[Queue],
    thresholds: Thresholds,
    timeout: timedelta,
    now: datetime,
) -> tuple[Problem, ...]:
    """Why somebody should look at a job, the worst first."""
    found = []
    if last and last.status == "failed":
        found.append(Problem(severity=Severity.BAD, text="The last run failed"))
    if last and last.status == "timed_out":
        found.append(Problem(severity=Severity.BAD, text="The last run died"))
    if letters.count:
        found.append(Problem(severity=Severity.BAD, text=counted(letters.count, "dead letter")))
    for queue in queues:
        if queue.oldest and queue.oldest > thresholds.oldest:
            text = f"The oldest message has waited {duration(queue.oldest)}"
            found.append(Problem(severity=Severity.WARNING, text=text))
        if queue.waiting > thresholds.waiting:
            found.append(Problem(severity=Severity.WARNING, text=f"{counted(queue.waiting, 'message')} wait"))
    if last and last.status == "running" and now - last.started_at > timeout * NEARLY:
        text = f"The last run has been running for {duration(now - last.started_at)}"
        found.append(Problem(severity=Severity.WARNING, text=text))
    return tuple(found)


def _schedule(info: ScheduleInfo, words: str) -> Schedule:
    return Schedule(
        kind=info.kind,
        name=info.name,
        expression=info.expression,
        words=words,
        timezone=info.timezone,
        enabled=info.enabled,
        next_run=info.next_run if info.enabled else None,
    )


def _month(known: Statistics, days: Sequence[RunsOfDay], now: datetime) -> Month:
    by_day = {day.day: Day(runs=day.runs, failures=day.failures) for day in days}
    first = first_day(now).date()
    return Month(
        runs=known.runs,
        failures=known.failures,
        average=_seconds(known.average),
        p95=_seconds(known.percentile(0.95)),
        days=tuple(by_day.get(first + timedelta(days=number), Day(runs=0, failures=0)) for number in range(DAYS)),
    )


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def queues_of(infos: Sequence[JobInfo], settings: Settings, now: datetime) -> dict[str, Queue]:
    """What waits on each queue, asked for all at once. A queue that can't be read is left out."""
    depths = readable_depths([name for info in infos for name in info.queues], settings)
    ages = oldest_messages(depths.values(), settings, now)
    return {name: _queue(depth, ages.get(name)) for name, depth in depths.items()}


def _queue(depth: QueueDepth, oldest: timedelta | None) -> Queue:
    return Queue(
        name=depth.name, waiting=depth.waiting, in_flight=depth.in_flight, delayed=depth.delayed, oldest=oldest
    )
