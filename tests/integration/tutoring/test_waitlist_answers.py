"""Answers: the database decides in one guarded update; every answer is recorded with what became of it."""

from datetime import timedelta
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError
from sqlalchemy import update

from schoolbell.domains.platform import schema as platform
from schoolbell.domains.tutoring import schema as tutoring
from tests.fakes.waitlist import ANSWERS, OPENINGS, WINDOW, Waitlist

A_SECOND = timedelta(seconds=1)


def test_an_answer_in_the_last_second_counts(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()
    waitlists.clock.advance(WINDOW - A_SECOND)

    waitlists.answer(waitlists.entries(waitlist)[0], "accept")

    assert waitlists.statuses(waitlist) == ["accepted"]
    assert waitlists.answers(waitlist) == [("accept", "accepted", None)]
    assert waitlists.entries(waitlist)[0].answered_at == waitlists.clock.now


@pytest.mark.parametrize("is_closed", [False, True])
def test_an_answer_after_the_offer_expired_gets_a_recorded_refusal_and_no_seat(
    waitlists: Waitlist, is_closed: bool
) -> None:
    """Whether or not the machine has closed the offer by then."""
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    first = waitlists.entries(waitlist)[0]
    waitlists.clock.advance(WINDOW)
    if is_closed:
        waitlists.pass_time(timedelta(seconds=3))

    waitlists.answer(first, "accept")

    assert waitlists.answers(waitlist) == [("accept", "refused", "expired")]
    (audit,) = waitlists.rows(platform.audit_logs)
    assert (audit.tier, audit.action, audit.subject) == ("general", "waitlist.answer_refused", str(first.id))
    assert audit.details == {"answer": "accept", "reason": "expired"}
    waitlists.pass_time(timedelta(seconds=3))
    assert waitlists.statuses(waitlist) == ["expired", "notified"]
    assert waitlists.seats(waitlist) == ["open"]


@pytest.mark.parametrize(
    ("first", "second", "recorded"),
    [
        ("accept", "decline", ("decline", "refused", "already_accepted")),
        ("decline", "accept", ("accept", "refused", "already_declined")),
        ("accept", "accept", ("accept", "repeated", "already_accepted")),
        ("decline", "decline", ("decline", "repeated", "already_declined")),
    ],
)
def test_of_two_answers_to_one_offer_the_first_counts_and_the_second_is_recorded(
    waitlists: Waitlist, first: str, second: str, recorded: tuple[str, str, str]
) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()
    entry = waitlists.entries(waitlist)[0]

    waitlists.answer(entry, first)
    waitlists.answer(entry, second)

    assert waitlists.statuses(waitlist) == [{"accept": "accepted", "decline": "declined"}[first]]
    assert waitlists.answers(waitlist)[1] == recorded


@pytest.mark.parametrize("status", ["waiting", "withdrawn"])
def test_an_answer_to_no_offer_is_refused(waitlists: Waitlist, status: str) -> None:
    waitlist = waitlists.of(students=0)
    entry = waitlists.make.entry(waitlist, status=status)

    waitlists.answer(entry, "accept")

    assert waitlists.statuses(waitlist) == [status]
    reason = {"waiting": "not_offered", "withdrawn": "withdrawn"}[status]
    assert waitlists.answers(waitlist) == [("accept", "refused", reason)]


def test_a_second_delivery_is_the_same_answer_and_wakes_the_machine_again(waitlists: Waitlist) -> None:
    """The first one died between the database and Step Functions."""
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    first = waitlists.entries(waitlist)[0]
    waitlists.network.is_machine_away = True
    assert waitlists.answer(first, "decline", message_id="m1") == ["m1"]
    assert waitlists.statuses(waitlist) == ["declined", "waiting"]

    waitlists.network.is_machine_away = False
    assert waitlists.answer(first, "decline", message_id="m1", attempt=2) == []
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["declined", "notified"]
    assert waitlists.answers(waitlist) == [("decline", "declined", None)]


def test_an_acceptance_stands_though_the_machine_could_not_be_woken(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    waitlists.network.is_machine_away = True
    waitlists.answer(waitlists.entries(waitlist)[0], "accept")

    waitlists.pass_time(WINDOW + timedelta(seconds=3))

    assert waitlists.statuses(waitlist) == ["accepted", "waiting"]
    assert not waitlists.machine.running


@pytest.mark.parametrize("code", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"])
def test_an_answer_for_which_nobody_waits_is_done(
    waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()

    def refuses(**_: object) -> None:
        raise ClientError({"Error": {"Code": code}}, "SendTaskSuccess")

    monkeypatch.setattr(waitlists.machine, "send_task_success", refuses)

    assert waitlists.answer(waitlists.entries(waitlist)[0], "accept") == []
    assert waitlists.statuses(waitlist) == ["accepted"]


def test_an_answer_that_step_functions_refuses_for_another_reason_fails(
    waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()

    def refuses(**_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "SendTaskSuccess")

    monkeypatch.setattr(waitlists.machine, "send_task_success", refuses)

    assert waitlists.answer(waitlists.entries(waitlist)[0], "accept", message_id="m1") == ["m1"]


def test_an_entry_that_does_not_exist_is_named_and_the_others_are_answered(waitlists: Waitlist) -> None:
    waitlist, unknown = waitlists.of(students=1), uuid4()
    waitlists.open(waitlist)
    waitlists.settle()
    offered = waitlists.entries(waitlist)[0].id

    bodies = [{"entry_id": str(entry_id), "answer": "accept"} for entry_id in (unknown, offered)]
    assert waitlists.deliver(ANSWERS, *bodies) == []

    assert waitlists.dead() == [f"entry_id: no waitlist entry {unknown}"]
    assert waitlists.statuses(waitlist) == ["accepted"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"answer": "accept"}, "entry_id: Field required"),
        ({"entry_id": "x", "answer": "accept"}, "entry_id: Input should be a valid UUID"),
        ({"entry_id": str(uuid4()), "answer": "maybe"}, "answer: Input should be 'accept' or 'decline'"),
        ({"entry_id": str(uuid4()), "answer": "accept", "x": 1}, "x: Extra inputs are not permitted"),
    ],
)
def test_a_message_that_cannot_be_used_is_discarded_with_the_reason(
    waitlists: Waitlist, body: dict[str, object], reason: str
) -> None:
    waitlists.deliver(ANSWERS, body)

    (dead,) = waitlists.dead()
    assert dead.startswith(reason)


def test_an_offer_made_by_hand_may_be_accepted(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    entry = waitlists.make.entry(waitlist, status="notified", task_token="by hand")

    assert waitlists.answer(entry, "accept") == []

    assert waitlists.statuses(waitlist) == ["accepted"]
    assert waitlists.queued() == []


def test_declining_an_offer_made_by_hand_puts_its_seat_on_offer(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    entry = waitlists.make.entry(waitlist, status="notified")
    waitlists.make.entry(waitlist)

    waitlists.answer(entry, "decline", message_id="m1")
    waitlists.answer(entry, "decline", message_id="m1", attempt=2)
    assert [sent.to for sent in waitlists.queued()] == [OPENINGS]
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["declined", "notified"]


def test_no_seat_is_taken_that_was_passed_on(waitlists: Waitlist) -> None:
    """Somebody has put an old offer back by hand; its seat is another student's by now."""
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    first = waitlists.entries(waitlist)[0]
    with waitlists.database.transaction() as connection:
        connection.execute(update(tutoring.waitlist_seats).values(status="passed_on"))

    waitlists.answer(first, "accept")

    assert waitlists.statuses(waitlist) == ["notified", "waiting"]
    assert waitlists.answers(waitlist) == [("accept", "refused", "seat_gone")]
