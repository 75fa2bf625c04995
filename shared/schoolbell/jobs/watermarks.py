"""Watermarks: up to which time a job has looked, from one run to the next. The only code that writes their table."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, TextClause, text

_READ: Final[TextClause] = text("SELECT reached_at FROM platform.watermarks WHERE name = :name")

_MOVE: Final[TextClause] = text(
    """
    INSERT INTO platform.watermarks (name, reached_at, created_at, updated_at)
    VALUES (:name, :reached_at, :reached_at, :reached_at)
    ON CONFLICT (name) DO UPDATE SET reached_at = excluded.reached_at, updated_at = excluded.updated_at
    """
)


def read(connection: Connection, name: str) -> datetime | None:
    """Up to when the job of this name has looked; `None` before its first run."""
    reached: datetime | None = connection.scalar(_READ, {"name": name})
    return reached


def move(connection: Connection, name: str, reached_at: datetime) -> None:
    """Notes up to when a job has looked, in the transaction of its last step."""
    connection.execute(_MOVE, {"name": name, "reached_at": reached_at})
