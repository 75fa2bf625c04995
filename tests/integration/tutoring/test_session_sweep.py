"""What lost or late schedules leave over, the sweep mends: overdue lessons, and lessons to come with no schedule."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from functions.tutoring.session_sweep.app import handler
from schoolbell.domains.platform.schema import job_runs, outbox
from schoolbell.domains.tutoring import one_shots
from schoolbell.domains.tutoring.schema import credit_ledger, sessions, teacher_notifications
from tests.fakes.one_shots import OneShotWorld
from tests.fixtures.database import Stored
from tests.performing import Invocation

HOUR = timedelta(hours=1)
FAR_AHEAD = ("20260-03-02 10:00+00", "9999-12-31 23:59:59+00", "infinity")
EVENT = Path(__file__).parents[3] / "events/tutoring/session_sweep.json"


def test_an_overdue_lesson_is_completed_as_if_its_schedule_had_gone_off(world: OneShotWorld, stored: Stored) -> None:
    auto = world.session(-HOUR, credit_cost=3)
    review = world.session(-HOUR, completion_mode="PENDING_REVIEW")
    assert world.sweep() == {"completed": 1, "pending_review": 1, "asked_for": 0}

    assert (world.status(auto), world.status(review)) == ("completed", "pending_review")
    assert [(entry.session_id, entry.amount) for entry in stored(credit_ledger)] == [(auto.id, -3)]
    assert [told.subject_id for told in stored(teacher_notifications)] == [review.id]


def test_a_lesson_that_is_not_due_or_not_scheduled_is_left_alone(world: OneShotWorld, stored: Stored) -> None:
    untouched = [world.session(timedelta(seconds=1)), world.session(-HOUR, status="cancelled")]
    world.write(sessions, untouched[0].id, scheduled_for=untouched[0].due_at)
    before = [world.now_in_database(each) for each in untouched]
    assert world.sweep() == {"completed": 0, "pending_review": 0, "asked_for": 0}

    assert [world.now_in_database(each) for each in untouched] == before
    assert not stored(credit_ledger)


def test_a_lesson_that_rings_after_it_was_swept_consumes_no_second_credit(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(HOUR)
    world.tell(session, "scheduled")
    world.clock.now += HOUR
    world.sweep()
    world.settle()
    assert len(stored(credit_ledger)) == 1


def test_a_lesson_whose_schedule_was_lost_is_completed_by_the_next_sweep(world: OneShotWorld) -> None:
    session = world.session(HOUR)
    world.tell(session, "scheduled")
    world.scheduler.schedules.clear()
    world.pass_time(HOUR)
    assert world.status(session) == "scheduled"
    world.sweep()
    assert world.status(session) == "completed"


def test_a_lesson_to_come_with_no_schedule_gets_one(world: OneShotWorld) -> None:
    session = world.session(5 * HOUR)
    assert world.sweep()["asked_for"] == 1
    world.settle()
    assert world.scheduled(session) == session.due_at


def test_a_lesson_to_come_with_a_schedule_at_another_time_gets_the_right_one(world: OneShotWorld) -> None:
    session = world.session(5 * HOUR)
    world.tell(session, "scheduled")
    world.move(session, 2 * HOUR)  # and the event gets lost
    world.sweep()
    world.settle()
    assert world.scheduled(session) == world.clock.now + 2 * HOUR


def test_a_lesson_to_come_with_its_schedule_is_left_alone(world: OneShotWorld) -> None:
    session = world.session(5 * HOUR)
    world.tell(session, "scheduled")
    assert world.sweep()["asked_for"] == 0
    assert world.calls(session) == ["create"]


@pytest.mark.parametrize("status", ["cancelled", "completed", "no_show"])
def test_a_lesson_to_come_that_is_not_scheduled_gets_no_schedule(world: OneShotWorld, status: str) -> None:
    world.session(5 * HOUR, status=status)
    assert world.sweep()["asked_for"] == 0


@pytest.mark.parametrize("time", FAR_AHEAD)
def test_a_lesson_with_a_slip_in_its_year_holds_up_no_other(world: OneShotWorld, time: str) -> None:
    slip, other = world.session(5 * HOUR), world.session(5 * HOUR)
    world.write(sessions, slip.id, ends_at=text(f"'{time}'"))
    assert world.sweep()["asked_for"] == 1
    world.settle()
    assert world.scheduled(slip) is None
    assert world.scheduled(other) == other.due_at


def test_a_schedule_is_asked_for_once_an_hour(world: OneShotWorld) -> None:
    """Setting hundreds of thousands takes longer than the time between two sweeps."""
    world.session(50 * HOUR)
    asked = []
    for _ in range(8):
        asked.append(world.sweep()["asked_for"])
        world.clock.now += timedelta(minutes=15)
    assert asked == [1, 0, 0, 0, 1, 0, 0, 0]


def test_more_than_a_chunk_is_swept_in_chunks(
    world: OneShotWorld, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_shots, "CHUNK", 3)
    overdue = [world.session(-HOUR) for _ in range(7)]
    to_come = [world.session(HOUR) for _ in range(8)]  # all at the same time, so that chunks end within it
    assert world.sweep() == {"completed": 7, "pending_review": 0, "asked_for": 8}

    assert {world.status(each) for each in overdue} == {"completed"}
    assert len(stored(outbox)) == 8
    world.settle()
    assert all(world.scheduled(each) == each.due_at for each in to_come)


def test_a_sweep_that_is_killed_goes_on_from_its_last_chunk(
    world: OneShotWorld, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_shots, "CHUNK", 2)
    to_come = [world.session(HOUR * n) for n in range(1, 7)]
    steps = iter(range(2))
    send_from = _killed_when(monkeypatch, lambda: next(steps))
    event = _rule_event(world.clock.now)
    with pytest.raises(Exception, match="killed"):
        handler(event, Invocation(aws_request_id="r1"))
    assert len(stored(outbox)) == 4

    monkeypatch.setattr(one_shots, "_send", send_from)
    assert handler(event, Invocation(aws_request_id="r1"))["result"]["asked_for"] == 6
    world.settle()
    assert all(world.scheduled(each) == each.due_at for each in to_come)


def test_a_sweep_with_too_little_time_left_hands_the_rest_on(
    world: OneShotWorld, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_shots, "CHUNK", 2)
    for _ in range(5):
        world.session(-HOUR)
    left = iter([600, 600, 600, 50, 50, 50, 50])
    invocation = Invocation(remaining=lambda: timedelta(seconds=next(left)))
    assert handler({}, invocation)["status"] == "continued"
    assert len(stored(sessions, status="completed")) < 5
    (row,) = (row for row in stored(outbox) if row.destination.startswith("function/"))

    handler(row.payload, Invocation())
    assert len(stored(sessions, status="completed")) == 5
    assert stored(job_runs)[0].result["completed"] == 5


def test_an_occurrence_that_is_delivered_twice_is_one_run(world: OneShotWorld, stored: Stored) -> None:
    world.session(-HOUR)
    event = _rule_event(world.clock.now)
    assert handler(event, Invocation())["result"]["completed"] == 1
    assert handler(event, Invocation())["status"] == "skipped"
    assert len(stored(job_runs)) == 1


@pytest.mark.parametrize("look", [one_shots.overdue, one_shots.unscheduled])
def test_its_queries_read_what_they_are_after_and_no_more(world: OneShotWorld, look: Callable[..., list[Any]]) -> None:
    """Among forty thousand lessons that need nothing, past and to come."""
    with world.database.transaction() as connection:
        connection.execute(_MANY, {"now": world.clock.now})
    with world.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE tutoring.sessions"))
    for due_in in (-2 * HOUR, -HOUR, HOUR, 2 * HOUR):
        world.session(due_in)
    with world.database.transaction() as connection:
        before = _rows_read(connection)
        assert len(look(connection, one_shots.SESSION_ENDS, world.clock.now)) == 2
        assert _rows_read(connection) - before == 2


def test_its_event_file_is_understood(world: OneShotWorld) -> None:
    session = world.session(-HOUR)
    assert handler(json.loads(EVENT.read_text()), Invocation())["status"] == "completed"
    assert world.status(session) == "completed"


_MANY = text(
    """
    WITH teacher AS (INSERT INTO tutoring.teachers (name) VALUES ('Busy') RETURNING id),
    student AS (
        INSERT INTO tutoring.students (teacher_id, name) SELECT id, 'Keen' FROM teacher RETURNING id, teacher_id
    )
    INSERT INTO tutoring.sessions
        (teacher_id, student_id, starts_at, ends_at, grace_period_minutes, status, scheduled_for)
    SELECT teacher_id, id, due, due, 0, CASE WHEN n <= 0 THEN 'completed' ELSE 'scheduled' END, due
    FROM student, generate_series(-20000, 20000) n,
         LATERAL (SELECT cast(:now AS timestamptz) + n * interval '1 minute' AS due) AS at
    """
)


def _rows_read(connection: Connection) -> int:
    """Rows of sessions read so far, by whatever way; earlier transactions count until their statistics are flushed."""
    read = text(
        """
        SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
        WHERE relid = 'tutoring.sessions'::regclass
        """
    )
    return int(connection.execute(read).scalar_one())


def _rule_event(at: datetime) -> dict[str, Any]:
    return {"source": "aws.events", "detail-type": "Scheduled Event", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}


def _killed_when(monkeypatch: pytest.MonkeyPatch, step: Any) -> Any:
    """Kills the sweep when `step` has no more to give; returns what stood there before."""
    original = one_shots._send

    def send(*arguments: Any) -> int:
        try:
            step()
        except StopIteration:
            raise RuntimeError("killed") from None
        return original(*arguments)

    monkeypatch.setattr(one_shots, "_send", send)
    return original
