"""The audit log: who did what, written in the transaction of what was done. The only code that writes its table.

`platform.audit-cleanup` archives the records, and deletes them when the term of their tier is over.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Insert, Select, bindparam, cast, func, insert, select, update
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.domains.platform.tables.audit import audit_logs

type Tier = Literal["general", "student"]


def record(
    connection: Connection,
    action: str,
    actor: str,
    subject: str,
    details: Mapping[str, Any] | None,
    now: datetime,
) -> UUID:
    """Writes one record of the general tier, and returns its id.

    Args:
        connection: the transaction of what is done.
        action: what is done, e.g. `job.paused`.
        actor: who does it: an operator's login, an application, a job.
        subject: what it is done to.
        details: ids and figures, nothing personal.
        now: when.
    """
    values = {"action": action, "actor": actor, "subject": subject, "details": details, "occurred_at": now}
    written: UUID = connection.execute(insert(audit_logs).values(values).returning(audit_logs.c.id)).scalar_one()
    return written


def record_each(
    connection: Connection, tier: Tier, action: str, actor: str, subjects: Iterable[UUID], now: datetime
) -> None:
    """Writes a record for each of these subjects, in one statement for any number.

    Args:
        connection: the transaction of what is done.
        tier: how long the records are kept.
        action: what is done, e.g. `student.erased`.
        actor: the job.
        subjects: what it is done to.
        now: when.
    """
    given = [str(subject) for subject in subjects]
    if not given:
        return
    values = {"tier": tier, "action": action, "actor": actor, "occurred_at": now}
    constants = [cast(bindparam(None, value), audit_logs.c[name].type).label(name) for name, value in values.items()]
    subject = func.jsonb_array_elements_text(bindparam(None, given, JSONB)).label("subject")
    connection.execute(record_from(select(*constants, subject)))


def record_from(rows: Select[Any]) -> Insert:
    """SQL: writes a record for each row of a query, in a statement of its own or as a part of the caller's.

    Args:
        rows: selects `tier`, `action`, `actor`, `subject` and `occurred_at`, and perhaps `details`, under these names.
    """
    columns = list(rows.selected_columns.keys())
    return insert(audit_logs).from_select(columns, rows)


def note_outcome(connection: Connection, record: UUID, outcome: str) -> None:
    """Adds to a record how what it is about ended."""
    noted = func.jsonb_build_object("outcome", outcome)
    statement = update(audit_logs).where(audit_logs.c.id == record)
    connection.execute(statement.values(details=audit_logs.c.details.op("||")(noted)))
