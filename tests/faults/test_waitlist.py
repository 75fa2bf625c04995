"""The waiting list's jobs, with the process ended at every point where it can end."""

import json
from typing import Any

from functions.tutoring.waitlist_await.app import handler as await_answer
from functions.tutoring.waitlist_expiry.app import handler as expire_offers
from functions.tutoring.waitlist_offer.app import ROUNDS_AN_EXECUTION
from functions.tutoring.waitlist_offer.app import handler as offer_seat
from schoolbell.domains.tutoring.waitlists import GRACE
from tests.fakes.waitlist import ANSWERS, OPENINGS, WINDOW, Waitlist
from tests.faults.crash import Crashing, assert_crash_safe
from tests.performing import Invocation, rule_event

MAY_DIFFER = frozenset(
    {
        "outbox.sent_at",  # by the job, or by the relay a minute later
        # An opening and its seats are new in each try that is rolled back, and their ids are random.
        "waitlist_seats.opening_id",
        "waitlist_entries.seat_id",
        "outbox.dedup_key",
    }
)


def test_openings(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    bodies = [{"waitlist_id": str(waitlist.id), "seats": seats} for seats in (1, 25)]
    bodies.append({"waitlist_id": "3c1f7a52-8f0e-4b7e-9c52-0d8f5a6b1e01", "seats": 1})

    points = crash(waitlists, of_queue(waitlists, OPENINGS, bodies))

    assert "after stepfunctions.start_execution" in points
    assert sorted(seats_of_executions(waitlists)) == [1, 5, 20]


def test_offer(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    (seat,) = waitlists.seat_ids(waitlist)

    crash(waitlists, of_step(waitlists, offer_seat, {"seat_id": str(seat), "round": 0}))

    assert waitlists.statuses(waitlist) == ["notified", "waiting"]
    assert len(set(waitlists.told())) == 1


def test_offer_after_an_expired_one(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=2)
    waitlists.open(waitlist)
    waitlists.settle()
    waitlists.clock.advance(WINDOW)
    (seat,) = waitlists.seat_ids(waitlist)

    crash(waitlists, of_step(waitlists, offer_seat, {"seat_id": str(seat), "round": 1}))

    assert waitlists.statuses(waitlist) == ["expired", "notified"]


def test_offer_that_passes_the_seat_on(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    (seat,) = waitlists.seat_ids(waitlist)
    step = of_step(waitlists, offer_seat, {"seat_id": str(seat), "round": ROUNDS_AN_EXECUTION})

    crash(waitlists, step)

    assert waitlists.seats(waitlist) == ["passed_on"]
    assert len({sent.attributes["outbox-id"]["StringValue"] for sent in waitlists.queued()}) == 1


def test_await(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=1)
    waitlists.open(waitlist)
    waitlists.settle()
    payload = {
        "seat_id": str(waitlists.seat_ids(waitlist)[0]),
        "entry_id": str(waitlists.entries(waitlist)[0].id),
        "task_token": "token-2",
    }

    crash(waitlists, of_step(waitlists, await_answer, payload))

    assert waitlists.entries(waitlist)[0].task_token == "token-2"


def test_answers(waitlists: Waitlist) -> None:
    waitlist = waitlists.of(students=4)
    waitlists.open(waitlist, seats=2)
    waitlists.settle()
    by_hand = waitlists.make.entry(waitlist, status="notified")
    accepts, declines, never_offered, _, _ = waitlists.entries(waitlist)
    bodies = [
        {"entry_id": str(entry), "answer": answer}
        for entry, answer in (
            (accepts.id, "accept"),
            (declines.id, "decline"),
            (never_offered.id, "accept"),
            (by_hand.id, "decline"),
            ("5e2b8c64-1d3f-4f6a-8b21-7a9c0e4d2f02", "accept"),
        )
    ]

    points = crash(waitlists, of_queue(waitlists, ANSWERS, bodies))

    assert "after stepfunctions.send_task_success" in points
    assert waitlists.statuses(waitlist) == ["accepted", "declined", "waiting", "waiting", "declined"]


def test_expiry(waitlists: Waitlist) -> None:
    waitlist, other = waitlists.of(students=3), waitlists.of(students=0)
    waitlists.open(waitlist, seats=2)
    waitlists.settle()
    waitlists.make.entry(other, status="notified", expires_at=waitlists.clock.now)
    waitlists.machine.stop(waitlists.machine.running[0])
    waitlists.clock.advance(WINDOW + GRACE)
    event = rule_event(waitlists.clock.now)

    def invoke() -> None:
        expire_offers(event, Invocation(aws_request_id="the-same"))

    crash(waitlists, with_outside(waitlists, invoke, invoke))

    assert waitlists.statuses(waitlist) == ["expired", "expired", "waiting"]
    assert waitlists.statuses(other) == ["expired"]


def crash(waitlists: Waitlist, scenario: Crashing) -> list[str]:
    return assert_crash_safe(waitlists.database, scenario, volatile=MAY_DIFFER)


def of_step(waitlists: Waitlist, step: Any, payload: dict[str, Any]) -> Crashing:
    """A state's function, which the machine calls again when it dies."""

    def invoke() -> None:
        step(payload, Invocation())

    return with_outside(waitlists, invoke, invoke)


def of_queue(waitlists: Waitlist, queue: str, bodies: list[dict[str, Any]]) -> Crashing:
    """A batch of messages, which SQS delivers again when the process ends."""

    def deliver(attempt: int) -> None:
        ids = [f"m{number}" for number, _ in enumerate(bodies)]
        assert waitlists.deliver(queue, *bodies, message_ids=ids, attempt=attempt) == []

    return with_outside(waitlists, lambda: deliver(1), lambda: deliver(2))


def with_outside(waitlists: Waitlist, run: Any, retry: Any) -> Crashing:
    machine = waitlists.machine
    executions, sent = dict(machine.executions), list(waitlists.network.sent)

    def recover() -> None:
        retry()
        waitlists.relay()

    def outside() -> Any:
        """Executions, and messages: one that was sent twice counts once, since its consumers take it once."""
        messages = {(message.to, json.dumps(message.body)) for message in waitlists.network.sent}
        return sorted(seats_of_executions(waitlists)), sorted(messages), sorted(machine.woken)

    def reset() -> None:
        machine.restore(executions)
        waitlists.network.sent[:] = sent

    return Crashing(run, recover, outside, reset)


def seats_of_executions(waitlists: Waitlist) -> list[int]:
    return [len(json.loads(each.input)["seats"]) for each in waitlists.machine.executions.values()]
