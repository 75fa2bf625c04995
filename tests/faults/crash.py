"""Crashing a job at every point where it can crash, and proving that running it again puts everything right.

A job's process can end before any statement, before or after any commit, and before or after any call of an outside
service. `assert_crash_safe` counts these points in a run, then runs the job once for each, ends it there (nothing that
comes after is executed, as in a killed process), runs it again until it ends, and compares what the database and the
outside services then hold with what they hold after a run that did not crash.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from sqlalchemy import Table, event, text
from urllib3.connectionpool import HTTPConnectionPool

from local.tables import empty
from schoolbell import aws
from schoolbell.database import Database
from schoolbell.database.tables import all_tables

type Rows = list[dict[str, Any]]
type State = dict[str, Any]

VOLATILE = {
    # When and by which try something was done differs between a run that crashed and one that didn't.
    "created_at",
    "updated_at",
    "attempts",
    "attempt",
    "claimed_by",
    "claimed_until",
    "handled_at",
    "last_error",
}
NOT_COMPARED = {"platform.job_runs"}  # the history of the tries


class Crashed(BaseException):
    """The process has ended. Not an `Exception`, since no handler of the process can run any more."""


class Points:
    """Counts the points of a run, and ends the process at one of them."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.passed: list[str] = []
        self._crash_at = crash_at
        self.is_dead = False

    def reach(self, name: str) -> None:
        """The process comes to a point."""
        if self.is_dead or len(self.passed) == self._crash_at:
            self.is_dead = True
            raise Crashed(name)
        self.passed.append(name)


class _Observed:
    """A client whose every call is a point before and one after."""

    def __init__(self, client: Any, service: str, points: Points) -> None:
        self._client = client
        self._service = service
        self._points = points

    def __getattr__(self, operation: str) -> Any:
        attribute = getattr(self._client, operation)
        if not callable(attribute) or operation.startswith("_") or isinstance(attribute, type):
            return attribute
        if operation in {"can_paginate"}:
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self._points.reach(f"before {self._service}.{operation}")
            answer = attribute(*args, **kwargs)
            self._points.reach(f"after {self._service}.{operation}")
            return answer

        return call


@contextmanager
def observed(database: Database, points: Points) -> Iterator[None]:
    """Makes every statement, commit and outside call within the block a point."""

    def before_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        points.reach(f"before {' '.join(statement.split())[:60]}")

    def before_commit(_connection: Any) -> None:
        points.reach("before commit")

    original_commit = database.engine.dialect.do_commit

    def commit(dbapi_connection: Any) -> None:
        original_commit(dbapi_connection)
        points.reach("after commit")

    original_client = aws.client
    original_urlopen = HTTPConnectionPool.urlopen

    def urlopen(pool: HTTPConnectionPool, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        path = url.partition("?")[0]
        points.reach(f"before {method} {path}")
        answer = original_urlopen(pool, method, url, *args, **kwargs)
        points.reach(f"after {method} {path}")
        return answer

    event.listen(database.engine, "before_cursor_execute", before_statement)
    event.listen(database.engine, "commit", before_commit)
    try:
        with (
            patch.object(database.engine.dialect, "do_commit", commit),
            patch.object(aws, "client", lambda service: _Observed(original_client(service), service, points)),
            patch.object(HTTPConnectionPool, "urlopen", urlopen),
        ):
            yield
    finally:
        event.remove(database.engine, "before_cursor_execute", before_statement)
        event.remove(database.engine, "commit", before_commit)


@dataclass(frozen=True)
class Crashing:
    """A job with something to do."""

    run: Callable[[], object]
    """Invokes the job as its trigger does, with the same event each time."""
    recover: Callable[[], object]
    """What comes later anyway: the trigger's next try, the outbox relay, the sweep."""
    outside: Callable[[], Any] = lambda: None
    """What the outside services hold, comparable; a message delivered twice (same outbox id) counts once."""
    reset_outside: Callable[[], object] = lambda: None
    """Puts the outside services back to where they were before the job ran."""


def assert_crash_safe(database: Database, scenario: Crashing, *, volatile: frozenset[str] = frozenset()) -> list[str]:
    """Crashes the scenario at each of its points; returns the points' names.

    Args:
        database: as the scenario's tests arranged it; put back to that before each run.
        scenario: the job. Its `run` must raise nothing when it isn't crashed.
        volatile: more columns, as `table.column`, that may differ.
    """
    start = contents(database)
    points = Points()
    with observed(database, points):
        scenario.run()
    scenario.recover()
    expected = state(database, start, volatile, scenario.outside())
    assert points.passed, "the scenario does nothing"
    for position, name in enumerate(points.passed):
        restore(database, start)
        scenario.reset_outside()
        crash = Points(crash_at=position)
        try:
            with observed(database, crash):
                scenario.run()
        except Crashed:
            pass
        assert crash.is_dead, f"never came to point {position} ({name})"
        database.close()
        scenario.recover()
        actual = state(database, start, volatile, scenario.outside())
        assert actual == expected, f"a crash at point {position} ({name}) is not put right"
    return points.passed


def contents(database: Database) -> dict[str, Rows]:
    """The rows of all tables, as PostgreSQL's JSON."""
    with database.transaction() as connection:
        return {
            str(table): [
                dict(row) for row in connection.execute(text(f"SELECT to_jsonb(t) FROM {table} AS t")).scalars()
            ]
            for table in all_tables()
        }


def restore(database: Database, rows: Mapping[str, Rows]) -> None:
    """Puts the rows of all tables back."""
    with database.transaction() as connection:
        empty(connection)
        for table in all_tables():
            if not rows[str(table)]:
                continue
            columns = ", ".join(f'"{column.name}"' for column in table.columns if column.computed is None)
            connection.execute(
                text(
                    f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE "
                    f"SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, cast(:rows AS jsonb))"
                ),
                {"rows": json.dumps(rows[str(table)])},
            )


def state(database: Database, start: Mapping[str, Rows], volatile: frozenset[str], outside: Any) -> State:
    """What the tables hold, without what may differ between two ways to the same end."""
    now = contents(database)
    compared: State = {"outside": outside}
    for table in all_tables():
        name = str(table)
        if name in NOT_COMPARED:
            continue
        known = {_key(table, row) for row in start[name]}
        compared[name] = Counter(_comparable(table, row, known, volatile) for row in now[name])
    return compared


def _key(table: Table, row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[column.name]) for column in table.primary_key)


def _comparable(
    table: Table, row: Mapping[str, Any], known: set[tuple[str, ...]], volatile: frozenset[str]
) -> tuple[tuple[str, str], ...]:
    key_columns = {column.name for column in table.primary_key if column.server_default or column.identity}
    is_new = _key(table, row) not in known
    dropped = VOLATILE | {column for column in volatile if "." not in column}
    dropped |= {column.partition(".")[2] for column in volatile if column.startswith(f"{table.name}.")}
    dropped |= key_columns if is_new else set()
    return tuple(sorted((name, str(value)) for name, value in row.items() if name not in dropped))
