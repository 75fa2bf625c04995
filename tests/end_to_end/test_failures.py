"""What becomes of messages that fail: alone, by backoff, onto the dead-letter queue with the reason, and back."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Row

from schoolbell.domains.tutoring.schema import credit_ledger, sessions, waitlist_answers, waitlist_entries
from tests.end_to_end.failing import REASON, accept, name_of, refused
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

JOB = "tutoring.auto-complete"
ANSWERS = "tutoring.waitlist-answers"
ATTEMPTS = 5
BACKOFFS = timedelta(seconds=5 + 10 + 20 + 40)  # at most, between five attempts
VISIBILITY_TIMEOUT = timedelta(seconds=360)


def test_bad_message_takes_no_other_of_its_batch_with_it_and_comes_back_by_backoff(stack: Stack, make: Make) -> None:
    good, bad = make.session(), make.session()
    started = datetime.now(UTC)
    with refused(stack, credit_ledger.c.student_id, bad.student_id):
        with stack.held(JOB):
            stack.drop(JOB, {"session_id": str(bad.id)}, {"session_id": str(good.id)})
        stack.becomes(sessions, good.id, status="completed")
        # Found by the reason, since messages of others may be in the same batch, or fail as well.
        run, *_ = eventually(
            lambda: [run for run in stack.runs(JOB, status="failed") if name_of(bad.student_id) in run.error],
            "run that failed with the bad message",
        )
        assert (run.items_failed, run.items_done) == (1, run.items_total - 1)
        assert run.items_total >= 2, "both were in one batch"
        assert stack.row(sessions, id=bad.id).status == "scheduled"
    stack.becomes(sessions, bad.id, status="completed", patience=BACKOFFS.total_seconds() + 60)
    assert datetime.now(UTC) - started < VISIBILITY_TIMEOUT
    for lesson in (good, bad):
        assert len(stack.rows(credit_ledger, session_id=lesson.id)) == 1


def test_poisoned_message_dies_with_its_reason_and_passes_when_it_is_mended_and_redriven(
    stack: Stack, begun_poison: Row[Any]
) -> None:
    body = json.dumps({"entry_id": str(begun_poison.id), "answer": "accept"})
    letter = stack.dead_letter(ANSWERS, body, patience=BACKOFFS.total_seconds() + 120)
    assert (letter.reason, letter.attempts) == ("failed", ATTEMPTS)
    assert REASON in letter.error
    assert "app.py" in letter.traceback
    assert stack.row(waitlist_entries, id=begun_poison.id).status == "notified"

    accept(stack, waitlist_answers.c.entry_id, begun_poison.id)
    stack.redrive(ANSWERS, body)
    stack.becomes(waitlist_entries, begun_poison.id, status="accepted")
    assert stack.row(waitlist_answers, entry_id=begun_poison.id).outcome == "accepted"


def test_discarded_message_is_on_the_dead_letter_queue_at_once_with_its_reason(stack: Stack) -> None:
    missing = uuid4()
    body = json.dumps({"session_id": str(missing)})
    stack.drop(JOB, body)
    letter = stack.dead_letter(JOB, body)
    assert (letter.reason, letter.attempts) == ("discarded", 1)
    reason = stack.buried(JOB, body)["MessageAttributes"]["reason"]["StringValue"]
    assert reason == letter.error == f"session_id: no session {missing}"
