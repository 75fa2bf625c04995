"""Never more accepted than seats: at the same moment (threads), and in any order (random interleavings)."""

import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.exc import DatabaseError

from functions.tutoring.waitlist_offer.app import ROUNDS_AN_EXECUTION
from functions.tutoring.waitlist_offer.app import handler as offer
from local.tables import empty
from schoolbell.domains.tutoring.schema import waitlist_entries
from schoolbell.domains.tutoring.waitlists import GRACE
from schoolbell.jobs.runtime import Runtime, install
from tests.fakes.waitlist import OPENINGS, WINDOW, Sent, Waitlist
from tests.performing import Invocation

TRIES = 15
EXAMPLES = int(os.environ.get("WAITLIST_EXAMPLES", "15"))


def at_once(*calls: Callable[[], object]) -> list[object]:
    """What calls return, in threads that start together. Raises what one of them raised."""
    barrier = threading.Barrier(len(calls))
    answers: list[object] = []
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers


def offers(seats: list[Any]) -> list[Callable[[], object]]:
    return [partial(offer, {"seat_id": str(seat), "round": 0}, Invocation()) for seat in seats]


def recorded(waitlists: Waitlist, students: int, seats: int, **columns: Any) -> tuple[Any, list[Any]]:
    """A waiting list whose open seats no execution touches."""
    waitlist = waitlists.of(students, **columns)
    for _ in range(seats):
        waitlists.open(waitlist)
    return waitlist, waitlists.seat_ids(waitlist)


def test_the_same_seat_offered_at_once_goes_to_one_student(waitlists: Waitlist) -> None:
    for _ in range(TRIES):
        waitlist, (seat,) = recorded(waitlists, students=3, seats=1)

        at_once(*offers([seat] * 3))

        assert waitlists.statuses(waitlist) == ["notified", "waiting", "waiting"]


def test_seats_offered_at_once_go_to_different_students_in_order(waitlists: Waitlist) -> None:
    for _ in range(TRIES):
        waitlist, seats = recorded(waitlists, students=4, seats=3)

        at_once(*offers(seats))

        assert waitlists.statuses(waitlist) == ["notified", "notified", "notified", "waiting"]


def test_seats_offered_at_once_stay_within_the_capacity(waitlists: Waitlist) -> None:
    for _ in range(TRIES):
        waitlist, seats = recorded(waitlists, students=5, seats=4, capacity=2)

        at_once(*offers(seats))

        assert waitlists.statuses(waitlist).count("notified") == 2
        assert sorted(waitlists.seats(waitlist)) == ["open", "open", "over_capacity", "over_capacity"]


def test_of_two_answers_at_once_one_counts(waitlists: Waitlist) -> None:
    for _ in range(TRIES):
        waitlist, (seat,) = recorded(waitlists, students=1, seats=1)
        offer({"seat_id": str(seat), "round": 0}, Invocation())
        (entry,) = waitlists.entries(waitlist)

        at_once(lambda: waitlists.answer(entry, "accept"), lambda: waitlists.answer(entry, "decline"))  # noqa: B023

        (status,) = waitlists.statuses(waitlist)
        outcomes = {outcome for _, outcome, _ in waitlists.answers(waitlist)}
        assert outcomes == {status, "refused"}
        assert waitlists.seats(waitlist) == [{"accepted": "taken", "declined": "open"}[status]]


@pytest.mark.parametrize("is_by_hand", [False, True])
def test_one_message_delivered_twice_at_once_is_one_answer(waitlists: Waitlist, is_by_hand: bool) -> None:
    for number in range(TRIES):
        waitlist, (seat,) = recorded(waitlists, students=0, seats=1)
        entry = waitlists.make.entry(waitlist, status="notified" if is_by_hand else "waiting")
        if not is_by_hand:
            offer({"seat_id": str(seat), "round": 0}, Invocation())

        deliver = partial(waitlists.answer, entry, "accept", message_id=f"m{number}")
        assert at_once(deliver, deliver) == [[], []]

        assert waitlists.answers(waitlist) == [("accept", "accepted", None)]


def test_one_opening_delivered_twice_at_once_opens_one_seat(waitlists: Waitlist) -> None:
    for number in range(TRIES):
        waitlist = waitlists.of(students=0)

        at_once(*[lambda: waitlists.open(waitlist, message_id=f"m{number}")] * 2)  # noqa: B023

        assert waitlists.seats(waitlist) == ["open"]


def test_an_answer_in_the_last_second_and_the_end_of_the_window_do_not_both_count(waitlists: Waitlist) -> None:
    """Their clocks disagree by a second, which is what makes it a race."""
    clocks = threading.local()
    install(Runtime(waitlists.database, waitlists.settings, lambda: clocks.now))
    for _ in range(TRIES):
        clocks.now = waitlists.clock.now
        waitlist, (seat,) = recorded(waitlists, students=2, seats=1)
        offer({"seat_id": str(seat), "round": 0}, Invocation())
        first = waitlists.entries(waitlist)[0]

        def at(moment: datetime, call: Callable[[], object]) -> Callable[[], object]:
            def run() -> None:
                clocks.now = moment
                call()

            return run

        at_once(
            at(first.expires_at - timedelta(seconds=1), lambda: waitlists.answer(first, "accept")),  # noqa: B023
            at(first.expires_at, *offers([seat])),
        )

        outcome = (waitlists.statuses(waitlist), waitlists.seats(waitlist), waitlists.answers(waitlist)[0][1])
        assert outcome in [
            (["accepted", "waiting"], ["taken"], "accepted"),
            (["expired", "notified"], ["open"], "refused"),
        ]


def test_an_answer_and_the_hourly_run_do_not_both_count(waitlists: Waitlist) -> None:
    """Clocks that disagree by more than they ever would: then, too, the seat is given once."""
    clocks = threading.local()
    install(Runtime(waitlists.database, waitlists.settings, lambda: clocks.now))
    for _ in range(TRIES):
        clocks.now = waitlists.clock.now
        waitlist, (seat,) = recorded(waitlists, students=2, seats=1)
        offer({"seat_id": str(seat), "round": 0}, Invocation())
        first = waitlists.entries(waitlist)[0]
        waitlists.network.sent.clear()

        def accept() -> None:
            clocks.now = first.expires_at - timedelta(seconds=1)  # noqa: B023
            waitlists.answer(first, "accept")  # noqa: B023

        def expire() -> None:
            clocks.now = first.expires_at + GRACE  # noqa: B023
            waitlists.expire()

        at_once(accept, expire)

        outcome = (waitlists.statuses(waitlist)[0], waitlists.seats(waitlist)[0], len(waitlists.queued()))
        assert outcome in [("accepted", "taken", 0), ("expired", "passed_on", 1)]


def test_the_database_itself_refuses_two_students_on_one_seat(waitlists: Waitlist) -> None:
    waitlist, (seat,) = recorded(waitlists, students=0, seats=1)
    waitlists.make.entry(waitlist, status="accepted", seat_id=seat)

    with pytest.raises(DatabaseError, match="uq_waitlist_entries_seat_id"):
        waitlists.make.entry(waitlist, status="notified", seat_id=seat)


class Story:
    """A random course of events on one waiting list, with what must hold after each of them."""

    def __init__(self, waitlists: Waitlist, data: st.DataObject) -> None:
        self.world, self.data = waitlists, data
        self.capacity = data.draw(st.integers(1, 4), "capacity")
        self.waitlist = waitlists.of(data.draw(st.integers(1, 5), "students"), capacity=self.capacity)
        self.opened = 0
        self.messages = 0
        self.openings: list[tuple[str, int]] = []
        self.answers: list[tuple[str, Any, str]] = []
        self.relayed: list[Sent] = []
        self.accepted: set[Any] = set()
        self.events: dict[str, Callable[[], object]] = {
            "open": self.open,
            "open again": self.open_again,
            "step": self.step,
            "stray step": self.stray_step,
            "answer": self.answer,
            "answer again": self.answer_again,
            "relay": self.relay,
            "relay again": self.relay_again,
            "wait": self.wait,
            "hourly run": self.world.expire,
            "kill": self.kill,
            "withdraw": self.withdraw,
            "machine away": self.toggle_machine,
        }

    def tell(self, events: int) -> None:
        for _ in range(events):
            name = self.data.draw(st.sampled_from([*self.events, "step", "step", "answer"]), "event")
            self.events[name]()
            self.check()
        self.end()

    # Events

    def open(self) -> None:
        seats = self.data.draw(st.integers(1, 2), "seats")
        name = self._name()
        self.opened += seats
        self.openings.append((name, seats))
        self.world.open(self.waitlist, seats, message_id=name)

    def open_again(self) -> None:
        if self.openings:
            name, seats = self.data.draw(st.sampled_from(self.openings))
            self.world.open(self.waitlist, seats, message_id=name, attempt=2)

    def step(self) -> None:
        ready = self.world.machine.ready()
        if ready:
            self.world.machine.step(ready[self.data.draw(st.integers(0, len(ready) - 1), "thread")])

    def stray_step(self) -> None:
        """A step of an execution that should be dead, or a retry of one that has been done."""
        seats = self.world.seat_ids(self.waitlist)
        if seats:
            seat = self.data.draw(st.sampled_from(seats))
            offer(
                {"seat_id": str(seat), "round": self.data.draw(st.sampled_from([0, ROUNDS_AN_EXECUTION]))}, Invocation()
            )

    def answer(self) -> None:
        entry = self.data.draw(st.sampled_from(self.world.entries(self.waitlist)))
        answer = self.data.draw(st.sampled_from(["accept", "decline"]))
        self.answers.append((self._name(), entry, answer))
        self._give(self.answers[-1])

    def answer_again(self) -> None:
        if self.answers:
            self._give(self.data.draw(st.sampled_from(self.answers)))

    def relay(self) -> None:
        for message in self.world.queued():
            self.world.network.sent.remove(message)
            self.relayed.append(message)
            self.world.deliver(OPENINGS, message.body, attributes=message.attributes)

    def relay_again(self) -> None:
        if self.relayed:
            message = self.data.draw(st.sampled_from(self.relayed))
            self.world.deliver(OPENINGS, message.body, attributes=message.attributes)

    def wait(self) -> None:
        self.world.clock.advance(self.data.draw(st.sampled_from([timedelta(minutes=1), GRACE, WINDOW])))

    def kill(self) -> None:
        if self.world.machine.running:
            self.world.machine.stop(self.data.draw(st.sampled_from(self.world.machine.running)))

    def withdraw(self) -> None:
        entry = self.data.draw(st.sampled_from(self.world.entries(self.waitlist)))
        if entry.status in ("waiting", "notified"):
            with self.world.database.transaction() as connection:
                chosen = waitlist_entries.c.id == entry.id
                connection.execute(update(waitlist_entries).where(chosen).values(status="withdrawn"))

    def toggle_machine(self) -> None:
        self.world.network.is_machine_away = not self.world.network.is_machine_away

    # What must hold

    def check(self) -> None:
        """Always."""
        entries = self.world.entries(self.waitlist)
        self.accepted |= {entry.id for entry in entries if entry.status == "accepted"}
        seats = self.world.seats(self.waitlist)
        has_seat = [entry for entry in entries if entry.status in ("accepted", "notified")]
        on_the_way = sum(message.body["seats"] for message in self.world.queued())
        assert len(self.accepted) == seats.count("taken") <= self.opened
        assert len(has_seat) <= self.capacity
        assert len({entry.seat_id for entry in has_seat}) == len(has_seat) <= self.opened
        assert sum(status != "passed_on" for status in seats) + on_the_way == self.opened
        assert len(self.world.told()) == len({(e.id, e.notified_at) for e in entries if e.notified_at})

    def end(self) -> None:
        """When all is well again and time goes by, every seat finds a student, or nobody waits, or the list is full."""
        self.world.network.is_machine_away = False
        for _ in range(40):
            self.world.expire()
            self.world.pass_time(WINDOW + GRACE)
            if not self.world.machine.running and "open" not in self.world.seats(self.waitlist):
                break
        self.check()
        seats, statuses = self.world.seats(self.waitlist), self.world.statuses(self.waitlist)
        assert "open" not in seats
        assert "notified" not in statuses
        assert not self.world.machine.running
        assert "unfilled" not in seats or "waiting" not in statuses

    def _give(self, answer: tuple[str, Any, str]) -> None:
        name, entry, what = answer
        self.world.answer(entry, what, message_id=name)

    def _name(self) -> str:
        self.messages += 1
        return f"m{self.messages}"


@pytest.mark.parametrize("events", [30])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_whatever_happens_in_whatever_order_no_seat_is_given_twice_and_none_is_lost(
    waitlists: Waitlist, events: int, data: st.DataObject
) -> None:
    with waitlists.database.transaction() as connection:
        empty(connection)
    world = Waitlist(waitlists.database, waitlists.make, type(waitlists.clock)(waitlists.make.now), waitlists.settings)
    install(Runtime(world.database, world.settings, world.clock))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schoolbell.aws.client", world.network.client)
        Story(world, data).tell(events)
