"""Schema ``platform``: to whom notifications go, and how they want them."""

from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Computed,
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

from schoolbell.database.tables import created_at, metadata, moment_of_writing, one_of, personal, updated_at, uuid_key


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
