"""Schema ``tutoring``: teachers and their students."""

from types import MappingProxyType

from sqlalchemy import CheckConstraint, Column, Date, ForeignKey, Index, Integer, Table, Text, Uuid, text

from schoolbell.database.tables import (
    ERASED_NAME,
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

RETENTION_DEFAULTS = MappingProxyType(
    {
        "gap_days": 14,
        "churn_days": 30,
        "expiring_days": 14,
        "streak_weeks": 4,
        "inactive_student_days": 730,
        "session_content_days": 365,
        "contact_log_days": 365,
        "erasure_due_days": 30,
    }
)
"""What holds for a teacher who has no row in ``retention_settings``."""

teachers = Table(
    "teachers",
    metadata,
    uuid_key(),
    Column("name", Text, nullable=False),
    Column("email", Text),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    created_at(),
    updated_at(),
    schema="tutoring",
)

retention_settings = Table(
    "retention_settings",
    metadata,
    Column("teacher_id", Uuid, ForeignKey("tutoring.teachers.id", ondelete="CASCADE"), primary_key=True),
    *(Column(name, Integer, nullable=False, server_default=text(str(n))) for name, n in RETENTION_DEFAULTS.items()),
    created_at(),
    updated_at(),
    *(CheckConstraint(f"{name} > 0", name=name) for name in RETENTION_DEFAULTS),
    schema="tutoring",
    comment="A teacher's own thresholds; RETENTION_DEFAULTS where there is no row",
)

students = Table(
    "students",
    metadata,
    uuid_key(),
    teacher(),
    Column("name", Text, nullable=False, info=personal(ERASED_NAME)),
    Column("email", Text, info=personal()),
    Column("phone", Text, info=personal()),
    Column("status", Text, nullable=False, server_default="active"),
    moment("last_activity_at"),
    Column("drive_folder_id", Text, info=personal()),
    moment("erased_at"),
    created_at(),
    updated_at(),
    one_of("status", "active", "inactive", "erased"),
    Index("ix_students_teacher_id", "teacher_id"),
    Index(
        "ix_students_unerased",
        text("COALESCE(last_activity_at, created_at)"),
        "id",
        postgresql_where=text("status <> 'erased'"),
    ),
    Index("ix_students_erased_at", "erased_at", "id", postgresql_where=text("erased_at IS NOT NULL")),
    schema="tutoring",
    info={"student": ("id",)},
    comment="The row of an erased student stays: its id is the pseudonym of the ledger",
)

enrollments = Table(
    "enrollments",
    metadata,
    uuid_key(),
    student(),
    Column("starts_on", Date, nullable=False),
    Column("ends_on", Date),
    Column("status", Text, nullable=False, server_default="active"),
    created_at(),
    updated_at(),
    Index("ix_enrollments_student_id_ends_on", "student_id", "ends_on", postgresql_include=["status", "id"]),
    schema="tutoring",
)

erasure_requests = Table(
    "erasure_requests",
    metadata,
    uuid_key(),
    student(),
    moment_of_writing("requested_at"),
    moment("due_at"),  # null: requested_at + the teacher's erasure_due_days
    Column("status", Text, nullable=False, server_default="open"),
    moment("completed_at"),
    moment("alerted_at"),
    created_at(),
    updated_at(),
    one_of("status", "open", "done"),
    Index("ix_erasure_requests_open", "due_at", postgresql_where=text("status = 'open'")),
    Index("ix_erasure_requests_student_id", "student_id"),
    schema="tutoring",
)
