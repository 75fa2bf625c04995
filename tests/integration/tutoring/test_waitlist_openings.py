"""Openings: each counts once, and starts one execution."""

from uuid import uuid4

import pytest

from schoolbell.domains.tutoring.schema import waitlist_openings, waitlist_seats
from schoolbell.domains.tutoring.waitlists import GRACE
from tests.fakes.waitlist import OPENINGS, Waitlist

FROM_OUTBOX = {"outbox-id": {"DataType": "String", "StringValue": "4711"}}


def test_a_second_delivery_opens_no_second_seat(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=3)
    waitlists.open(waitlist, message_id="m1")
    waitlists.settle()
    waitlists.open(waitlist, message_id="m1", attempt=2)
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["notified", "waiting", "waiting"]
    assert waitlists.count(waitlist_openings) == waitlists.count(waitlist_seats) == 1
    assert len(waitlists.machine.executions) == 1


def test_a_second_delivery_after_the_cascade_has_ended_starts_nothing(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    waitlists.open(waitlist, message_id="m1")
    waitlists.settle()
    waitlists.make.entry(waitlist)

    waitlists.open(waitlist, message_id="m1", attempt=2)
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["waiting"]


def test_a_second_delivery_after_the_execution_was_stopped_is_done(waitlists: Waitlist) -> None:
    """Its name is taken; the hourly run takes its seats over."""
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist, message_id="m1")
    waitlists.machine.stop(waitlists.machine.running[0])

    assert waitlists.open(waitlist, message_id="m1", attempt=2) == []

    assert len(waitlists.machine.executions) == 1


def test_a_second_delivery_after_the_seats_were_passed_on_starts_nothing(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.network.is_machine_away = True
    waitlists.open(waitlist, message_id="m1")
    waitlists.clock.advance(GRACE)
    waitlists.expire()

    waitlists.network.is_machine_away = False
    assert waitlists.open(waitlist, message_id="m1", attempt=2) == []

    assert waitlists.machine.executions == {}


def test_an_opening_sent_twice_by_the_relay_opens_one_seat(waitlists: Waitlist) -> None:
    """The same row of the outbox, in two messages."""
    waitlist = waitlists.of(students=3)
    waitlists.open(waitlist, message_id="m1", attributes=FROM_OUTBOX)
    waitlists.open(waitlist, message_id="m2", attributes=FROM_OUTBOX)
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["notified", "waiting", "waiting"]


def test_two_messages_are_two_openings(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=3)
    waitlists.deliver(OPENINGS, *[{"waitlist_id": str(waitlist.id), "seats": 1}] * 2)
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["notified", "notified", "waiting"]
    assert waitlists.run_results("waitlist-openings") == [{"openings": 2, "seats": 2, "executions": 2, "left": 0}]


def test_an_opening_whose_execution_could_not_be_started_is_started_by_the_next_delivery(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.network.is_machine_away = True
    assert waitlists.open(waitlist, message_id="m1") == ["m1"]

    waitlists.network.is_machine_away = False
    assert waitlists.open(waitlist, message_id="m1", attempt=2) == []
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["notified", "waiting"]


def test_a_recorded_opening_is_never_dead_since_redriving_it_would_open_its_seats_again(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.network.is_machine_away = True
    last = waitlists.settings.max_receive_count

    assert waitlists.open(waitlist, attempt=last) == []

    assert waitlists.dead() == []
    waitlists.network.is_machine_away = False
    waitlists.clock.advance(GRACE)
    waitlists.expire()
    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["notified", "waiting"]


def test_an_execution_is_named_after_its_opening(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)

    (opening,) = waitlists.openings(waitlist)
    assert list(waitlists.machine.executions) == [f"{opening.id}-1"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"seats": 1}, "waitlist_id: Field required"),
        ({"waitlist_id": "x", "seats": 1}, "waitlist_id: Input should be a valid UUID"),
        ({"waitlist_id": "{id}", "seats": 0}, "seats: Input should be greater than or equal to 1"),
        ({"waitlist_id": "{id}", "seats": -1}, "seats: Input should be greater than or equal to 1"),
        ({"waitlist_id": "{id}", "seats": 501}, "seats: Input should be less than or equal to 500"),
        ({"waitlist_id": "{id}", "seats": 1.5}, "seats: Input should be a valid integer"),
        ({"waitlist_id": "{id}", "seats": "2"}, "seats: Input should be a valid integer"),
        ({"waitlist_id": "{id}", "seats": True}, "seats: Input should be a valid integer"),
        ({"waitlist_id": "{id}"}, "seats: Field required"),
        ({"waitlist_id": "{id}", "seats": 1, "colour": "red"}, "colour: Extra inputs are not permitted"),
        ("no JSON", "message: Invalid JSON"),
    ],
)
def test_a_message_that_cannot_be_used_is_discarded_with_the_reason(
    waitlists: Waitlist, body: dict[str, object] | str, reason: str
) -> None:
    waitlist = waitlists.of(students=1)
    if isinstance(body, dict) and body.get("waitlist_id") == "{id}":
        body["waitlist_id"] = str(waitlist.id)
    good = {"waitlist_id": str(waitlist.id), "seats": 1}

    assert waitlists.deliver(OPENINGS, body, good) == []

    (dead,) = waitlists.dead()
    assert dead.startswith(reason)
    assert "\n" not in dead
    assert waitlists.count(waitlist_seats) == 1


def test_a_waiting_list_that_does_not_exist_is_named(waitlists: Waitlist) -> None:
    waitlist, unknown = waitlists.of(students=1), uuid4()

    waitlists.deliver(OPENINGS, *({"waitlist_id": str(of), "seats": 1} for of in (unknown, waitlist.id)))
    waitlists.settle()

    assert waitlists.dead() == [f"waitlist_id: no waitlist {unknown}"]
    assert waitlists.statuses(waitlist) == ["notified"]
