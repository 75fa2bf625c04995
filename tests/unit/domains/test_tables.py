"""The tables by subject: each module of them works without the others, so that a job declares only what it needs."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from schoolbell import domains
from schoolbell.database.tables import all_tables, metadata
from schoolbell.domains import DOMAINS

MODULES: Final = {
    f"{package}.{module.name}"
    for package in (f"{domains.__name__}.{domain}.tables" for domain in DOMAINS)
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
}

STATEMENTS: Final = """
import importlib, sys
from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql.pg8000 import dialect
from sqlalchemy.types import NullType
from schoolbell.database.tables import metadata

importlib.import_module(sys.argv[1])
for table in metadata.tables.values():
    assert not [column for column in table.columns if isinstance(column.type, NullType)], table
    for statement in (select, insert, update, delete):
        statement(table).compile(dialect=dialect())
print(*metadata.tables)
"""


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_needs_no_other(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STATEMENTS, module],
        env={"PYTHONPATH": str(Path(domains.__path__[0]).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split()


def test_a_schema_has_the_tables_of_all_its_modules() -> None:
    for module in MODULES:
        importlib.import_module(module)

    for table in metadata.tables.values():
        schema = importlib.import_module(f"{domains.__name__}.{table.schema}.schema")
        assert getattr(schema, table.name) is table
        assert table.name in schema.__all__


def test_the_tables_of_all_domains_are_found() -> None:
    assert {table.schema for table in all_tables()} == set(DOMAINS)
    assert {"platform", "tutoring"} <= set(DOMAINS)
