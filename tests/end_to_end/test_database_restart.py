"""The database stops while messages flow, and comes back: nothing is lost, nothing is done twice."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from schoolbell.domains.platform.schema import dead_letters
from schoolbell.domains.tutoring.schema import credit_ledger, sessions
from tests.end_to_end.stack import FunctionFailed, Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

JOB = "tutoring.auto-complete"
LESSONS = 300
BURSTS = 10


@pytest.fixture
def interruptible(stack: Stack) -> Iterator[Stack]:
    """The stack, whose database a test may stop. Such a test comes last: it would disturb what others have begun."""
    yield stack
    stack.start_database()


def test_nothing_is_lost_and_nothing_done_twice_when_the_database_restarts(interruptible: Stack, make: Make) -> None:
    stack = interruptible
    student = make.student()
    lessons = stack.many_lessons(student, LESSONS)
    bodies = [{"session_id": str(lesson)} for lesson in lessons]
    began = datetime.now(UTC)
    for burst in range(BURSTS):
        if burst == BURSTS // 2:
            stack.stop_database()
        stack.drop(JOB, *bodies[burst::BURSTS])
    eventually(lambda: "can't reach the database" in stack.log(JOB, since=began), "invocation that misses the database")
    with pytest.raises(FunctionFailed):
        stack.invoke("tutoring.content-analytics", {})
    stack.start_database()

    done = {"student_id": student.id, "status": "completed"}
    eventually(lambda: stack.count(sessions, **done) == LESSONS, "end of all lessons", patience=120)
    assert stack.count(credit_ledger, student_id=student.id, kind="CONSUME") == LESSONS
    eventually(lambda: stack.waiting(JOB) == 0 or None, "empty queue")
    assert not [row for row in stack.rows(dead_letters, job=JOB) if row.dead_at >= began]
    assert stack.invoke("tutoring.content-analytics", {})["status"] == "completed"
