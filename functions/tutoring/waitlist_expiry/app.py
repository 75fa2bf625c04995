"""Expire offers that nobody looks after any more, hourly, and start a cascade for their seats.

A seat is looked after by the execution that offers it, until `tended_until`; see docs/waitlist.md.
"""

# ruff: noqa: S608 - the statements are put together from the constants below

from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    Text,
    TextClause,
    Uuid,
    bindparam,
    column,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.domains.tutoring.waitlists import MOST_SEATS, OPENINGS
from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job

CHUNK = 5_000


class Expired(Result):
    """What was taken over, or would be in a dry run."""

    offers: int
    """Offers that were expired."""
    seats: int
    """Seats that are put on offer again."""


@scheduled_job("tutoring.waitlist-expiry", singleton=True)
def handler(job: JobContext) -> Expired:
    """Takes over the seats that their executions have left, then the offers that were made by hand and are over."""
    return _take_over(job, "left", _LEFT_SEATS).plus(_take_over(job, "by-hand", _OFFERS_BY_HAND))


class _Work(NamedTuple):
    """Statements that count what is due, for a dry run, and that take over a chunk of it."""

    in_dry_run: TextClause
    chunk: TextClause


_SEAT_IS_LEFT = """
    seat.status = 'open' AND seat.tended_until <= :now
    AND NOT EXISTS (
        SELECT FROM tutoring.waitlist_entries AS offer
        WHERE offer.seat_id = seat.id AND offer.status = 'notified'
          AND (offer.expires_at IS NULL OR offer.expires_at > :now)
    )
"""
"""The seat's execution should have looked at it again and has not; nobody has a valid offer of it."""

_OFFER_IS_LEFT = """
    offer.status = 'notified' AND offer.expires_at <= :now AND (offer.seat_id IS NULL OR seat.status <> 'open')
"""
"""The offer is over, and was made by hand: no execution knows of it."""

_HAS_OFFER = "SELECT FROM tutoring.waitlist_entries AS offer WHERE offer.seat_id = seat.id AND offer.status"

_AS_OPENINGS = """
    numbered AS (
        SELECT waitlist_id, dedup_key, row_number() OVER (PARTITION BY waitlist_id ORDER BY dedup_key) - 1 AS number
        FROM freed
    ), opening AS (
        SELECT waitlist_id, min(dedup_key) AS dedup_key, count(*) AS seats
        FROM numbered GROUP BY waitlist_id, number / :most
    )
    SELECT
        (SELECT max(since)::text FROM due) AS last,
        (SELECT count(*) FROM expired) AS offers,
        (SELECT count(*) FROM freed) AS seats,
        (SELECT jsonb_agg(to_jsonb(opening)) FROM opening) AS openings
"""
"""One opening a waitlist, or as many as its seats need; returns where the next chunk starts, counts and openings."""

_LEFT_SEATS = _Work(
    in_dry_run=text(
        f"""
        SELECT count(*) FILTER (WHERE NOT EXISTS ({_HAS_OFFER} = 'accepted')) AS seats,
               count(*) FILTER (WHERE EXISTS ({_HAS_OFFER} = 'notified')) AS offers
        FROM tutoring.waitlist_seats AS seat WHERE {_SEAT_IS_LEFT}
        """
    ),
    chunk=text(
        f"""
        WITH due AS (
            SELECT seat.id, seat.tended_until AS since
            FROM tutoring.waitlist_seats AS seat
            WHERE {_SEAT_IS_LEFT} AND seat.tended_until >= cast(:after AS timestamptz)
            ORDER BY seat.tended_until LIMIT :size
            FOR NO KEY UPDATE SKIP LOCKED
        ), expired AS (
            UPDATE tutoring.waitlist_entries AS offer SET status = 'expired', task_token = NULL, updated_at = :now
            FROM due WHERE offer.seat_id = due.id AND offer.status = 'notified' AND offer.expires_at <= :now
            RETURNING offer.id
        ), settled AS (
            UPDATE tutoring.waitlist_seats AS seat
            SET status = CASE WHEN EXISTS ({_HAS_OFFER} = 'accepted') THEN 'taken' ELSE 'passed_on' END
            FROM due WHERE seat.id = due.id
            RETURNING seat.id, seat.waitlist_id, seat.status
        ), freed AS (
            SELECT waitlist_id, 'waitlist-seat/' || id AS dedup_key FROM settled WHERE status = 'passed_on'
        ), {_AS_OPENINGS}
        """
    ),
)

_OFFERS_BY_HAND = _Work(
    in_dry_run=text(
        f"""
        SELECT count(*) FILTER (WHERE offer.seat_id IS NULL) AS seats, count(*) AS offers
        FROM tutoring.waitlist_entries AS offer
        LEFT JOIN tutoring.waitlist_seats AS seat ON seat.id = offer.seat_id
        WHERE {_OFFER_IS_LEFT}
        """
    ),
    chunk=text(
        f"""
        WITH due AS (
            SELECT offer.id, offer.expires_at AS since
            FROM tutoring.waitlist_entries AS offer
            LEFT JOIN tutoring.waitlist_seats AS seat ON seat.id = offer.seat_id
            WHERE {_OFFER_IS_LEFT} AND offer.expires_at >= cast(:after AS timestamptz)
            ORDER BY offer.expires_at LIMIT :size
            FOR NO KEY UPDATE OF offer SKIP LOCKED
        ), expired AS (
            UPDATE tutoring.waitlist_entries AS offer SET status = 'expired', task_token = NULL, updated_at = :now
            FROM due WHERE offer.id = due.id
            RETURNING offer.id, offer.waitlist_id, offer.seat_id, offer.expires_at
        ), freed AS (
            SELECT waitlist_id, 'waitlist-entry/' || id || '/' || expires_at AS dedup_key
            FROM expired WHERE seat_id IS NULL
        ), {_AS_OPENINGS}
        """
    ),
)


def _take_over(job: JobContext, phase: str, work: _Work) -> Expired:
    def step(connection: Connection, cursor: Cursor) -> Chunk | None:
        if job.dry_run:
            counted = connection.execute(work.in_dry_run, {"now": job.now}).one()
            return (
                None if cursor else Chunk("counted", counted.offers, {"offers": counted.offers, "seats": counted.seats})
            )
        limits = {"now": job.now, "after": cursor or "-infinity", "size": CHUNK, "most": MOST_SEATS}
        taken = connection.execute(work.chunk, limits).one()
        if taken.last is None:
            return None
        if taken.openings:
            job.outbox.send_from(connection, _messages(taken.openings))
        return Chunk(taken.last, taken.offers, {"offers": taken.offers, "seats": taken.seats})

    counts = job.in_chunks(step, phase).counts
    return Expired(offers=counts.get("offers", 0), seats=counts.get("seats", 0))


def _messages(openings: list[dict[str, Any]]) -> Select[Any]:
    """One message a row of `openings` (`waitlist_id`, `seats`, `dedup_key`)."""
    opening = (
        func.jsonb_to_recordset(bindparam("openings", openings, type_=JSONB))
        .table_valued(column("waitlist_id", Uuid), column("seats", Integer), column("dedup_key", Text))
        .render_derived("opening", with_types=True)
    )
    payload = func.jsonb_build_object("waitlist_id", opening.c.waitlist_id, "seats", opening.c.seats)
    return select(literal(OPENINGS).label("destination"), payload.label("payload"), opening.c.dedup_key)
