"""The await step: the answer may come before the token does."""

from uuid import uuid4

import pytest

from functions.tutoring.waitlist_await.app import handler as await_answer
from schoolbell.jobs.outcomes import InvalidEvent
from tests.fakes.waitlist import Waitlist
from tests.performing import Invocation


def test_an_answer_that_comes_before_the_token_wakes_the_machine(
    waitlists: Waitlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine must not sleep through its window while the answer is there."""
    waitlist = waitlists.of(students=2)
    stores_token = waitlists.functions["${WaitlistAwaitArn}"]

    def is_overtaken(payload: dict[str, str]) -> object:
        monkeypatch.setitem(waitlists.functions, "${WaitlistAwaitArn}", stores_token)
        waitlists.answer(waitlists.entries(waitlist)[0], "decline")
        return stores_token(payload)

    monkeypatch.setitem(waitlists.functions, "${WaitlistAwaitArn}", is_overtaken)
    waitlists.open(waitlist)
    waitlists.settle()

    assert waitlists.statuses(waitlist) == ["declined", "notified"]


def test_the_token_is_left_with_a_standing_offer_only(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()
    offered, seat = waitlists.entries(waitlist)[0], waitlists.seat_ids(waitlist)[0]

    assert await_answer(payload(seat, offered.id, "new"), Invocation()) == {"standing": True}
    assert waitlists.entries(waitlist)[0].task_token == "new"

    for seat_id, entry_id in ((uuid4(), offered.id), (seat, uuid4())):
        assert await_answer(payload(seat_id, entry_id, "other"), Invocation()) == {"standing": False}
    assert waitlists.entries(waitlist)[0].task_token == "new"


@pytest.mark.parametrize(
    ("missing", "reason"), [("task_token", "task_token: Field required"), ("entry_id", "entry_id: Field required")]
)
def test_a_payload_that_cannot_be_used_is_refused_by_name(waitlists: Waitlist, missing: str, reason: str) -> None:
    given = payload(uuid4(), uuid4(), "token")
    del given[missing]

    with pytest.raises(InvalidEvent, match=reason):
        await_answer(given, Invocation())


def payload(seat_id: object, entry_id: object, task_token: str) -> dict[str, str]:
    return {"seat_id": str(seat_id), "entry_id": str(entry_id), "task_token": task_token}
