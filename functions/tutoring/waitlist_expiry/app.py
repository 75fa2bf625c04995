"""Expire offers that nobody looks after any more, hourly, and start a cascade for their seats.

A seat is looked after by the execution that offers it, until `tended_until`; see docs/waitlist.md.
"""

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
)
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.database.sql import statement
from schoolbell.domains.tutoring.waitlists import MOST_SEATS, OPENINGS
from schoolbell.jobs import Chunk, Cursor, JobContext, Result, scheduled_job

CHUNK = 5_000


class Expired(Result):
    """What was taken over, or would be in a dry run."""

    offers: int
    """Offers that were expired."""
    seats: int
    """Seats that are put on offer again."""


@scheduled_job("tutoring.waitlist-expiry", singleton=True, dry_run=True)
def handler(job: JobContext) -> Expired:
    """Takes over the seats that their executions have left, then the offers that were made by hand and are over."""
    return _take_over(job, "left", _LEFT_SEATS).plus(_take_over(job, "by-hand", _OFFERS_BY_HAND))


class _Work(NamedTuple):
    """Statements that count what is due, for a dry run, and that take over a chunk of it."""

    in_dry_run: TextClause
    chunk: TextClause


_LEFT_SEATS = _Work(
    in_dry_run=statement(__file__, "count_left_seats.sql"), chunk=statement(__file__, "take_over_left_seats.sql")
)
_OFFERS_BY_HAND = _Work(
    in_dry_run=statement(__file__, "count_offers_by_hand.sql"),
    chunk=statement(__file__, "take_over_offers_by_hand.sql"),
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
