"""What the database knows of jobs: runs, and messages that died. Pages are cut by key, so the hundredth is as fast."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, get_args
from uuid import UUID

from sqlalchemy import Connection, Select, Table, and_, bindparam, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.admin.models import DeadLetters, LastRun, Letter, LetterInFull, Letters, Run, RunInFull, Runs, RunStatus
from schoolbell.admin.problems import NoSuchThing
from schoolbell.domains.platform.tables.dead_letters import dead_letters
from schoolbell.domains.platform.tables.runs import job_runs

ROWS_A_PAGE: Final = 25
NO_MORE: Final = 200

_LAST_RUNS = text(
    """
    SELECT job.name AS job, last.id, last.status, last.started_at, last.finished_at, last.error
    FROM jsonb_array_elements_text(:jobs) AS job (name)
    CROSS JOIN LATERAL (
        SELECT id, status, started_at, finished_at, error FROM platform.job_runs
        WHERE job_runs.job = job.name
        ORDER BY started_at DESC
        LIMIT 1
    ) AS last
    """
).bindparams(bindparam("jobs", type_=JSONB))


def status_of(text: str) -> RunStatus | None:
    """The status of that name; nothing if there is none."""
    return next((status for status in get_args(RunStatus) if status == text), None)


def last_runs(connection: Connection, jobs: Sequence[str]) -> dict[str, LastRun]:
    """The newest run of each job that has any: one step into the index a job, however long its history."""
    return {
        row.job: LastRun.model_validate({name: value for name, value in row._mapping.items() if name != "job"})
        for row in connection.execute(_LAST_RUNS, {"jobs": list(jobs)})
    }


def unresolved(connection: Connection) -> dict[str, DeadLetters]:
    """How many messages of each job are dead, and since when."""
    query = (
        select(dead_letters.c.job, func.count(), func.min(dead_letters.c.dead_at))
        .where(dead_letters.c.resolved_at.is_(None))
        .group_by(dead_letters.c.job)
    )
    return {job: DeadLetters(count=count, oldest=oldest) for job, count, oldest in connection.execute(query)}


def runs_of(
    connection: Connection,
    job: str,
    *,
    status: RunStatus | None = None,
    before: str | None = None,
    size: int = ROWS_A_PAGE,
) -> Runs:
    """A job's runs, the newest first.

    Raises:
        NoSuchThing: `before` is not what an earlier page said.
    """
    conditions = [job_runs.c.job == job]
    if status:
        conditions.append(job_runs.c.status == status)
    query = _page(select(*_columns(job_runs, Run)), job_runs, "started_at", before, size).where(and_(*conditions))
    rows = connection.execute(query).all()
    return Runs(
        runs=tuple(Run.model_validate(dict(row._mapping)) for row in rows[:size]),
        next=_key(rows[size - 1].started_at, rows[size - 1].id) if len(rows) > size else None,
    )


def run_of(connection: Connection, job: str, run: UUID) -> RunInFull | None:
    """One run of a job; nothing if there is none, or no longer."""
    return _one(connection, job_runs, RunInFull, job, run)


def letters_of(
    connection: Connection, job: str, *, resolved: bool = False, before: str | None = None, size: int = ROWS_A_PAGE
) -> Letters:
    """A job's dead letters, the newest first: those to be dealt with, or those that somebody has dealt with.

    Raises:
        NoSuchThing: `before` is not what an earlier page said.
    """
    is_open = dead_letters.c.resolved_at.is_(None)
    query = _page(select(*_columns(dead_letters, Letter)), dead_letters, "dead_at", before, size)
    rows = connection.execute(query.where(dead_letters.c.job == job, ~is_open if resolved else is_open)).all()
    return Letters(
        letters=tuple(Letter.model_validate(dict(row._mapping)) for row in rows[:size]),
        next=_key(rows[size - 1].dead_at, rows[size - 1].id) if len(rows) > size else None,
    )


def letter_of(connection: Connection, job: str, letter: UUID) -> LetterInFull | None:
    """One dead letter of a job; nothing if there is none, or no longer."""
    return _one(connection, dead_letters, LetterInFull, job, letter)


def _one[M: (RunInFull, LetterInFull)](
    connection: Connection, table: Table, model: type[M], job: str, id: UUID
) -> M | None:
    query = select(*_columns(table, model)).where(table.c.id == id, table.c.job == job)
    row = connection.execute(query).first()
    return model.model_validate(dict(row._mapping)) if row else None


def _columns(table: Table, model: type[Run] | type[Letter]) -> list[Any]:
    return [table.c[name] for name in model.model_fields]


def _page(query: Select[Any], table: Table, time: str, before: str | None, size: int) -> Select[Any]:
    """The rows after a key, the newest first, and one more, which tells whether there is another page."""
    newest = (table.c[time].desc(), table.c.id.desc())
    if before is not None:
        query = query.where(tuple_(table.c[time], table.c.id) < tuple_(*_read_key(before)))
    return query.order_by(*newest).limit(min(size, NO_MORE) + 1)


def _key(at: datetime, id: UUID) -> str:
    return f"{at.isoformat()}_{id}"


def _read_key(key: str) -> tuple[datetime, UUID]:
    at, _, id = key.partition("_")
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is not None:
            return moment, UUID(id)
    except ValueError:
        pass
    raise NoSuchThing("There is no such page.")
