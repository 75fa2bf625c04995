"""The minutely hand-over: what is due and under way nowhere, in messages of a hundred, by priority."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from functions.platform.email_queue import app
from functions.platform.email_queue.app import LEFT_BEHIND, handler
from schoolbell.database import Database
from schoolbell.domains.platform.schema import notifications
from tests.conftest import Queues
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.fixtures.notifications import HIGH, LOW, NORMAL
from tests.performing import Performer

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def notification_queues(queues: Queues) -> None:
    queues.make(HIGH, NORMAL, LOW)


def handed_over(queues: Queues, queue: str = NORMAL) -> list[str]:
    bodies = [json.loads(message["Body"]) for message in queues.messages(queue)]
    return sorted(each for body in bodies for each in body["notification_ids"])


def test_what_an_application_has_written_is_handed_over(perform: Performer, make: Make, queues: Queues) -> None:
    rows = [make.to_deliver(channel=channel) for channel in ("email", "sms", "push")]
    assert perform(handler).result == {"messages": 1}
    assert handed_over(queues) == sorted(str(row.id) for row in rows)


@pytest.mark.parametrize(
    ("columns", "is_due"),
    [
        ({"scheduled_for": -MINUTE}, True),
        ({"scheduled_for": timedelta(0)}, True),
        ({"scheduled_for": MINUTE}, False),
        ({"handed_over_at": -MINUTE}, False),
        ({"handed_over_at": -LEFT_BEHIND}, True),
        ({"handed_over_at": -LEFT_BEHIND, "scheduled_for": MINUTE}, False),
        ({"handed_over_at": -LEFT_BEHIND, "claimed_until": MINUTE}, False),
        ({"handed_over_at": -LEFT_BEHIND, "claimed_until": -MINUTE}, True),
        ({"status": "sent"}, False),
        ({"status": "failed"}, False),
        ({"status": "suppressed"}, False),
    ],
)
def test_what_is_due_and_under_way_nowhere(
    perform: Performer, make: Make, queues: Queues, now: datetime, columns: dict[str, Any], is_due: bool
) -> None:
    at = {name: now + value if isinstance(value, timedelta) else value for name, value in columns.items()}
    row = make.to_deliver(None, **at, claimed_by=uuid4() if "claimed_until" in columns else None)
    perform(handler)
    assert handed_over(queues) == ([str(row.id)] if is_due else [])


def test_a_second_run_hands_nothing_over_again(perform: Performer, make: Make, queues: Queues, now: datetime) -> None:
    make.to_deliver()
    perform(handler)
    assert perform(handler, now=now + MINUTE).result == {"messages": 0}


@pytest.mark.usefixtures("nested_loops")
def test_no_more_is_handed_over_at_a_time_than_it_may_whatever_the_plan(
    perform: Performer, make: Make, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "AT_A_TIME", 3)
    rows = [make.to_deliver(recipient=f"someone-{number}@example.org") for number in range(10)]
    assert perform(app.handler).result == {"messages": 4}, "of three, three, three and one"
    assert handed_over(queues) == sorted(str(row.id) for row in rows)


def test_messages_are_of_a_hundred_and_one_priority(perform: Performer, make: Make, queues: Queues) -> None:
    for number in range(150):
        make.to_deliver(recipient=f"someone-{number}@example.org", priority="low")
    urgent = make.to_deliver(priority="high")
    assert perform(handler).result == {"messages": 3}
    assert len(handed_over(queues, LOW)) == 150
    assert handed_over(queues, HIGH) == [str(urgent.id)]


def test_a_crash_at_any_point_is_put_right(
    perform: Performer, make: Make, queues: Queues, database: Database, stored: Stored, now: datetime
) -> None:
    rows = sorted(str(make.to_deliver().id) for _ in range(3))

    def recover() -> None:
        """The relay sends what was committed, and the job of the next minute hands over what was not."""
        from functions.platform.outbox_relay.app import handler as relay

        perform(relay, now=now + 2 * MINUTE)
        perform(handler, now=now + 2 * MINUTE)

    assert_crash_safe(
        database,
        Crashing(
            run=lambda: perform(handler),
            recover=recover,
            outside=lambda: sorted(set(handed_over(queues))) == rows,
            reset_outside=lambda: queues.messages(NORMAL),
        ),
        volatile=frozenset(
            {"notifications.handed_over_at", "outbox.sent_at", "outbox.available_at", "outbox.dedup_key"}
        ),
    )
    assert all(row.handed_over_at for row in stored(notifications))
