"""Schema ``tutoring``: lessons, and the credits that pay for them."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)

from schoolbell.database.tables import created_at, metadata, moment, one_of, personal, updated_at, uuid_key
from schoolbell.domains.tutoring.tables import student, teacher

sessions = Table(
    "sessions",
    metadata,
    uuid_key(),
    teacher(),
    student(),
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
    student(),
    Column("session_id", Uuid, ForeignKey("tutoring.sessions.id")),
    Column("kind", Text, nullable=False),
    Column("amount", Integer, nullable=False),
    created_at(),
    one_of("kind", "PURCHASE", "CONSUME", "REFUND", "ADJUST"),
    Index("uq_credit_ledger_consume", "session_id", unique=True, postgresql_where=text("kind = 'CONSUME'")),
    Index("ix_credit_ledger_student_id_created_at", "student_id", "created_at"),
    schema="tutoring",
    comment="Append-only, held by a trigger: a mistake is put right by a further entry",
)
