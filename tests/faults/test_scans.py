"""The scans of the tutoring domain, with the process ended at every point where it can end."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from functions.tutoring.content_analytics import app as content_analytics
from functions.tutoring.lifecycle_detection import app as lifecycle_detection
from functions.tutoring.metric_alerts import app as metric_alerts
from schoolbell.database import Database
from schoolbell.domains.tutoring.schema import content_analytics_cache, lifecycle_signals, teacher_notifications
from tests.factories import Make
from tests.faults.crash import Crashing, assert_crash_safe
from tests.fixtures.database import Stored
from tests.performing import Invocation, Performer

DAY = timedelta(days=1)


@pytest.fixture
def scenario(perform: Performer, now: datetime) -> Callable[[Any], Crashing]:
    """A scheduled occurrence, and Lambda's retry of it."""

    def of(handler: Any) -> Crashing:
        event = {"scheduled_for": now.isoformat()}
        invocation = Invocation()
        run = lambda: perform(handler, event=event, invocation=invocation)  # noqa: E731
        return Crashing(run=run, recover=run)

    return of


def test_lifecycle_detection(
    database: Database,
    make: Make,
    now: datetime,
    scenario: Callable[[Any], Crashing],
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle_detection, "STUDENTS_A_CHUNK", 1)
    teacher = make.teacher(timezone="Europe/Madrid")
    quiet = make.student(teacher, last_activity_at=now - 40 * DAY)
    make.session(quiet, starts_at=now - 40 * DAY, status="completed")
    keen = make.student(teacher)
    for weeks in range(1, 6):
        make.session(keen, starts_at=now - weeks * 7 * DAY, status="completed")
    make.enrollment(keen, ends_on=now.date() + 3 * DAY)
    make.signal(keen, "gap", "2026-01-05")  # over

    assert_crash_safe(database, scenario(lifecycle_detection.handler))

    standing = {row.kind for row in stored(lifecycle_signals) if row.ended_at is None}
    assert standing == {"gap", "churn", "streak", "enrollment_expiring"}
    assert len(stored(teacher_notifications)) == 4


def test_content_analytics(
    database: Database,
    make: Make,
    now: datetime,
    scenario: Callable[[Any], Crashing],
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(content_analytics, "ITEMS_A_CHUNK", 1)
    for days in (1, 20):
        make.content_event(occurred_at=now - days * DAY)

    assert_crash_safe(database, scenario(content_analytics.handler))

    assert len(stored(content_analytics_cache)) == 6


def test_metric_alerts(
    database: Database,
    make: Make,
    now: datetime,
    scenario: Callable[[Any], Crashing],
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metric_alerts, "RULES_A_CHUNK", 1)
    teacher = make.teacher()
    student = make.student(teacher)
    for days in range(1, 6):
        make.session(student, starts_at=now - days * DAY, status="no_show")
    make.alert_rule(teacher)
    make.alert_rule(teacher, metric="sessions_taught", threshold=0)
    make.alert_rule(teacher, metric="no_show_rate", comparator="above", threshold=0.5)

    assert_crash_safe(database, scenario(metric_alerts.handler))

    assert len(stored(teacher_notifications)) == 2
