"""Schema ``platform``: the messages that a transaction leaves to be sent after its commit."""

from sqlalchemy import BigInteger, Column, Identity, Index, Table, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.tables import count, created_at, metadata, moment, moment_of_writing

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("destination", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("dedup_key", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("tenant", Text),
    moment_of_writing("available_at"),
    Column("claimed_by", Uuid),
    moment("claimed_until"),
    moment("sent_at"),
    moment("handled_at"),
    count("attempts"),
    Column("last_error", Text),
    Column("attributes", JSONB(none_as_null=True)),  # message attributes: text by name
    created_at(),
    UniqueConstraint("dedup_key"),
    Index("ix_outbox_unsent", "available_at", "id", postgresql_where=text("sent_at IS NULL")),
    Index("ix_outbox_sent_at", "sent_at", postgresql_where=text("sent_at IS NOT NULL")),
    schema="platform",
    comment="Messages written with the state change that caused them, and sent after its commit",
)
