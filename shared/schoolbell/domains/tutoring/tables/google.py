"""Schema ``tutoring``: what is kept in step with Google Calendar and Drive."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from schoolbell.database.tables import created_at, metadata, moment, one_of, personal, updated_at, uuid_key
from schoolbell.domains.tutoring.tables import student, teacher

calendar_connections = Table(
    "calendar_connections",
    metadata,
    uuid_key(),
    teacher(),
    Column("calendar_id", Text, nullable=False, server_default="primary"),
    Column("token_ciphertext", LargeBinary, comment="The OAuth grant, encrypted with the stack's key for this id"),
    Column("secret_id", Text, comment="The secret with the OAuth grant, where there is no ciphertext"),
    Column("status", Text, nullable=False, server_default="active"),  # active, revoked; applications may add theirs
    created_at(),
    updated_at(),
    Index("ix_calendar_connections_teacher_id", "teacher_id"),
    schema="tutoring",
)

session_calendar_sync = Table(
    "session_calendar_sync",
    metadata,
    uuid_key(),
    # No foreign key: a lesson's event must still be deleted when an application has deleted the lesson's row.
    Column("session_id", uuid_key().type, nullable=False),
    teacher(),
    Column("action", Text, nullable=False, server_default="upsert"),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    moment("next_attempt_at"),  # null: at once
    Column("last_error", Text),
    Column("external_event_id", Text),
    Column("claimed_by", Uuid, comment="The run that is at it, until claimed_until"),
    moment("claimed_until"),
    Column("sequence", BigInteger, Identity(), nullable=False, comment="The order in which the changes were recorded"),
    created_at(),
    updated_at(),
    one_of("action", "upsert", "delete"),
    one_of("status", "pending", "synced", "failed"),
    Index("ix_session_calendar_sync_pending", "created_at", "sequence", postgresql_where=text("status = 'pending'")),
    Index("ix_session_calendar_sync_session_id", "session_id", "sequence"),
    Index("ix_session_calendar_sync_teacher_id", "teacher_id"),
    schema="tutoring",
    comment="A change of a lesson that its Google Calendar event must follow",
)

drive_resources = Table(
    "drive_resources",
    metadata,
    uuid_key(),
    teacher(),
    Column("drive_file_id", Text, nullable=False),
    Column("name", Text),
    created_at(),
    updated_at(),
    Index("ix_drive_resources_teacher_id", "teacher_id"),
    schema="tutoring",
)

drive_file_copies = Table(
    "drive_file_copies",
    metadata,
    uuid_key(),
    Column("resource_id", Uuid, ForeignKey("tutoring.drive_resources.id"), nullable=False),
    student(),
    Column("copied_file_id", Text, info=personal()),
    Column("status", Text, nullable=False, server_default="pending"),
    moment("verified_at"),
    Column("last_error", Text),
    Column("claimed_by", Uuid, comment="The run that is at it, until claimed_until"),
    moment("claimed_until"),
    created_at(),
    updated_at(),
    one_of("status", "pending", "copied", "failed", "trashed", "deleted"),
    UniqueConstraint("resource_id", "student_id"),
    Index("ix_drive_file_copies_student_id", "student_id"),
    schema="tutoring",
)
