"""All tables of the schema ``platform``, which every domain stands on; jobs import what they need from its modules."""

from schoolbell.domains.platform.tables.alerts import alerts, standing_alerts
from schoolbell.domains.platform.tables.audit import AUDIT_TIERS, audit_logs
from schoolbell.domains.platform.tables.dead_letters import dead_letters
from schoolbell.domains.platform.tables.notifications import notifications
from schoolbell.domains.platform.tables.outbox import outbox
from schoolbell.domains.platform.tables.recipients import notification_preferences, people, push_tokens
from schoolbell.domains.platform.tables.runs import (
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
