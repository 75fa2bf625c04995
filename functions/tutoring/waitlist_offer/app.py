"""Bring a seat of a waiting list one step further: close an offer that has expired, and make the next one."""

from datetime import datetime, timedelta
from math import ceil
from typing import Any, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import Connection, Row, update

from schoolbell.domains.tutoring import waitlist_offers
from schoolbell.domains.tutoring.tables.waitlists import waitlist_seats
from schoolbell.domains.tutoring.waitlists import GRACE, OPENINGS, lock_seat
from schoolbell.jobs import JobContext, Payload, Result, task_job

SLACK = timedelta(seconds=2)
"""The machine waits for so much longer than the offer stands, so that it is surely over when the machine looks."""

LONGEST_WAIT = timedelta(seconds=99_999_999)
"""Of a task of Step Functions. The machine looks at an offer that stands longer before it is over, and waits again.

https://docs.aws.amazon.com/step-functions/latest/dg/state-task.html
"""

ROUNDS_AN_EXECUTION = 40
"""After so many offers of a seat a new execution goes on: with 20 seats and 14 events a round, an execution has a
history of about 11,200 events and room for retries. Step Functions ends an execution at 25,000."""

type Settled = Literal["taken", "unfilled", "over_capacity", "passed_on"]


class OfferSeat(Payload):
    """The seat to look at, and how often this execution has waited for an answer about it."""

    seat_id: UUID
    round: int = Field(ge=0, strict=True)


class Offered(Result):
    """What became of the seat. Only `offered` is not final."""

    outcome: Literal["offered", "gone"] | Settled
    entry_id: UUID | None = None
    wait_seconds: int | None = None
    """How long the machine waits for the answer."""


@task_job("tutoring.waitlist-offer", OfferSeat)
def handler(job: JobContext, message: OfferSeat) -> Offered:
    """Looks at what is, not at what the machine says has happened; so it does no harm if done twice, late or early."""
    with job.transaction() as connection:
        waitlist = waitlist_offers.lock_waitlist(connection, message.seat_id)
        status = lock_seat(connection, message.seat_id)
        if waitlist is None or status is None:
            return Offered(outcome="gone")
        if status != "open":
            return Offered.model_validate({"outcome": status})
        waitlist_offers.close_expired_offer(connection, message.seat_id, job.now)
        offer = waitlist_offers.open_offer(connection, message.seat_id)
        if offer and offer.status == "accepted":
            return _settle(connection, message.seat_id, "taken")
        if offer:
            return _offered(offer, job.now)
        if message.round >= ROUNDS_AN_EXECUTION:
            return _pass_on(connection, job, waitlist, message.seat_id)
        if waitlist_offers.taken_or_offered(connection, waitlist.id) >= waitlist.capacity:
            return _settle(connection, message.seat_id, "over_capacity")
        offer = waitlist_offers.offer_to_next(connection, job, waitlist, message.seat_id)
        return _offered(offer, job.now) if offer else _settle(connection, message.seat_id, "unfilled")


def _offered(offer: Row[*tuple[Any, ...]], now: datetime) -> Offered:
    left = (offer.expires_at or now + GRACE) - now  # no end: somebody took it away by hand
    wait = min(left + SLACK, LONGEST_WAIT)
    return Offered(outcome="offered", entry_id=offer.id, wait_seconds=ceil(wait.total_seconds()))


def _settle(connection: Connection, seat_id: UUID, outcome: Settled) -> Offered:
    connection.execute(update(waitlist_seats).where(waitlist_seats.c.id == seat_id).values(status=outcome))
    return Offered(outcome=outcome)


def _pass_on(connection: Connection, job: JobContext, waitlist: Row[*tuple[Any, ...]], seat_id: UUID) -> Offered:
    job.outbox.send(
        connection,
        OPENINGS,
        {"waitlist_id": str(waitlist.id), "seats": 1},
        dedup_key=f"waitlist-seat/{seat_id}",
    )
    return _settle(connection, seat_id, "passed_on")
