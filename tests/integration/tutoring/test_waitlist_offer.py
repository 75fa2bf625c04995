"""The offer step: looks at what is, so that it may be done twice, late or early."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Row, update

from functions.tutoring.waitlist_offer.app import ROUNDS_AN_EXECUTION
from functions.tutoring.waitlist_offer.app import handler as offer
from schoolbell.domains.platform.schema import notifications
from schoolbell.domains.tutoring.schema import waitlist_entries
from schoolbell.jobs.outcomes import InvalidEvent
from tests.fakes.waitlist import WINDOW, Waitlist
from tests.fixtures.database import Stored
from tests.performing import Invocation

SLACK = 2
WINDOW_SECONDS = int(WINDOW.total_seconds()) + SLACK


def the_seat(waitlists: Waitlist, waitlist: Row[Any]) -> str:
    """A seat that is recorded, and that no execution touches."""
    waitlists.open(waitlist)
    return str(waitlists.seat_ids(waitlist)[-1])


def test_done_twice_it_finds_the_offer_it_has_made(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    seat = the_seat(waitlists, waitlist)
    first = waitlists.entries(waitlist)[0]

    once = offer({"seat_id": seat, "round": 0}, Invocation())
    waitlists.clock.advance(WINDOW - timedelta(seconds=1))
    again = offer({"seat_id": seat, "round": 0}, Invocation())

    assert once == {"outcome": "offered", "entry_id": str(first.id), "wait_seconds": WINDOW_SECONDS}
    assert again == {"outcome": "offered", "entry_id": str(first.id), "wait_seconds": 1 + SLACK}
    assert waitlists.statuses(waitlist) == ["notified", "waiting"]
    assert waitlists.told() == [str(first.student_id)]


def test_an_offer_stands_for_48_hours_unless_the_list_says_otherwise(waitlists: Waitlist) -> None:
    for waitlist, window in (
        (waitlists.of(students=1), timedelta(hours=48)),
        (waitlists.of(students=1, offer_window_seconds=3_600), timedelta(hours=1)),
    ):
        offer({"seat_id": the_seat(waitlists, waitlist), "round": 0}, Invocation())
        (entry,) = waitlists.entries(waitlist)
        assert entry.expires_at - entry.notified_at == window


def test_the_machine_waits_no_longer_than_step_functions_can_and_then_looks_again(waitlists: Waitlist) -> None:
    longest = 99_999_999
    waitlist = waitlists.of(students=1, offer_window_seconds=longest + 60)
    seat = the_seat(waitlists, waitlist)

    once = offer({"seat_id": seat, "round": 0}, Invocation())
    waitlists.clock.advance(timedelta(seconds=longest))
    again = offer({"seat_id": seat, "round": 1}, Invocation())

    assert [once["wait_seconds"], again["wait_seconds"]] == [longest, 60 + SLACK]
    assert waitlists.statuses(waitlist) == ["notified"]


def test_the_student_is_told_by_an_urgent_email_that_is_worth_nothing_after_the_offer(
    waitlists: Waitlist, stored: Stored
) -> None:
    waitlist = waitlists.of(students=1)
    offer({"seat_id": the_seat(waitlists, waitlist), "round": 0}, Invocation())

    (entry,) = waitlists.entries(waitlist)
    (told,) = stored(notifications)
    assert (told.channel, told.priority, told.template) == ("email", "high", "waitlist_offer")
    assert (told.recipient, told.student_id) == (f"student/{entry.student_id}", entry.student_id)
    assert told.expires_at == entry.expires_at
    assert told.data == {
        "entry_id": str(entry.id),
        "waitlist_id": str(waitlist.id),
        "expires_at": entry.expires_at.isoformat(),
    }
    (sent,) = (each for each in waitlists.network.sent if "notification_ids" in each.body)
    assert (sent.to, sent.body) == (
        "schoolbell-platform-notifications-high",
        {"notification_ids": [str(told.id)]},
    )


def test_the_next_student_is_the_one_with_the_lowest_position_then_who_came_first(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    now = waitlists.clock.now
    waitlists.make.entry(waitlist, position=2)
    later = waitlists.make.entry(waitlist, position=1, created_at=now)
    sooner = waitlists.make.entry(waitlist, position=1, created_at=now - timedelta(days=1))

    for _ in range(2):
        offer({"seat_id": the_seat(waitlists, waitlist), "round": 0}, Invocation())

    assert waitlists.told() == [str(sooner.student_id), str(later.student_id)]


def test_a_student_who_was_offered_a_seat_before_is_told_again(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    offer({"seat_id": the_seat(waitlists, waitlist), "round": 0}, Invocation())
    waitlists.answer(waitlists.entries(waitlist)[0], "decline")
    with waitlists.database.transaction() as connection:
        connection.execute(update(waitlist_entries).values(status="waiting"))
    waitlists.clock.advance(timedelta(hours=1))

    offer({"seat_id": the_seat(waitlists, waitlist), "round": 0}, Invocation())

    assert len(waitlists.told()) == 2
    (entry,) = waitlists.entries(waitlist)
    assert entry.answered_at is None, "that was of the offer before"


def test_an_erased_student_is_offered_nothing(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    waitlists.make.entry(waitlist, waitlists.make.student(status="erased"))
    waitlists.make.entry(waitlist)

    offer({"seat_id": the_seat(waitlists, waitlist), "round": 0}, Invocation())

    assert waitlists.statuses(waitlist) == ["waiting", "notified"]


@pytest.mark.parametrize("status", ["accepted", "notified"])
def test_no_more_are_accepted_or_on_offer_than_the_capacity(waitlists: Waitlist, status: str) -> None:
    waitlist = waitlists.of(students=0, capacity=2)
    waitlists.make.entry(waitlist, status=status)
    for _ in range(2):
        waitlists.make.entry(waitlist)

    results = [offer({"seat_id": the_seat(waitlists, waitlist), "round": 0}, Invocation()) for _ in range(2)]

    assert [result["outcome"] for result in results] == ["offered", "over_capacity"]
    assert waitlists.statuses(waitlist) == [status, "notified", "waiting"]
    assert waitlists.seats(waitlist) == ["open", "over_capacity"]


@pytest.mark.parametrize("answer", ["accept", "decline"])
def test_of_a_settled_seat_it_says_so_and_offers_nothing(waitlists: Waitlist, answer: str) -> None:
    waitlist = waitlists.of(students=1)
    seat = the_seat(waitlists, waitlist)
    offer({"seat_id": seat, "round": 0}, Invocation())
    waitlists.answer(waitlists.entries(waitlist)[0], answer)
    first = offer({"seat_id": seat, "round": 1}, Invocation())
    waitlists.make.entry(waitlist)

    again = offer({"seat_id": seat, "round": 1}, Invocation())

    assert first == again
    assert first["outcome"] == {"accept": "taken", "decline": "unfilled"}[answer]
    assert waitlists.statuses(waitlist)[1] == "waiting"


def test_an_acceptance_that_an_application_wrote_itself_takes_the_seat(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    seat = the_seat(waitlists, waitlist)
    offer({"seat_id": seat, "round": 0}, Invocation())
    with waitlists.database.transaction() as connection:
        offered = waitlist_entries.c.status == "notified"
        connection.execute(update(waitlist_entries).where(offered).values(status="accepted"))

    assert offer({"seat_id": seat, "round": 1}, Invocation())["outcome"] == "taken"

    assert waitlists.statuses(waitlist) == ["accepted", "waiting"]
    assert waitlists.seats(waitlist) == ["taken"]


def test_after_many_rounds_the_seat_is_passed_on_once_its_offer_is_over(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    seat = the_seat(waitlists, waitlist)
    offer({"seat_id": seat, "round": ROUNDS_AN_EXECUTION - 1}, Invocation())
    assert offer({"seat_id": seat, "round": ROUNDS_AN_EXECUTION}, Invocation())["outcome"] == "offered"

    waitlists.answer(waitlists.entries(waitlist)[0], "decline")
    for _ in range(2):
        assert offer({"seat_id": seat, "round": ROUNDS_AN_EXECUTION}, Invocation())["outcome"] == "passed_on"

    assert [sent.body for sent in waitlists.queued()] == [{"waitlist_id": str(waitlist.id), "seats": 1}]
    assert waitlists.statuses(waitlist) == ["declined", "waiting"]


def test_a_seat_that_is_not_there_is_gone(waitlists: Waitlist) -> None:
    assert offer({"seat_id": str(uuid4()), "round": 0}, Invocation())["outcome"] == "gone"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"round": 0}, "seat_id: Field required"),
        ({"seat_id": str(uuid4()), "round": -1}, "round: Input should be greater than or equal to 0"),
        ({"seat_id": str(uuid4()), "round": 0, "x": 1}, "x: Extra inputs are not permitted"),
    ],
)
def test_a_payload_that_cannot_be_used_is_refused_by_name(
    waitlists: Waitlist, payload: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidEvent, match=reason):
        offer(payload, Invocation())
