"""drive-sync: a message for every teacher whose files are to be looked at."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Row

from functions.tutoring.drive_sync.app import handler
from tests.conftest import Queues
from tests.factories import Make
from tests.performing import Performer

JOB = "tutoring.drive-verify"
Sent = Callable[[str], list[Any]]


@pytest.fixture(autouse=True)
def verify_queue(queues: Queues) -> None:
    queues.make(JOB)


def connected(make: Make, copies: int = 1, status: str = "copied") -> Row[Any]:
    """A teacher with copies in Drive."""
    teacher = make.teacher()
    make.calendar_connection(teacher)
    for _ in range(copies):
        make.drive_copy(make.drive_resource(teacher), status=status)
    return teacher


def test_asks_once_for_each_teacher_with_copies(make: Make, perform: Performer, sent: Sent) -> None:
    teachers = [connected(make, copies) for copies in (1, 3, 2)]
    assert perform(handler).result == {"teachers": 3}
    asked = sorted(message["teacher_id"] for message in sent(JOB))
    assert asked == sorted(str(teacher.id) for teacher in teachers)


def test_messages_hold_nothing_but_the_teacher(make: Make, perform: Performer, sent: Sent) -> None:
    teacher = connected(make)
    perform(handler)
    assert sent(JOB) == [{"teacher_id": str(teacher.id)}]


def test_messages_are_fair_between_teachers(make: Make, perform: Performer, queues: Queues) -> None:
    teacher = connected(make)
    perform(handler)
    (message,) = queues.messages(JOB)
    assert message["Attributes"]["MessageGroupId"] == str(teacher.id)


@pytest.mark.parametrize("status", ["pending", "failed", "deleted"])
def test_leaves_out_teachers_with_nothing_to_look_at(make: Make, perform: Performer, sent: Sent, status: str) -> None:
    connected(make, status=status)
    connected(make, copies=0)
    assert perform(handler).result == {"teachers": 0}
    assert sent(JOB) == []


def test_what_is_in_the_trash_is_looked_at_again(make: Make, perform: Performer) -> None:
    connected(make, status="trashed")
    assert perform(handler).result == {"teachers": 1}


def test_leaves_out_teachers_whose_connection_is_revoked(make: Make, perform: Performer) -> None:
    teacher = make.teacher()
    make.calendar_connection(teacher, status="revoked")
    make.drive_copy(make.drive_resource(teacher))
    assert perform(handler).result == {"teachers": 0}


def test_a_second_delivery_of_the_schedule_asks_nobody_again(make: Make, perform: Performer, sent: Sent) -> None:
    connected(make)
    perform(handler)
    perform(handler)
    assert len(sent(JOB)) == 1


def test_asks_again_the_next_day(make: Make, perform: Performer, sent: Sent) -> None:
    connected(make)
    perform(handler)
    perform(handler, now=make.now + timedelta(days=1))
    assert len(sent(JOB)) == 2
