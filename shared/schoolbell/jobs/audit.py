"""The audit log: who did what, written in the transaction of what was done. The only code that writes its table.

`platform.audit-cleanup` archives the records and deletes them when the term of their tier is over.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Select, func, insert, select, update

from schoolbell.domains.platform.tables.audit import audit_logs

COLUMNS: Final = ("tier", "action", "actor", "subject", "occurred_at")


def record(
    connection: Connection, action: str, actor: str, subject: str, details: Mapping[str, Any], now: datetime
) -> UUID:
    """Writes one record of the general tier, and returns its id.

    Args:
        connection: the transaction of what is done.
        action: what is done: `job.paused`.
        actor: who does it: an operator's login, an application, a job.
        subject: to what.
        details: ids and figures, nothing personal.
        now: when.
    """
    values = {"action": action, "actor": actor, "subject": subject, "details": dict(details), "occurred_at": now}
    written: UUID = connection.execute(insert(audit_logs).values(values).returning(audit_logs.c.id)).scalar_one()
    return written


def record_from(connection: Connection, rows: Select[Any]) -> int:
    """Writes a record for each row of a query, in one statement for any number, and returns how many.

    Args:
        connection: the transaction of what is done.
        rows: selects `tier`, `action`, `actor`, `subject` and `occurred_at` under these names.
    """
    given = rows.subquery("given")
    columns = [given.c[name] for name in COLUMNS]
    return connection.execute(insert(audit_logs).from_select(COLUMNS, select(*columns))).rowcount


def note_outcome(connection: Connection, record: UUID, outcome: str) -> None:
    """Adds to a record how what it is about ended."""
    noted = func.jsonb_build_object("outcome", outcome)
    statement = update(audit_logs).where(audit_logs.c.id == record)
    connection.execute(statement.values(details=audit_logs.c.details.op("||")(noted)))
