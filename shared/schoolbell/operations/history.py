"""What the database knows of runs and dead letters, read for everybody: the client, the page, health and metrics.

Whoever asks brings a model, and its fields are the columns that are read. Pages are cut by key, so the hundredth is as
fast as the first.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    TableValuedAlias,
    bindparam,
    func,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.domains.platform.tables.dead_letters import dead_letters
from schoolbell.domains.platform.tables.runs import job_runs

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

type _Model = BaseModel | DataclassInstance


@dataclass(frozen=True, slots=True)
class Key:
    """The time and the id of a page's last row: where the next page goes on."""

    at: datetime
    id: UUID

    def __str__(self) -> str:
        return f"{self.at.isoformat()}_{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` wrote.

        Raises:
            ValueError: it is no key.

        >>> Key.parse("2026-03-02T10:00:00+00:00_00000000-0000-0000-0000-000000000001").at.hour
        10
        """
        at, _, id = text.partition("_")
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError(f"no time zone: {at}")
        return cls(moment, UUID(id))


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A job's dead letters that nobody has redriven or dropped."""

    count: int
    oldest: datetime


def runs[M: _Model](
    connection: Connection,
    jobs: Iterable[str],
    model: type[M],
    *,
    status: str | None = None,
    before: Key | datetime | None = None,
    limit: int,
) -> list[M]:
    """Runs of these jobs, the newest first: of a status or of all, those before a time or after a page."""
    run = job_runs.alias("run")
    conditions = [] if before is None else [_is_before(run, "started_at", before)]
    if status:
        conditions.append(run.c.status == status)
    # By job, since that is how runs are indexed: a million of them are not to be sorted for the latest twenty.
    asked = _asked(jobs)
    newest = _newest_runs(asked, run, conditions, limit).order_by(run.c.id.desc()).lateral("newest")
    query = select(*_columns(newest, model)).select_from(asked.join(newest, true()))
    rows = connection.execute(query.order_by(newest.c.started_at.desc(), newest.c.id.desc()).limit(limit))
    return [_made(model, row._mapping) for row in rows]


def last_runs[M: _Model](connection: Connection, jobs: Iterable[str], model: type[M]) -> dict[str, M]:
    """The newest run of each job that has any: one step into the index a job, however long its history."""
    asked = _asked(jobs)
    newest = _newest_runs(asked, job_runs.alias("run"), [], 1).lateral("newest")
    query = select(asked.c.job.label("of_job"), *_columns(newest, model)).select_from(asked.join(newest, true()))
    found = {}
    for row in connection.execute(query):
        job, *values = row
        found[job] = _made(model, dict(zip(_names(model), values, strict=True)))
    return found


def failed_last(connection: Connection, jobs: Iterable[str]) -> list[str]:
    """Those of the jobs whose last run that has ended failed or timed out, by name."""
    asked, run = _asked(jobs), job_runs.alias("run")
    newest = _newest_runs(asked, run, [run.c.finished_at.is_not(None)], 1).lateral("newest")
    query = select(asked.c.job).select_from(asked.join(newest, true()))
    return sorted(connection.execute(query.where(newest.c.status.in_(("failed", "timed_out")))).scalars())


def last_starts(connection: Connection, jobs: Iterable[str]) -> dict[str, datetime]:
    """When the newest run of each job that has any began."""
    asked, run = _asked(jobs), job_runs.alias("run")
    newest = _newest_runs(asked, run, [], 1).lateral("newest")
    rows = connection.execute(select(asked.c.job, newest.c.started_at).select_from(asked.join(newest, true())))
    return {row.job: row.started_at for row in rows}


def running(connection: Connection) -> dict[str, int]:
    """How many runs of each job are under way; those of a queue job are not written down before they end."""
    query = (
        select(job_runs.c.job, func.count().label("runs"))
        .where(job_runs.c.status == "running")
        .group_by(job_runs.c.job)
    )
    return {row.job: row.runs for row in connection.execute(query)}


def run[M: _Model](connection: Connection, run_id: UUID, model: type[M]) -> M | None:
    """One run; `None` if there is none, or no longer."""
    row = connection.execute(select(*_columns(job_runs, model)).where(job_runs.c.id == run_id)).first()
    return _made(model, row._mapping) if row else None


def letters[M: _Model](
    connection: Connection,
    model: type[M],
    *,
    job: str | None = None,
    resolved: bool | None = None,
    before: Key | None = None,
    limit: int,
) -> list[M]:
    """Dead letters, the newest first: of a job or of all; resolved, open, or both."""
    c = dead_letters.c
    query = select(*_columns(dead_letters, model)).order_by(c.dead_at.desc(), c.id.desc()).limit(limit)
    if job is not None:
        query = query.where(c.job == job)
    if resolved is not None:
        query = query.where(c.resolved_at.is_not(None) if resolved else c.resolved_at.is_(None))
    if before is not None:
        query = query.where(_is_before(dead_letters, "dead_at", before))
    return [_made(model, row._mapping) for row in connection.execute(query)]


def letter[M: _Model](connection: Connection, letter_id: UUID, model: type[M]) -> M | None:
    """One dead letter; `None` if there is none, or no longer."""
    row = connection.execute(select(*_columns(dead_letters, model)).where(dead_letters.c.id == letter_id)).first()
    return _made(model, row._mapping) if row else None


def unresolved(connection: Connection) -> dict[str, Unresolved]:
    """How many messages of each job are dead, and since when."""
    c = dead_letters.c
    query = select(c.job, func.count(), func.min(c.dead_at)).where(c.resolved_at.is_(None)).group_by(c.job)
    return {job: Unresolved(count, oldest) for job, count, oldest in connection.execute(query)}


def _asked(jobs: Iterable[str]) -> TableValuedAlias:
    names = bindparam("jobs", list(jobs), type_=JSONB)
    return func.jsonb_array_elements_text(names).table_valued("job", name="asked").render_derived()


def _newest_runs(
    asked: TableValuedAlias, run: FromClause, conditions: Sequence[ColumnElement[bool]], limit: int
) -> Select[Any]:
    of_job = select(run).where(run.c.job == asked.c.job, *conditions)
    return of_job.order_by(run.c.started_at.desc()).limit(limit)


def _is_before(table: FromClause, time: str, before: Key | datetime) -> ColumnElement[bool]:
    if isinstance(before, datetime):
        return table.c[time] < before
    return tuple_(table.c[time], table.c.id) < tuple_(before.at, before.id)


def _columns[M: _Model](table: FromClause, model: type[M]) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in _names(model)]


def _names[M: _Model](model: type[M]) -> list[str]:
    if issubclass(model, BaseModel):
        return list(model.model_fields)
    return [field.name for field in fields(model)]


def _made[M](model: type[M], values: Any) -> M:
    return cast(Callable[..., M], model)(**values)
