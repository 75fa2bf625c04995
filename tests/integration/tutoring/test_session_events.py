"""A lesson's schedule matches the lesson's row, whatever events come, in whatever order, and at the same time."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier, Event, get_ident
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from functions.tutoring.session_events.app import handler
from schoolbell import aws as clients
from schoolbell.domains.platform.schema import job_runs
from schoolbell.domains.tutoring.one_shots import ROUNDS
from schoolbell.domains.tutoring.schema import credit_ledger, sessions
from schoolbell.jobs import one_time_schedules
from schoolbell.jobs.one_time_schedules import OneShot, arrange, expression
from schoolbell.settings import Settings
from tests.factories import Make
from tests.fakes.one_shots import OneShotWorld
from tests.fakes.scheduler import refused
from tests.fixtures.database import Stored
from tests.performing import Performer

HOUR = timedelta(hours=1)
ID = "5d0e8a1b-3c7f-4f29-9b64-2a8d6c1e0f77"
EVENT = Path(__file__).parents[3] / "events/tutoring/session_events.json"
EVENTS = ("scheduled", "rescheduled", "cancelled")


def test_a_scheduled_lesson_gets_a_schedule_at_its_end_and_grace_period(
    world: OneShotWorld, settings: Settings, stored: Stored
) -> None:
    session = world.make.session(ends_at=world.clock.now + HOUR, grace_period_minutes=20)
    assert world.tell(session, "scheduled") == []

    assert world.scheduler.schedules[f"session-{session.id}"] == {
        "Name": f"session-{session.id}",
        "GroupName": "schoolbell",
        "ScheduleExpression": "at(2026-03-02T11:20:00)",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": settings.queue_arn("tutoring.auto-complete"),
            "RoleArn": settings.scheduler_role_arn,
            "Input": f'{{"session_id":"{session.id}"}}',
            "DeadLetterConfig": {"Arn": settings.queue_arn("tutoring.auto-complete") + "-dlq"},
            "RetryPolicy": {"MaximumRetryAttempts": 5, "MaximumEventAgeInSeconds": 3600},
        },
    }
    assert world.now_in_database(session).scheduled_for == session.due_at
    assert stored(job_runs)[0].result == {"scheduled": 1, "unscheduled": 0, "sent": 0}


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["later", "earlier"])
def test_a_moved_lesson_has_its_schedule_moved(world: OneShotWorld, by: timedelta) -> None:
    session = world.session(2 * HOUR)
    world.tell(session, "scheduled")
    world.move(session, 2 * HOUR + by)
    assert world.tell(session, "rescheduled") == []

    assert world.scheduled(session) == world.clock.now + 2 * HOUR + by
    assert world.calls(session) == ["create", "update"]
    world.pass_time(2 * HOUR + by - timedelta(minutes=1))
    assert world.status(session) == "scheduled"
    world.pass_time(timedelta(minutes=1))
    assert world.status(session) == "completed"


def test_a_cancelled_lesson_loses_its_schedule(world: OneShotWorld) -> None:
    session = world.session(HOUR)
    world.tell(session, "scheduled")
    world.cancel(session)
    assert world.tell(session, "cancelled") == []

    assert world.scheduled(session) is None
    assert world.now_in_database(session).scheduled_for is None


def test_the_row_counts_and_not_what_the_event_says(world: OneShotWorld) -> None:
    """Events that come out of order: the last one to come may be the first that was sent."""
    cancelled, moved = world.session(HOUR), world.session(HOUR)
    world.tell(cancelled, "scheduled")
    world.tell(moved, "scheduled")
    world.cancel(cancelled)
    world.move(moved, 3 * HOUR)

    world.tell(cancelled, "cancelled", "rescheduled", "scheduled")
    world.tell(moved, "rescheduled", "scheduled", "cancelled")

    assert world.scheduled(cancelled) is None
    assert world.scheduled(moved) == world.clock.now + 3 * HOUR


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_that_comes_twice_changes_nothing(world: OneShotWorld, kind: str) -> None:
    session = world.session(HOUR)
    world.tell(session, kind)
    assert world.tell(session, kind) == []
    assert world.scheduled(session) == session.due_at


def test_events_of_one_lesson_in_one_batch_are_one_call(world: OneShotWorld) -> None:
    session = world.session(HOUR)
    world.tell(session, *EVENTS, *EVENTS)
    assert world.calls(session) == ["create"]


def test_a_lesson_that_is_moved_to_now_rings_at_once_and_its_schedule_goes(world: OneShotWorld) -> None:
    session = world.session(5 * HOUR)
    world.tell(session, "scheduled")
    world.move(session, -HOUR)
    world.tell(session, "rescheduled")

    assert world.scheduled(session) is None
    assert world.on_queue("auto-complete") == [{"session_id": str(session.id)}]
    world.settle()
    assert world.status(session) == "completed"


def test_a_lesson_that_is_due_within_seconds_rings_once_it_is_due(world: OneShotWorld) -> None:
    """A schedule so soon could have passed by the time it is set, and would be refused."""
    session = world.session(timedelta(seconds=50))
    world.tell(session, "scheduled")
    assert world.scheduled(session) is None

    world.pass_time(timedelta(seconds=49))
    assert world.status(session) == "scheduled"
    world.pass_time(timedelta(seconds=1))
    assert world.status(session) == "completed"


def test_a_second_delivery_of_an_event_rings_no_second_time(world: OneShotWorld) -> None:
    session = world.session(-HOUR)
    body = {"type": "session.scheduled", "session_id": str(session.id)}
    world.deliver("session-events", body, ids=["m1"])
    world.deliver("session-events", body, ids=["m1"], attempt=2)
    assert len(world.on_queue("auto-complete")) == 1


def test_a_lesson_moved_to_the_past_twice_rings_twice(world: OneShotWorld) -> None:
    """The first ring found the lesson moved away again, and is spent."""
    session = world.session(-HOUR)
    world.tell(session, "rescheduled")
    world.move(session, 5 * HOUR)
    world.settle()
    world.move(session, -HOUR)
    world.tell(session, "rescheduled")
    world.settle()
    assert world.status(session) == "completed"


def test_an_unknown_lesson_is_discarded_with_its_schedule_and_takes_no_other_with_it(world: OneShotWorld) -> None:
    session, unknown = world.session(HOUR), uuid4()
    world.scheduler.create_schedule(**_request(f"session-{unknown}", world.clock.now + HOUR))
    events = [{"type": "session.scheduled", "session_id": str(each)} for each in (unknown, session.id)]

    assert world.deliver("session-events", *events) == []
    assert world.dead("session-events") == [f"session_id: no session {unknown}"]
    assert list(world.scheduler.schedules) == [f"session-{session.id}"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"type": "session.moved", "session_id": ID}, "type: Input should be 'session.scheduled'"),
        ({"type": "session.scheduled"}, "session_id: Field required"),
        ({"session_id": ID}, "type: Field required"),
        ({"type": "session.scheduled", "session_id": ID, "at": 5}, "at: Extra inputs are not permitted"),
    ],
)
def test_an_event_that_can_never_pass_is_discarded_with_the_reason(
    world: OneShotWorld, body: dict[str, Any], reason: str
) -> None:
    assert world.deliver("session-events", body) == []
    (said,) = world.dead("session-events")
    assert said.startswith(reason)


@pytest.mark.parametrize("time", ["20260-03-02 10:00+00", "9999-12-31 23:59:59+00", "infinity"])
def test_a_lesson_with_a_slip_in_its_year_is_discarded_and_takes_no_other_with_it(
    world: OneShotWorld, time: str
) -> None:
    slip, other = world.session(HOUR), world.session(HOUR)
    world.tell(slip, "scheduled")
    world.write(sessions, slip.id, ends_at=text(f"'{time}'"))
    events = [{"type": "session.rescheduled", "session_id": str(each.id)} for each in (slip, other)]

    assert world.deliver("session-events", *events) == []
    assert world.dead("session-events") == [f"session_id: session {slip.id} is due in the year 9999 or later"]
    assert (world.scheduled(slip), world.scheduled(other)) == (None, other.due_at)


@pytest.mark.parametrize("time", ["0202-03-02 10:00+00", "0044-03-15 10:00+00 BC", "-infinity"])
def test_a_lesson_of_the_distant_past_rings_at_once(world: OneShotWorld, time: str) -> None:
    session = world.session(HOUR)
    world.write(sessions, session.id, starts_at=text(f"'{time}'"), ends_at=text(f"'{time}'"))
    world.tell(session, "scheduled")
    world.settle()
    assert world.status(session) == "completed"


# EventBridge Scheduler refuses


def test_throttled_events_wait_without_counting_an_attempt_and_the_others_are_done(world: OneShotWorld) -> None:
    sessions = [world.session(HOUR) for _ in range(5)]
    throttled = sessions[2]

    def throttle(operation: str, name: str) -> None:
        if name == world.name(throttled):
            raise refused(operation, "ThrottlingException", "Rate exceeded")

    world.scheduler.before = throttle
    events = [{"type": "session.scheduled", "session_id": str(each.id)} for each in sessions]
    assert world.deliver("session-events", *events) == []

    assert [world.scheduled(each) is None for each in sessions] == [False, False, True, False, False]
    assert world.now_in_database(throttled).scheduled_for is None
    world.scheduler.before = lambda operation, name: None
    world.pass_time(timedelta(minutes=1))
    assert world.scheduled(throttled) == throttled.due_at


def test_an_event_whose_schedule_is_refused_fails_alone(world: OneShotWorld) -> None:
    good, bad = world.session(HOUR), world.session(HOUR)

    def refuse(operation: str, name: str) -> None:
        if name == world.name(bad):
            raise refused(operation, "AccessDeniedException", "not authorized to perform iam:PassRole")

    world.scheduler.before = refuse
    events = [{"type": "session.scheduled", "session_id": str(each.id)} for each in (bad, good)]
    assert world.deliver("session-events", *events, ids=["bad", "good"]) == ["bad"]
    assert world.scheduled(good) == good.due_at
    assert world.now_in_database(bad).scheduled_for is None


def test_a_schedule_that_exists_already_is_replaced(world: OneShotWorld) -> None:
    session = world.session(HOUR)
    world.scheduler.create_schedule(**_request(world.name(session), world.clock.now + 5 * HOUR))
    world.tell(session, "scheduled")
    assert world.scheduled(session) == session.due_at


def test_a_schedule_that_is_gone_is_made_again(world: OneShotWorld) -> None:
    session = world.session(HOUR)
    world.tell(session, "scheduled")
    world.scheduler.schedules.clear()
    world.tell(session, "rescheduled")
    assert world.scheduled(session) == session.due_at


# At the same time


def test_a_lesson_that_is_moved_while_its_schedule_is_set_has_it_set_again(world: OneShotWorld) -> None:
    session = world.session(HOUR)
    world.scheduler.after = _once(lambda: world.move(session, 4 * HOUR))
    world.tell(session, "scheduled")

    assert world.scheduled(session) == world.clock.now + 4 * HOUR
    assert world.now_in_database(session).scheduled_for == world.clock.now + 4 * HOUR


def test_a_lesson_that_is_cancelled_while_its_schedule_is_set_has_none(world: OneShotWorld) -> None:
    session = world.session(HOUR)
    world.scheduler.after = _once(lambda: world.cancel(session))
    world.tell(session, "scheduled")

    assert world.scheduled(session) is None
    assert world.now_in_database(session).scheduled_for is None


def test_a_lesson_that_is_reinstated_while_its_schedule_is_deleted_has_one(world: OneShotWorld) -> None:
    session = world.session(HOUR, status="cancelled")
    world.scheduler.after = _once(lambda: _reinstate(world, session))
    world.tell(session, "cancelled")
    assert world.scheduled(session) == session.due_at


@pytest.mark.parametrize("change", ["later", "earlier", "cancelled", "to now"])
def test_a_slow_handler_does_not_undo_what_a_later_event_did(world: OneShotWorld, change: str) -> None:
    """The first has read the row and is about to set the schedule when the row changes, and the second sets it."""
    session = world.session(3 * HOUR)
    has_read, may_go_on = Event(), Event()
    slow: list[int] = []

    def wait(operation: str, name: str) -> None:
        if slow and get_ident() == slow[0] and not may_go_on.is_set():
            has_read.set()
            assert may_go_on.wait(60)

    def tell_slowly() -> list[str]:
        slow.append(get_ident())
        return world.tell(session, "scheduled")

    world.scheduler.before = wait
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(tell_slowly)
        assert has_read.wait(60)
        match change:
            case "cancelled":
                world.cancel(session)
            case _:
                world.move(session, {"later": 5 * HOUR, "earlier": HOUR, "to now": -HOUR}[change])
        assert world.tell(session, "rescheduled") == []
        may_go_on.set()
        assert first.result(20) == []

    row = world.now_in_database(session)
    wanted = row.due_at if row.status == "scheduled" and row.due_at > world.clock.now else None
    assert world.scheduled(session) == wanted
    assert row.scheduled_for == (None if change == "cancelled" else row.due_at)


def test_a_marker_written_meanwhile_makes_the_slower_look_again(world: OneShotWorld) -> None:
    """The slow one's reading is right again when it looks, but the schedule is not: it was moved there and back."""
    session = world.session(3 * HOUR)

    def there_and_back() -> None:
        world.scheduler.before = world.scheduler.after = lambda operation, name: None
        world.move(session, 5 * HOUR)
        world.tell(session, "rescheduled")
        world.move(session, 3 * HOUR)  # and the event of this change gets lost

    world.scheduler.after = _once(there_and_back)
    world.tell(session, "scheduled")
    assert world.scheduled(session) == world.clock.now + 3 * HOUR


def test_many_that_handle_events_of_the_same_lesson_at_once_end_with_what_the_row_says(world: OneShotWorld) -> None:
    sessions = [world.session(HOUR) for _ in range(3)]

    def disturb(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(6):
            session = chance.choice(sessions)
            if chance.random() < 0.5:
                world.move(session, HOUR * chance.randint(1, 9))
            failed = world.tell(session, chance.choice(EVENTS))
            while failed:  # SQS delivers it again
                failed = world.tell(session, "rescheduled")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(disturb, range(4)))

    for session in sessions:
        row = world.now_in_database(session)
        assert world.scheduled(session) == row.scheduled_for == row.due_at


def test_a_lesson_that_never_stops_changing_goes_back_on_the_queue(world: OneShotWorld) -> None:
    session = world.session(HOUR)
    hours = iter(range(2, 100))
    world.scheduler.after = lambda operation, name: world.move(session, HOUR * next(hours))
    assert len(world.tell(session, "scheduled")) == 1
    assert len(world.calls(session)) == ROUNDS


def test_no_call_is_made_inside_a_transaction(world: OneShotWorld) -> None:
    open_connections: list[int] = []
    world.scheduler.before = lambda operation, name: open_connections.append(_open(world))
    for session in (world.session(HOUR), world.session(-HOUR), world.session(HOUR, status="cancelled")):
        world.tell(session, "rescheduled")
    assert open_connections == [0, 0, 0]


# The whole


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_each_lesson_ends_as_its_row_says(world: OneShotWorld, stored: Stored, seed: int) -> None:
    """Lessons are moved and cancelled; events are late, doubled and lost; schedules get lost; sweeps run."""
    chance = random.Random(seed)
    sessions = [world.session(HOUR * chance.randint(1, 6)) for _ in range(12)]
    late: list[Any] = []
    for _ in range(40):
        session = chance.choice(sessions)
        if world.status(session) == "scheduled":
            match chance.randint(0, 5):
                case 0:
                    world.cancel(session)
                case 1 | 2:
                    world.move(session, timedelta(minutes=chance.randint(-60, 400)))
        late += [session] * chance.randint(0, 2)
        chance.shuffle(late)
        if late and chance.random() < 0.6:
            world.tell(late.pop(), chance.choice(EVENTS))
        if world.scheduler.schedules and chance.random() < 0.1:
            world.scheduler.schedules.pop(chance.choice(list(world.scheduler.schedules)))
        if chance.random() < 0.3:
            world.pass_time(timedelta(minutes=chance.randint(1, 15)))
    for _ in range(12):
        world.sweep()
        world.pass_time(HOUR)
    world.sweep()

    rows = [world.now_in_database(session) for session in sessions]
    assert {row.status for row in rows} <= {"completed", "cancelled"}
    assert all(row.completed_at >= row.due_at for row in rows if row.status == "completed")
    completed = {row.id for row in rows if row.status == "completed"}
    assert sorted(entry.session_id for entry in stored(credit_ledger)) == sorted(completed)
    assert not world.scheduler.schedules


# schoolbell.jobs.one_time_schedules


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-02T10:00:00+00:00", "at(2026-03-02T10:00:00)"),
        ("2026-03-02T10:00:00.000001+00:00", "at(2026-03-02T10:00:01)"),
        ("2026-12-31T23:59:59.5+00:00", "at(2027-01-01T00:00:00)"),
        ("2026-07-01T12:30:00+02:00", "at(2026-07-01T10:30:00)"),
    ],
)
def test_a_time_is_given_in_utc_to_the_second_and_never_before_its_time(at: str, expected: str) -> None:
    assert expression(datetime.fromisoformat(at)) == expected


def test_a_name_that_scheduler_would_not_take_is_reported_and_takes_no_other_with_it(
    world: OneShotWorld, settings: Settings
) -> None:
    one_shot = OneShot(world.clock.now + HOUR, "tutoring.auto-complete", {})
    errors = arrange({"a good-one_1.": one_shot, "bad/name": one_shot, "x" * 65: one_shot, "good": one_shot}, settings)
    assert set(errors) == {"a good-one_1.", "bad/name", "x" * 65}
    assert list(world.scheduler.schedules) == ["good"]


def test_a_time_that_has_passed_is_reported(world: OneShotWorld, settings: Settings) -> None:
    errors = arrange({"late": OneShot(world.clock.now, "tutoring.auto-complete", {})}, settings)
    assert clients.error_code(errors["late"]) == "ValidationException"


def test_a_schedule_that_others_make_and_delete_all_the_time_is_given_up(
    world: OneShotWorld, settings: Settings
) -> None:
    def contend(operation: str, name: str) -> None:
        if operation == "create":
            world.scheduler.schedules.setdefault(name, _request(name, world.clock.now + HOUR))
        else:
            world.scheduler.schedules.pop(name, None)

    world.scheduler.before = contend
    errors = arrange({"contended": OneShot(world.clock.now + HOUR, "tutoring.auto-complete", {})}, settings)
    assert isinstance(errors["contended"], one_time_schedules.ScheduleContended)


def test_calls_are_made_side_by_side_and_no_more_than_allowed(world: OneShotWorld, settings: Settings) -> None:
    running: list[int] = []
    most: list[int] = []
    meeting = Barrier(one_time_schedules.CALLS_AT_ONCE, timeout=60)

    def count(operation: str, name: str) -> None:
        running.append(1)
        most.append(len(running))
        meeting.wait()
        running.pop()

    world.scheduler.before = count
    one_shot = OneShot(world.clock.now + HOUR, "tutoring.auto-complete", {})
    assert arrange({f"n{n}": one_shot for n in range(100)}, settings) == {}
    assert max(most) == one_time_schedules.CALLS_AT_ONCE
    assert len(world.scheduler.schedules) == 100


def test_what_boto3_sends_is_what_aws_takes(perform: Performer, make: Make, settings: Settings, now: datetime) -> None:
    """Through botocore itself, with its own validation of the request, and a token for its retries."""
    session = make.session(ends_at=now + HOUR, grace_period_minutes=0)
    client = clients.client("scheduler")
    tokens: list[str] = []
    for operation in ("CreateSchedule", "UpdateSchedule"):
        client.meta.events.register(
            f"before-call.scheduler.{operation}",
            lambda params, **_: tokens.append(json.loads(params["body"])["ClientToken"]),
        )
    for _ in range(2):
        perform(handler, {"type": "session.scheduled", "session_id": session.id})

    created = client.get_schedule(Name=f"session-{session.id}", GroupName=settings.schedule_group)
    assert created["ScheduleExpression"] == "at(2026-03-02T11:00:00)"
    assert created["Target"]["Arn"] == settings.queue_arn("tutoring.auto-complete")
    assert len(set(tokens)) == len(tokens) == 2


def test_its_event_file_is_understood(world: OneShotWorld) -> None:
    (record,) = json.loads(EVENT.read_text())["Records"]
    session = world.make.session(id=json.loads(record["body"])["session_id"], ends_at=world.clock.now + HOUR)
    world.deliver("session-events", record["body"])
    assert world.scheduled(session) == session.due_at


def _once(change: Callable[[], None]) -> Callable[[str, str], None]:
    """Makes a change when EventBridge Scheduler is called for the first time."""
    changes = iter([change])

    def hook(operation: str, name: str) -> None:
        for each in changes:
            each()

    return hook


def _reinstate(world: OneShotWorld, session: Any) -> None:
    from schoolbell.domains.tutoring.schema import sessions

    world.write(sessions, session.id, status="scheduled")


def _open(world: OneShotWorld) -> int:
    """How many transactions are open."""
    return int(world.database.engine.pool.checkedout())  # type: ignore[attr-defined]


def _request(name: str, at: datetime) -> dict[str, Any]:
    """A schedule that somebody else made."""
    return {
        "Name": name,
        "GroupName": "schoolbell",
        "ScheduleExpression": expression(at),
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": "arn:aws:sqs:us-east-1:123456789012:schoolbell-tutoring-auto-complete",
            "RoleArn": "arn:aws:iam::123456789012:role/one-shots",
            "Input": "{}",
        },
    }
