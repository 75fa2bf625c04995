"""What jobs run on: the database, the clock and the settings of this execution environment."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schoolbell import aws
from schoolbell.database import Database, DatabaseAddress
from schoolbell.settings import Settings, settings

TIME_TO_REPORT = timedelta(seconds=5)
"""A statement is cancelled this long before the function's own timeout, so that the failure can still be recorded."""


@dataclass(frozen=True)
class Runtime:
    """Everything a job gets from outside. Tests install their own."""

    database: Database
    settings: Settings
    clock: Callable[[], datetime]
    """Tells the time, timezone-aware in UTC."""


_installed: Runtime | None = None


def runtime(function_timeout: timedelta) -> Runtime:
    """The runtime of this execution environment, made on the first call.

    Args:
        function_timeout: how long an invocation may take; statements are cancelled before that.
    """
    global _installed
    if _installed is None:
        statement_timeout = max(timedelta(seconds=1), function_timeout - TIME_TO_REPORT)
        _installed = Runtime(
            database=Database(_find_database, statement_timeout),
            settings=settings(),
            clock=lambda: datetime.now(UTC),
        )
    return _installed


def install(replacement: Runtime | None) -> None:
    """Replaces the runtime; `None` makes the next call of `runtime` make a new one from the environment."""
    global _installed
    _installed = replacement


def _find_database() -> DatabaseAddress:
    secret = aws.client("secretsmanager").get_secret_value(SecretId=settings().database_secret_id)
    return DatabaseAddress.from_secret(secret["SecretString"])
