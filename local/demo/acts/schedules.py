"""Lessons' one-shot schedules: set, moved and deleted as the rows say, and going off at the lessons' ends."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from local.demo.display import Act
from local.demo.running import Running, array
from local.generator import Term
from local.tables import insert_rows
from schoolbell.domains.tutoring import schema as tutoring
from schoolbell.jobs.one_time_schedules import TOO_LATE, expression

TITLE: Final = "A lesson moved, one cancelled, twelve that end in two minutes"
EVENTS: Final = "tutoring.session-events"
ENDING: Final = 12
LEAD: Final = TOO_LATE + timedelta(seconds=15)
"""What is due sooner than TOO_LATE gets no schedule: it would be too late for EventBridge Scheduler."""

LATE: Final = 90
"""Seconds after its time that a schedule may go off; EventBridge Scheduler promises 60."""

# Students who come every week, whose signals one lesson more does not change.
_REGULARS = """
SELECT id, teacher_id FROM tutoring.students AS student
WHERE status = 'active'
  AND EXISTS (SELECT FROM tutoring.sessions WHERE student_id = student.id AND status = 'completed'
              AND starts_at > now() - interval '8 days')
  AND EXISTS (SELECT FROM tutoring.sessions WHERE student_id = student.id AND status = 'scheduled'
              AND starts_at > now() + interval '2 days')
ORDER BY id LIMIT :number
"""
_DONE = "SELECT count(*) FROM tutoring.sessions WHERE id = ANY (cast(:ids AS uuid[])) AND status = 'completed'"
_LATENESS = """
SELECT max(extract(epoch FROM completed_at - due_at)) FROM tutoring.sessions WHERE id = ANY (cast(:ids AS uuid[]))
"""
_CONSUMED = """
SELECT count(*) FROM tutoring.credit_ledger WHERE kind = 'CONSUME' AND session_id = ANY (cast(:ids AS uuid[]))
"""


def perform(act: Act, running: Running, term: Term) -> None:  # noqa: ARG001 - all acts are called alike
    """Book lessons as the application would, tell the queue session-events, and look at EventBridge Scheduler."""
    tomorrow = datetime.now(UTC).replace(hour=15, minute=0, second=0, microsecond=0) + timedelta(days=1)
    moved, cancelled = book(running, 2, tomorrow + timedelta(hours=1), grace=15)
    act.say("the application books two lessons for tomorrow at 15:00 UTC, and tells session-events")
    tell(running, "session.scheduled", [moved, cancelled])
    first = expression(tomorrow + timedelta(hours=1, minutes=15))
    running.until(lambda: at(running, moved) == at(running, cancelled) == first, "two schedules to be set", seconds=90)
    act.say(f"each has its schedule in AWS:      {name(moved)[:16]}…  {at(running, moved)}")

    running.change(
        "UPDATE tutoring.sessions SET starts_at = starts_at + :by, ends_at = ends_at + :by WHERE id = :id",
        by=timedelta(days=1, hours=2),
        id=moved,
    )
    tell(running, "session.rescheduled", [moved])
    second = expression(tomorrow + timedelta(days=1, hours=3, minutes=15))
    running.until(lambda: at(running, moved) == second, f"the schedule to move to {second}")
    act.say(f"one moves by a day and two hours:  {name(moved)[:16]}…  {at(running, moved)}")
    running.change("UPDATE tutoring.sessions SET status = 'cancelled' WHERE id = :id", id=cancelled)
    tell(running, "session.cancelled", [cancelled])
    running.until(lambda: at(running, cancelled) is None, "the cancelled lesson's schedule to go")
    tell(running, "session.scheduled", [cancelled])  # events come out of order: the row decides
    act.say("the other is cancelled: its schedule is gone; a late event brings none back")

    due = (datetime.now(UTC) + LEAD).replace(microsecond=0)
    ending = book(running, ENDING, due, grace=0)
    tell(running, "session.scheduled", ending)
    running.until(lambda: all(at(running, each) == expression(due) for each in ending), f"{ENDING} schedules to be set")
    act.say(f"{ENDING} more end at {due:%H:%M:%S}, each with its own schedule {expression(due)}")
    wait_for(act, running, due)
    running.until(lambda: running.number(_DONE, ids=array(ending)) == ENDING, "the schedules to go off", seconds=LATE)
    late = float(running.row(_LATENESS, ids=array(ending))[0])
    act.say(f"they went off: lessons completed and paid within {late:.1f} s of their end")
    running.until(lambda: not any(at(running, each) for each in ending), "schedules to be deleted")

    act.check("moved lesson's schedule", clock(second), clock(at(running, moved)))
    act.check("cancelled lesson's schedule", "none", clock(at(running, cancelled)))
    act.check("lessons completed by schedules", ENDING, running.number(_DONE, ids=array(ending)))
    act.check("ledger entries of those", ENDING, running.number(_CONSUMED, ids=array(ending)))
    act.check("schedules left after that", 0, sum(at(running, each) is not None for each in ending))


def book(running: Running, number: int, ends_at: datetime, *, grace: int) -> Sequence[UUID]:
    """Book lessons of an hour that end at a time, for students who come every week."""
    rows = [
        {
            "id": uuid4(),
            "teacher_id": student.teacher_id,
            "student_id": student.id,
            "starts_at": ends_at - timedelta(hours=1),
            "ends_at": ends_at,
            "grace_period_minutes": grace,
        }
        for student in running.rows(_REGULARS, number=number)
    ]
    with running.database.transaction() as connection:
        insert_rows(connection, tutoring.sessions, rows)
    return [row["id"] for row in rows]


def tell(running: Running, event: str, sessions: Sequence[UUID]) -> None:
    """What the application tells when it has changed lessons."""
    running.send(EVENTS, [{"type": event, "session_id": str(session)} for session in sessions])


def name(session: UUID) -> str:
    """The name of a lesson's schedule."""
    return f"session-{session}"


def at(running: Running, session: UUID) -> str | None:
    """When a lesson's schedule goes off."""
    return running.schedule(name(session))


def clock(expression: str | None) -> str:
    """When a schedule goes off, short enough for a table."""
    return f"{datetime.fromisoformat(expression[3:-1]):%-d %b %H:%M}" if expression else "none"


def wait_for(act: Act, running: Running, due: datetime) -> None:
    """Let the time pass, and show it."""
    lead = (due - datetime.now(UTC)).total_seconds()
    while (left := (due - datetime.now(UTC)).total_seconds()) > 0:
        act.at(lead - left, lead, "s")
        running.pause(0.5)
    act.progress = None
