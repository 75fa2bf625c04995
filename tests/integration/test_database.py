"""The connection waits for the server once a statement, and what the server refuses leaves it usable."""

import socket
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from schoolbell.database import Database, is_unavailable
from schoolbell.database.connection import sql_state
from tests.fakes.network import breakable_way
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


def process_of(database: Database) -> int:
    """The server's process at the other end of the connection that a transaction has."""
    with database.transaction() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_transaction_waits_for_its_statements_and_its_end(connection: Connection, waits: list[str]) -> None:
    with connection.begin():
        for n in (41, 42):
            assert connection.execute(text("SELECT cast(:n AS integer) + 1"), {"n": n}).scalar() == n + 1
    assert [each.split()[0].lower() for each in waits] == ["select", "select", "commit"]


def test_the_first_statement_is_in_the_transaction(connection: Connection) -> None:
    named = {"name": "Ada"}
    connection.execute(text("INSERT INTO tutoring.teachers (name) VALUES (:name)"), named)
    connection.rollback()
    assert not connection.execute(text("SELECT * FROM tutoring.teachers WHERE name = :name"), named).all()


def test_a_statement_that_is_run_again_gets_its_new_values(connection: Connection) -> None:
    statement = text("SELECT cast(:n AS integer), '%s' || cast(:m AS text), cast(:n AS integer)")
    for n, m in ((7, "seven"), (8, "eight")):
        assert connection.execute(statement, {"n": n, "m": m}).one() == (n, f"%s{m}", n)


def test_transactions_one_after_the_other_share_a_connection(database: Database) -> None:
    assert process_of(database) == process_of(database)


def test_a_rollback_is_one_wait(connection: Connection, waits: list[str]) -> None:
    connection.execute(text("SELECT 1"))
    connection.rollback()
    connection.rollback()
    assert [each.split()[0].lower() for each in waits] == ["select", "rollback"]


def test_a_transaction_that_only_reads_waits_once_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.engine.connect() as connection:
        waits = noted(connection, monkeypatch)
    with database.transaction(read_only=True) as connection:
        connection.execute(text("SELECT cast(:n AS integer)"), {"n": 1})
    assert [each.split()[0].lower() for each in waits] == ["set", "select", "commit"]
    with pytest.raises(DBAPIError, match="read-only transaction"), database.transaction(read_only=True) as connection:
        connection.execute(text("INSERT INTO tutoring.teachers (name) VALUES (:name)"), {"name": "Ada"})


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


def test_a_value_that_python_does_not_have_does_not_leave_the_rest_of_the_answer_unread(connection: Connection) -> None:
    with pytest.raises(ValueError, match="24:00:00"):
        connection.execute(text("SELECT cast('24:00' AS time) FROM generate_series(1, cast(:n AS integer))"), {"n": 9})
    connection.rollback()
    for n in (7, 8):
        assert connection.execute(text("SELECT cast(:n AS integer)"), {"n": n}).scalar() == n


def test_a_connection_that_died_is_replaced(migrated: str, database: Database) -> None:
    """As after a night in which the execution environment was frozen and the server restarted."""
    frozen = open_database(migrated)
    before = process_of(frozen)
    with database.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": before})
    frozen.check()
    assert process_of(frozen) != before
    frozen.close()


def test_a_connection_that_is_reset_as_the_answer_is_waited_for_is_replaced(migrated: str) -> None:
    with breakable_way(migrated) as way:
        database = open_database(way.url)
        before = process_of(database)
        way.break_at_next_byte()
        database.check()
        assert process_of(database) != before
        way.break_at_next_byte()
        with pytest.raises(DBAPIError) as away, database.transaction() as connection:
            connection.execute(text("SELECT cast(:n AS integer)"), {"n": 1})
        assert is_unavailable(away.value)
        database.close()


def test_a_connection_that_fell_silent_is_replaced(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a night in which a router forgot it: nobody says that it is gone."""
    monkeypatch.setattr("schoolbell.database.connection.CONNECT_TIMEOUT", timedelta(seconds=0.5))
    with breakable_way(migrated) as way:
        frozen = open_database(way.url)
        before = process_of(frozen)
        way.forget()
        frozen.check()
        assert process_of(frozen) != before
        frozen.close()


def test_a_server_that_takes_a_connection_and_says_nothing_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schoolbell.database.connection.CONNECT_TIMEOUT", timedelta(seconds=0.5))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = open_database(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d?sslmode=disable")
        with pytest.raises((DBAPIError, TimeoutError)) as away, database.transaction():
            pass
    assert is_unavailable(away.value)


def test_a_statement_may_take_longer_than_connecting(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schoolbell.database.connection.CONNECT_TIMEOUT", timedelta(seconds=0.5))
    database = open_database(migrated)
    database.check()
    with database.transaction() as connection:
        assert connection.execute(text("SELECT 1 FROM pg_sleep(0.8)")).scalar() == 1
    database.close()


@pytest.mark.skipif(sys.platform != "linux", reason="others have other names for it")
def test_a_server_that_is_gone_is_noticed_in_the_middle_of_a_statement(connection: Connection) -> None:
    opened: Any = connection.connection.driver_connection
    option = partial(opened._usock.getsockopt, socket.IPPROTO_TCP)
    assert opened._usock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert option(socket.TCP_KEEPIDLE) + option(socket.TCP_KEEPINTVL) < 20
    assert option(socket.TCP_USER_TIMEOUT) == 20_000


def test_a_value_that_cannot_be_sent_does_not_leave_the_connection_waiting(connection: Connection) -> None:
    """After a statement that it refuses, the server passes over everything until the client ends it."""
    opened: Any = connection.connection.driver_connection
    opened._usock.settimeout(60)  # in place of for ever
    with pytest.raises(DBAPIError) as refused:
        connection.execute(text("SELEC :value"), {"value": "\ud800"})
    assert sql_state(refused.value) == "42601"
    connection.rollback()
    with pytest.raises(UnicodeEncodeError):
        connection.execute(text("SELECT cast(:value AS text)"), {"value": "\ud800"})
    connection.rollback()
    assert connection.execute(text("SELECT cast(:value AS text)"), {"value": "abc"}).scalar() == "abc"


def test_looking_whether_the_connection_lives_is_one_wait(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.engine.connect() as connection:
        waits = noted(connection, monkeypatch)
    database.check()
    assert waits == ["SELECT 1"]
