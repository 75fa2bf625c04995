"""Take a student's answer to the offer of a seat, and wake the machine that waits for it."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Row, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from schoolbell.domains.tutoring.tables.waitlists import waitlist_answers, waitlist_entries, waitlist_seats
from schoolbell.domains.tutoring.waitlists import GRACE, OPENINGS, lock_seat, source_of, wake
from schoolbell.jobs import Batch, Discard, JobContext, Message, Payload, Result, audit, batch_job

type Outcome = Literal["accepted", "declined", "repeated", "refused"]

STATUS = {"accept": "accepted", "decline": "declined"}


class Answer(Payload):
    """What a student says to an offer."""

    entry_id: UUID
    answer: Literal["accept", "decline"]


class Answered(Result):
    """How many answers had which outcome."""

    accepted: int = 0
    declined: int = 0
    repeated: int = 0
    refused: int = 0


@batch_job("tutoring.waitlist-answers", Answer)
def handler(job: JobContext, batch: Batch[Answer]) -> Answered:
    """Each answer is a transaction; a message that is handled again finds its answer recorded, and wakes once more."""
    answered = Answered()
    for message in batch.messages:
        try:
            outcome, task_token = _record(job, message)
        except Discard as never:
            batch.discard(message, str(never))
            continue
        if outcome in ("accepted", "declined"):
            wake(job, task_token, {"entry_id": str(message.payload.entry_id), "outcome": outcome})
        answered = answered.plus(Answered.model_validate({outcome: 1}))
    return answered


def _record(job: JobContext, message: Message[Answer]) -> tuple[Outcome, str | None]:
    """The outcome of an answer, and the token of the machine that waits for it."""
    answer, source = message.payload, source_of(message)
    with job.transaction() as connection:
        entry = _entry(connection, answer.entry_id)
        if entry is None:
            raise Discard(f"entry_id: no waitlist entry {answer.entry_id}")
        seat = lock_seat(connection, entry.seat_id) if entry.seat_id else "open"  # no seat: notified by hand
        recorded = _recorded(connection, source)
        if recorded:
            return recorded, entry.task_token
        closed = _close_offer(connection, entry, answer, job.now) if seat == "open" else None
        if closed:
            _settle_seat(connection, job, closed)
            return _note(connection, job, message, closed.status), closed.task_token
        outcome, reason = _why_not(_entry(connection, answer.entry_id), answer, job.now)
        return _note(connection, job, message, outcome, reason), None


def _entry(connection: Connection, entry_id: UUID) -> Row[*tuple[Any, ...]] | None:
    return connection.execute(select(waitlist_entries).where(waitlist_entries.c.id == entry_id)).one_or_none()


def _recorded(connection: Connection, source: str) -> Outcome | None:
    outcome = select(waitlist_answers.c.outcome).where(waitlist_answers.c.source == source)
    return connection.execute(outcome).scalar_one_or_none()


def _close_offer(
    connection: Connection, entry: Row[*tuple[Any, ...]], answer: Answer, now: datetime
) -> Row[*tuple[Any, ...]] | None:
    """The one statement that decides: an offer is answered if it stands now, and once."""
    stands = (
        (waitlist_entries.c.status == "notified")
        & waitlist_entries.c.seat_id.is_not_distinct_from(entry.seat_id)
        & or_(waitlist_entries.c.expires_at.is_(None), waitlist_entries.c.expires_at > now)
    )
    return connection.execute(
        update(waitlist_entries)
        .where(waitlist_entries.c.id == entry.id, stands)
        .values(status=STATUS[answer.answer], answered_at=now, updated_at=now)
        .returning(waitlist_entries)
    ).one_or_none()


def _settle_seat(connection: Connection, job: JobContext, entry: Row[*tuple[Any, ...]]) -> None:
    """An accepted seat is taken for good; a declined one is its execution's to offer again, or the next cascade's."""
    if entry.seat_id:
        settled: dict[str, Any] = (
            {"status": "taken"} if entry.status == "accepted" else {"tended_until": job.now + GRACE}
        )
        connection.execute(update(waitlist_seats).where(waitlist_seats.c.id == entry.seat_id).values(settled))
    elif entry.status == "declined":
        job.outbox.send(
            connection,
            OPENINGS,
            {"waitlist_id": str(entry.waitlist_id), "seats": 1},
            dedup_key=f"waitlist-entry/{entry.id}/{job.now.isoformat()}",
        )


def _why_not(entry: Row[*tuple[Any, ...]] | None, answer: Answer, now: datetime) -> tuple[Outcome, str]:
    if entry is None:
        return "refused", "deleted"
    if entry.status == STATUS[answer.answer]:
        return "repeated", f"already_{entry.status}"
    if entry.status in ("accepted", "declined"):
        return "refused", f"already_{entry.status}"
    if entry.status == "waiting":
        return "refused", "not_offered"
    if entry.status == "notified":
        return "refused", "expired" if entry.expires_at and entry.expires_at <= now else "seat_gone"
    return "refused", entry.status


def _note(
    connection: Connection, job: JobContext, message: Message[Answer], outcome: Outcome, reason: str | None = None
) -> Outcome:
    """Records what became of an answer; a refusal also in the audit log."""
    answer = message.payload
    noted = connection.execute(
        insert(waitlist_answers)
        .values(
            entry_id=answer.entry_id,
            source=source_of(message),
            answer=answer.answer,
            outcome=outcome,
            reason=reason,
            answered_at=job.now,
        )
        .on_conflict_do_nothing(index_elements=["source"])
    )
    if outcome == "refused" and noted.rowcount:
        details = {"answer": answer.answer, "reason": reason}
        audit.record(connection, "waitlist.answer_refused", job.name, str(answer.entry_id), details, job.now)
    return outcome
