"""Schema ``platform``: what is said to people."""

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.tables import (
    ERASED_RECIPIENT,
    count,
    created_at,
    metadata,
    moment,
    one_of,
    personal,
    updated_at,
    uuid_key,
)

notifications = Table(
    "notifications",
    metadata,
    uuid_key(),
    Column("channel", Text, nullable=False),
    Column(
        "recipient",
        Text,
        nullable=False,
        info=personal(ERASED_RECIPIENT),
        comment="teacher/<id>, student/<id>, an address",
    ),
    Column("template", Text, nullable=False),
    Column("data", JSONB(none_as_null=True), server_default=text("'{}'"), info=personal()),  # null: erased
    Column("priority", Text, nullable=False, server_default="normal"),
    Column("dedup_key", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("status", Text, nullable=False, server_default="queued"),
    count("attempts"),
    Column("provider", Text),
    Column("provider_message_id", Text),
    Column("error", Text),
    Column(
        "scheduled_for", DateTime(timezone=True), comment="Not sent before: by plan, quiet hours or a failed attempt"
    ),
    moment("sent_at"),
    moment("expires_at"),
    Column("student_id", Uuid, comment="Whom it is about; a trigger fills it in where the recipient is a student"),
    Column("sent_by", Text, comment="The channel that took it: another than its own, if that one's circuit was open"),
    Column(
        "handed_over_at", DateTime(timezone=True), comment="Since when a message with its id is under way; null: none"
    ),
    Column("claimed_by", Uuid, comment="The run that is at it, until claimed_until"),
    moment("claimed_until"),
    count("uncertain"),  # how often nobody knew whether the provider had accepted it
    created_at(),
    updated_at(),
    one_of("channel", "email", "sms", "push"),
    one_of("priority", "high", "normal", "low"),
    one_of("status", "queued", "sent", "delivered", "failed", "suppressed"),
    UniqueConstraint("dedup_key"),
    Index(
        "ix_notifications_queued",
        "handed_over_at",
        text("COALESCE(scheduled_for, created_at)"),
        postgresql_where=text("status = 'queued'"),
    ),
    Index(
        "ix_notifications_over",
        text("GREATEST(created_at, scheduled_for, sent_at)"),
        postgresql_where=text("status <> 'queued'"),
    ),
    Index("ix_notifications_student_id", "student_id", postgresql_where=text("student_id IS NOT NULL")),
    schema="platform",
    comment="An email, text message or push message: what is to be said to whom, and what became of it",
)
