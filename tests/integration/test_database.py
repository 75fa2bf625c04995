"""The connection waits for the server once a statement, and what the server refuses leaves it usable."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from schoolbell.database import Database
from schoolbell.database.connection import sql_state
from tests.fixtures.database import open_database


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.engine.connect() as connection:
        yield connection


@pytest.fixture
def waits(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return noted(connection, monkeypatch)


def noted(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements for whose answer the connection will have waited, each as often as it did."""
    opened: Any = connection.connection.driver_connection
    waited: list[str] = []
    wait = opened.handle_messages

    def note(context: Any) -> None:
        waited.append(context.statement)
        wait(context)

    monkeypatch.setattr(opened, "handle_messages", note)
    return waited


def test_a_transaction_waits_for_its_statement_and_its_two_ends(connection: Connection, waits: list[str]) -> None:
    with connection.begin():
        assert connection.execute(text("SELECT cast(:n AS integer) + 1"), {"n": 41}).scalar() == 42
    assert [each.split()[0].lower() for each in waits] == ["begin", "select", "commit"]


def test_a_rollback_is_one_wait(connection: Connection, waits: list[str]) -> None:
    connection.execute(text("SELECT 1"))
    connection.rollback()
    connection.rollback()
    assert [each.split()[0].lower() for each in waits] == ["begin", "select", "rollback"]


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("SELEC :value", "42601"),  # refused as it is parsed,
        ("SELECT nobody FROM platform.job_runs WHERE job = :value", "42703"),
        ("SELECT cast(:value AS integer)", "22P02"),  # as its parameters are bound,
        ("SELECT 1 / (length(:value) - 3)", "22012"),  # as it is run
    ],
)
def test_a_refused_statement_says_why_and_the_next_one_works(
    connection: Connection, statement: str, state: str
) -> None:
    with pytest.raises(DBAPIError) as refused:
        connection.execute(text(statement), {"value": "abc"})
    assert sql_state(refused.value) == state
    with pytest.raises(DBAPIError, match="current transaction is aborted"):
        connection.execute(text("SELECT cast(:value AS text)"), {"value": "abc"})
    connection.rollback()
    assert connection.execute(text("SELECT cast(:value AS text)"), {"value": "abc"}).scalar() == "abc"


def test_what_a_statement_gives_back(connection: Connection) -> None:
    rows = text("SELECT n, nullif(n, 2) AS m FROM generate_series(1, cast(:last AS integer)) n")
    assert connection.execute(rows, {"last": 3}).all() == [(1, 1), (2, None), (3, 3)]
    assert len(connection.execute(rows, {"last": 100_000}).all()) == 100_000
    connection.execute(text("CREATE TEMPORARY TABLE kept (n integer, note text) ON COMMIT DROP"))
    inserted = connection.execute(
        text("INSERT INTO kept SELECT n, cast(:note AS text) FROM generate_series(1, 5) n"), {"note": None}
    )
    assert inserted.rowcount == 5
    long = "ß" * 1_000_000
    assert connection.execute(text("UPDATE kept SET note = :note WHERE n < :n"), {"note": long, "n": 3}).rowcount == 2
    assert connection.execute(text("SELECT max(note) FROM kept WHERE n = :n"), {"n": 1}).scalar() == long


def test_a_connection_that_died_is_replaced(migrated: str, database: Database) -> None:
    """As after a night in which the execution environment was frozen and the server restarted."""
    frozen = open_database(migrated)
    process = text("SELECT pg_backend_pid()")
    with frozen.transaction() as connection:
        before = connection.execute(process).scalar_one()
    with database.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": before})
    frozen.check()
    with frozen.transaction() as connection:
        assert connection.execute(process).scalar_one() != before
    frozen.close()


def test_looking_whether_the_connection_lives_is_one_wait(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.engine.connect() as connection:
        waits = noted(connection, monkeypatch)
    database.check()
    assert waits == ["SELECT 1"]
