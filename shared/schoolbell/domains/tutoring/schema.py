"""All tables of the schema ``tutoring``; jobs import what they need from its modules."""

from schoolbell.domains.tutoring.tables.content import content_analytics_cache, content_events, content_items
from schoolbell.domains.tutoring.tables.google import (
    calendar_connections,
    drive_file_copies,
    drive_resources,
    session_calendar_sync,
)
from schoolbell.domains.tutoring.tables.lessons import credit_ledger, sessions
from schoolbell.domains.tutoring.tables.messages import contact_log, scheduled_messages
from schoolbell.domains.tutoring.tables.people import (
    RETENTION_DEFAULTS,
    enrollments,
    erasure_requests,
    retention_settings,
    students,
    teachers,
)
from schoolbell.domains.tutoring.tables.signals import lifecycle_signals, metric_alert_rules, metric_alert_states
from schoolbell.domains.tutoring.tables.teacher_notifications import teacher_notifications
from schoolbell.domains.tutoring.tables.waitlists import (
    waitlist_answers,
    waitlist_entries,
    waitlist_openings,
    waitlist_seats,
    waitlists,
)

__all__ = [
    "RETENTION_DEFAULTS",
    "calendar_connections",
    "contact_log",
    "content_analytics_cache",
    "content_events",
    "content_items",
    "credit_ledger",
    "drive_file_copies",
    "drive_resources",
    "enrollments",
    "erasure_requests",
    "lifecycle_signals",
    "metric_alert_rules",
    "metric_alert_states",
    "retention_settings",
    "scheduled_messages",
    "session_calendar_sync",
    "sessions",
    "students",
    "teacher_notifications",
    "teachers",
    "waitlist_answers",
    "waitlist_entries",
    "waitlist_openings",
    "waitlist_seats",
    "waitlists",
]
