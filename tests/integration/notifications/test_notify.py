"""Writing notifications: once by key, with their messages, in the caller's transaction."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Row, event, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database import Database
from schoolbell.domains.platform.schema import notifications, outbox
from schoolbell.jobs.outbox import Outbox
from schoolbell.notifications import Notification, Priority, notify, notify_from
from schoolbell.notifications.channels import Channel
from tests.factories import Make
from tests.fixtures.database import Stored

MANY = 1_050


@pytest.fixture
def run_outbox(now: datetime) -> Outbox:
    return Outbox(lambda: now)


def an_offer(recipient: str, **columns: Any) -> Notification:
    return Notification(
        **{
            "channel": Channel.EMAIL,
            "recipient": recipient,
            "template": "waitlist_offer",
            "dedup_key": str(uuid4()),
            "data": {"expires_at": "2026-03-04T10:00:00+00:00"},
            "priority": Priority.HIGH,
        }
        | columns
    )


def some(count: int, priority: str = "low") -> Any:
    number = func.generate_series(1, count).column_valued("number")
    return select(
        literal("email").label("channel"),
        func.concat("someone-", number, "@example.org").label("recipient"),
        literal("waitlist_offer").label("template"),
        func.jsonb_build_object("number", number, type_=JSONB).label("data"),
        literal(priority).label("priority"),
        func.concat("test/", number).label("dedup_key"),
    )


def test_a_notification_and_its_message_are_written_together(
    database: Database, make: Make, run_outbox: Outbox, stored: Stored, now: datetime
) -> None:
    student = make.student()
    with database.transaction() as connection:
        notify(connection, run_outbox, an_offer(f"student/{student.id}", dedup_key="offer/1"))
    (row,) = stored(notifications)
    assert (row.channel, row.recipient, row.priority, row.status) == (
        "email",
        f"student/{student.id}",
        "high",
        "queued",
    )
    assert (row.data, row.student_id) == ({"expires_at": "2026-03-04T10:00:00+00:00"}, student.id)
    (message,) = stored(outbox)
    assert message.destination == "platform.notifications-high"
    assert message.payload == {"notification_ids": [str(row.id)]}


def test_what_is_rolled_back_is_neither_written_nor_sent(
    database: Database, run_outbox: Outbox, stored: Stored
) -> None:
    with database.engine.connect() as connection:
        notify(connection, run_outbox, an_offer("someone@example.org"))
        connection.rollback()
    assert not stored(notifications)
    assert not stored(outbox)


def test_the_second_with_a_key_is_neither_written_nor_sent(
    database: Database, run_outbox: Outbox, stored: Stored
) -> None:
    for _ in range(2):
        with database.transaction() as connection:
            notify(connection, run_outbox, an_offer("someone@example.org", dedup_key="offer/1"))
    assert len(stored(notifications)) == len(stored(outbox)) == 1


def test_a_planned_one_gets_its_message_later(
    database: Database, run_outbox: Outbox, stored: Stored, now: datetime
) -> None:
    later = now + timedelta(hours=1)
    with database.transaction() as connection:
        notify(connection, run_outbox, an_offer("someone@example.org", scheduled_for=later))
    (row,) = stored(notifications)
    assert (row.scheduled_for, row.handed_over_at) == (later, None)
    assert not stored(outbox)


def test_a_message_carries_a_hundred_of_one_priority(
    database: Database, run_outbox: Outbox, outbox_rows: Callable[[], list[Row[Any]]], stored: Stored
) -> None:
    with database.transaction() as connection:
        notify_from(connection, run_outbox, some(MANY))
        notify(connection, run_outbox, an_offer("someone@example.org"))
    messages = [row for row in outbox_rows() if row.destination == "platform.notifications-low"]
    assert len(messages) == 11
    assert max(len(row.payload["notification_ids"]) for row in messages) == 100
    carried = [notification for row in messages for notification in row.payload["notification_ids"]]
    assert sorted(carried) == sorted(str(row.id) for row in stored(notifications, priority="low"))
    assert {row.destination for row in outbox_rows()} == {"platform.notifications-low", "platform.notifications-high"}


def test_any_number_is_one_statement(database: Database, run_outbox: Outbox) -> None:
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _c, _k, statement, *_: statements.append(statement))
    with database.transaction() as connection:
        notify_from(connection, run_outbox, some(MANY))
    assert len(statements) == 1
