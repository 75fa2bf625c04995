"""What all declarations of tables have in common: the metadata, and columns that many tables have.

Each table is declared once, in SQLAlchemy Core, in its domain's `tables/`; the migrations are generated from these
declarations. A module holds the tables of one subject, since a job that declares only those it needs starts sooner, and
`schema` of a domain has them all. A column with a foreign key names its type too, for the table that it refers to may
not be there to tell.

**Rows written by hand.** Applications and operators write rows too, naming only the columns that the design documents.
So every other column is nullable or has a default that the database knows, statuses are plain text held by CHECK
constraints, and `updated_at` is kept by a trigger (a statement that sets `updated_at` itself is left alone).

**Personal data.** A column that holds, or may hold, a personal datum of a student carries `info=personal(...)`:

* `column.info["personal"]` is what the column is set to when the student is erased: `None` for NULL, else the value.
* `table.info["student"]` names the columns that say whose row it is, any of which may hold the student's id, as a
  UUID or as text. Without it, `student_id` does. `MENTION` instead of names means that no column does: the row belongs
  to every student whose id occurs in one of its personal columns.

`personal_columns()` takes the list from the declarations, for the retention job and for the test that no column was
forgotten. Payloads, results and errors of jobs hold ids only, by rule, and are not listed; those of a dead letter are,
since they hold whatever somebody dropped on the queue.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from sqlalchemy import CheckConstraint, Column, DateTime, Integer, MetaData, Table, Uuid, func, text

from schoolbell.domains import DOMAINS

MENTION: Final = "mention"
ERASED_NAME: Final = "Erased student"
ERASED_RECIPIENT: Final = "erased"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def uuid_key() -> Column[Any]:
    """The primary key ``id``, a random UUID unless the writer brings one."""
    return Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid())


def count(name: str) -> Column[Any]:
    """A number of things, none at first."""
    return Column(name, Integer, nullable=False, server_default=text("0"))


def moment(name: str, *, required: bool = False) -> Column[Any]:
    """A ``timestamptz``; nullable unless required."""
    return Column(name, DateTime(timezone=True), nullable=not required)


def moment_of_writing(name: str) -> Column[Any]:
    """A ``timestamptz`` that is the time of the INSERT unless the writer brings one."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


def created_at() -> Column[Any]:
    return moment_of_writing("created_at")


def updated_at() -> Column[Any]:
    """Kept by the trigger ``touch`` that the migrations put on every table with this column."""
    return moment_of_writing("updated_at")


def one_of(column: str, *values: str) -> CheckConstraint:
    """A CHECK that a text column holds one of these values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(text(f'"{column}" IN ({listed})'), name=column)


def personal(replacement: str | None = None) -> dict[str, Any]:
    """The ``info`` of a column with a personal datum, and what stands there once the student is erased."""
    return {"personal": replacement}


def all_tables() -> list[Table]:
    """Every table of every domain, each after those that it refers to."""
    for domain in DOMAINS:
        import_module(f"schoolbell.domains.{domain}.schema")
    return metadata.sorted_tables


def personal_columns() -> Iterator[Column[Any]]:
    """Every column of every table that holds a personal datum of a student."""
    for table in all_tables():
        yield from (column for column in table.columns if "personal" in column.info)


def student_columns(table: Table) -> tuple[str, ...]:
    """The columns of a table that say which student a row is about; none where a mention in the row does."""
    named = table.info.get("student", ("student_id",))
    return () if named == MENTION else tuple(named)
