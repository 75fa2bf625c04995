"""Offers of a waiting list's seats: the one that is open, its end, and the next."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select, update

from schoolbell.domains.tutoring.tables.people import students
from schoolbell.domains.tutoring.tables.waitlists import waitlist_entries, waitlist_seats, waitlists
from schoolbell.domains.tutoring.waitlists import GRACE
from schoolbell.jobs import JobContext
from schoolbell.notifications import Notification, Priority, notify
from schoolbell.notifications.channels import Channel


def lock_waitlist(connection: Connection, seat_id: UUID) -> Row[*tuple[Any, ...]] | None:
    """The seat's waitlist; nobody else makes an offer from it before this transaction ends. New entries may come."""
    waitlist = (
        select(waitlists.c.id, waitlists.c.capacity, waitlists.c.offer_window_seconds)
        .join(waitlist_seats, waitlist_seats.c.waitlist_id == waitlists.c.id)
        .where(waitlist_seats.c.id == seat_id)
    )
    return connection.execute(waitlist.with_for_update(of=waitlists, key_share=True)).one_or_none()


def close_expired_offer(connection: Connection, seat_id: UUID, now: datetime) -> None:
    """Marks the offer of a seat as expired, if its time is over."""
    is_expired = (waitlist_entries.c.status == "notified") & (waitlist_entries.c.expires_at <= now)
    connection.execute(
        update(waitlist_entries)
        .where(waitlist_entries.c.seat_id == seat_id, is_expired)
        .values(status="expired", task_token=None, updated_at=now)
    )


def open_offer(connection: Connection, seat_id: UUID) -> Row[*tuple[Any, ...]] | None:
    """The offer of a seat that stands, or that an application has marked as accepted without asking anybody."""
    offer = select(waitlist_entries.c.id, waitlist_entries.c.status, waitlist_entries.c.expires_at).where(
        waitlist_entries.c.seat_id == seat_id, waitlist_entries.c.status.in_(("notified", "accepted"))
    )
    return connection.execute(offer).one_or_none()


def taken_or_offered(connection: Connection, waitlist_id: UUID) -> int:
    """How many seats of a waitlist are taken or on offer."""
    has_seat = waitlist_entries.c.status.in_(("accepted", "notified"))
    count = select(func.count()).where(waitlist_entries.c.waitlist_id == waitlist_id, has_seat)
    return connection.execute(count).scalar_one()


def offer_to_next(
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
