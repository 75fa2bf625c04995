"""What teachers are told in the application they get by email too, once, and nothing is spent where nobody is told."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from functions.platform.email_queue.app import handler as hand_over
from schoolbell.domains.platform.schema import notifications, outbox
from schoolbell.domains.tutoring.schema import teacher_notifications
from schoolbell.notifications import templates
from tests.fakes.one_shots import OneShotWorld
from tests.fixtures.database import Stored
from tests.performing import Invocation

OVER = timedelta(minutes=-1)
# Every kind that a job writes, as the statements of functions/tutoring and schoolbell/domains/tutoring have them.
KINDS = (
    *("session_review", "scheduled_message", "google_disconnected", "calendar_sync_failed", "metric_alert"),
    *("lifecycle_gap", "lifecycle_churn", "lifecycle_enrollment_expiring", "lifecycle_streak", "erasure_overdue"),
)


def test_the_email_is_written_with_the_notification_and_says_the_same(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER, completion_mode="PENDING_REVIEW")
    world.ring(session)
    (told,) = stored(teacher_notifications)
    (email,) = stored(notifications)
    assert (email.channel, email.recipient) == ("email", f"teacher/{session.teacher_id}")
    assert (email.template, email.priority) == ("session_review", "normal")
    assert email.data == {"title": told.title}
    assert email.student_id == session.student_id, "with the student it is erased"
    assert email.dedup_key == f"teacher-email/{told.dedup_key}"
    assert (email.status, email.handed_over_at) == ("queued", None)


def test_the_emails_are_handed_over_together_by_the_next_email_queue(world: OneShotWorld, stored: Stored) -> None:
    for _ in range(2):
        world.ring(world.session(OVER, completion_mode="PENDING_REVIEW"))
    assert not stored(outbox), "no lesson's completion waits for SQS on their account"
    assert hand_over({}, Invocation())["status"] == "completed"
    (message,) = stored(outbox)
    assert message.destination == "platform.notifications-normal"
    assert sorted(message.payload["notification_ids"]) == sorted(str(email.id) for email in stored(notifications))


def test_a_second_delivery_writes_no_second_email(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER, completion_mode="PENDING_REVIEW")
    world.ring(session)
    world.ring(session)
    assert len(stored(notifications)) == 1


@pytest.mark.parametrize("mode", ["AUTO_COMPLETE", "PENDING_REVIEW"])
def test_a_teacher_who_is_told_costs_no_statement_more(world: OneShotWorld, mode: str) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    session = world.session(OVER, completion_mode=mode)
    event.listen(world.database.engine, "before_cursor_execute", note)
    world.ring(session)
    event.remove(world.database.engine, "before_cursor_execute", note)
    assert sum("tutoring." in each or "platform.notifications" in each for each in statements) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_template(kind: str) -> None:
    assert (Path(templates.__file__).parent / "templates" / kind / "html.html").exists()
