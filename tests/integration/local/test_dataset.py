"""What the benchmarks scan is consistent, and leaves the tables as the migrations made them."""

from datetime import datetime

from sqlalchemy import func, select, text

from benchmarks.dataset import LESSONS_OF_A_STUDENT, fill
from schoolbell.database import Database
from schoolbell.database.tables import all_tables
from schoolbell.domains import DOMAINS
from schoolbell.domains.tutoring import schema as tutoring
from tests.fixtures.database import Stored

STUDENTS = 300

KEYS_AND_INDEXES = text("""
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace::regnamespace::text = ANY(:domains)
UNION ALL
SELECT schemaname || '.' || tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = ANY(:domains)
""")


def schema(database: Database) -> set[tuple[str, ...]]:
    with database.transaction() as connection:
        return {tuple(row) for row in connection.execute(KEYS_AND_INDEXES, {"domains": list(DOMAINS)})}


def test_a_filled_database_has_the_keys_and_indexes_that_it_had(database: Database, now: datetime) -> None:
    before = schema(database)
    fill(database, STUDENTS, now)
    assert schema(database) == before


def test_filling_again_replaces_what_is_there(database: Database, stored: Stored, now: datetime) -> None:
    fill(database, STUDENTS, now)
    fill(database, STUDENTS // 3, now)
    assert len(stored(tutoring.students)) == STUDENTS // 3
    assert len(stored(tutoring.sessions)) == STUDENTS // 3 * LESSONS_OF_A_STUDENT


def test_every_foreign_key_is_kept(database: Database, now: datetime) -> None:
    fill(database, STUDENTS, now)
    with database.transaction() as connection:
        for table in all_tables():
            for key in table.foreign_keys:
                orphans = select(func.count()).where(
                    key.parent.is_not(None),
                    ~select(key.column).where(key.column == key.parent).correlate(table).exists(),
                )
                assert connection.scalar(orphans.select_from(table)) == 0, f"{key.parent} refers to nothing"


def test_lessons_to_come_are_scheduled_and_those_before_are_not(database: Database, now: datetime) -> None:
    fill(database, STUDENTS, now)
    wrong = select(func.count()).where(
        (tutoring.sessions.c.status == "scheduled") != (tutoring.sessions.c.starts_at > now)
    )
    with database.transaction() as connection:
        assert connection.scalar(wrong) == 0
