"""All tables of the schema ``platform``, which every domain stands on; jobs import what they need from its modules."""

from schoolbell.database.tables.alerts import alerts, standing_alerts
from schoolbell.database.tables.audit import AUDIT_TIERS, audit_logs
from schoolbell.database.tables.dead_letters import dead_letters
from schoolbell.database.tables.notifications import notifications
from schoolbell.database.tables.outbox import outbox
from schoolbell.database.tables.recipients import notification_preferences, people, push_tokens
from schoolbell.database.tables.runs import (
    job_runs,
    job_statistics,
    job_totals,
    leases,
    seen_schedules,
    triggers,
    watermarks,
    zone_schedules,
)

__all__ = [
    "AUDIT_TIERS",
    "alerts",
    "audit_logs",
    "dead_letters",
    "job_runs",
    "job_statistics",
    "job_totals",
    "leases",
    "notification_preferences",
    "notifications",
    "outbox",
    "people",
    "push_tokens",
    "seen_schedules",
    "standing_alerts",
    "triggers",
    "watermarks",
    "zone_schedules",
]
