"""The state machine of the waiting list: its own definition, run with the real functions on a clock."""

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import yaml
from cfnlint.api import lint_all
from sqlalchemy import update

from functions.tutoring.waitlist_offer import app as offer
from functions.tutoring.waitlist_openings.app import SEATS_AN_EXECUTION
from schoolbell.domains.tutoring.schema import waitlist_entries, waitlist_openings
from tests.fakes.step_functions import MOST_HISTORY_EVENTS
from tests.fakes.waitlist import DEFINITION, WINDOW, Waitlist

A_MOMENT = timedelta(seconds=5)


def test_the_first_student_is_offered_the_seat_and_takes_it(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()

    first, second = waitlists.entries(waitlist)
    assert (first.status, second.status) == ("notified", "waiting")
    assert first.notified_at == waitlists.clock.now
    assert first.expires_at == waitlists.clock.now + WINDOW
    assert waitlists.told() == [str(first.student_id)]

    waitlists.answer(first, "accept")
    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["accepted", "waiting"]
    assert waitlists.seats(waitlist) == ["taken"]
    assert not waitlists.machine.running


def test_after_a_decline_the_next_student_is_offered_the_seat_at_once(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    first, second = waitlists.entries(waitlist)

    waitlists.answer(first, "decline")
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["declined", "notified"]
    assert waitlists.told() == [str(first.student_id), str(second.student_id)]


def test_when_the_window_ends_the_offer_expires_and_the_next_student_is_offered_the_seat(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()

    waitlists.pass_time(WINDOW - A_MOMENT)
    assert waitlists.statuses(waitlist) == ["notified", "waiting"]

    waitlists.pass_time(2 * A_MOMENT)
    assert waitlists.statuses(waitlist) == ["expired", "notified"]
    assert waitlists.entries(waitlist)[1].expires_at == waitlists.clock.now + WINDOW


def test_the_window_is_the_waiting_lists_own(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2, offer_window_seconds=600)
    waitlists.open(waitlist)
    waitlists.settle()

    waitlists.pass_time(timedelta(seconds=603))

    assert waitlists.statuses(waitlist) == ["expired", "notified"]


def test_a_window_of_decades_is_a_window(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1, offer_window_seconds=2**31 - 1)
    waitlists.open(waitlist)
    waitlists.settle()

    waitlists.answer(waitlists.entries(waitlist)[0], "accept")
    waitlists.settle()

    assert waitlists.seats(waitlist) == ["taken"]
    assert [execution.status for execution in waitlists.machine.executions.values()] == ["SUCCEEDED"]


def test_when_nobody_is_left_the_execution_ends(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()

    waitlists.answer(waitlists.entries(waitlist)[0], "decline")
    waitlists.settle()

    assert waitlists.seats(waitlist) == ["unfilled"]
    assert [execution.status for execution in waitlists.machine.executions.values()] == ["SUCCEEDED"]


def test_two_seats_are_on_offer_at_the_same_time(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=3)
    waitlists.open(waitlist, seats=2)
    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["notified", "notified", "waiting"]
    assert len(waitlists.machine.executions) == 1

    waitlists.answer(waitlists.entries(waitlist)[1], "accept")
    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["notified", "accepted", "waiting"]

    waitlists.answer(waitlists.entries(waitlist)[0], "decline")
    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["declined", "accepted", "notified"]


def test_two_executions_share_a_list_without_giving_a_seat_twice(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=4)
    waitlists.open(waitlist)
    waitlists.open(waitlist)
    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["notified", "notified", "waiting", "waiting"]

    for entry in waitlists.entries(waitlist):
        waitlists.answer(entry, "accept")
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["accepted", "accepted", "waiting", "waiting"]


def test_more_seats_than_an_execution_takes_are_all_on_offer_at_once(waitlists: Waitlist) -> None:
    seats = 2 * SEATS_AN_EXECUTION + 1
    waitlist = waitlists.of(students=seats + 1)

    waitlists.open(waitlist, seats=seats)
    waitlists.settle()

    assert Counter(waitlists.statuses(waitlist)) == {"notified": seats, "waiting": 1}
    assert len(waitlists.machine.executions) == 3


def test_a_full_history_never_ends_a_cascade(waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offer, "ROUNDS_AN_EXECUTION", 3)
    waitlist = waitlists.of(students=8)
    waitlists.open(waitlist)
    waitlists.settle()

    for _ in range(8):
        offered = next(entry for entry in waitlists.entries(waitlist) if entry.status == "notified")
        waitlists.answer(offered, "decline")
        waitlists.settle()

    assert waitlists.statuses(waitlist) == ["declined"] * 8
    assert waitlists.seats(waitlist) == ["passed_on", "passed_on", "unfilled"]
    assert len(waitlists.machine.executions) == 3


def test_an_executions_rounds_leave_room_in_its_history(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=5)
    waitlists.open(waitlist)
    waitlists.settle()
    execution = next(iter(waitlists.machine.executions.values()))
    before = execution.events

    waitlists.pass_time(WINDOW + A_MOMENT)  # a round that ends by time-out, the longest

    a_round = execution.events - before
    assert a_round * offer.ROUNDS_AN_EXECUTION * SEATS_AN_EXECUTION < MOST_HISTORY_EVENTS * 0.6


def test_a_step_that_fails_is_tried_again_and_offers_once(waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch) -> None:
    waitlist = waitlists.of(students=2)
    works = waitlists.functions["${WaitlistOfferArn}"]
    failures = iter([True, True])

    def loses_its_answer(payload: object) -> object:
        result = works(payload)
        if next(failures, False):
            raise ConnectionError("the function died after its commit")
        return result

    monkeypatch.setitem(waitlists.functions, "${WaitlistOfferArn}", loses_its_answer)
    waitlists.open(waitlist)
    for _ in range(3):
        waitlists.pass_time(timedelta(seconds=10))

    assert waitlists.statuses(waitlist) == ["notified", "waiting"]
    assert len(waitlists.told()) == 1
    assert waitlists.machine.running


def test_a_seat_whose_step_fails_for_good_leaves_the_other_seats_alone(
    waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    waitlist = waitlists.of(students=2)
    works = waitlists.functions["${WaitlistOfferArn}"]
    broken: list[str] = []

    def breaks_for_one_seat(payload: dict[str, str]) -> object:
        broken.append(payload["seat_id"])
        if payload["seat_id"] == broken[0]:
            raise ConnectionError
        return works(payload)

    monkeypatch.setitem(waitlists.functions, "${WaitlistOfferArn}", breaks_for_one_seat)
    waitlists.open(waitlist, seats=2)
    for _ in range(20):
        waitlists.pass_time(timedelta(minutes=2))
    assert waitlists.statuses(waitlist) == ["notified", "waiting"]

    waitlists.answer(waitlists.entries(waitlist)[0], "accept")
    waitlists.settle()
    execution = next(iter(waitlists.machine.executions.values()))
    assert (execution.status, execution.error) == ("FAILED", "SeatsLeft")

    monkeypatch.setitem(waitlists.functions, "${WaitlistOfferArn}", works)
    waitlists.expire()
    waitlists.settle()
    assert waitlists.statuses(waitlist) == ["accepted", "notified"]


def test_a_token_that_cannot_be_stored_costs_nobody_the_seat(
    waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_broken(_: object) -> object:
        raise ConnectionError

    monkeypatch.setitem(waitlists.functions, "${WaitlistAwaitArn}", is_broken)
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    for _ in range(20):
        waitlists.pass_time(timedelta(minutes=2))
    assert not waitlists.machine.running

    waitlists.answer(waitlists.entries(waitlist)[0], "accept")

    assert waitlists.statuses(waitlist) == ["accepted"]
    assert waitlists.seats(waitlist) == ["taken"]


def test_a_machine_that_wakes_too_early_waits_on(waitlists: Waitlist) -> None:
    """Its clock and the database's are not the same."""
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    token = waitlists.entries(waitlist)[0].task_token

    waitlists.machine.send_task_success(taskToken=token, output="{}")
    waitlists.settle()

    first = waitlists.entries(waitlist)[0]
    assert (first.status, first.expires_at) == ("notified", waitlists.clock.now + WINDOW)
    assert first.task_token not in (None, token)
    assert len(waitlists.told()) == 1


def test_a_student_who_withdraws_from_an_offer_makes_room_for_the_next(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    with waitlists.database.transaction() as connection:
        first = waitlist_entries.c.id == waitlists.entries(waitlist)[0].id
        connection.execute(update(waitlist_entries).where(first).values(status="withdrawn"))

    waitlists.pass_time(WINDOW + A_MOMENT)

    assert waitlists.statuses(waitlist) == ["withdrawn", "notified"]


def test_a_deleted_waiting_list_ends_its_cascade(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=0)
    waitlists.open(waitlist)
    with waitlists.database.transaction() as connection:
        connection.execute(waitlist_openings.delete())

    waitlists.settle()

    assert [execution.status for execution in waitlists.machine.executions.values()] == ["SUCCEEDED"]


def test_the_definition_is_one_that_step_functions_takes() -> None:
    definition = yaml.safe_load(DEFINITION.read_text())
    states = definition["States"]["EachSeat"]["ItemProcessor"]["States"]
    assert states["AwaitAnswer"]["TimeoutSeconds"] == "{% $states.input.wait_seconds %}"
    states["AwaitAnswer"]["TimeoutSeconds"] = 1  # cfn-lint does not know that it may be JSONata

    assert complaints(definition) == []
    del states["OfferSeat"]["Resource"]
    assert complaints(definition) != []


def complaints(definition: dict[str, Any]) -> list[str]:
    """What cfn-lint says about the structure of a state machine."""
    machine = {"RoleArn": "arn:aws:iam::000000000000:role/x", "DefinitionString": json.dumps(definition)}
    template = {"Resources": {"Machine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": machine}}}
    return [str(match) for match in lint_all(json.dumps(template)) if match.rule.id == "E3601"]
