"""Schema ``tutoring``: messages that are planned, and those that were exchanged."""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, UniqueConstraint, Uuid, text

from schoolbell.database.tables import (
    created_at,
    metadata,
    moment,
    moment_of_writing,
    one_of,
    personal,
    updated_at,
    uuid_key,
)
from schoolbell.domains.tutoring.tables import student, teacher

scheduled_messages = Table(
    "scheduled_messages",
    metadata,
    uuid_key(),
    teacher(),
    student(),
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
    student(),
    teacher(),
    Column("scheduled_message_id", Uuid, ForeignKey("tutoring.scheduled_messages.id")),
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
