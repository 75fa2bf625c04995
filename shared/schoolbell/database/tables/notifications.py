"""Schema ``platform``: what is said to people, and how they want to hear it."""

from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Index,
    Table,
    Text,
    Time,
    UniqueConstraint,
    Uuid,
    column,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.tables import (
    ERASED_RECIPIENT,
    count,
    created_at,
    metadata,
    moment,
    moment_of_writing,
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


def _of_student() -> Column[Any]:
    """The student that a row with a `person` is about, from its name."""
    is_student = "person ~* '^student/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
    return Column(
        "student_id", Uuid, Computed(f"CASE WHEN {is_student} THEN substr(person, 9)::uuid END", persisted=True)
    )


notification_preferences = Table(
    "notification_preferences",
    metadata,
    uuid_key(),
    Column("person", Text, nullable=False, comment="teacher/<id> or student/<id>"),
    Column("kind", Text, nullable=False, server_default="*", comment="A template, or * for all"),
    Column("channel", Text, nullable=False, server_default="*"),
    Column("wanted", Boolean, comment="Null: this row says nothing about that"),
    Column("quiet_from", Time, comment="Null: this row says nothing about quiet hours"),
    Column("quiet_until", Time),
    Column("timezone", Text, info=personal(), comment="IANA name; null: the person's own"),
    _of_student(),
    created_at(),
    updated_at(),
    one_of("channel", "*", "email", "sms", "push"),
    CheckConstraint("(quiet_from IS NULL) = (quiet_until IS NULL)", name="quiet_hours"),
    UniqueConstraint("person", "kind", "channel"),
    Index("ix_notification_preferences_student_id", "student_id", postgresql_where=text("student_id IS NOT NULL")),
    schema="platform",
    comment="What a person wants to get, and when not; the row that says most exactly what it is about counts",
)

push_tokens = Table(
    "push_tokens",
    metadata,
    uuid_key(),
    Column("person", Text, nullable=False, comment="teacher/<id> or student/<id>"),
    Column("token", Text, info=personal(), comment="Null: erased"),
    moment_of_writing("last_seen_at"),
    _of_student(),
    created_at(),
    updated_at(),
    UniqueConstraint("token"),
    Index("ix_push_tokens_person", "person", "last_seen_at"),
    Index("ix_push_tokens_student_id", "student_id", postgresql_where=text("student_id IS NOT NULL")),
    schema="platform",
    comment="The devices of a person, by the token of the application on it",
)

people = table(
    "people",
    column("kind", Text),
    column("id", Uuid),
    column("name", Text),
    column("email", Text),
    column("phone", Text),
    column("timezone", Text),
    column("erased", Boolean),
    schema="platform",
)
"""A view of everybody whom a notification can be sent to: the platform imports no domain. `kind`: teacher, student."""
