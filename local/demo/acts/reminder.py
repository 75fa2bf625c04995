"""A teacher's planned message: its schedule goes off, and the teacher is told to send it."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from local.demo.acts.schedules import LATE, LEAD, wait_for
from local.demo.display import Act
from local.demo.running import Running
from local.generator import Term
from local.tables import insert_rows
from schoolbell.domains.tutoring import schema as tutoring
from schoolbell.jobs.one_time_schedules import expression

TITLE: Final = "A reminder goes off"
EVENTS: Final = "tutoring.message-events"
JOB: Final = "tutoring.scheduled-messages"

_STUDENT = """
SELECT student.id, student.teacher_id, student.name, teacher.name AS teacher
FROM tutoring.students AS student JOIN tutoring.teachers AS teacher ON teacher.id = student.teacher_id
WHERE student.status = 'active' ORDER BY student.id DESC LIMIT 1
"""
_STATUS = "SELECT status FROM tutoring.scheduled_messages WHERE id = :id"
_LOGGED = "SELECT count(*) FROM tutoring.contact_log WHERE scheduled_message_id = :id AND direction = 'outbound'"
_TOLD = """
SELECT count(*) FROM tutoring.teacher_notifications WHERE kind = 'scheduled_message' AND subject_id = :id
"""
_RUNS = "SELECT coalesce(sum(items_total), 0) FROM platform.job_runs WHERE job = 'tutoring.scheduled-messages'"


def perform(act: Act, running: Running, term: Term) -> None:  # noqa: ARG001 - all acts are called alike
    """Plan two messages as the application would, and cancel one."""
    student = running.row(_STUDENT)
    dropped = plan(running, student, datetime.now(UTC) + timedelta(days=2))
    tell(running, "message.scheduled", dropped)
    running.until(lambda: at(running, dropped), "the schedule of a message", seconds=90)
    running.change("UPDATE tutoring.scheduled_messages SET status = 'cancelled' WHERE id = :id", id=dropped)
    tell(running, "message.cancelled", dropped)
    running.until(lambda: at(running, dropped) is None, "the schedule of a cancelled message to go")
    act.say(f"{student.teacher} plans a message to {student.name} and cancels it: its schedule came and went")

    due = (datetime.now(UTC) + LEAD).replace(microsecond=0)
    message = plan(running, student, due)
    tell(running, "message.scheduled", message)
    running.until(lambda: at(running, message) == expression(due), "the schedule of a message")
    act.say(f"and plans another, for {due:%H:%M:%S}: message-{str(message)[:8]}…  {expression(due)}")
    wait_for(act, running, due)
    running.until(lambda: status(running, message) == "fired", "the message to be fired", seconds=LATE)
    act.say("fired: it stands in the contact log, and the teacher is told that it is ready to send")
    before = running.number(_RUNS)
    running.send(JOB, [{"message_id": str(message)}])
    running.until(lambda: running.number(_RUNS) > before, "the second delivery")
    act.say("rung a second time: nothing happens")

    act.check("planned message", "fired", status(running, message))
    act.check("its entries in the contact log", 1, running.number(_LOGGED, id=message))
    act.check("notifications of its teacher", 1, running.number(_TOLD, id=message))
    act.check("cancelled message", "cancelled", status(running, dropped))


def plan(running: Running, student: Any, send_at: datetime) -> UUID:
    """Plan a message to a student."""
    row = {
        "id": uuid4(),
        "teacher_id": student.teacher_id,
        "student_id": student.id,
        "channel": "whatsapp",
        "body": "Don't forget your violin tomorrow!",
        "send_at": send_at,
    }
    with running.database.transaction() as connection:
        insert_rows(connection, tutoring.scheduled_messages, [row])
    return UUID(str(row["id"]))


def tell(running: Running, event: str, message: UUID) -> None:
    """What the application tells when it has changed a message."""
    running.send(EVENTS, [{"type": event, "message_id": str(message)}])


def at(running: Running, message: UUID) -> str | None:
    """When a message's schedule goes off."""
    return running.schedule(f"message-{message}")


def status(running: Running, message: UUID) -> str:
    """A message's status."""
    return str(running.row(_STATUS, id=message)[0])
