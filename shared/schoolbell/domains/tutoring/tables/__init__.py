"""The tables of the schema `tutoring` by subject: a job that declares only those it needs starts sooner."""

from typing import Any

from sqlalchemy import Column, ForeignKey, Uuid


def teacher() -> Column[Any]:
    """Whose row it is, by ``teacher_id``."""
    return Column("teacher_id", Uuid, ForeignKey("tutoring.teachers.id"), nullable=False)


def student(*, required: bool = True) -> Column[Any]:
    """Whom a row is about, by ``student_id``."""
    return Column("student_id", Uuid, ForeignKey("tutoring.students.id"), nullable=not required)
