"""Schema ``platform``: what is wrong, and who was told."""

from sqlalchemy import Column, Index, Integer, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.tables import count, created_at, metadata, moment, moment_of_writing, one_of, updated_at

alerts = Table(
    "alerts",
    metadata,
    Column("key", Text, primary_key=True),
    Column("status", Text, nullable=False, server_default="triggered"),
    Column("severity", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("details", JSONB(none_as_null=True)),
    moment_of_writing("first_seen_at"),
    moment_of_writing("last_seen_at"),
    Column("occasions", Integer, nullable=False, server_default=text("1")),  # how often it was triggered since
    moment_of_writing("changed_at"),  # when it last began or ended, by the sender's clock: what is older is late
    moment("notified_at"),
    moment("resolved_at"),
    Column("told", JSONB, nullable=False, server_default=text("'{}'")),  # by channel, what it was told last
    Column("claimed_by", Uuid),
    moment("claimed_until"),
    created_at(),
    updated_at(),
    one_of("status", "triggered", "resolved"),
    one_of("severity", "critical", "warning", "info"),
    Index("ix_alerts_standing", "last_seen_at", postgresql_where=text("status = 'triggered'")),
    schema="platform",
    comment="What is wrong, or was, and whom it was told",
)

standing_alerts = Table(
    "standing_alerts",
    metadata,
    Column("key", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    moment_of_writing("since"),
    count("changes"),
    created_at(),
    updated_at(),
    schema="platform",
    comment="Alerts that were raised and not resolved, so that each is told once, and again when it changes",
)
