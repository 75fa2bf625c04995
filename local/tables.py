"""Emptying and filling all tables at once, with the powers of the embedded server's superuser."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Table, text

from schoolbell.domains import DOMAINS

_DOMAINS = ", ".join(f"'{domain}'" for domain in DOMAINS)

# Triggers and foreign keys stand aside for a superuser who asks for it, the ledger's guard among them. DELETE is many
# times faster than TRUNCATE while a table is small.
_EMPTY = text(f"""
DO $$
DECLARE
    emptied regclass;
    filled boolean;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR emptied IN
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname IN ({_DOMAINS}) AND c.relname <> 'alembic_version'
          AND pg_relation_size(c.oid) > 0
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', emptied) INTO filled;
        CONTINUE WHEN NOT filled;
        IF pg_relation_size(emptied) > 1048576 THEN
            EXECUTE format('TRUNCATE %s CASCADE', emptied);
        ELSE
            EXECUTE format('DELETE FROM %s', emptied);
        END IF;
    END LOOP;
    SET LOCAL session_replication_role = origin;
END
$$
""")  # noqa: S608 - the names of our own folders


def empty(connection: Connection) -> None:
    """Removes every row of every table, the credit ledger's too, which nothing but a superuser can do."""
    connection.execute(_EMPTY)


def insert_rows(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]], size: int = 20_000) -> int:
    """Inserts rows that have the same columns, a few statements for any number; a row that is there already stays.

    Returns:
        how many rows were inserted.
    """
    given = list(rows)
    if not given:
        return 0
    columns = ", ".join(f'"{name}"' for name in given[0])
    insert = text(
        f"INSERT INTO {table.fullname} ({columns}) SELECT {columns}"  # noqa: S608 - the names are the program's own
        f" FROM json_populate_recordset(NULL::{table.fullname}, CAST(:rows AS json)) ON CONFLICT DO NOTHING"
    )
    return sum(
        connection.execute(insert, {"rows": json.dumps(given[start : start + size], default=str)}).rowcount
        for start in range(0, len(given), size)
    )
