"""Trouble that the tests make on purpose, and mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Column

from tests.end_to_end.stack import Stack

REASON = "refused"


def refuse(stack: Stack, column: Column[Any], id: UUID) -> None:
    """Makes the database refuse new rows that have an id in a column, e.g. any credits of a student."""
    check = f"ADD CONSTRAINT {name_of(id)} CHECK ({column.name} <> '{id}') NOT VALID"
    _alter(stack, column, check)


def accept(stack: Stack, column: Column[Any], id: UUID) -> None:
    """Mends it."""
    _alter(stack, column, f"DROP CONSTRAINT IF EXISTS {name_of(id)}")


@contextmanager
def refused(stack: Stack, column: Column[Any], id: UUID) -> Iterator[None]:
    """The database refuses such rows until the end of the block."""
    refuse(stack, column, id)
    try:
        yield
    finally:
        accept(stack, column, id)


def name_of(id: UUID) -> str:
    """The name of the constraint that refuses an id, which errors mention."""
    return f"{REASON}_{id.hex}"


def _alter(stack: Stack, column: Column[Any], change: str) -> None:
    with stack.database.transaction() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {column.table} {change}")
