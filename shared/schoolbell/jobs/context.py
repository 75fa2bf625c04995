"""What a job is given: its time, its run, its database, its outbox."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self
from uuid import UUID, uuid4

from aws_lambda_powertools import Logger
from sqlalchemy import Connection, Delete, Table, Update, any_, func, select

from schoolbell.database import Database
from schoolbell.jobs import runs
from schoolbell.jobs.invocation import LambdaContext, clock_of, remaining_time
from schoolbell.jobs.outbox import Outbox
from schoolbell.jobs.outcomes import JobError
from schoolbell.jobs.runs import Cursor, Run
from schoolbell.jobs.runtime import Runtime
from schoolbell.settings import Settings

HAND_ON_BELOW = timedelta(minutes=1)
"""With less than this left of the invocation, a chunked run goes on in the next one."""


class HandedOn(JobError):
    """The run goes on in another invocation; the runtime ends this one."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one step of a chunked run did."""

    cursor: Cursor
    """Where the next step starts: JSON."""
    items: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    """More counts, by names of the job's choice; added up over the steps."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase of a chunked run is, over all invocations of the run."""

    cursor: Cursor = None
    items: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    done: bool = False

    def after(self, chunk: Chunk | None) -> "Progress":
        """The progress with one more step, or at the end when there was nothing left to do."""
        if chunk is None:
            return replace(self, done=True)
        counts = {name: self.counts.get(name, 0) + n for name, n in chunk.counts.items()}
        return Progress(chunk.cursor, self.items + chunk.items, {**self.counts, **counts})

    def as_json(self) -> dict[str, Any]:
        """As it is stored on the run."""
        return {"cursor": self.cursor, "items": self.items, "counts": dict(self.counts), "done": self.done}


@dataclass(slots=True)
class JobContext:
    """The context of one run in one invocation. `now` and `current` are the only clocks a job has."""

    name: str
    run_id: UUID
    now: datetime
    """When the invocation started, timezone-aware in UTC; what a job decides by."""
    logger: Logger
    database: Database
    settings: Settings
    outbox: Outbox
    given: timedelta
    """How long the invocation may take in all."""
    remaining: Callable[[], timedelta]
    """Tells how long the invocation may still take."""
    request_id: str
    scheduled_for: datetime | None = None
    time_zone: str | None = None
    """The IANA time zone whose turn it is, where the job runs by time zone; see docs/time-zones.md."""
    dry_run: bool = False
    attempt: int = 1
    phases: dict[str, Progress] = field(default_factory=dict)
    is_run_stored: bool = True
    """A run of messages gets its row when it is over, so there is none to count on before that."""

    @classmethod
    def of(cls, name: str, logger: Logger, on: Runtime, context: LambdaContext) -> Self:
        """The context of an invocation that has just begun, in a run that gets its row when it is over."""
        now = on.clock()
        return cls(
            name=name,
            run_id=uuid4(),
            now=now,
            logger=logger,
            database=on.database,
            settings=on.settings,
            outbox=Outbox(clock_of(context, now)),
            given=remaining_time(context),
            remaining=partial(remaining_time, context),
            request_id=context.aws_request_id,
            is_run_stored=False,
        )

    def in_run(self, run: Run) -> Self:
        """The same in a run that has its row, which says how far earlier invocations of it came."""
        return replace(
            self,
            run_id=run.id,
            scheduled_for=run.scheduled_for,
            time_zone=run.time_zone or None,
            dry_run=run.dry_run,
            attempt=run.attempt,
            phases={name: Progress(**stored) for name, stored in (run.cursor or {}).items()},
            is_run_stored=True,
        )

    @property
    def elapsed(self) -> timedelta:
        """How long the invocation has taken so far."""
        return self.given - self.remaining()

    @property
    def current(self) -> datetime:
        """The time as the invocation goes on: for claims and leases, which others compare with their own time."""
        return self.now + self.elapsed

    @property
    def deadline(self) -> datetime:
        """When Lambda ends the invocation, on the clock of `now`."""
        return self.now + self.given

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: commits at the end of the block, rolls back when it raises. Read-only in a dry run.

        What the block wrote to the outbox is sent after the commit. Never call an outside service in the block.
        """
        with self.database.transaction(read_only=self.dry_run) as connection:
            yield connection
        self.send_outbox()

    def send_outbox(self) -> None:
        """Sends what committed transactions of this run wrote to the outbox."""
        self.outbox.flush(self.database, self.settings, self.logger)

    def progress(self, *, done: int = 0, failed: int = 0, total: int | None = None) -> None:
        """Adds to the counts of the run's row."""
        if self.is_run_stored:
            with self.database.transaction() as connection:
                runs.count(connection, self.run_id, self.now, done=done, failed=failed, total=total)

    def in_chunks(self, step: Callable[[Connection, Cursor], Chunk | None], phase: str = "main") -> Progress:
        """Calls a step until it has nothing left, each in a transaction of its own, and tells how far that got.

        The cursor that a step returns is stored in the step's own transaction, so a run that is killed goes on from its
        last step. When the invocation is near its end, the run goes on in another one.

        Args:
            step: does the work from the cursor on (`None` at first) and returns the next; `None` when nothing was left.
                In a dry run its transaction is read-only, and it reports what it would have done.
            phase: names the loop, in a job that has several; a phase that is done is not run again.
        """
        return self.in_prepared_chunks(lambda cursor: cursor, step, phase)

    def in_prepared_chunks[Work](
        self, prepare: Callable[[Cursor], Work], step: Callable[[Connection, Work], Chunk | None], phase: str = "main"
    ) -> Progress:
        """Like `in_chunks`, for work that needs an outside service: that is called first, and then comes the step.

        Args:
            prepare: gets the work ready from the cursor on, outside any transaction; a killed run prepares it again.
            step: does that work in one transaction, and returns where the next starts; `None` when nothing was left.
            phase: names the loop, in a job that has several.
        """
        progress = self.phases.get(phase, Progress())
        while not progress.done:
            self._hand_on_if_late()
            work = prepare(progress.cursor)
            with self.transaction() as connection:
                chunk = step(connection, work)
                progress = progress.after(chunk)
                if not self.dry_run:
                    self._store(connection, phase, progress, chunk.items if chunk else 0)
            if self.dry_run:
                with self.database.transaction() as connection:
                    self._store(connection, phase, progress, chunk.items if chunk else 0)
        return progress

    def in_batches(self, statement: Delete | Update, *, size: int = 5_000, phase: str | None = None) -> int:
        """Deletes or updates what a statement says, in batches of one transaction each, and returns how many rows.

        Rows that somebody else has locked are left for the next run. In a dry run the rows are only counted.

        Args:
            statement: `delete(table).where(...)`, or an update that makes its own condition false.
            size: rows a transaction.
            phase: names the loop, in a job that has several for one table.
        """
        table = statement.table
        if not isinstance(table, Table):
            raise TypeError(f"expected a statement on a table, got {type(table).__name__}")
        key = table.primary_key.columns[0]
        condition = statement.whereclause
        if condition is None:
            raise ValueError(f"a statement without a condition would take all of {table.name}")
        batch = select(key).where(condition).limit(size).with_for_update(skip_locked=True)
        # An array is made once. `IN (SELECT ... LIMIT)` may be planned as the inner side of a loop, and then takes
        # another batch for each row.
        limited = statement.where(key == any_(func.array(batch.scalar_subquery())))

        def next_batch(connection: Connection, cursor: Cursor) -> Chunk | None:
            if self.dry_run:
                if cursor:
                    return None
                counted = connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
                return Chunk(cursor=1, items=counted)
            rows = connection.execute(limited).rowcount
            return Chunk(cursor=(cursor or 0) + 1, items=rows) if rows else None

        return self.in_chunks(next_batch, phase or table.name).items

    def _store(self, connection: Connection, phase: str, progress: Progress, items: int) -> None:
        self.phases[phase] = progress
        if self.is_run_stored:
            stored = {name: each.as_json() for name, each in self.phases.items()}
            runs.advance(connection, self.run_id, stored, items, self.now)

    def _hand_on_if_late(self) -> None:
        if not self.is_run_stored or self.remaining() >= HAND_ON_BELOW:
            return
        with self.database.transaction() as connection:
            runs.hand_on(connection, self.run_id)
            self.outbox.send(
                connection,
                f"function/{self.name}",
                {"run_id": str(self.run_id)},
                dedup_key=f"continue/{self.run_id}/{self.request_id}",
            )
        self.send_outbox()
        raise HandedOn(f"run {self.run_id} goes on in another invocation")
