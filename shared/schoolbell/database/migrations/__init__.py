"""The migrations of the database, with Alembic, started from Python: there is no alembic.ini.

They go forward only. `upgrade` applies them. After a change of the tables' declarations, `generate` writes the next
one (`python -m local.migration "what it does"`), to be reviewed by hand: Alembic sees tables, columns, indexes and
foreign keys, but no change of a default, a CHECK or an index's condition, and not the trigger that each table with
`updated_at` needs. `tests/integration/platform/test_migrations.py` sees them all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

SCHEMA: Final = "platform"
"""Where Alembic's own table, `alembic_version`, stands."""

VERSIONS: Final = Path(__file__).parent / "versions"

_LOCK: Final = 5_704_361_209  # any number that nothing else in the database locks


class Upgrade(NamedTuple):
    """Which revision the database was at, None when it was empty, and which it is at now."""

    before: str | None
    after: str | None


def upgrade(connection: Connection) -> Upgrade:
    """Applies the migrations that are missing, each in a transaction of its own; when there are none, it does nothing.

    Two upgrades at once are safe: the second waits for the first, and finds nothing left to do. A database that is
    ahead of this package stays as it is: a deployment that is rolled back comes here with the older package.

    Args:
        connection: a connection without a transaction, whose user may create schemas.
    """
    with _alone(connection):
        if connection.scalar(text("SELECT to_regnamespace(:schema)::text"), {"schema": SCHEMA}) is None:
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        connection.commit()
        before = revision(connection)
        configuration = _configuration(connection)
        if before is not None and before not in _revisions(configuration):
            return Upgrade(before, before)
        command.upgrade(configuration, "head")
        return Upgrade(before, revision(connection))


def revision(connection: Connection) -> str | None:
    """The revision that the database is at, None when no migration was applied."""
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    found = context.get_current_revision()
    connection.commit()
    return found


def generate(connection: Connection, message: str, folder: Path = VERSIONS) -> Path:
    """Writes a migration from the database to the tables as they are declared, and returns its file.

    Args:
        connection: a connection to a database that has all the migrations so far, and nothing else in our schemas.
        message: what the migration does, in a few words.
        folder: where the file goes.
    """
    configuration = _configuration(connection)
    configuration.set_main_option("path_separator", "newline")
    configuration.set_main_option("version_locations", _escaped("\n".join(dict.fromkeys((str(VERSIONS), str(folder))))))
    number = f"{len(_revisions(configuration)) + 1:04}"
    script = command.revision(configuration, message, autogenerate=True, rev_id=number, version_path=str(folder))
    if script is None or isinstance(script, list):
        raise RuntimeError(f"no migration was written for {message!r}")
    return Path(script.path)


def _revisions(configuration: Config) -> set[str]:
    """The revisions that this package knows."""
    return {script.revision for script in ScriptDirectory.from_config(configuration).walk_revisions()}


def _configuration(connection: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", _escaped(str(VERSIONS.parent)))
    configuration.attributes["connection"] = connection
    return configuration


def _escaped(value: str) -> str:
    return value.replace("%", "%%")  # Alembic's options are those of configparser, which interpolates


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    # A lock of the session, since each migration commits. It pins a proxied connection, which a migration may.
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
        connection.commit()
