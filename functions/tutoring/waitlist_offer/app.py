"""Bring a seat of a waiting list one step further: close an offer that has expired, and make the next one."""

from datetime import datetime, timedelta
from math import ceil
from typing import Any, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import Connection, Row, func, select, update

from schoolbell.domains.tutoring.tables.people import students
from schoolbell.domains.tutoring.tables.waitlists import waitlist_entries, waitlist_seats, waitlists
from schoolbell.domains.tutoring.waitlists import GRACE, OPENINGS, lock_seat
from schoolbell.jobs import JobContext, Payload, Result, task_job
from schoolbell.notifications import Notification, Priority, notify
from schoolbell.notifications.channels import Channel

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
        waitlist = _lock_waitlist(connection, message.seat_id)
        status = lock_seat(connection, message.seat_id)
        if waitlist is None or status is None:
            return Offered(outcome="gone")
        if status != "open":
            return Offered.model_validate({"outcome": status})
        _close_expired_offer(connection, message.seat_id, job.now)
        offer = _offer(connection, message.seat_id)
        if offer and offer.status == "accepted":
            return _settle(connection, message.seat_id, "taken")
        if offer:
            return _offered(offer, job.now)
        if message.round >= ROUNDS_AN_EXECUTION:
            return _pass_on(connection, job, waitlist, message.seat_id)
        if _taken_or_offered(connection, waitlist.id) >= waitlist.capacity:
            return _settle(connection, message.seat_id, "over_capacity")
        offer = _offer_to_next(connection, job, waitlist, message.seat_id)
        return _offered(offer, job.now) if offer else _settle(connection, message.seat_id, "unfilled")


def _lock_waitlist(connection: Connection, seat_id: UUID) -> Row[*tuple[Any, ...]] | None:
    """The seat's waitlist; nobody else makes an offer from it before this transaction ends. New entries may come."""
    waitlist = (
        select(waitlists.c.id, waitlists.c.capacity, waitlists.c.offer_window_seconds)
        .join(waitlist_seats, waitlist_seats.c.waitlist_id == waitlists.c.id)
        .where(waitlist_seats.c.id == seat_id)
    )
    return connection.execute(waitlist.with_for_update(of=waitlists, key_share=True)).one_or_none()


def _close_expired_offer(connection: Connection, seat_id: UUID, now: datetime) -> None:
    is_expired = (waitlist_entries.c.status == "notified") & (waitlist_entries.c.expires_at <= now)
    connection.execute(
        update(waitlist_entries)
        .where(waitlist_entries.c.seat_id == seat_id, is_expired)
        .values(status="expired", task_token=None, updated_at=now)
    )


def _offer(connection: Connection, seat_id: UUID) -> Row[*tuple[Any, ...]] | None:
    """The offer of a seat that stands, or that an application has marked as accepted without asking anybody."""
    offer = select(waitlist_entries.c.id, waitlist_entries.c.status, waitlist_entries.c.expires_at).where(
        waitlist_entries.c.seat_id == seat_id, waitlist_entries.c.status.in_(("notified", "accepted"))
    )
    return connection.execute(offer).one_or_none()


def _taken_or_offered(connection: Connection, waitlist_id: UUID) -> int:
    has_seat = waitlist_entries.c.status.in_(("accepted", "notified"))
    count = select(func.count()).where(waitlist_entries.c.waitlist_id == waitlist_id, has_seat)
    return connection.execute(count).scalar_one()


def _offer_to_next(
    connection: Connection, job: JobContext, waitlist: Row[*tuple[Any, ...]], seat_id: UUID
) -> Row[*tuple[Any, ...]] | None:
    """Offers the seat to whoever has waited longest, and tells the student; none where nobody waits."""
    expires_at = job.now + timedelta(seconds=waitlist.offer_window_seconds)
    first = (
        select(waitlist_entries.c.id)
        .join(students, students.c.id == waitlist_entries.c.student_id)
        .where(waitlist_entries.c.waitlist_id == waitlist.id, waitlist_entries.c.status == "waiting")
        .where(students.c.status != "erased")
        .order_by(waitlist_entries.c.position, waitlist_entries.c.created_at, waitlist_entries.c.id)
        .limit(1)
        .with_for_update(of=waitlist_entries)
    )
    offer = connection.execute(
        update(waitlist_entries)
        .where(waitlist_entries.c.id == first.scalar_subquery(), waitlist_entries.c.status == "waiting")
        .values(
            status="notified",
            notified_at=job.now,
            expires_at=expires_at,
            answered_at=None,
            task_token=None,
            seat_id=seat_id,
            updated_at=job.now,
        )
        .returning(waitlist_entries.c.id, waitlist_entries.c.student_id, waitlist_entries.c.expires_at)
    ).one_or_none()
    if offer is None:
        return None
    connection.execute(
        update(waitlist_seats).where(waitlist_seats.c.id == seat_id).values(tended_until=expires_at + GRACE)
    )
    notify(
        connection,
        job.outbox,
        Notification(
            channel=Channel.EMAIL,
            recipient=f"student/{offer.student_id}",
            template="waitlist_offer",
            data={"entry_id": str(offer.id), "waitlist_id": str(waitlist.id), "expires_at": expires_at.isoformat()},
            priority=Priority.HIGH,
            dedup_key=f"waitlist-offer/{offer.id}/{job.now.isoformat()}",
            expires_at=expires_at,
        ),
    )
    return offer


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
