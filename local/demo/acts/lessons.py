"""Lessons that ended on the hour: thousands of messages at once, and a part of them twice."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import UUID

from local.demo.acts.dead_letters import COMPANIONS
from local.demo.display import Act
from local.demo.running import Running, array, count
from local.generator import Term
from schoolbell.domains.tutoring import schema as tutoring

TITLE: Final = "Lessons that ended on the hour"
JOB: Final = "tutoring.auto-complete"
TWICE: Final = 500

_STATES = """
SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'pending_review')
FROM tutoring.sessions WHERE id = ANY (cast(:ids AS uuid[]))
"""
_CREDITS = """
SELECT count(*), coalesce(-sum(amount), 0) FROM tutoring.credit_ledger
WHERE kind = 'CONSUME' AND session_id = ANY (cast(:ids AS uuid[]))
"""
_TOLD = """
SELECT count(*) FROM tutoring.teacher_notifications
WHERE kind = 'session_review' AND subject_id = ANY (cast(:ids AS uuid[]))
"""
_RUNS = """
SELECT count(*), coalesce(sum(items_total), 0), coalesce(max(items_total), 0),
       coalesce(extract(epoch FROM max(finished_at) - min(started_at)), 0)
FROM platform.job_runs WHERE job = 'tutoring.auto-complete'
"""


def perform(act: Act, running: Running, term: Term) -> None:
    """Have them completed as their schedules would, then a second time."""
    ended = term.just_ended[COMPANIONS:]
    wanted = set(ended)
    lessons = [row for row in term.rows[tutoring.sessions] if row["id"] in wanted]
    paid = [row for row in lessons if row["completion_mode"] == "AUTO_COMPLETE"]
    teachers = count(len({row["teacher_id"] for row in lessons}), "teacher")
    hour = lessons[0]["ends_at"]
    act.say(f"{len(ended):,} lessons of {teachers} ended at {hour:%H:%M} UTC: a message for each")
    act.say("on the queue auto-complete, as their schedules would put it")
    with ThreadPoolExecutor(1) as sender:
        sent = sender.submit(running.send, JOB, [{"session_id": str(session)} for session in ended])
        wait_until_over(act, running, ended)
        sent.result()
    completed, to_review = running.row(_STATES, ids=array(ended))
    runs, _, largest, seconds = running.row(_RUNS)
    act.say(f"{completed:,} are completed and paid, {to_review:,} wait for their teacher's review")
    act.say(f"by {count(runs, 'invocation')} in {seconds:.1f} s, up to {largest:,} lessons in one transaction")
    _, consumed = running.row(_CREDITS, ids=array(ended))

    wait_until_empty(running)
    _, before, *_ = running.row(_RUNS)
    act.say(f"SQS may deliver twice, and so {TWICE} of them ring again")
    running.send(JOB, [{"session_id": str(session)} for session in ended[:TWICE]])
    running.until(
        lambda: running.row(_RUNS)[1] >= before + TWICE, f"the second delivery of {TWICE} messages", seconds=90
    )
    entries, consumed_after = running.row(_CREDITS, ids=array(ended))
    act.say(f"{consumed:,} credits were consumed before, {consumed_after:,} after")

    act.check("lessons completed", len(paid), completed)
    act.check("lessons waiting for review", len(lessons) - len(paid), to_review)
    act.check("their teachers' notifications", to_review, running.number(_TOLD, ids=array(ended)))
    act.check("credits consumed", sum(row["credit_cost"] for row in paid), consumed)
    act.check("ledger entries of those", len(paid), entries)
    act.check(f"credits of {TWICE} second deliveries", 0, consumed_after - consumed)


def wait_until_over(act: Act, running: Running, ended: Sequence[UUID]) -> None:
    """Watch the lessons being completed."""

    def look() -> bool:
        done: int = sum(running.row(_STATES, ids=array(ended)))
        act.at(done, len(ended), "lessons")
        return done == len(ended)

    running.until(look, "all lessons to be completed", seconds=180)
    act.progress = None


def wait_until_empty(running: Running) -> None:
    """Wait for the last messages to be deleted."""
    running.until(lambda: running.depth(JOB) == 0, "the queue auto-complete to be empty", seconds=60)
