"""Schema ``tutoring``: teachers, their students and lessons, credits, material, waiting lists and messages."""

from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.tables import (
    ERASED_NAME,
    created_at,
    metadata,
    moment,
    moment_of_writing,
    one_of,
    personal,
    updated_at,
    uuid_key,
)

RETENTION_DEFAULTS = MappingProxyType(
    {
        "gap_days": 14,
        "churn_days": 30,
        "expiring_days": 14,
        "streak_weeks": 4,
        "inactive_student_days": 730,
        "session_content_days": 365,
        "contact_log_days": 365,
        "erasure_due_days": 30,
    }
)
"""What holds for a teacher who has no row in ``retention_settings``."""


def _teacher() -> Column[Any]:
    return Column("teacher_id", ForeignKey("tutoring.teachers.id"), nullable=False)


def _student(*, required: bool = True) -> Column[Any]:
    return Column("student_id", ForeignKey("tutoring.students.id"), nullable=not required)


teachers = Table(
    "teachers",
    metadata,
    uuid_key(),
    Column("name", Text, nullable=False),
    Column("email", Text),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    created_at(),
    updated_at(),
    schema="tutoring",
)

retention_settings = Table(
    "retention_settings",
    metadata,
    Column("teacher_id", ForeignKey("tutoring.teachers.id", ondelete="CASCADE"), primary_key=True),
    *(Column(name, Integer, nullable=False, server_default=text(str(n))) for name, n in RETENTION_DEFAULTS.items()),
    created_at(),
    updated_at(),
    *(CheckConstraint(f"{name} > 0", name=name) for name in RETENTION_DEFAULTS),
    schema="tutoring",
    comment="A teacher's own thresholds; RETENTION_DEFAULTS where there is no row",
)

students = Table(
    "students",
    metadata,
    uuid_key(),
    _teacher(),
    Column("name", Text, nullable=False, info=personal(ERASED_NAME)),
    Column("email", Text, info=personal()),
    Column("phone", Text, info=personal()),
    Column("status", Text, nullable=False, server_default="active"),
    moment("last_activity_at"),
    Column("drive_folder_id", Text, info=personal()),
    moment("erased_at"),
    created_at(),
    updated_at(),
    one_of("status", "active", "inactive", "erased"),
    Index("ix_students_teacher_id", "teacher_id"),
    Index(
        "ix_students_unerased",
        text("COALESCE(last_activity_at, created_at)"),
        "id",
        postgresql_where=text("status <> 'erased'"),
    ),
    Index("ix_students_erased_at", "erased_at", "id", postgresql_where=text("erased_at IS NOT NULL")),
    schema="tutoring",
    info={"student": ("id",)},
    comment="The row of an erased student stays: its id is the pseudonym of the ledger",
)

enrollments = Table(
    "enrollments",
    metadata,
    uuid_key(),
    _student(),
    Column("starts_on", Date, nullable=False),
    Column("ends_on", Date),
    Column("status", Text, nullable=False, server_default="active"),
    created_at(),
    updated_at(),
    Index("ix_enrollments_student_id_ends_on", "student_id", "ends_on", postgresql_include=["status", "id"]),
    schema="tutoring",
)

sessions = Table(
    "sessions",
    metadata,
    uuid_key(),
    _teacher(),
    _student(),
    moment("starts_at", required=True),
    moment("ends_at", required=True),
    Column("grace_period_minutes", Integer, nullable=False, server_default=text("15")),
    Column("completion_mode", Text, nullable=False, server_default="AUTO_COMPLETE"),
    Column("status", Text, nullable=False, server_default="scheduled"),
    Column("credit_cost", Integer, nullable=False, server_default=text("1")),
    Column("content", Text, info=personal()),
    moment("completed_at"),
    Column(
        "due_at",
        moment("due_at").type,
        # timestamptz + interval depends on the session's zone, and so cannot be stored; in UTC it can.
        Computed(
            "(ends_at AT TIME ZONE 'UTC' + grace_period_minutes * interval '1 minute') AT TIME ZONE 'UTC'",
            persisted=True,  # PostgreSQL indexes no virtual column
        ),
        comment="When the lesson counts as over: ends_at + grace_period_minutes",
    ),
    Column("scheduled_for", moment("due_at").type, comment="The one-shot schedule's time in AWS; null: there is none"),
    created_at(),
    updated_at(),
    one_of("completion_mode", "AUTO_COMPLETE", "PENDING_REVIEW"),
    one_of("status", "scheduled", "completed", "pending_review", "cancelled", "no_show"),
    CheckConstraint("ends_at >= starts_at", name="ends_at"),
    CheckConstraint("grace_period_minutes >= 0", name="grace_period_minutes"),
    CheckConstraint("credit_cost >= 0", name="credit_cost"),
    Index("ix_sessions_due", "due_at", postgresql_where=text("status = 'scheduled'")),
    Index(
        "ix_sessions_unscheduled",
        "due_at",
        postgresql_where=text("status = 'scheduled' AND scheduled_for IS DISTINCT FROM due_at"),
    ),
    # Both cover what the nightly and hourly scans read, so that they never visit the table.
    Index("ix_sessions_student_id_starts_at", "student_id", "starts_at", postgresql_include=["status"]),
    Index("ix_sessions_teacher_id_starts_at", "teacher_id", "starts_at", postgresql_include=["status", "student_id"]),
    Index("ix_sessions_with_content", "teacher_id", "ends_at", postgresql_where=text("content IS NOT NULL")),
    schema="tutoring",
)

credit_ledger = Table(
    "credit_ledger",
    metadata,
    uuid_key(),
    _student(),
    Column("session_id", ForeignKey("tutoring.sessions.id")),
    Column("kind", Text, nullable=False),
    Column("amount", Integer, nullable=False),
    created_at(),
    one_of("kind", "PURCHASE", "CONSUME", "REFUND", "ADJUST"),
    Index("uq_credit_ledger_consume", "session_id", unique=True, postgresql_where=text("kind = 'CONSUME'")),
    Index("ix_credit_ledger_student_id_created_at", "student_id", "created_at"),
    schema="tutoring",
    comment="Append-only, held by a trigger: a mistake is put right by a further entry",
)

teacher_notifications = Table(
    "teacher_notifications",
    metadata,
    uuid_key(),
    _teacher(),
    _student(required=False),  # whom it is about, so that erasing the student finds it whatever its subject is
    Column("kind", Text, nullable=False),
    Column("subject_id", uuid_key().type),
    Column("dedup_key", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("title", Text, nullable=False, server_default="", info=personal("")),
    Column("body", Text, info=personal()),
    moment("read_at"),
    created_at(),
    updated_at(),
    UniqueConstraint("dedup_key"),
    Index("ix_teacher_notifications_teacher_id_created_at", "teacher_id", "created_at"),
    Index("ix_teacher_notifications_student_id", "student_id", postgresql_where=text("student_id IS NOT NULL")),
    Index("ix_teacher_notifications_subject_id", "subject_id"),
    schema="tutoring",
    info={"student": ("student_id", "subject_id")},
)

calendar_connections = Table(
    "calendar_connections",
    metadata,
    uuid_key(),
    _teacher(),
    Column("calendar_id", Text, nullable=False, server_default="primary"),
    Column("secret_id", Text),
    Column("status", Text, nullable=False, server_default="active"),  # active, revoked; applications may add theirs
    created_at(),
    updated_at(),
    Index("ix_calendar_connections_teacher_id", "teacher_id"),
    schema="tutoring",
)

session_calendar_sync = Table(
    "session_calendar_sync",
    metadata,
    uuid_key(),
    # No foreign key: a lesson's event must still be deleted when an application has deleted the lesson's row.
    Column("session_id", uuid_key().type, nullable=False),
    _teacher(),
    Column("action", Text, nullable=False, server_default="upsert"),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    moment("next_attempt_at"),  # null: at once
    Column("last_error", Text),
    Column("external_event_id", Text),
    Column("claimed_by", Uuid, comment="The run that is at it, until claimed_until"),
    moment("claimed_until"),
    Column("sequence", BigInteger, Identity(), nullable=False, comment="The order in which the changes were recorded"),
    created_at(),
    updated_at(),
    one_of("action", "upsert", "delete"),
    one_of("status", "pending", "synced", "failed"),
    Index("ix_session_calendar_sync_pending", "created_at", "sequence", postgresql_where=text("status = 'pending'")),
    Index("ix_session_calendar_sync_session_id", "session_id", "sequence"),
    Index("ix_session_calendar_sync_teacher_id", "teacher_id"),
    schema="tutoring",
    comment="A change of a lesson that its Google Calendar event must follow",
)

drive_resources = Table(
    "drive_resources",
    metadata,
    uuid_key(),
    _teacher(),
    Column("drive_file_id", Text, nullable=False),
    Column("name", Text),
    created_at(),
    updated_at(),
    Index("ix_drive_resources_teacher_id", "teacher_id"),
    schema="tutoring",
)

drive_file_copies = Table(
    "drive_file_copies",
    metadata,
    uuid_key(),
    Column("resource_id", ForeignKey("tutoring.drive_resources.id"), nullable=False),
    _student(),
    Column("copied_file_id", Text, info=personal()),
    Column("status", Text, nullable=False, server_default="pending"),
    moment("verified_at"),
    Column("last_error", Text),
    Column("claimed_by", Uuid, comment="The run that is at it, until claimed_until"),
    moment("claimed_until"),
    created_at(),
    updated_at(),
    one_of("status", "pending", "copied", "failed", "trashed", "deleted"),
    UniqueConstraint("resource_id", "student_id"),
    Index("ix_drive_file_copies_student_id", "student_id"),
    schema="tutoring",
)

lifecycle_signals = Table(
    "lifecycle_signals",
    metadata,
    uuid_key(),
    _teacher(),
    _student(),
    Column("kind", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("details", JSONB(none_as_null=True), info=personal()),
    moment("ended_at"),
    created_at(),
    updated_at(),
    one_of("kind", "gap", "churn", "enrollment_expiring", "streak"),
    Index(
        "uq_lifecycle_signals_standing",
        "student_id",
        "teacher_id",
        "kind",
        "period",
        unique=True,
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index("ix_lifecycle_signals_student_id", "student_id"),
    schema="tutoring",
    comment="A signal stands until ended_at; what period is for each kind stands in docs/lifecycle-signals.md",
)

content_items = Table(
    "content_items",
    metadata,
    uuid_key(),
    _teacher(),
    Column("title", Text, nullable=False, server_default=""),
    created_at(),
    updated_at(),
    Index("ix_content_items_teacher_id", "teacher_id"),
    schema="tutoring",
)

content_events = Table(
    "content_events",
    metadata,
    uuid_key(),
    Column("item_id", ForeignKey("tutoring.content_items.id"), nullable=False),
    _student(required=False),
    Column("kind", Text, nullable=False, server_default="view"),
    moment_of_writing("occurred_at"),
    Column("seconds", Integer),
    created_at(),
    one_of("kind", "view", "download", "assignment"),
    Index(
        "ix_content_events_item_id_occurred_at",
        "item_id",
        "occurred_at",
        postgresql_include=["kind", "student_id", "seconds"],
    ),
    Index("ix_content_events_occurred_at", "occurred_at", postgresql_include=["item_id"]),
    Index("ix_content_events_created_at", "created_at", postgresql_include=["item_id"]),
    schema="tutoring",
)

content_analytics_cache = Table(
    "content_analytics_cache",
    metadata,
    Column("item_id", ForeignKey("tutoring.content_items.id", ondelete="CASCADE"), primary_key=True),
    Column("window_days", Integer, primary_key=True, autoincrement=False),
    Column("views", Integer, nullable=False, server_default=text("0")),
    Column("downloads", Integer, nullable=False, server_default=text("0")),
    Column("assignments", Integer, nullable=False, server_default=text("0")),
    Column("unique_students", Integer, nullable=False, server_default=text("0")),
    Column("average_seconds", Double),
    moment("last_used_at"),
    moment_of_writing("computed_at"),
    created_at(),
    updated_at(),
    schema="tutoring",
)

waitlists = Table(
    "waitlists",
    metadata,
    uuid_key(),
    Column("teacher_id", ForeignKey("tutoring.teachers.id")),
    Column("session_id", ForeignKey("tutoring.sessions.id")),  # null for a series
    Column("capacity", Integer, nullable=False, server_default=text("1")),
    Column("offer_window_seconds", Integer, nullable=False, server_default=text("172800")),
    created_at(),
    updated_at(),
    CheckConstraint("capacity >= 0", name="capacity"),
    CheckConstraint("offer_window_seconds > 0", name="offer_window_seconds"),
    schema="tutoring",
)

waitlist_openings = Table(
    "waitlist_openings",
    metadata,
    uuid_key(),
    Column("waitlist_id", ForeignKey("tutoring.waitlists.id", ondelete="CASCADE"), nullable=False),
    Column("source", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("seats", Integer, nullable=False),
    created_at(),
    CheckConstraint("seats > 0", name="seats"),
    UniqueConstraint("source"),
    Index("ix_waitlist_openings_waitlist_id", "waitlist_id"),
    schema="tutoring",
    comment="Seats that were opened at a time; source is the message that said so, which counts once",
)

waitlist_seats = Table(
    "waitlist_seats",
    metadata,
    uuid_key(),
    Column("opening_id", ForeignKey("tutoring.waitlist_openings.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("waitlist_id", ForeignKey("tutoring.waitlists.id", ondelete="CASCADE"), nullable=False),
    Column("status", Text, nullable=False, server_default="open"),
    Column("tended_until", moment("tended_until").type, nullable=False, server_default=text("now()")),
    created_at(),
    updated_at(),
    one_of("status", "open", "taken", "unfilled", "over_capacity", "passed_on"),
    UniqueConstraint("opening_id", "number"),
    Index("ix_waitlist_seats_open", "tended_until", postgresql_where=text("status = 'open'")),
    Index("ix_waitlist_seats_waitlist_id", "waitlist_id"),
    schema="tutoring",
    comment="A seat on offer; an execution of the cascade looks after an open one until tended_until",
)

waitlist_entries = Table(
    "waitlist_entries",
    metadata,
    uuid_key(),
    Column("waitlist_id", ForeignKey("tutoring.waitlists.id"), nullable=False),
    _student(),
    Column("position", Integer, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False, server_default="waiting"),
    moment("notified_at"),
    moment("expires_at"),
    Column("task_token", Text),
    Column(
        "seat_id",
        ForeignKey("tutoring.waitlist_seats.id", ondelete="SET NULL"),
        comment="The seat that was offered; null: not offered yet, or notified by hand",
    ),
    moment("answered_at"),
    created_at(),
    updated_at(),
    one_of("status", "waiting", "notified", "accepted", "declined", "expired", "withdrawn"),
    Index("ix_waitlist_entries_waiting", "waitlist_id", "position", postgresql_where=text("status = 'waiting'")),
    Index("ix_waitlist_entries_notified", "expires_at", postgresql_where=text("status = 'notified'")),
    Index("ix_waitlist_entries_waitlist_id_status", "waitlist_id", "status"),
    Index("ix_waitlist_entries_student_id", "student_id"),
    Index("ix_waitlist_entries_seat_id", "seat_id", postgresql_where=text("seat_id IS NOT NULL")),
    Index(
        "uq_waitlist_entries_seat_id",
        "seat_id",
        unique=True,
        postgresql_where=text("status IN ('notified', 'accepted')"),
    ),
    schema="tutoring",
    comment="A seat has one student at a time, held by uq_waitlist_entries_seat_id",
)

waitlist_answers = Table(
    "waitlist_answers",
    metadata,
    uuid_key(),
    Column("entry_id", ForeignKey("tutoring.waitlist_entries.id", ondelete="CASCADE"), nullable=False),
    Column("source", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("answer", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    moment_of_writing("answered_at"),
    created_at(),
    one_of("answer", "accept", "decline"),
    one_of("outcome", "accepted", "declined", "repeated", "refused"),
    UniqueConstraint("source"),
    Index("ix_waitlist_answers_entry_id", "entry_id"),
    schema="tutoring",
    comment="Every answer that arrived and what became of it, also those that came too late; source is its message",
)

scheduled_messages = Table(
    "scheduled_messages",
    metadata,
    uuid_key(),
    _teacher(),
    _student(),
    Column("channel", Text, nullable=False),
    Column("body", Text, info=personal()),
    moment("send_at", required=True),
    Column("status", Text, nullable=False, server_default="pending"),
    moment("fired_at"),
    Column("scheduled_for", moment("send_at").type, comment="The one-shot schedule's time in AWS; null: there is none"),
    created_at(),
    updated_at(),
    one_of("channel", "whatsapp", "email", "phone"),
    one_of("status", "pending", "fired", "cancelled"),
    Index("ix_scheduled_messages_pending", "send_at", postgresql_where=text("status = 'pending'")),
    Index(
        "ix_scheduled_messages_unscheduled",
        "send_at",
        postgresql_where=text("status = 'pending' AND scheduled_for IS DISTINCT FROM send_at"),
    ),
    Index("ix_scheduled_messages_student_id", "student_id"),
    Index("ix_scheduled_messages_with_body", "teacher_id", "send_at", postgresql_where=text("body IS NOT NULL")),
    schema="tutoring",
)

contact_log = Table(
    "contact_log",
    metadata,
    uuid_key(),
    _student(),
    _teacher(),
    Column("scheduled_message_id", ForeignKey("tutoring.scheduled_messages.id")),
    Column("channel", Text, nullable=False),
    Column("direction", Text, nullable=False, server_default="outbound"),
    Column("body", Text, info=personal()),
    moment_of_writing("occurred_at"),
    created_at(),
    updated_at(),
    UniqueConstraint("scheduled_message_id"),
    Index("ix_contact_log_student_id_occurred_at", "student_id", "occurred_at"),
    Index("ix_contact_log_teacher_id_occurred_at", "teacher_id", "occurred_at"),
    schema="tutoring",
)

metric_alert_rules = Table(
    "metric_alert_rules",
    metadata,
    uuid_key(),
    _teacher(),
    Column("metric", Text, nullable=False),
    Column("comparator", Text, nullable=False, server_default="below"),
    Column("threshold", Double, nullable=False),
    Column("window_days", Integer, nullable=False, server_default=text("30")),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    created_at(),
    updated_at(),
    one_of("comparator", "below", "above"),
    CheckConstraint("window_days > 0", name="window_days"),
    Index("ix_metric_alert_rules_teacher_id", "teacher_id"),
    schema="tutoring",
)

metric_alert_states = Table(
    "metric_alert_states",
    metadata,
    Column("rule_id", ForeignKey("tutoring.metric_alert_rules.id", ondelete="CASCADE"), primary_key=True),
    Column("breached", Boolean, nullable=False, server_default=text("false")),
    Column("value", Double),
    moment("changed_at"),
    created_at(),
    updated_at(),
    schema="tutoring",
)

erasure_requests = Table(
    "erasure_requests",
    metadata,
    uuid_key(),
    _student(),
    moment_of_writing("requested_at"),
    moment("due_at"),  # null: requested_at + the teacher's erasure_due_days
    Column("status", Text, nullable=False, server_default="open"),
    moment("completed_at"),
    moment("alerted_at"),
    created_at(),
    updated_at(),
    one_of("status", "open", "done"),
    Index("ix_erasure_requests_open", "due_at", postgresql_where=text("status = 'open'")),
    Index("ix_erasure_requests_student_id", "student_id"),
    schema="tutoring",
)
