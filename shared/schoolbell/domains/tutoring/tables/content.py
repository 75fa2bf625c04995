"""Schema ``tutoring``: material, and how it is used."""

from sqlalchemy import Column, Double, ForeignKey, Index, Integer, Table, Text, Uuid, text

from schoolbell.database.tables import created_at, metadata, moment, moment_of_writing, one_of, updated_at, uuid_key
from schoolbell.domains.tutoring.tables import student, teacher

content_items = Table(
    "content_items",
    metadata,
    uuid_key(),
    teacher(),
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
    Column("item_id", Uuid, ForeignKey("tutoring.content_items.id"), nullable=False),
    student(required=False),
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
    Column("item_id", Uuid, ForeignKey("tutoring.content_items.id", ondelete="CASCADE"), primary_key=True),
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
