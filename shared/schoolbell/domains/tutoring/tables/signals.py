"""Schema ``tutoring``: what teachers should know about their students and figures."""

from sqlalchemy import Boolean, CheckConstraint, Column, Double, ForeignKey, Index, Integer, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.tables import created_at, metadata, moment, one_of, personal, updated_at, uuid_key
from schoolbell.domains.tutoring.tables import student, teacher

lifecycle_signals = Table(
    "lifecycle_signals",
    metadata,
    uuid_key(),
    teacher(),
    student(),
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

metric_alert_rules = Table(
    "metric_alert_rules",
    metadata,
    uuid_key(),
    teacher(),
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
    Column("rule_id", Uuid, ForeignKey("tutoring.metric_alert_rules.id", ondelete="CASCADE"), primary_key=True),
    Column("breached", Boolean, nullable=False, server_default=text("false")),
    Column("value", Double),
    moment("changed_at"),
    created_at(),
    updated_at(),
    schema="tutoring",
)
