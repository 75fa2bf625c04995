"""Rows that are due once, and the schedule that each of them has: a lesson's end, a message to send.

The row is the truth; its schedule in EventBridge Scheduler has to follow it, through events that come twice, late, out
of order and at the same time. `scheduled_for` on the row is the time that the schedule was last set to. Setting one is

    read what the row wants ──▶ set or delete the schedule ──▶ write `scheduled_for`, if the row still wants that
              ▲                                                                │ it wants something else by now
              └────────────────────────────────────────────────────────────────┘

so whoever set a schedule last has looked at the row afterwards, and a schedule that was set from an old reading is set
again by the one who set it. What is lost all the same (an event that was never sent, a schedule that never went off)
the sweeps find: a due row that still waits, and a row whose `scheduled_for` is not the time at which it is due.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    column,
    func,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from schoolbell.domains.tutoring.tables.lessons import sessions
from schoolbell.domains.tutoring.tables.messages import scheduled_messages
from schoolbell.jobs import Batch, Chunk, Cursor, JobContext, Message, Payload, one_time_schedules
from schoolbell.jobs.one_time_schedules import TOO_LATE, OneShot

ROUNDS: Final = 5
"""How often a row may change under the hands of the one who sets its schedule, before that is left for later."""

CHUNK: Final = 2_000
"""Rows a transaction of a sweep."""

LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""What is due from here on is a slip of the pen: PostgreSQL's calendar goes on, those of Python and Scheduler end."""

EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
"""What was due before is overdue all the same; Python's calendar begins here, PostgreSQL's earlier."""


@dataclass(frozen=True)
class OneShots:
    """A table whose rows are due once."""

    table: Table
    due_at: ColumnElement[datetime]
    waiting: str
    """The status of a row that is still to come."""
    name: str
    """What the names of schedules and of outbox messages begin with."""
    key: str
    """The field of a payload that carries the row's id."""
    job: str
    """The queue job that is rung when a row is due."""
    events: str
    """The queue job that sets a row's schedule."""
    moved: str
    """The type of the event that says that a row's time has changed."""

    def schedule_name(self, row: UUID) -> str:
        """The name of a row's schedule, e.g. `session-0198…`."""
        return f"{self.name}-{row}"

    @property
    def wanted(self) -> ColumnElement[datetime | None]:
        """SQL: the time for which a row should have a schedule, NULL for none."""
        is_to_come = and_(self.table.c.status == self.waiting, self.due_at < LATEST)
        return case((is_to_come, func.greatest(self.due_at, EARLIEST)), else_=null())

    @property
    def is_beyond_calendar(self) -> ColumnElement[bool]:
        """SQL: whether a row waits for a time for which no schedule can be made."""
        return and_(self.table.c.status == self.waiting, self.due_at >= LATEST)


SESSION_ENDS: Final = OneShots(
    table=sessions,
    due_at=sessions.c.due_at,
    waiting="scheduled",
    name="session",
    key="session_id",
    job="tutoring.auto-complete",
    events="tutoring.session-events",
    moved="session.rescheduled",
)

MESSAGES: Final = OneShots(
    table=scheduled_messages,
    due_at=scheduled_messages.c.send_at,
    waiting="pending",
    name="message",
    key="message_id",
    job="tutoring.scheduled-messages",
    events="tutoring.message-events",
    moved="message.scheduled",
)


class StillChanging(Exception):
    """A row changed each time its schedule was set."""


class _Wanted(NamedTuple):
    due: datetime | None
    """When the row is due, if it still waits."""
    seen: datetime | None
    """What `scheduled_for` said."""
    is_beyond_calendar: bool


@dataclass(slots=True)
class Settled:
    """What became of the schedules of some rows."""

    unknown: set[UUID] = field(default_factory=set)
    beyond_calendar: set[UUID] = field(default_factory=set)
    """Those that wait for a time so far ahead that it must be a mistake; they have no schedule."""
    scheduled: set[UUID] = field(default_factory=set)
    unscheduled: set[UUID] = field(default_factory=set)
    sent: set[UUID] = field(default_factory=set)
    """Those due so soon, or so long ago, that they go straight onto the queue."""
    failed: dict[UUID, Exception] = field(default_factory=dict)


def settle(job: JobContext, kind: OneShots, causes: Mapping[UUID, str]) -> Settled:
    """Makes the schedules of these rows what the rows say, whatever happens to the rows meanwhile.

    Args:
        job: the run.
        kind: the table.
        causes: why, by row: the id of the message that asks for it, so that its second delivery sends nothing new.
    """
    settled = Settled()
    left = set(causes)
    for turn in range(ROUNDS):
        if not left:
            return settled
        rows = _read(job, kind, left)
        settled.unknown |= left - rows.keys()
        settled.beyond_calendar |= {row for row, wants in rows.items() if wants.is_beyond_calendar}
        wanted = {kind.schedule_name(row): _one_shot(job, kind, row, rows.get(row), turn) for row in left}
        failures = one_time_schedules.arrange(wanted, job.settings)
        settled.failed |= {row: error for row in left if (error := failures.get(kind.schedule_name(row)))}
        arranged = {row: wants for row, wants in rows.items() if row not in settled.failed}
        left = arranged.keys() - _write_down(job, kind, arranged, causes, settled)
    settled.failed.update((row, StillChanging(f"{kind.name} {row} changed {ROUNDS} times")) for row in left)
    return settled


def follow[P: Payload](job: JobContext, batch: Batch[P], kind: OneShots, row_of: Callable[[P], UUID]) -> Settled:
    """Settles the rows that the events of a batch are about, and says of each message what became of it."""
    causes: dict[UUID, str] = {}
    for message in batch.messages:
        causes.setdefault(row_of(message.payload), message.id)
    settled = settle(job, kind, causes)
    if not settled.unknown and not settled.beyond_calendar and not settled.failed:
        return settled
    for message in batch.messages:
        row = row_of(message.payload)
        if row in settled.unknown:
            batch.discard(message, f"{kind.key}: no {kind.name} {row}")
        elif row in settled.beyond_calendar:
            batch.discard(message, f"{kind.key}: {kind.name} {row} is due in the year {LATEST.year} or later")
        elif error := settled.failed.get(row):
            if one_time_schedules.is_throttled(error):
                batch.snooze(message, timedelta(seconds=random.uniform(5, 60)))  # noqa: S311
            else:
                batch.fail(message, error)
    return settled


def _one_shot(job: JobContext, kind: OneShots, row: UUID, wanted: _Wanted | None, turn: int) -> OneShot | None:
    if wanted is None or wanted.due is None or _is_too_late(job, wanted.due):
        return None
    return OneShot(wanted.due, kind.job, {kind.key: str(row)}, is_move=wanted.seen is not None or turn > 0)


def _is_too_late(job: JobContext, due: datetime) -> bool:
    return due < job.now + TOO_LATE


def _read(job: JobContext, kind: OneShots, rows: Iterable[UUID]) -> dict[UUID, _Wanted]:
    table = kind.table
    statement = select(table.c.id, kind.wanted, table.c.scheduled_for, kind.is_beyond_calendar).where(
        table.c.id.in_(_ids())
    )
    with job.transaction() as connection:
        found = connection.execute(statement, {"ids": [str(row) for row in rows]}).all()
    return {row: _Wanted(*wanted) for row, *wanted in found}


def _write_down(
    job: JobContext, kind: OneShots, arranged: Mapping[UUID, _Wanted], causes: Mapping[UUID, str], settled: Settled
) -> set[UUID]:
    """Writes what the schedules are now onto the rows that still want that, and returns which those are."""
    if not arranged:
        return set()
    table = kind.table
    given = (
        func.json_to_recordset(bindparam("rows", type_=JSON))
        .table_valued(column("id", Uuid), column("due", DateTime(True)), column("seen", DateTime(True)))
        .render_derived(name="given", with_types=True)
    )
    statement = (
        update(table)
        .values(scheduled_for=given.c.due)
        .where(
            table.c.id == given.c.id,
            kind.wanted.is_not_distinct_from(given.c.due),
            # Else somebody has set the schedule since, perhaps before us and perhaps after.
            table.c.scheduled_for.is_not_distinct_from(given.c.seen),
        )
        .returning(table.c.id)
    )
    listed = [
        {"id": str(row), "due": _text(arranged[row].due), "seen": _text(arranged[row].seen)}
        for row in sorted(arranged)  # so that two that write the same rows wait for each other, and don't deadlock
    ]
    with job.transaction() as connection:
        written = set(connection.execute(statement, {"rows": listed}).scalars())
        sent = {row for row in written if (due := arranged[row].due) and _is_too_late(job, due)}
        _send(
            job,
            connection,
            kind.job,
            # One that is not quite due yet waits on that queue.
            [_outgoing({kind.key: str(row)}, f"{kind.name}-due/{row}/{causes[row]}") for row in sent],
        )
    settled.sent |= sent
    settled.unscheduled |= {row for row in written if arranged[row].due is None}
    settled.scheduled |= written - settled.sent - settled.unscheduled
    return written


@dataclass(frozen=True, slots=True)
class Overlooked:
    """Rows that were on the queue and could not be done."""

    unknown: frozenset[UUID] = frozenset()
    early: Mapping[UUID, datetime] = field(default_factory=dict)
    """Rows that still wait, and when they are due."""


def overlooked(connection: Connection, kind: OneShots, rows: Iterable[UUID]) -> Overlooked:
    """Which of these rows do not exist or still wait; to be asked after those that are due have been done."""
    given = (
        func.json_array_elements_text(bindparam("ids", type_=JSON)).table_valued("value").render_derived(name="given")
    )
    given_id = given.c.value.cast(Uuid)
    table = kind.table
    statement = (
        select(given_id, table.c.id.is_(None), func.least(kind.due_at, LATEST))
        .select_from(given.outerjoin(table, table.c.id == given_id))
        .where(or_(table.c.id.is_(None), table.c.status == kind.waiting))
    )
    found = connection.execute(statement, {"ids": [str(row) for row in rows]}).all()
    return Overlooked(
        unknown=frozenset(row for row, is_unknown, _ in found if is_unknown),
        early={row: due for row, is_unknown, due in found if not is_unknown},
    )


def put_off[P: Payload](
    job: JobContext,
    connection: Connection,
    batch: Batch[P],
    kind: OneShots,
    row_of: Callable[[P], UUID],
    missed: Overlooked,
) -> None:
    """Says of the messages whose rows could not be done what is to become of them.

    Rows that do not exist are discarded. Of one that was moved later, the schedule, which has gone off, is set again by
    those who set schedules: through the outbox, in this transaction. One too close for that waits on its queue.
    """
    if not (missed.unknown or missed.early):
        return
    again: dict[UUID, Message[P]] = {}
    for message in batch.messages:
        row = row_of(message.payload)
        if row in missed.unknown:
            batch.discard(message, f"{kind.key}: no {kind.name} {row}")
        elif due := missed.early.get(row):
            if _is_too_late(job, due):
                batch.snooze(message, timedelta(seconds=ceil((due - job.now).total_seconds())))
            else:
                again.setdefault(row, message)
    _send(
        job,
        connection,
        kind.events,
        [
            _outgoing({"type": kind.moved, kind.key: str(row)}, f"{kind.name}-early/{message.id}")
            for row, message in again.items()
        ],
    )


def overdue(connection: Connection, kind: OneShots, now: datetime) -> list[UUID]:
    """A chunk of the rows that still wait though they are due, the oldest first."""
    statement = (
        select(kind.table.c.id)
        .where(kind.table.c.status == kind.waiting, kind.due_at <= now)
        .order_by(kind.due_at)
        .limit(CHUNK)
    )
    return list(connection.execute(statement).scalars())


def unscheduled(
    connection: Connection, kind: OneShots, now: datetime, after: tuple[datetime, UUID] | None = None
) -> list[tuple[datetime, UUID]]:
    """A chunk of the rows to come whose schedule is missing or at another time: when they are due, and their ids."""
    row = tuple_(kind.due_at, kind.table.c.id)
    statement = (
        select(kind.due_at, kind.table.c.id)
        .where(
            kind.table.c.status == kind.waiting,
            kind.table.c.scheduled_for.is_distinct_from(kind.due_at),
            kind.due_at > now,
            kind.due_at < LATEST,
        )
        .order_by(kind.due_at, kind.table.c.id)
        .limit(CHUNK)
    )
    if after:
        statement = statement.where(row > tuple_(*after))
    return [(due, found) for due, found in connection.execute(statement)]


def ask_for_schedules(job: JobContext, kind: OneShots) -> Callable[[Connection, Cursor], Chunk | None]:
    """The step of a sweep that has the schedules set of rows to come whose schedule is missing or at another time.

    What has been asked for is not asked for again in the same hour: setting hundreds of thousands takes a while.
    """
    hour = f"{job.now:%Y%m%dT%H}"

    def step(connection: Connection, cursor: Cursor) -> Chunk | None:
        after = (datetime.fromisoformat(cursor[0]), UUID(cursor[1])) if cursor else None
        found = unscheduled(connection, kind, job.now, after)
        if not found:
            return None
        asked = _send(
            job,
            connection,
            kind.events,
            [
                _outgoing(
                    {"type": kind.moved, kind.key: str(row)}, f"{kind.name}-sweep/{row}/{due.timestamp():.6f}/{hour}"
                )
                for due, row in found
            ],
        )
        last_due, last_row = found[-1]
        return Chunk(cursor=[last_due.isoformat(), str(last_row)], items=asked)

    return step


def _outgoing(payload: Mapping[str, str], dedup_key: str) -> dict[str, Any]:
    return {"payload": dict(payload), "dedup_key": dedup_key}


def _send(job: JobContext, connection: Connection, destination: str, messages: list[dict[str, Any]]) -> int:
    """Writes messages to the outbox in one statement, and returns how many were new."""
    if not messages:
        return 0
    given = (
        func.json_to_recordset(bindparam("messages", messages, type_=JSON))
        .table_valued(column("payload", JSONB), column("dedup_key", Text))
        .render_derived(name="given", with_types=True)
    )
    destined: ColumnElement[str] = bindparam("destination", destination).label("destination")
    return job.outbox.send_from(connection, select(destined, given.c.payload, given.c.dedup_key))


def _ids() -> Any:
    """SQL: the ids in the JSON parameter `ids`."""
    return select(func.json_array_elements_text(bindparam("ids", type_=JSON)).cast(Uuid))


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
