"""Lessons' ends and planned messages, with the process ended at every point where it can end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row

from functions.tutoring.message_sweep.app import handler as message_sweep
from functions.tutoring.session_sweep.app import handler as session_sweep
from schoolbell.jobs.outbox import CLAIM
from tests.fakes.one_shots import OneShotWorld
from tests.faults.crash import Crashing, assert_crash_safe
from tests.performing import Invocation, Job, rule_event

WHEN_SENT = frozenset({"outbox.sent_at"})
HOUR = timedelta(hours=1)
UNKNOWN = UUID("5d0e8a1b-3c7f-4f29-9b64-2a8d6c1e0f77")


def test_auto_complete(world: OneShotWorld) -> None:
    student = world.make.student()
    sessions = [
        world.session(-HOUR, student_id=student.id, teacher_id=student.teacher_id, **columns)
        for columns in ({}, {"completion_mode": "PENDING_REVIEW"}, {"status": "cancelled"})
    ]
    sessions += [world.session(HOUR), world.session(timedelta(minutes=5))]
    bodies = [{"session_id": str(each)} for each in (*(session.id for session in sessions), UNKNOWN)]
    points = assert_crash_safe(world.database, _of_queue(world, "auto-complete", bodies), volatile=WHEN_SENT)
    assert len(points) > 10


def test_scheduled_messages(world: OneShotWorld) -> None:
    messages = [world.message(due_in) for due_in in (-HOUR, -HOUR, HOUR)]
    bodies = [{"message_id": str(each)} for each in (*(message.id for message in messages), UNKNOWN)]
    assert_crash_safe(world.database, _of_queue(world, "scheduled-messages", bodies), volatile=WHEN_SENT)


def test_session_events(world: OneShotWorld) -> None:
    new, moved, cancelled, over = world.session(HOUR), world.session(HOUR), world.session(HOUR), world.session(HOUR)
    for session in (moved, cancelled, over):
        world.tell(session, "scheduled")
    world.move(moved, 2 * HOUR)
    world.cancel(cancelled)
    world.move(over, -HOUR)
    events = _events("session", new, moved, cancelled, over)
    assert_crash_safe(world.database, _of_queue(world, "session-events", events), volatile=WHEN_SENT)
    assert set(world.scheduler.schedules) == {world.name(new), world.name(moved)}


def test_message_events(world: OneShotWorld) -> None:
    new, cancelled, over = world.message(HOUR), world.message(HOUR), world.message(-HOUR)
    world.tell(cancelled, "scheduled")
    world.cancel(cancelled)
    events = _events("message", new, cancelled, over)
    assert_crash_safe(world.database, _of_queue(world, "message-events", events), volatile=WHEN_SENT)


@pytest.mark.parametrize(
    ("sweep", "made_by"),
    [(session_sweep, OneShotWorld.session), (message_sweep, OneShotWorld.message)],
    ids=["session-sweep", "message-sweep"],
)
def test_sweeps(world: OneShotWorld, sweep: Job, made_by: Callable[[OneShotWorld, timedelta], Row[Any]]) -> None:
    for due_in in (-HOUR, -2 * HOUR, HOUR, 2 * HOUR):
        made_by(world, due_in)
    event = rule_event(world.clock.now)

    def invoke() -> None:
        """As Lambda tries again: the same event, the same request id."""
        sweep(event, Invocation(aws_request_id="the-same"))

    def recover() -> None:
        invoke()
        with _once_claims_have_expired(world):
            world.settle()

    assert_crash_safe(world.database, _with_outside(world, invoke, recover), volatile=WHEN_SENT)
    assert len(world.scheduler.schedules) == 2


def _of_queue(world: OneShotWorld, queue: str, bodies: list[dict[str, str]]) -> Crashing:
    """A batch of messages, which SQS delivers again when the process ends."""
    ids = [f"m{number}" for number, _ in enumerate(bodies)]

    def recover() -> None:
        assert world.deliver(queue, *bodies, ids=ids, attempt=2) == []
        with _once_claims_have_expired(world):
            world.relay()

    return _with_outside(world, lambda: world.deliver(queue, *bodies, ids=ids), recover)


@contextmanager
def _once_claims_have_expired(world: OneShotWorld) -> Iterator[None]:
    """Later, when the relay may send what a sender that has died had claimed."""
    now = world.clock.now
    world.clock.now = now + 2 * CLAIM
    yield
    world.clock.now = now


def _with_outside(world: OneShotWorld, run: Callable[[], object], recover: Callable[[], object]) -> Crashing:
    schedules = dict(world.scheduler.schedules)

    def outside() -> Any:
        """Schedules and messages; a message that was sent twice counts once, since its consumers take it once."""
        times = {name: schedule["ScheduleExpression"] for name, schedule in world.scheduler.schedules.items()}
        return times, sorted({(message.queue, message.body) for message in world.queues.messages})

    def reset() -> None:
        world.scheduler.schedules = dict(schedules)
        world.queues.messages.clear()

    return Crashing(run, recover, outside, reset)


def _events(kind: str, *rows: Row[Any]) -> list[dict[str, str]]:
    return [{"type": f"{kind}.scheduled", f"{kind}_id": str(row.id)} for row in rows]
