"""Each function answers its own event, as `make invoke` and a clock send it, and what it may do is enough for it."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
from sqlalchemy import Row

from local.home import CHECKOUT
from schoolbell.domains.platform.schema import audit_logs, dead_letters
from schoolbell.domains.tutoring.schema import (
    content_analytics_cache,
    lifecycle_signals,
    scheduled_messages,
    sessions,
    students,
    teacher_notifications,
)
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

JOBS = sorted(
    f"{app.parent.parent.name}.{app.parent.name.replace('_', '-')}" for app in CHECKOUT.glob("functions/*/*/app.py")
)
MIGRATE = "platform.migrate"
TASKS = sorted(
    f"{app.parent.parent.name}.{app.parent.name.replace('_', '-')}"
    for app in CHECKOUT.glob("functions/*/*/app.py")
    if "@task_job(" in app.read_text()
)
ANSWERS: dict[str, Any] = {  # to an event whose ids are nobody's
    "tutoring.waitlist-offer": {"outcome": "gone", "entry_id": None, "wait_seconds": None},
    "tutoring.waitlist-await": {"standing": False},
}
HTTP = {"platform.admin": HTTPStatus.UNAUTHORIZED, "platform.health": HTTPStatus.OK}  # the event brings no token
ROUTER = "platform.alert-router"  # its message is about nothing that could be missing


@pytest.mark.parametrize("job", [job for job in JOBS if job not in (*TASKS, *HTTP, MIGRATE)])
def test_function_answers_its_event_and_leaves_a_run(stack: Stack, job: str) -> None:
    event = stack.event_of(job)
    if "Records" in event:
        known = {letter.message_id for letter in stack.rows(dead_letters, job=job)}
        assert stack.invoke(job, event) == {"batchItemFailures": []}
        assert stack.runs(job, trigger="queue")
        about_nothing = {record["messageId"] for record in event["Records"]} - known
        letters = {letter.message_id for letter in stack.rows(dead_letters, job=job)}
        assert job == ROUTER or about_nothing <= letters, "its ids are nobody's, so its message is dead"
        return
    if "dry_run" in event:
        assert stack.invoke(job, event)["status"] == "completed"
        assert stack.runs(job, dry_run=True, status="completed")
        event = {"scheduled_for": "2026-03-02T03:00:00Z"}  # as its schedule sends it
    event = run_for_it(stack, job, event)
    (run,) = stack.runs(job, scheduled_for=moment_of(event))
    assert (run.status, run.trigger, run.error) == ("completed", "schedule", None)
    assert stack.invoke(job, event)["status"] == "skipped"


def run_for_it(stack: Stack, job: str, event: dict[str, Any]) -> dict[str, Any]:
    """Invokes a job with an event, and returns the event that it ran for.

    A job of which only one run may be in progress skips an event while its own schedule has triggered another. The
    skipped event's time is settled then, so the next is for a second later.
    """
    field = "scheduled_for" if "scheduled_for" in event else "time"

    def look() -> dict[str, Any] | None:
        nonlocal event
        stack.invoke(job, event)
        tried, (run,) = event, stack.runs(job, scheduled_for=moment_of(event))
        is_skipped = run.status == "completed" and run.error
        event = event | {field: (moment_of(event) + timedelta(seconds=1)).isoformat()}
        return None if is_skipped else tried

    found = eventually(look, f"run of {job} that is not skipped")
    assert found is not None
    return found


def moment_of(event: dict[str, Any]) -> datetime:
    """The time that a clock's event is for."""
    return datetime.fromisoformat(event.get("scheduled_for") or event["time"])


@pytest.mark.parametrize(("job", "status"), HTTP.items())
def test_function_of_the_api_answers_its_event(stack: Stack, job: str, status: HTTPStatus) -> None:
    assert stack.invoke(job, stack.event_of(job))["statusCode"] == status


@pytest.mark.parametrize("job", TASKS)
def test_task_answers_its_event(stack: Stack, job: str) -> None:
    answer = stack.invoke(job, stack.event_of(job))
    assert answer == ANSWERS.get(job, answer)
    assert stack.runs(job, trigger="task", status="completed")


def test_migrating_twice_changes_nothing(stack: Stack) -> None:
    answers = [stack.invoke(MIGRATE, stack.event_of(MIGRATE)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["from"] == answers[0]["to"] is not None


@pytest.fixture
def gone_student(make: Make, now: datetime) -> Row[Any]:
    """A student who has not been seen for three years."""
    long_ago = now - timedelta(days=3 * 365)
    return make.student(last_activity_at=long_ago, created_at=long_ago, status="inactive")


def test_dry_run_of_data_retention_reports_and_touches_nothing(stack: Stack, gone_student: Row[Any]) -> None:
    would_go = stack.run("tutoring.data-retention", dry_run=True)
    assert stack.row(students, id=gone_student.id) == gone_student
    assert not stack.rows(audit_logs, subject=str(gone_student.id))
    assert any(would_go.values()), would_go


def test_data_retention_erases_who_is_long_gone(stack: Stack, gone_student: Row[Any]) -> None:
    stack.run("tutoring.data-retention")
    erased = stack.row(students, id=gone_student.id)
    assert erased.status == "erased"
    assert gone_student.email not in map(str, erased)
    assert stack.rows(audit_logs, subject=str(gone_student.id))


def test_session_sweep_completes_what_was_forgotten_and_has_schedules_set(stack: Stack, make: Make) -> None:
    forgotten = make.session()
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    unscheduled = make.session(ends_at=end, grace_period_minutes=0)
    stack.run("tutoring.session-sweep")
    stack.becomes(sessions, forgotten.id, status="completed")
    assert eventually(lambda: stack.one_shot(f"session-{unscheduled.id}"), "schedule")


def test_message_sweep_fires_what_was_forgotten_and_has_schedules_set(stack: Stack, make: Make) -> None:
    forgotten = make.message()
    unscheduled = make.message(send_at=datetime.now(UTC) + timedelta(days=3))
    stack.run("tutoring.message-sweep")
    stack.becomes(scheduled_messages, forgotten.id, status="fired")
    assert eventually(lambda: stack.one_shot(f"message-{unscheduled.id}"), "schedule")


@pytest.mark.parametrize("zone", ["America/New_York", "Mars/Olympus_Mons"])
def test_lifecycle_detection_tells_the_teacher_of_a_gap_once(
    stack: Stack, make: Make, now: datetime, zone: str
) -> None:
    """Also one whose time zone does not exist, which keeps nobody else from being told."""
    student = make.student(make.teacher(timezone=zone))
    make.session(student, ends_at=now - timedelta(days=20), status="completed")
    stack.run("tutoring.lifecycle-detection")
    stack.run("tutoring.lifecycle-detection")
    assert "gap" in {signal.kind for signal in stack.rows(lifecycle_signals, student_id=student.id)}
    told = stack.rows(teacher_notifications, teacher_id=student.teacher_id)
    assert len(told) == len({each.dedup_key for each in told}) > 0


def test_content_analytics_counts_what_was_viewed(stack: Stack, make: Make) -> None:
    event = make.content_event(created_at=datetime.now(UTC))
    stack.run("tutoring.content-analytics")
    windows = stack.rows(content_analytics_cache, item_id=event.item_id)
    assert {row.window_days: row.views for row in windows} == {7: 1, 30: 1, 90: 1}


def test_metric_alerts_tells_the_teacher_when_a_line_is_crossed(stack: Stack, make: Make, now: datetime) -> None:
    teacher = make.teacher()
    student = make.student(teacher)
    for days in range(1, 21):
        make.session(student, ends_at=now - timedelta(days=days), status="cancelled")
    make.alert_rule(teacher, metric="cancellation_rate", comparator="above", threshold=0.5)
    stack.run("tutoring.metric-alerts")
    stack.run("tutoring.metric-alerts")
    assert len(stack.rows(teacher_notifications, teacher_id=teacher.id)) == 1


def test_audit_cleanup_archives_before_it_deletes(stack: Stack, make: Make, now: datetime) -> None:
    old = make.audit_log(tier="general", occurred_at=now - timedelta(days=2 * 365))
    kept = make.audit_log(tier="student", occurred_at=now - timedelta(days=2 * 365))
    stack.run("platform.audit-cleanup")
    assert not stack.rows(audit_logs, id=old.id)
    key = stack.row(audit_logs, id=kept.id).archived_to
    s3 = stack.client("s3")
    (bucket,) = (
        output["OutputValue"]
        for output in stack.client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"][0]["Outputs"]
        if output["OutputKey"] == "ArchiveBucket"
    )
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 0
