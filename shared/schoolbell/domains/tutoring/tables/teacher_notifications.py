"""Schema ``tutoring``: what teachers are told."""

from sqlalchemy import Column, Index, Table, Text, UniqueConstraint, text

from schoolbell.database.tables import created_at, metadata, moment, personal, updated_at, uuid_key
from schoolbell.domains.tutoring.tables import student, teacher

teacher_notifications = Table(
    "teacher_notifications",
    metadata,
    uuid_key(),
    teacher(),
    student(required=False),  # whom it is about, so that erasing the student finds it whatever its subject is
    Column("kind", Text, nullable=False),
    Column("subject_id", uuid_key().type),
    Column("dedup_key", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
    Column("title", Text, nullable=False, server_default="", info=personal("")),
    Column("body", Text, info=personal()),
    moment("read_at"),
    created_at(),
    updated_at(),
    UniqueConstraint("dedup_key"),
    Index("ix_teacher_notifications_teacher_id_created_at", "teacher_id", "created_at"),
    Index("ix_teacher_notifications_student_id", "student_id", postgresql_where=text("student_id IS NOT NULL")),
    Index("ix_teacher_notifications_subject_id", "subject_id"),
    schema="tutoring",
    info={"student": ("student_id", "subject_id")},
)
