"""The end of a lesson: completed once and its credit consumed once, whatever rings for it and how often."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, event, func, select, text

from schoolbell.database import Database
from schoolbell.domains.platform.schema import job_runs
from schoolbell.domains.tutoring.schema import credit_ledger, sessions, teacher_notifications
from schoolbell.domains.tutoring.sessions import complete
from tests.fakes.one_shots import OneShotWorld
from tests.fixtures.database import Stored

OVER = timedelta(minutes=-1)
LATER = timedelta(hours=2)
_ROWS_SCANNED = text(
    "SELECT coalesce(seq_tup_read, 0) FROM pg_stat_xact_user_tables WHERE relid = 'tutoring.sessions'::regclass"
)
_DEADLOCKS = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
_WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
_MANY = text(
    """
    INSERT INTO tutoring.sessions (teacher_id, student_id, starts_at, ends_at)
    SELECT :teacher, :student, :over, :over FROM generate_series(1, :count)
    RETURNING id::text
    """
)
ID = "5d0e8a1b-3c7f-4f29-9b64-2a8d6c1e0f77"
EVENT = Path(__file__).parents[3] / "events/tutoring/auto_complete.json"


def test_a_lesson_that_is_over_is_completed_and_its_credits_are_consumed(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER, credit_cost=2)
    assert world.ring(session) == []

    after = world.now_in_database(session)
    assert (after.status, after.completed_at) == ("completed", world.clock.now)
    (entry,) = stored(credit_ledger)
    assert (entry.kind, entry.amount) == ("CONSUME", -2)
    assert (entry.session_id, entry.student_id) == (session.id, session.student_id)
    assert not stored(teacher_notifications)


def test_a_lesson_that_is_over_has_no_schedule_any_more(world: OneShotWorld) -> None:
    lessons = [world.session(LATER, completion_mode=mode) for mode in ("AUTO_COMPLETE", "PENDING_REVIEW")]
    for lesson in lessons:
        world.tell(lesson, "scheduled")
    world.pass_time(LATER)
    assert [world.now_in_database(lesson).scheduled_for for lesson in lessons] == [None, None]


def test_a_lesson_to_be_reviewed_consumes_nothing_and_its_teacher_is_told(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER, completion_mode="PENDING_REVIEW")
    world.ring(session)

    after = world.now_in_database(session)
    assert (after.status, after.completed_at) == ("pending_review", None)
    assert not stored(credit_ledger)
    (told,) = stored(teacher_notifications)
    assert (told.teacher_id, told.subject_id, told.student_id) == (session.teacher_id, session.id, session.student_id)
    assert told.kind == "session_review"


def test_a_second_delivery_consumes_no_second_credit(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER)
    world.ring(session)
    world.ring(session)
    assert len(stored(credit_ledger)) == 1


def test_a_second_delivery_does_not_tell_the_teacher_again(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER, completion_mode="PENDING_REVIEW")
    world.ring(session)
    world.ring(session)
    assert len(stored(teacher_notifications)) == 1


def test_a_lesson_that_is_twice_in_a_batch_is_completed_once(world: OneShotWorld, stored: Stored) -> None:
    session, other = world.session(OVER), world.session(OVER)
    assert world.ring(session, other, session) == []
    assert len(stored(credit_ledger)) == 2
    assert stored(job_runs)[0].result == {"completed": 2, "pending_review": 0}


def test_a_lesson_that_was_reopened_consumes_no_second_credit(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER)
    world.ring(session)
    world.write(sessions, session.id, status="scheduled", completed_at=None)
    world.ring(session)

    assert world.status(session) == "completed"
    assert len(stored(credit_ledger)) == 1


def test_a_lesson_that_is_reviewed_again_at_another_time_tells_the_teacher_again(
    world: OneShotWorld, stored: Stored
) -> None:
    session = world.session(OVER, completion_mode="PENDING_REVIEW")
    world.ring(session)
    world.write(sessions, session.id, status="scheduled")
    world.move(session, due_in=OVER * 2)
    world.ring(session)
    assert len(stored(teacher_notifications)) == 2


@pytest.mark.parametrize("status", ["cancelled", "no_show", "completed", "pending_review"])
def test_a_lesson_that_is_not_scheduled_is_left_alone(world: OneShotWorld, stored: Stored, status: str) -> None:
    session = world.session(OVER, status=status)
    assert world.ring(session) == []

    assert world.now_in_database(session) == session
    assert not stored(credit_ledger)
    assert not stored(teacher_notifications)
    assert not world.queues.messages


def test_the_grace_period_is_kept(world: OneShotWorld) -> None:
    session = world.make.session(ends_at=world.clock.now - timedelta(minutes=19), grace_period_minutes=20)
    world.ring(session)
    assert world.status(session) == "scheduled"
    world.pass_time(timedelta(minutes=1))
    assert world.status(session) == "completed"


def test_a_lesson_that_was_moved_later_has_its_schedule_set_again(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(LATER)
    assert world.ring(session) == []

    assert world.status(session) == "scheduled"
    assert not stored(credit_ledger)
    assert world.on_queue("session-events") == [{"type": "session.rescheduled", "session_id": str(session.id)}]
    world.settle()
    assert world.scheduled(session) == session.due_at
    world.pass_time(LATER)
    assert world.status(session) == "completed"


def test_a_lesson_that_rings_early_with_a_slip_in_its_year_is_reported(world: OneShotWorld) -> None:
    session = world.session(LATER)
    world.write(sessions, session.id, ends_at=text("'20260-03-02 10:00+00'"))
    assert world.ring(session) == []
    world.settle()
    assert world.dead("session-events") == [f"session_id: session {session.id} is due in the year 9999 or later"]


def test_a_lesson_that_rings_early_in_a_second_message_has_its_schedule_set_again(world: OneShotWorld) -> None:
    session = world.session(LATER)
    for _ in range(2):
        world.ring(session)
        world.settle()
    assert world.calls(session) == ["create", "update"]


def test_an_early_message_that_is_delivered_twice_asks_once(world: OneShotWorld) -> None:
    session = world.session(LATER)
    body = {"session_id": str(session.id)}
    world.deliver("auto-complete", body, ids=["m1"])
    world.deliver("auto-complete", body, ids=["m1"], attempt=2)
    assert len(world.on_queue("session-events")) == 1


def test_a_lesson_that_is_nearly_due_waits_on_the_queue(world: OneShotWorld) -> None:
    """A schedule may go off a moment early by this machine's clock; one at once would be refused."""
    session = world.session(timedelta(seconds=40))
    assert world.ring(session) == []
    assert not world.on_queue("session-events")

    world.pass_time(timedelta(seconds=39))
    assert world.status(session) == "scheduled"
    world.pass_time(timedelta(seconds=1))
    assert world.status(session) == "completed"


def test_an_unknown_lesson_is_discarded_and_takes_no_other_with_it(world: OneShotWorld) -> None:
    session, unknown = world.session(OVER), uuid4()
    failed = world.deliver("auto-complete", {"session_id": str(unknown)}, {"session_id": str(session.id)})

    assert failed == []
    assert world.dead("auto-complete") == [f"session_id: no session {unknown}"]
    assert world.status(session) == "completed"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("what?", "message: Invalid JSON"),
        ("[]", "message: Input should be an object"),
        ("{}", "session_id: Field required"),
        ('{"session_id": "7"}', "session_id: Input should be a valid UUID"),
        (f'{{"session_id": "{ID}", "ends_at": "2026-01-01T00:00:00Z"}}', "ends_at: Extra inputs"),
    ],
)
def test_a_message_that_can_never_pass_is_discarded_with_the_reason(
    world: OneShotWorld, body: str, reason: str
) -> None:
    session = world.session(OVER)
    assert world.deliver("auto-complete", body, {"session_id": str(session.id)}) == []
    (said,) = world.dead("auto-complete")
    assert said.startswith(reason)
    assert world.status(session) == "completed"


def test_one_bad_message_in_ten_thousand_takes_no_other_with_it(world: OneShotWorld) -> None:
    ids = _many_sessions(world, 9_999)
    bodies = [json.dumps({"session_id": each}) for each in ids]
    assert world.deliver("auto-complete", *bodies[:5_000], "{", *bodies[5_000:]) == []

    assert len(world.dead("auto-complete")) == 1
    assert _count(world.database, "completed") == 9_999
    with world.database.transaction() as connection:
        assert connection.scalar(select(func.count()).select_from(credit_ledger)) == 9_999


def test_a_batch_is_as_many_statements_as_one_message(world: OneShotWorld) -> None:
    one, *many = ({"session_id": each} for each in _many_sessions(world, 501))
    with _statements(world.database) as for_one:
        world.deliver("auto-complete", one)
    with _statements(world.database) as for_many:
        world.deliver("auto-complete", *many)
    assert len(for_many) == len(for_one) == 2, for_many  # the completion, and the run's row


def test_a_lesson_that_cannot_be_completed_takes_no_other_with_it_and_nothing_of_it_is_done(
    world: OneShotWorld, stored: Stored
) -> None:
    """The lesson's ledger entry is refused, so its status must not change; the others of the batch go on."""
    *good, poisoned = (world.session(OVER) for _ in range(5))
    with _refused_by_the_ledger(world.database, poisoned.id):
        assert len(world.ring(*good[:2], poisoned, *good[2:])) == 1

    assert world.status(poisoned) == "scheduled"
    assert [world.status(each) for each in good] == ["completed"] * 4
    assert len(stored(credit_ledger)) == 4

    world.ring(poisoned)
    assert world.status(poisoned) == "completed"
    assert len(stored(credit_ledger)) == 5


def test_two_that_complete_the_same_lessons_at_the_same_time_consume_each_credit_once(
    world: OneShotWorld, stored: Stored
) -> None:
    """In opposite orders, so that it would deadlock if it took them in the order of the messages."""
    ids = _many_sessions(world, 600)
    start = Barrier(2)

    def deliver(each: list[str]) -> list[str]:
        start.wait()
        return world.deliver("auto-complete", *({"session_id": session} for session in each))

    deadlocks = _deadlocks(world.database)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(deliver, (ids, ids[::-1]))) == [[], []]

    assert _deadlocks(world.database) == deadlocks
    assert len(stored(credit_ledger)) == 600
    assert _count(world.database, "completed") == 600
    assert sum(run.result["completed"] for run in stored(job_runs)) == 600


def test_lessons_are_taken_in_one_order_whatever_the_order_of_the_messages(world: OneShotWorld) -> None:
    """Else one batch could hold what another waits for, and wait for what that holds."""
    first, *others = sorted(_large_table(world)[:30])

    def complete_all() -> int:
        with world.database.transaction() as connection:
            return complete(connection, [*others, first], world.clock.now).completed

    with ThreadPoolExecutor(1) as threads:
        with world.database.transaction() as connection:
            complete(connection, [first], world.clock.now)
            completing = threads.submit(complete_all)
            _wait_until_somebody_waits(connection)
            assert complete(connection, others, world.clock.now).completed == 29
        assert completing.result() == 0


@pytest.mark.parametrize("change", ["moved", "cancelled"])
def test_a_change_that_commits_while_the_batch_waits_for_it_is_respected(
    world: OneShotWorld, stored: Stored, change: str
) -> None:
    session = world.session(OVER)
    columns = {"moved": "ends_at = ends_at + interval '5 hours'", "cancelled": "status = 'cancelled'"}
    with ThreadPoolExecutor(1) as threads:
        with world.database.transaction() as connection:
            connection.execute(text(f"UPDATE tutoring.sessions SET {columns[change]}"))
            ringing = threads.submit(world.ring, session)
            _wait_until_somebody_waits(connection)
        assert ringing.result() == []

    assert world.status(session) == {"moved": "scheduled", "cancelled": "cancelled"}[change]
    assert not stored(credit_ledger)


def test_the_row_says_when_it_was_completed_by_the_jobs_own_clock(world: OneShotWorld, stored: Stored) -> None:
    session = world.session(OVER)
    world.ring(session)
    assert stored(credit_ledger)[0].created_at == world.now_in_database(session).updated_at == world.clock.now


def test_completion_finds_its_lessons_by_their_key(world: OneShotWorld) -> None:
    """However many there are: a scan of the table for each batch would not do."""
    ids = _large_table(world)
    with world.database.transaction() as connection:
        before = connection.scalar(_ROWS_SCANNED)
        assert complete(connection, ids[:100], world.clock.now).completed == 100
        assert connection.scalar(_ROWS_SCANNED) == before


def test_its_event_file_is_understood(world: OneShotWorld) -> None:
    (record,) = json.loads(EVENT.read_text())["Records"]
    (session_id,) = json.loads(record["body"]).values()
    world.make.session(id=session_id)
    world.deliver("auto-complete", record["body"])
    assert _count(world.database, "completed") == 1


def _many_sessions(world: OneShotWorld, count: int) -> list[str]:
    """Lessons that are over, of one student."""
    student = world.make.student()
    lesson = {
        "teacher": student.teacher_id,
        "student": student.id,
        "over": world.clock.now - timedelta(hours=2),
        "count": count,
    }
    with world.database.transaction() as connection:
        return list(connection.execute(_MANY, lesson).scalars())


def _large_table(world: OneShotWorld) -> list[UUID]:
    """Forty thousand lessons that are over, and a planner that knows it; their ids."""
    ids = [UUID(each) for each in _many_sessions(world, 40_000)]
    with world.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE tutoring.sessions"))
    return ids


def _count(database: Database, status: str) -> int:
    with database.transaction() as connection:
        found = connection.scalar(select(func.count()).select_from(sessions).where(sessions.c.status == status))
    return int(found or 0)


@contextmanager
def _statements(database: Database) -> Iterator[list[str]]:
    """The statements that are executed meanwhile, those of the runtime's connection check left out."""
    seen: list[str] = []

    def remember(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement != "SELECT 1":
            seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", remember)
    yield seen
    event.remove(database.engine, "before_cursor_execute", remember)


@contextmanager
def _refused_by_the_ledger(database: Database, session: UUID) -> Iterator[None]:
    refusal = f"ADD CONSTRAINT refused CHECK (session_id <> '{session}') NOT VALID"
    _execute(database, f"ALTER TABLE tutoring.credit_ledger {refusal}")
    try:
        yield
    finally:
        _execute(database, "ALTER TABLE tutoring.credit_ledger DROP CONSTRAINT refused")


def _execute(database: Database, statement: str) -> None:
    with database.transaction() as connection:
        connection.execute(text(statement))


def _deadlocks(database: Database) -> int:
    with database.transaction() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        return int(connection.execute(_DEADLOCKS).scalar_one())


def _wait_until_somebody_waits(connection: Connection) -> None:
    while not connection.scalar(_WAITING):
        connection.execute(text("SELECT pg_sleep(0.01), pg_stat_clear_snapshot()"))
