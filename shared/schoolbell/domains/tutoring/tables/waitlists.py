"""Schema ``tutoring``: waiting lists and the seats that are offered on them."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, Uuid, text

from schoolbell.database.tables import created_at, metadata, moment, moment_of_writing, one_of, updated_at, uuid_key
from schoolbell.domains.tutoring.tables import student

waitlists = Table(
    "waitlists",
    metadata,
    uuid_key(),
    Column("teacher_id", Uuid, ForeignKey("tutoring.teachers.id")),
    Column("session_id", Uuid, ForeignKey("tutoring.sessions.id")),  # null for a series
    Column("capacity", Integer, nullable=False, server_default=text("1")),
    Column("offer_window_seconds", Integer, nullable=False, server_default=text("172800")),
    created_at(),
    updated_at(),
    CheckConstraint("capacity >= 0", name="capacity"),
    CheckConstraint("offer_window_seconds > 0", name="offer_window_seconds"),
    schema="tutoring",
)

waitlist_openings = Table(
    "waitlist_openings",
    metadata,
    uuid_key(),
    Column("waitlist_id", Uuid, ForeignKey("tutoring.waitlists.id", ondelete="CASCADE"), nullable=False),
    Column("source", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("seats", Integer, nullable=False),
    created_at(),
    CheckConstraint("seats > 0", name="seats"),
    UniqueConstraint("source"),
    Index("ix_waitlist_openings_waitlist_id", "waitlist_id"),
    schema="tutoring",
    comment="Seats that were opened at a time; source is the message that said so, which counts once",
)

waitlist_seats = Table(
    "waitlist_seats",
    metadata,
    uuid_key(),
    Column("opening_id", Uuid, ForeignKey("tutoring.waitlist_openings.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("waitlist_id", Uuid, ForeignKey("tutoring.waitlists.id", ondelete="CASCADE"), nullable=False),
    Column("status", Text, nullable=False, server_default="open"),
    moment_of_writing("tended_until"),
    created_at(),
    updated_at(),
    one_of("status", "open", "taken", "unfilled", "over_capacity", "passed_on"),
    UniqueConstraint("opening_id", "number"),
    Index("ix_waitlist_seats_open", "tended_until", postgresql_where=text("status = 'open'")),
    Index("ix_waitlist_seats_waitlist_id", "waitlist_id"),
    schema="tutoring",
    comment="A seat on offer; an execution of the cascade looks after an open one until tended_until",
)

waitlist_entries = Table(
    "waitlist_entries",
    metadata,
    uuid_key(),
    Column("waitlist_id", Uuid, ForeignKey("tutoring.waitlists.id"), nullable=False),
    student(),
    Column("position", Integer, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False, server_default="waiting"),
    moment("notified_at"),
    moment("expires_at"),
    Column("task_token", Text),
    Column(
        "seat_id",
        Uuid,
        ForeignKey("tutoring.waitlist_seats.id", ondelete="SET NULL"),
        comment="The seat that was offered; null: not offered yet, or notified by hand",
    ),
    moment("answered_at"),
    created_at(),
    updated_at(),
    one_of("status", "waiting", "notified", "accepted", "declined", "expired", "withdrawn"),
    Index("ix_waitlist_entries_waiting", "waitlist_id", "position", postgresql_where=text("status = 'waiting'")),
    Index("ix_waitlist_entries_notified", "expires_at", postgresql_where=text("status = 'notified'")),
    Index("ix_waitlist_entries_waitlist_id_status", "waitlist_id", "status"),
    Index("ix_waitlist_entries_student_id", "student_id"),
    Index("ix_waitlist_entries_seat_id", "seat_id", postgresql_where=text("seat_id IS NOT NULL")),
    Index(
        "uq_waitlist_entries_seat_id",
        "seat_id",
        unique=True,
        postgresql_where=text("status IN ('notified', 'accepted')"),
    ),
    schema="tutoring",
    comment="A seat has one student at a time, held by uq_waitlist_entries_seat_id",
)

waitlist_answers = Table(
    "waitlist_answers",
    metadata,
    uuid_key(),
    Column("entry_id", Uuid, ForeignKey("tutoring.waitlist_entries.id", ondelete="CASCADE"), nullable=False),
    Column("source", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("answer", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    moment_of_writing("answered_at"),
    created_at(),
    one_of("answer", "accept", "decline"),
    one_of("outcome", "accepted", "declined", "repeated", "refused"),
    UniqueConstraint("source"),
    Index("ix_waitlist_answers_entry_id", "entry_id"),
    schema="tutoring",
    comment="Every answer that arrived and what became of it, also those that came too late; source is its message",
)
