"""What a request of an operator works with."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from aws_lambda_powertools import Logger

from schoolbell.admin.catalogue import STATISTICS_KEPT, Kept, facts, months_of, put_together, queues_of
from schoolbell.admin.identity import Issuer
from schoolbell.admin.models import (
    Job,
    Letter,
    LetterInFull,
    Letters,
    LogLine,
    Month,
    Preview,
    Queue,
    Run,
    RunInFull,
    Runs,
    RunStatus,
    Schedule,
)
from schoolbell.admin.problems import NoSuchThing
from schoolbell.aws import error_code
from schoolbell.database import Database
from schoolbell.gateways.https import shared_http
from schoolbell.jobs.runtime import Runtime
from schoolbell.operations import history
from schoolbell.operations.catalogue import JobInfo, listed
from schoolbell.operations.expressions import InvalidExpression, parse
from schoolbell.operations.queues import Thresholds
from schoolbell.settings import Settings

if TYPE_CHECKING:
    from schoolbell.operations import JobClient

ROWS_A_PAGE: Final = 25
MOST_ROWS_A_PAGE: Final = 200
NEXT_TIMES: Final = 5
LINES: Final = 200
YEAR: Final = timedelta(days=366)
FEW: Final = 2
"""A schedule from which the change of clocks takes more than this in a year runs so often that nobody misses them."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The stack as an operator's request finds it."""

    database: Database
    settings: Settings
    logger: Logger
    issuer: Issuer
    now: datetime
    clock: Callable[[], datetime]
    kept_catalogue: Kept[Sequence[JobInfo]]
    kept_queues: Kept[dict[str, Queue]]
    kept_months: Kept[dict[str, Month]]

    @property
    def client(self) -> "JobClient":
        """What acts on jobs and reads their logs; imported for that, since most requests only look at the list."""
        from schoolbell.operations import JobClient

        return JobClient(self.database, self.settings, clock=self.clock)

    def jobs(self, *, fresh: bool = False) -> tuple[Job, ...]:
        """All jobs, those that need somebody first.

        Args:
            fresh: whether AWS is asked anew; else what it said may be ten seconds old.
        """
        return self._put_together(None, fresh=fresh)

    def _put_together(self, only: str | None, *, fresh: bool) -> tuple[Job, ...]:
        # AWS takes longer to answer than the database, which is asked meanwhile.
        with ThreadPoolExecutor(max_workers=2) as callers:
            catalogue = callers.submit(self.kept_catalogue.get, fresh=fresh)
            queues = callers.submit(self.kept_queues.get, fresh=fresh)
            months = self.kept_months.get(fresh=fresh)
            infos = [info for info in catalogue.result() if only in (None, info.name)]
            known = facts(self.database, [info.name for info in infos], months)
            return put_together(infos, known, queues.result(), Thresholds.of(self.settings), self.now)

    def job(self, name: str, *, fresh: bool = True) -> Job:
        """One job, as AWS says now.

        Raises:
            NoSuchThing: no job is called so.
        """
        found = self._put_together(name, fresh=fresh)
        if not found:
            raise NoSuchThing(f"There is no job {name}.")
        return found[0]

    def known(self, name: str) -> JobInfo:
        """What a job is.

        Raises:
            NoSuchThing: no job is called so.
        """
        found = next((info for info in self.kept_catalogue.get() if info.name == name), None)
        if found is None:
            raise NoSuchThing(f"There is no job {name}.")
        return found

    def runs(
        self, job: str, *, status: RunStatus | None = None, before: str | None = None, size: int = ROWS_A_PAGE
    ) -> Runs:
        """A page of a job's runs, the newest first.

        Raises:
            NoSuchThing: `before` is not what an earlier page said.
        """
        with self.database.transaction(read_only=True) as connection:
            found = history.runs(connection, [job], Run, status=status, before=key_of(before), limit=size + 1)
        shown = found[:size]
        return Runs(
            runs=tuple(shown),
            next=str(history.Key(shown[-1].started_at, shown[-1].id)) if len(found) > size else None,
        )

    def run(self, job: str, run: UUID) -> RunInFull:
        """One run.

        Raises:
            NoSuchThing: the job has no such run.
        """
        with self.database.transaction(read_only=True) as connection:
            found = history.run(connection, run, RunInFull)
        if found is None or found.job != job:
            raise NoSuchThing("There is no such run. Completed ones are kept for 30 days, failed ones for 90.")
        return found

    def log(self, run: RunInFull) -> tuple[tuple[LogLine, ...], str | None]:
        """What a run has logged, the oldest first, or why that can't be told now."""
        try:
            records = self.client.logs(run.id, limit=LINES)
        except Exception as error:
            return (), f"The log can't be read now ({error_code(error) or type(error).__name__})."
        return tuple(
            LogLine(at=record.at, level=record.level or "LAMBDA", message=record.message, fields=shown(record.fields))
            for record in records
        ), None

    def letters(
        self, job: str, *, resolved: bool = False, before: str | None = None, size: int = ROWS_A_PAGE
    ) -> Letters:
        """A page of a job's dead letters, the newest first: those to be dealt with, or those that somebody dealt with.

        Raises:
            NoSuchThing: `before` is not what an earlier page said.
        """
        with self.database.transaction(read_only=True) as connection:
            found = history.letters(
                connection, Letter, job=job, resolved=resolved, before=key_of(before), limit=size + 1
            )
        shown = found[:size]
        return Letters(
            letters=tuple(shown),
            next=str(history.Key(shown[-1].dead_at, shown[-1].id)) if len(found) > size else None,
        )

    def letter(self, job: str, letter: UUID) -> LetterInFull:
        """One dead letter.

        Raises:
            NoSuchThing: the job has no such dead letter.
        """
        with self.database.transaction(read_only=True) as connection:
            found = history.letter(connection, letter, LetterInFull)
        if found is None or found.job != job:
            raise NoSuchThing("There is no such dead letter.")
        return found

    def preview(self, schedule: Schedule, expression: str, timezone: str) -> Preview:
        """What another expression would do in place of a schedule.

        Raises:
            InvalidExpression: AWS would reject it; the text says why.
        """
        read = parse(expression, timezone, schedule.kind)
        if read.moment:
            raise InvalidExpression("a job's schedule is rate() or cron(); to run it once, trigger it with a time")
        read.refuse_past(self.now)
        skipped = read.skipped_between(self.now, self.now + YEAR)
        return Preview(
            expression=read.text,
            timezone=read.timezone,
            words=read.in_words(),
            next_runs=tuple(read.occurrences(self.now, NEXT_TIMES)),
            skipped=tuple(removed_time(at, read.timezone) for at in skipped) if len(skipped) <= FEW else (),
        )


def key_of(before: str | None) -> history.Key | None:
    """Where a page goes on.

    Raises:
        NoSuchThing: no page said so.
    """
    try:
        return history.Key.parse(before) if before is not None else None
    except ValueError:
        raise NoSuchThing("There is no such page.") from None


def shown(fields: dict[str, Any]) -> dict[str, Any]:
    """What of a log record is worth showing: not what Powertools adds about the function.

    >>> shown({"error": "x", "function_name": "y", "cold_start": True})
    {'error': 'x'}
    """
    return {name: value for name, value in fields.items() if name != "cold_start" and not name.startswith("function_")}


def removed_time(moment: datetime, zone: str) -> str:
    """A local time that a change of clocks removes, as the clock would have shown it.

    >>> removed_time(datetime(2026, 3, 29, 1, 30, tzinfo=UTC), "Europe/Berlin")
    'Sun 29 Mar 2026, 02:30'
    """
    zoned = ZoneInfo(zone)
    before = (moment - timedelta(hours=3)).astimezone(zoned).utcoffset() or timedelta(0)
    wall = moment.astimezone(UTC).replace(tzinfo=None) + before
    return f"{wall:%a} {wall.day} {wall:%b %Y, %H:%M}"


def desk_of(on: Runtime, logger: Logger, now: datetime) -> Desk:
    """The desk of a request. What AWS and the issuer said is kept in the execution environment from one to the next."""
    known = _known(on)
    return Desk(
        on.database, on.settings, logger, known.issuer, now, on.clock, known.catalogue, known.queues, known.months
    )


@dataclass(frozen=True, slots=True)
class _Known:
    issuer: Issuer
    catalogue: Kept[Sequence[JobInfo]]
    queues: Kept[dict[str, Queue]]
    months: Kept[dict[str, Month]]


@lru_cache(maxsize=1)
def _known(on: Runtime) -> _Known:
    settings = on.settings
    jobs: Kept[Sequence[JobInfo]] = Kept(lambda: listed(on.database, settings, on.clock()))
    return _Known(
        issuer=Issuer(settings.admin_issuer, settings.admin_audience, settings.admin_role_claim, shared_http()),
        catalogue=jobs,
        queues=Kept(lambda: queues_of(jobs.last, settings, on.clock())),
        months=Kept(lambda: months_of(on.database, on.clock()), STATISTICS_KEPT),
    )
