"""The sweep of planned messages, every 15 minutes and after a deployment: overdue ones fire, others get schedules."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from functions.tutoring.message_sweep.app import handler
from schoolbell.domains.tutoring import one_shots
from schoolbell.domains.tutoring.schema import contact_log, teacher_notifications
from tests.fakes.one_shots import OneShotWorld
from tests.fixtures.database import Stored
from tests.performing import Invocation

HOUR = timedelta(hours=1)
EVENT = Path(__file__).parents[3] / "events/tutoring/message_sweep.json"


def test_an_overdue_message_is_fired_as_if_its_schedule_had_gone_off(world: OneShotWorld, stored: Stored) -> None:
    message = world.message(-HOUR)
    assert world.sweep("message-sweep") == {"fired": 1, "asked_for": 0}
    assert world.status(message) == "fired"
    assert len(stored(contact_log)) == len(stored(teacher_notifications)) == 1


def test_a_message_that_rings_after_it_was_swept_tells_nothing_more(world: OneShotWorld, stored: Stored) -> None:
    message = world.message(HOUR)
    world.tell(message, "scheduled")
    world.clock.now += HOUR
    world.sweep("message-sweep")
    world.settle()
    assert len(stored(contact_log)) == len(stored(teacher_notifications)) == 1


@pytest.mark.parametrize("status", ["cancelled", "fired"])
def test_a_message_that_is_not_pending_is_left_alone(world: OneShotWorld, stored: Stored, status: str) -> None:
    world.message(-HOUR, status=status)
    world.message(HOUR, status=status)
    assert world.sweep("message-sweep") == {"fired": 0, "asked_for": 0}
    assert not stored(contact_log)


def test_a_message_whose_schedule_was_lost_is_fired_by_the_next_sweep(world: OneShotWorld) -> None:
    message = world.message(HOUR)
    world.tell(message, "scheduled")
    world.scheduler.schedules.clear()
    world.pass_time(HOUR)
    assert world.status(message) == "pending"
    world.sweep("message-sweep")
    assert world.status(message) == "fired"


def test_a_message_to_come_with_no_schedule_or_a_wrong_one_gets_the_right_one(world: OneShotWorld) -> None:
    bare, moved, fine = world.message(HOUR), world.message(5 * HOUR), world.message(HOUR)
    world.tell(moved, "scheduled")
    world.tell(fine, "scheduled")
    world.move(moved, 2 * HOUR)  # and the event gets lost
    assert world.sweep("message-sweep") == {"fired": 0, "asked_for": 2}

    world.settle()
    assert world.scheduled(bare) == bare.send_at
    assert world.scheduled(moved) == world.clock.now + 2 * HOUR
    assert world.calls(fine) == ["create"]


def test_more_than_a_chunk_is_swept_in_chunks(world: OneShotWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_shots, "CHUNK", 2)
    student = world.make.student()
    for _ in range(5):
        world.make.message(student)
        world.make.message(student, send_at=world.clock.now + HOUR)
    assert world.sweep("message-sweep") == {"fired": 5, "asked_for": 5}


def test_a_deployment_rings_it_besides_its_rule(world: OneShotWorld) -> None:
    """As the template's rule words it, with the time of the deployment."""
    message = world.message(-HOUR)
    answer = handler({"scheduled_for": "2026-03-02T09:59:30Z"}, Invocation())
    assert answer["status"] == "completed"
    assert world.status(message) == "fired"


def test_its_event_file_is_understood(world: OneShotWorld) -> None:
    message = world.message(-HOUR)
    assert handler(json.loads(EVENT.read_text()), Invocation())["status"] == "completed"
    assert world.status(message) == "fired"
