"""Schema ``platform``: why messages could not be handled."""

from sqlalchemy import Column, Index, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.tables import (
    MENTION,
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

dead_letters = Table(
    "dead_letters",
    metadata,
    uuid_key(),
    Column("job", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("message_id", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    # The message's body as it came, which need not be JSON, and must be the same to the letter when it is redriven.
    Column("payload", Text, info=personal()),
    Column("attributes", JSONB(none_as_null=True), info=personal()),
    count("attempts"),
    Column("reason", Text, nullable=False, server_default="unknown"),
    Column("error", Text, info=personal()),
    Column("traceback", Text, info=personal()),
    moment_of_writing("dead_at"),
    moment("resolved_at"),
    Column("resolution", Text),
    Column("resolved_by", Text),
    moment("last_seen_at"),  # when the sweep last found the message on its dead-letter queue
    created_at(),
    updated_at(),
    one_of("reason", "failed", "discarded", "timed_out", "unknown"),
    one_of("resolution", "redriven", "dropped"),
    UniqueConstraint("queue", "message_id"),
    Index("ix_dead_letters_unresolved", "job", "dead_at", postgresql_where=text("resolved_at IS NULL")),
    Index("ix_dead_letters_resolved_at", "resolved_at", postgresql_where=text("resolved_at IS NOT NULL")),
    schema="platform",
    info={"student": MENTION},
    comment="Why a message is on its dead-letter queue",
)
