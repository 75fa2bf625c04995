"""The hourly backstop: takes over what no live execution looks after, and nothing else."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row, insert, text, update

from functions.tutoring.waitlist_expiry import app as expiry
from schoolbell.domains.tutoring.schema import waitlist_entries, waitlist_seats
from schoolbell.domains.tutoring.waitlists import GRACE, MOST_SEATS
from tests.fakes.waitlist import WINDOW, Waitlist

NOTHING = {"offers": 0, "seats": 0}


def offered_by_hand(waitlists: Waitlist, waitlist: Row[Any], expires_at: datetime) -> Row[Any]:
    return waitlists.make.entry(waitlist, status="notified", expires_at=expires_at)


def test_an_offer_past_its_time_expires_and_its_seat_goes_to_the_next_student(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    offered_by_hand(waitlists, waitlist, waitlists.clock.now)
    waitlists.make.entry(waitlist)

    assert waitlists.expire() == {"offers": 1, "seats": 1}
    assert [sent.body for sent in waitlists.queued()] == [{"waitlist_id": str(waitlist.id), "seats": 1}]
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["expired", "notified"]


def test_an_offer_that_was_ended_by_hand_for_all_time_holds_up_no_other(
    waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "CHUNK", 2)
    waitlist = waitlists.of(students=0)
    for _ in range(3):
        waitlists.make.entry(waitlist, status="notified", expires_at=text("'-infinity'"))
    offered_by_hand(waitlists, waitlist, waitlists.clock.now)

    assert waitlists.expire() == {"offers": 4, "seats": 4}
    assert waitlists.statuses(waitlist) == ["expired"] * 4


def test_an_offer_that_stands_is_left_alone(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    offered_by_hand(waitlists, waitlist, waitlists.clock.now + timedelta(seconds=1))

    assert waitlists.expire() == NOTHING
    assert waitlists.statuses(waitlist) == ["notified"]


def test_an_offer_that_a_live_execution_looks_after_is_left_to_it(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()

    waitlists.clock.advance(WINDOW + GRACE - timedelta(seconds=1))  # the machine has not come to it yet
    assert waitlists.expire() == NOTHING

    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["expired", "notified"]
    assert len(waitlists.machine.executions) == 1


def test_a_dead_executions_offer_stands_until_its_time_and_is_then_passed_on(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    waitlists.machine.stop(waitlists.machine.running[0])

    waitlists.pass_time(WINDOW - timedelta(seconds=1))
    assert waitlists.expire() == NOTHING

    waitlists.pass_time(GRACE + timedelta(seconds=1))
    assert waitlists.expire() == {"offers": 1, "seats": 1}
    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["expired", "notified"]
    assert waitlists.seats(waitlist) == ["passed_on", "open"]


def test_a_dead_executions_student_may_still_accept(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    waitlists.machine.stop(waitlists.machine.running[0])

    waitlists.answer(waitlists.entries(waitlist)[0], "accept")
    waitlists.clock.advance(WINDOW + GRACE)

    assert waitlists.expire() == NOTHING
    assert waitlists.statuses(waitlist) == ["accepted", "waiting"]


def test_a_seat_whose_execution_was_never_started_is_put_on_offer(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.network.is_machine_away = True
    waitlists.open(waitlist)
    waitlists.network.is_machine_away = False

    waitlists.clock.advance(GRACE - timedelta(seconds=1))
    assert waitlists.expire() == NOTHING
    waitlists.clock.advance(timedelta(seconds=1))
    assert waitlists.expire() == {"offers": 0, "seats": 1}
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["notified"]


def test_a_decline_of_which_the_machine_was_never_told_is_mended(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    waitlists.network.is_machine_away = True
    waitlists.answer(waitlists.entries(waitlist)[0], "decline")
    waitlists.network.is_machine_away = False

    waitlists.clock.advance(GRACE - timedelta(seconds=1))
    assert waitlists.expire() == NOTHING
    waitlists.clock.advance(timedelta(seconds=1))
    assert waitlists.expire() == {"offers": 0, "seats": 1}
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["declined", "notified"]


def test_an_execution_that_lives_though_its_seat_was_taken_over_ends_without_an_offer(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=3)
    waitlists.open(waitlist)
    waitlists.settle()
    waitlists.clock.advance(WINDOW + GRACE)
    waitlists.expire()  # though the execution is only late

    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["expired", "notified", "waiting"]
    assert len(waitlists.machine.running) == 1


def test_a_second_run_takes_over_nothing(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    offered_by_hand(waitlists, waitlist, waitlists.clock.now)
    waitlists.expire()

    assert waitlists.expire() == NOTHING
    assert len(waitlists.queued()) == 1


def test_an_acceptance_that_an_application_wrote_itself_is_no_lost_seat(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    waitlists.machine.stop(waitlists.machine.running[0])
    with waitlists.database.transaction() as connection:
        offered = waitlist_entries.c.status == "notified"
        connection.execute(update(waitlist_entries).where(offered).values(status="accepted"))
    waitlists.clock.advance(WINDOW + GRACE)

    assert waitlists.expire() == NOTHING
    assert waitlists.seats(waitlist) == ["taken"]


@pytest.mark.parametrize("longer_by", [WINDOW, None])
def test_a_window_that_was_lengthened_by_hand_is_kept(waitlists: Waitlist, longer_by: timedelta | None) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()
    with waitlists.database.transaction() as connection:
        later = waitlists.clock.now + WINDOW + longer_by if longer_by else None
        connection.execute(update(waitlist_entries).values(expires_at=later))
    waitlists.machine.stop(waitlists.machine.running[0])
    waitlists.clock.advance(WINDOW + GRACE)

    assert waitlists.expire() == NOTHING
    assert waitlists.statuses(waitlist) == ["notified"]


def test_an_offer_put_back_by_hand_expires_without_freeing_a_seat(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()
    with waitlists.database.transaction() as connection:
        connection.execute(update(waitlist_seats).values(status="unfilled"))
    waitlists.clock.advance(WINDOW)

    assert waitlists.expire() == {"offers": 1, "seats": 0}
    assert waitlists.queued() == []


def test_one_opening_is_sent_for_all_seats_of_a_waiting_list(waitlists: Waitlist) -> None:
    one, other = waitlists.of(students=0), waitlists.of(students=0)
    for waitlist in (one, one, other):
        offered_by_hand(waitlists, waitlist, waitlists.clock.now - timedelta(hours=1))

    assert waitlists.expire() == {"offers": 3, "seats": 3}

    sent = {message.body["waitlist_id"]: message.body["seats"] for message in waitlists.queued()}
    assert sent == {str(one.id): 2, str(other.id): 1}


def test_more_seats_than_a_message_may_open_are_sent_in_several(
    waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "CHUNK", 2_000)
    waitlist, student = waitlists.of(students=0), waitlists.make.student()
    over = {
        "waitlist_id": waitlist.id,
        "student_id": student.id,
        "status": "notified",
        "expires_at": waitlists.clock.now,
    }
    with waitlists.database.transaction() as connection:
        connection.execute(insert(waitlist_entries).values([over] * (MOST_SEATS + 1)))

    assert waitlists.expire() == {"offers": MOST_SEATS + 1, "seats": MOST_SEATS + 1}
    assert Counter(message.body["seats"] for message in waitlists.queued()) == {MOST_SEATS: 1, 1: 1}


def test_works_in_chunks(waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "CHUNK", 2)
    waitlist = waitlists.of(students=0)
    for minutes in (0, 0, 0, 1, 2):
        offered_by_hand(waitlists, waitlist, waitlists.clock.now - timedelta(minutes=minutes))

    assert waitlists.expire() == {"offers": 5, "seats": 5}
    assert sum(message.body["seats"] for message in waitlists.queued()) == 5


def test_a_dry_run_counts_and_touches_nothing(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()
    offered_by_hand(waitlists, waitlist, waitlists.clock.now)
    waitlists.machine.stop(waitlists.machine.running[0])
    waitlists.clock.advance(WINDOW + GRACE)
    before = waitlists.rows(waitlist_entries), waitlists.rows(waitlist_seats)

    assert waitlists.expire(dry_run=True) == {"offers": 2, "seats": 2}

    assert (waitlists.rows(waitlist_entries), waitlists.rows(waitlist_seats)) == before
    assert waitlists.queued() == []
    assert waitlists.expire() == {"offers": 2, "seats": 2}
