"""The term that the demo loads is believable, and the same for the same seed."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from local.generator import Term, load, term
from schoolbell.database import Database
from schoolbell.domains.tutoring import schema as tutoring

NOW = datetime(2026, 3, 2, 10, 7, tzinfo=UTC)
LAST_HOUR = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def small(seed: int = 1, now: datetime = NOW) -> Term:
    return term(seed, teachers=20, students=200, sessions=2_000, now=now)


def test_the_same_seed_makes_the_same_rows() -> None:
    assert small().rows == small().rows
    assert small().rows != small(seed=2).rows


def test_it_has_as_many_as_were_asked_for() -> None:
    counts = small().counts()
    assert (counts["teachers"], counts["students"], counts["sessions"]) == (20, 200, 2_000)


def test_one_lesson_in_twenty_ended_at_the_last_full_hour_and_is_due() -> None:
    made = small()
    ended = [row for row in made.rows[tutoring.sessions] if row["ends_at"] == LAST_HOUR]
    assert 100 <= len(ended) <= 110
    assert {row["id"] for row in ended} == set(made.just_ended)
    for row in ended:
        assert row["status"] == "scheduled"
        assert row["ends_at"] + timedelta(minutes=row["grace_period_minutes"]) <= NOW


@pytest.mark.parametrize("hour", range(0, 24, 3))
def test_at_any_hour_some_lessons_have_just_ended(hour: int) -> None:
    made = small(now=NOW.replace(hour=hour))
    assert len(made.just_ended) >= 100


def test_only_lessons_to_come_and_those_just_ended_are_scheduled() -> None:
    for row in small().rows[tutoring.sessions]:
        assert (row["status"] == "scheduled") <= (row["ends_at"] >= LAST_HOUR)
        assert (row["status"] == "completed") <= (row["ends_at"] < LAST_HOUR)


def test_teachers_live_on_both_sides_of_the_atlantic() -> None:
    zones = {row["timezone"].split("/")[0] for row in small().rows[tutoring.teachers]}
    assert zones == {"Europe", "America"}


def test_too_few_sessions_for_the_students_is_refused() -> None:
    with pytest.raises(ValueError, match="teachers <= students <= sessions"):
        term(1, teachers=2, students=10, sessions=9, now=NOW)


def test_it_loads_once_however_often(database: Database) -> None:
    made = small()
    assert load(database, made) == made.counts()
    assert sum(load(database, made).values()) == 0


def test_nobody_has_spent_more_than_they_bought(database: Database) -> None:
    load(database, small())
    with database.transaction() as connection:
        in_debt = connection.scalar(
            text(
                "SELECT count(*) FROM (SELECT FROM tutoring.credit_ledger GROUP BY student_id HAVING sum(amount) < 0) x"
            )
        )
        consumed, completed = connection.execute(
            text(
                "SELECT (SELECT count(*) FROM tutoring.credit_ledger WHERE kind = 'CONSUME'),"
                " (SELECT count(*) FROM tutoring.sessions WHERE status = 'completed')"
            )
        ).one()
    assert in_debt == 0
    assert consumed == completed > 0
