"""What teachers are told in the application they get by email too, once, and nothing is spent where nobody is told."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from schoolbell.database.tables.platform import notifications, outbox
from schoolbell.database.tables.tutoring import teacher_notifications
from schoolbell.notifications import templates
from tests.fakes.one_shots import OneShotWorld
from tests.fixtures.database import Stored

OVER = timedelta(minutes=-1)
# Every kind that a job writes, as the statements of functions/tutoring and schoolbell/tutoring have them.
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
    (message,) = (row for row in stored(outbox) if row.destination.startswith("platform.notifications"))
    assert message.payload == {"notification_ids": [str(email.id)]}


def test_a_second_delivery_writes_no_second_email(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER, completion_mode="PENDING_REVIEW")
    world.ring(session)
    world.ring(session)
    assert len(stored(notifications)) == 1


def test_where_nobody_is_told_there_is_no_statement_more(world: OneShotWorld, stored: Stored) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    session = world.session(OVER)
    event.listen(world.database.engine, "before_cursor_execute", note)
    world.ring(session)
    event.remove(world.database.engine, "before_cursor_execute", note)
    assert sum("UPDATE tutoring.sessions" in each for each in statements) == 1
    assert not any("platform.notifications" in each for each in statements)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_template(kind: str) -> None:
    assert (Path(templates.__file__).parent / "templates" / kind / "html.html").exists()
