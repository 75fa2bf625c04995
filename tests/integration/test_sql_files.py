"""Every `.sql` file is a statement that PostgreSQL takes, on the tables as the migrations make them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from local.home import CHECKOUT
from schoolbell.database import Database
from schoolbell.database.sql import source

PARAMETER: Final = re.compile(r"(?<![:\w]):(\w+)")
MOST_COLUMNS: Final = 120
FOLDERS: Final = ("functions", "shared")
FILES: Final = [file for folder in FOLDERS for file in sorted((CHECKOUT / folder).rglob("*.sql"))]


def header(file: Path) -> list[str]:
    """The comment at the top of a file."""
    lines = file.read_text().splitlines()
    return [line.removeprefix("-- ") for line in lines[: next(n for n, x in enumerate(lines) if x[:3] != "-- ")]]


def parameters(file: Path) -> Mapping[str, str]:
    """The types of a statement's parameters, by their names, as its header says."""
    declared = [line.removeprefix("Parameters: ") for line in header(file) if line.startswith("Parameters: ")]
    return dict(parameter.split(" ", 1) for line in declared for parameter in line.split(", "))


def included(files: list[Path]) -> Iterator[Path]:
    """The files whose content is a part of others."""
    for file in files:
        names = re.findall(r"^-- include (\S+)$", file.read_text(), re.MULTILINE)
        yield from ((file.parent / name).resolve() for name in names)


def prepare(database: Database, sql: str, types: Mapping[str, str]) -> None:
    """Has PostgreSQL parse a statement and look up all that it names."""
    numbers = {name: f"${number}" for number, name in enumerate(types, start=1)}
    numbered = PARAMETER.sub(lambda match: numbers[match[1]], sql)
    given = f"({', '.join(types.values())})" if types else ""
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"PREPARE checked {given} AS {numbered}".replace("%", "%%"))
        connection.execute(text("DEALLOCATE checked"))


STATEMENTS: Final = sorted(set(FILES) - set(included(FILES)))


@pytest.mark.parametrize("file", STATEMENTS, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_postgresql_prepares_the_statement(file: Path, database: Database) -> None:
    prepare(database, source(file), parameters(file))


@pytest.mark.parametrize("file", STATEMENTS, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_statement_declares_the_parameters_it_has(file: Path) -> None:
    assert set(parameters(file)) == set(PARAMETER.findall(source(file)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_statement_is_read_and_says_what_it_does(file: Path) -> None:
    assert ". " in f"{' '.join(header(file))} ", "a sentence"
    assert max(map(len, file.read_text().splitlines())) <= MOST_COLUMNS
    is_included = file in set(included(FILES))
    assert is_included or any(f'"{file.name}"' in reader.read_text() for reader in file.parent.glob("*.py"))


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT no_such_column FROM platform.job_runs WHERE started_at < :now", "no_such_column"),
        ("SELECT id FROM platform.no_such_table WHERE started_at < :now", "no_such_table"),
        ("SELECT id FROM platform.job_runs WHERE job = :now", "operator does not exist"),
        ("SELECT id FORM platform.job_runs WHERE started_at < :now", "syntax error"),
    ],
)
def test_statement_that_postgresql_would_refuse_is_noticed(sql: str, complaint: str, database: Database) -> None:
    with pytest.raises(DatabaseError, match=complaint):
        prepare(database, sql, {"now": "timestamptz"})
