"""Schema ``platform``: who did what."""

from sqlalchemy import Column, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.tables import created_at, metadata, moment_of_writing, personal, updated_at, uuid_key

AUDIT_TIERS = ("financial", "student", "general")

audit_logs = Table(
    "audit_logs",
    metadata,
    uuid_key(),
    Column("tier", Text, nullable=False, server_default="general"),  # any text: what is no known tier falls back
    Column("action", Text, nullable=False),
    Column("actor", Text),
    Column("subject", Text),
    moment_of_writing("occurred_at"),
    Column("details", JSONB(none_as_null=True), info=personal()),
    Column("archived_to", Text),
    created_at(),
    updated_at(),
    # Two halves of one index: what is still to be archived is found without passing years of what has been.
    Index("ix_audit_logs_unarchived", "tier", "occurred_at", "id", postgresql_where=text("archived_to IS NULL")),
    Index("ix_audit_logs_archived", "tier", "occurred_at", "id", postgresql_where=text("archived_to IS NOT NULL")),
    Index(
        "ix_audit_logs_fallback",
        "occurred_at",
        "id",
        postgresql_where=text("tier NOT IN ('financial', 'student', 'general')"),
    ),
    Index("ix_audit_logs_subject", "subject"),
    schema="platform",
    info={"student": ("subject",)},
    comment="Who did what, kept by tier",
)
