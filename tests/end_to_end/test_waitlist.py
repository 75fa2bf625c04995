"""The waiting list on the stack: queues, the state machine with its task tokens and timeouts, the backstop."""

import json
from datetime import timedelta
from typing import Any

from sqlalchemy import Row

from schoolbell.domains.platform.schema import notifications
from schoolbell.domains.tutoring.schema import waitlist_answers, waitlist_entries
from tests.end_to_end.stack import Stack
from tests.end_to_end.waiting import eventually
from tests.factories import Make

OPENINGS = "tutoring.waitlist-openings"
ANSWERS = "tutoring.waitlist-answers"
CASCADE = "tutoring.waitlist-cascade"


class Waitlist:
    """A waiting list on the stack."""

    def __init__(self, stack: Stack, make: Make, students: int, **columns: Any) -> None:
        self.stack, self.make = stack, make
        self.row = make.waitlist(**{"capacity": 10} | columns)
        for _ in range(students):
            make.entry(self.row)

    def open(self, seats: int = 1) -> None:
        self.stack.drop(OPENINGS, {"waitlist_id": str(self.row.id), "seats": seats})

    def answer(self, student: int, answer: str) -> None:
        self.stack.drop(ANSWERS, {"entry_id": str(self.entries()[student].id), "answer": answer})

    def becomes(self, *statuses: str) -> None:
        eventually(lambda: self.statuses() == list(statuses), f"list with {statuses}")

    def statuses(self) -> list[str]:
        return [entry.status for entry in self.entries()]

    def entries(self) -> list[Row[Any]]:
        """The list, in order."""
        rows = self.stack.rows(waitlist_entries, waitlist_id=self.row.id)
        return sorted(rows, key=lambda entry: int(entry.position))

    def outcomes(self, student: int) -> list[tuple[str, str | None]]:
        answers = self.stack.rows(waitlist_answers, entry_id=self.entries()[student].id)
        return [(answer.outcome, answer.reason) for answer in answers]

    def executions(self) -> list[str]:
        """The status of each execution that offers a seat of this list."""
        client = self.stack.client("stepfunctions")
        machines = client.list_state_machines()["stateMachines"]
        (arn,) = (each["stateMachineArn"] for each in machines if each["name"] == self.stack.resource(CASCADE))
        seats = {str(entry.seat_id) for entry in self.entries() if entry.seat_id}
        executions = client.list_executions(stateMachineArn=arn, maxResults=1000)["executions"]
        described = [client.describe_execution(executionArn=each["executionArn"]) for each in executions]
        return [each["status"] for each in described if any(seat in each["input"] for seat in seats)]

    def ends(self) -> None:
        """The machine has nothing left to do."""
        eventually(lambda: self.executions() == ["SUCCEEDED"], "end of the execution")


def test_a_decline_then_an_acceptance(stack: Stack, make: Make) -> None:
    waitlist = Waitlist(stack, make, students=3)
    waitlist.open()
    waitlist.becomes("notified", "waiting", "waiting")

    waitlist.answer(0, "decline")
    waitlist.becomes("declined", "notified", "waiting")
    waitlist.answer(1, "accept")
    waitlist.becomes("declined", "accepted", "waiting")

    waitlist.ends()
    told = [
        len(stack.rows(notifications, recipient=f"student/{entry.student_id}", template="waitlist_offer"))
        for entry in waitlist.entries()
    ]
    assert told == [1, 1, 0]


def test_the_end_of_the_window_passes_the_seat_on(stack: Stack, make: Make) -> None:
    """The task token times out; an answer that comes later gets a recorded refusal."""
    waitlist = Waitlist(stack, make, students=2, offer_window_seconds=3)
    waitlist.open()
    waitlist.becomes("expired", "expired")
    first, second = waitlist.entries()
    assert second.notified_at >= first.expires_at

    waitlist.answer(0, "accept")

    eventually(lambda: waitlist.outcomes(0) == [("refused", "expired")], "recorded refusal")
    waitlist.ends()


def test_two_seats_are_on_offer_at_the_same_time(stack: Stack, make: Make) -> None:
    waitlist = Waitlist(stack, make, students=3)
    waitlist.open(seats=2)
    waitlist.becomes("notified", "notified", "waiting")

    waitlist.answer(0, "accept")
    waitlist.answer(1, "decline")
    waitlist.becomes("accepted", "declined", "notified")
    waitlist.answer(2, "accept")
    waitlist.becomes("accepted", "declined", "accepted")

    waitlist.ends()


def test_when_nobody_is_left_the_execution_ends(stack: Stack, make: Make) -> None:
    waitlist = Waitlist(stack, make, students=1)
    waitlist.open()
    waitlist.becomes("notified")

    waitlist.answer(0, "decline")

    waitlist.becomes("declined")
    waitlist.ends()


def test_an_answer_that_overtakes_the_machine_wakes_it(stack: Stack, make: Make) -> None:
    """The student answers as soon as the offer is there, maybe before the task token is."""
    waitlist = Waitlist(stack, make, students=2)
    waitlist.open()
    eventually(lambda: waitlist.statuses()[0] == "notified", "offer")
    waitlist.answer(0, "decline")

    waitlist.becomes("declined", "notified")


def test_waitlist_expiry_passes_on_what_nobody_looks_after(stack: Stack, make: Make) -> None:
    waitlist = Waitlist(stack, make, students=0)
    make.entry(waitlist.row, status="notified", expires_at=make.now - timedelta(seconds=1))
    make.entry(waitlist.row)

    assert stack.run("tutoring.waitlist-expiry")["offers"] >= 1

    waitlist.becomes("expired", "notified")


def test_a_declined_offer_made_by_hand_puts_its_seat_on_offer(stack: Stack, make: Make) -> None:
    """With a task token of nobody's, which Step Functions refuses."""
    waitlist = Waitlist(stack, make, students=0)
    make.entry(waitlist.row, status="notified", task_token="by hand")
    make.entry(waitlist.row)

    waitlist.answer(0, "decline")

    waitlist.becomes("declined", "notified")


def test_an_opening_of_no_seats_is_dead_with_the_reason(stack: Stack, make: Make) -> None:
    waitlist = Waitlist(stack, make, students=1)
    body = json.dumps({"waitlist_id": str(waitlist.row.id), "seats": 0})
    stack.drop(OPENINGS, body)

    reason = "seats: Input should be greater than or equal to 1"
    assert stack.buried(OPENINGS, body)["MessageAttributes"]["reason"]["StringValue"] == reason
    assert stack.dead_letter(OPENINGS, body).error == reason
    assert waitlist.statuses() == ["waiting"]


def test_two_executions_give_no_more_seats_than_there_are(stack: Stack, make: Make) -> None:
    waitlist = Waitlist(stack, make, students=4, capacity=2)
    waitlist.open(seats=2)
    waitlist.open(seats=1)
    waitlist.becomes("notified", "notified", "waiting", "waiting")
    for student in (0, 1, 2, 3):
        waitlist.answer(student, "accept")
        waitlist.answer(student, "accept")
    eventually(lambda: sum(len(waitlist.outcomes(student)) for student in range(4)) == 8, "record of each answer")
    waitlist.becomes("accepted", "accepted", "waiting", "waiting")
    said = [outcome for student in range(4) for outcome, _ in waitlist.outcomes(student)]
    assert sorted(said) == ["accepted"] * 2 + ["refused"] * 4 + ["repeated"] * 2
