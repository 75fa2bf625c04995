"""Notifications: emails, text messages and push messages, each a row that is delivered once.

A job says what is to be said to whom, in the transaction that gives rise to it; `platform.notification-delivery` does
the rest, a moment later. What becomes of a notification is drawn in docs/notifications.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    DateTime,
    Select,
    Text,
    Uuid,
    bindparam,
    case,
    cast,
    false,
    func,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from schoolbell.domains.platform.tables.notifications import notifications
from schoolbell.jobs.outbox import Outbox
from schoolbell.notifications.channels import Channel

IDS_A_MESSAGE: Final = 100
"""One message for many, as source 001 asks; so many ids are 4 KB."""

QUEUE: Final = "platform.notifications-"
"""How the names of the three queues begin; the priority follows."""

_REQUIRED: Final = ("channel", "recipient", "template", "data", "priority", "dedup_key")
_OPTIONAL: Final = ("student_id", "scheduled_for", "expires_at")


class Priority(StrEnum):
    """Each has a queue of its own. A high one is urgent: neither quiet hours nor a channel out of order hold it."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Notification:
    """What is to be said to whom."""

    channel: Channel
    recipient: str
    """`teacher/<id>`, `student/<id>`, or an address."""
    template: str
    dedup_key: str
    """Names the event; a second notification with the same key is not written."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the template asks for, JSON; may be personal."""
    priority: Priority = Priority.NORMAL
    student_id: UUID | None = None
    """Whom it is about, unless that is the recipient: with that student's erasure it is erased."""
    scheduled_for: datetime | None = None
    """Not sent before."""
    expires_at: datetime | None = None
    """Not sent after."""


def notify(connection: Connection, outbox: Outbox, notification: Notification) -> None:
    """Writes one notification and its message, in the caller's transaction."""
    given = {name: getattr(notification, name) for name in (*_REQUIRED, *_OPTIONAL)}
    columns = (cast(bindparam(name, value), notifications.c[name].type).label(name) for name, value in given.items())
    notify_from(connection, outbox, select(*columns))


def notify_from(connection: Connection, outbox: Outbox, rows: Select[Any]) -> None:
    """Writes the notifications that a query yields and the messages for them, in one statement for any number.

    One that is planned for later gets its message from `platform.email-queue` when its time has come.

    Args:
        connection: the transaction that the notifications belong to.
        outbox: the run's outbox, which sends the messages after the commit.
        rows: selects `channel`, `recipient`, `template`, `data` (jsonb), `priority` and `dedup_key`, and optionally
            `student_id`, `scheduled_for` and `expires_at`, under these names.
    """
    given = rows.subquery("given")
    now = bindparam("written_at", outbox.now(), DateTime(timezone=True))
    # The id follows from the key: whoever writes a notification again, after a crash, writes the same one.
    id_ = cast(func.md5(given.c.dedup_key), Uuid)
    columns: dict[str, ColumnElement[Any]] = {"id": id_, **dict(given.c), "created_at": now, "updated_at": now}
    is_planned = given.c.scheduled_for > now if "scheduled_for" in given.c else false()
    columns["handed_over_at"] = case((is_planned, null()), else_=now)
    written = (
        insert(notifications)
        .from_select(list(columns), select(*columns.values()))
        .on_conflict_do_nothing(index_elements=["dedup_key"])
        .returning(notifications.c.id, notifications.c.priority, notifications.c.handed_over_at)
        .cte("written")
    )
    outbox.send_from(connection, messages_for(written, "first"))


def messages_for(written: CTE, occasion: str) -> Select[Any]:
    """SQL: the messages that hand notifications over, as `Outbox.send_from` takes them.

    Args:
        written: yields `id`, `priority` and `handed_over_at`, which is null where there is to be no message yet.
        occasion: tells this message from others with the same notifications.
    """
    place = func.row_number().over(partition_by=written.c.priority, order_by=written.c.id) - 1
    numbered = (
        select(written.c.id, written.c.priority, (place // IDS_A_MESSAGE).label("number"))
        .where(written.c.handed_over_at.is_not(None))
        .subquery("numbered")
    )
    return select(
        func.concat(QUEUE, numbered.c.priority).label("destination"),
        func.jsonb_build_object("notification_ids", func.jsonb_agg(numbered.c.id)).label("payload"),
        func.concat("notifications/", func.min(cast(numbered.c.id, Text)), "/", occasion).label("dedup_key"),
    ).group_by(numbered.c.priority, numbered.c.number)
