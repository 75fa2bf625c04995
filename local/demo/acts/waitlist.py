"""A seat becomes free: offered to one student after the other, until somebody takes it."""

import json
from collections import Counter
from typing import Any, Final
from uuid import UUID

from local.demo.display import Act
from local.demo.running import Running, count
from local.generator import Term

TITLE: Final = "A seat on a waiting list"
OPENINGS: Final = "tutoring.waitlist-openings"
ANSWERS: Final = "tutoring.waitlist-answers"
WINDOW: Final = 20  # seconds for an answer, for those who would not wait for two days

_LONGEST_LIST = """
SELECT waitlist.id, count(*) AS waiting FROM tutoring.waitlists AS waitlist
JOIN tutoring.waitlist_entries AS entry ON entry.waitlist_id = waitlist.id AND entry.status = 'waiting'
GROUP BY waitlist.id ORDER BY 2 DESC, 1 LIMIT 1
"""
_ENTRIES = """
SELECT entry.id, student.name FROM tutoring.waitlist_entries AS entry
JOIN tutoring.students AS student ON student.id = entry.student_id
WHERE entry.waitlist_id = :id ORDER BY entry.position
"""
_STATUS = "SELECT status FROM tutoring.waitlist_entries WHERE id = :id"
_ANSWERS = "SELECT outcome, count(*) FROM tutoring.waitlist_answers GROUP BY outcome"
_STATUSES = "SELECT status, count(*) FROM tutoring.waitlist_entries WHERE waitlist_id = :id GROUP BY status"
_OPENING = "SELECT id FROM tutoring.waitlist_openings WHERE waitlist_id = :id"
_TOLD = """
SELECT count(*) FROM platform.notifications
WHERE template = 'waitlist_offer' AND data ->> 'waitlist_id' = :id AND status = 'sent'
"""


def perform(act: Act, running: Running, term: Term) -> None:  # noqa: ARG001 - all acts are called alike
    """Open a seat; the first student does not answer, the second declines, the third accepts."""
    waitlist = running.row(_LONGEST_LIST).id
    running.change(
        "UPDATE tutoring.waitlists SET offer_window_seconds = :window WHERE id = :id", window=WINDOW, id=waitlist
    )
    late, unwilling, lucky, *others = running.rows(_ENTRIES, id=waitlist)
    act.say(f"a seat is free, {count(len(others) + 3, 'student')} wait; an offer stands {WINDOW} s, not two days")
    running.send(OPENINGS, [{"waitlist_id": str(waitlist), "seats": 1}])
    wait_until(running, late, "notified", 90)
    opening = running.row(_OPENING, id=waitlist).id
    act.say(f"execution {str(opening)[:8]}… offers it to {late.name}, who does not answer")
    wait_until(running, unwilling, "notified", WINDOW + 60)
    act.say(f"expired; {unwilling.name} is next, and declines")
    answer(running, (late, "accept"), (unwilling, "decline"))
    wait_until(running, lucky, "notified", 60)
    act.say(f"{lucky.name} is next; {late.name} accepts now: too late, refused")
    answer(running, (lucky, "accept"), (lucky, "accept"))
    wait_until(running, lucky, "accepted", 60)
    act.say(f"{lucky.name} accepts, twice (a double click): one seat, taken")
    execution = running.until(lambda: ended(running, opening), "the execution to end", seconds=60)
    running.until(lambda: sum(answers(running).values()) == 4, "four answers to be recorded")
    steps = path(running, execution["executionArn"])
    act.say(f"the execution saw {' → '.join(steps)}")
    running.until(lambda: running.number(_TOLD, id=str(waitlist)) == 3, "the emails of three offers to be sent")

    statuses = dict(map(tuple, running.rows(_STATUSES, id=waitlist)))
    said = answers(running)
    act.check(
        "expired, declined, accepted",
        "1, 1, 1",
        ", ".join(str(statuses.get(s, 0)) for s in ("expired", "declined", "accepted")),
    )
    act.check("still waiting", len(others), statuses.get("waiting", 0))
    act.check("students told of an offer", 3, running.number(_TOLD, id=str(waitlist)))
    act.check("answers refused for being late", 1, said["refused"])
    act.check("answers that only repeat", 1, said["repeated"])
    act.check("state machine's execution", "SUCCEEDED", execution["status"])


def wait_until(running: Running, entry: Any, status: str, seconds: float) -> None:
    """Wait for an entry to have a status."""
    running.until(lambda: running.row(_STATUS, id=entry.id)[0] == status, f"the offer to be {status}", seconds)


def answer(running: Running, *answers: tuple[Any, str]) -> None:
    """What students answer."""
    running.send(ANSWERS, [{"entry_id": str(entry.id), "answer": said} for entry, said in answers])


def answers(running: Running) -> Counter[str]:
    """What became of the answers."""
    return Counter(dict(map(tuple, running.rows(_ANSWERS))))


def ended(running: Running, opening: UUID) -> dict[str, Any] | None:
    """The execution of an opening, when it is over."""
    machine = running.names.state_machine_arn("tutoring.waitlist-cascade")
    for execution in running.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]:
        if execution["name"].startswith(str(opening)) and execution["status"] != "RUNNING":
            return dict(execution)
    return None


def path(running: Running, execution: str) -> list[str]:
    """What an execution saw at each of its steps."""
    history = running.client("stepfunctions").get_execution_history(executionArn=execution, maxResults=1000)
    seen = []
    for event in history["events"]:
        if failed := event.get("taskFailedEventDetails") or event.get("taskTimedOutEventDetails"):
            seen.append("timeout" if failed["error"] == "States.Timeout" else failed["error"])
        elif succeeded := event.get("taskSucceededEventDetails"):
            output = json.loads(succeeded["output"])
            seen.append(output.get("Payload", output).get("outcome", "woken"))
    return seen
