"""What Alembic runs: the migrations, over the connection that `schoolbell.database.migrations` hands it."""

from alembic import context

from schoolbell.database.migrations import SCHEMA
from schoolbell.database.tables import all_tables, metadata
from schoolbell.domains import DOMAINS

all_tables()  # declares them


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether something found in the database is to be compared: other applications may share the database."""
    return kind != "schema" or name in DOMAINS


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=is_ours,
    transaction_per_migration=True,
)

with context.begin_transaction():
    context.run_migrations()
