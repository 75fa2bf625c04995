"""Record the seats that have opened on a waiting list, and start the cascade that offers them."""

# ruff: noqa: S608 - the statements are put together from the constants below

import json
from collections.abc import Sequence
from itertools import batched
from uuid import UUID

from pydantic import Field
from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell import aws
from schoolbell.domains.tutoring.tables.waitlists import waitlists
from schoolbell.domains.tutoring.waitlists import CASCADE, GRACE, MOST_SEATS, source_of
from schoolbell.jobs import Batch, JobContext, Message, Payload, Result, batch_job

SEATS_AN_EXECUTION = 20
"""How many seats an execution offers at the same time; more are split. Step Functions runs up to 40 at once in a Map,
and the history of an execution is limited."""


class SeatsOpened(Payload):
    """Seats that have become free."""

    waitlist_id: UUID
    seats: int = Field(ge=1, le=MOST_SEATS, strict=True)


class Started(Result):
    """What was put on offer."""

    openings: int
    seats: int
    executions: int
    left: int
    """Executions that could not be started; `tutoring.waitlist-expiry` takes over their seats."""


@batch_job("tutoring.waitlist-openings", SeatsOpened)
def handler(job: JobContext, batch: Batch[SeatsOpened]) -> Started:
    """An opening counts once, by its message. Delivered again, it starts what was recorded the first time."""
    with job.transaction() as connection:
        known = _known_waitlists(connection, batch.payloads)
        messages = [message for message in batch.messages if message.payload.waitlist_id in known]
        opened, seats = _record(connection, job, messages)
        open_seats = _open_seats(connection, messages)
    for message in batch.messages:
        if message.payload.waitlist_id not in known:
            batch.discard(message, f"waitlist_id: no waitlist {message.payload.waitlist_id}")
    started = left = 0
    for message in messages:
        try:
            started += _start_cascades(job, *open_seats.get(source_of(message), (None, ())))
        except Exception as error:
            # The seats are recorded. A message on the DLQ would, when it is redriven, be taken for new seats.
            if message.attempt < job.settings.max_receive_count:
                batch.fail(message, error)
                continue
            job.logger.error("cascade not started, left to waitlist-expiry", message_id=message.id)
            left += 1
    return Started(openings=opened, seats=seats, executions=started, left=left)


def _known_waitlists(connection: Connection, payloads: Sequence[SeatsOpened]) -> set[UUID]:
    wanted = {payload.waitlist_id for payload in payloads}
    return set(connection.execute(select(waitlists.c.id).where(waitlists.c.id.in_(wanted))).scalars())


_OPENINGS = "jsonb_to_recordset(:openings) AS opened (source text, waitlist_id uuid, seats integer)"

_RECORD_OPENINGS = text(
    f"""
    INSERT INTO tutoring.waitlist_openings (source, waitlist_id, seats)
    SELECT source, waitlist_id, seats FROM {_OPENINGS}
    ON CONFLICT (source) DO NOTHING
    """
).bindparams(bindparam("openings", type_=JSONB))

_RECORD_SEATS = text(
    f"""
    INSERT INTO tutoring.waitlist_seats (opening_id, number, waitlist_id, tended_until)
    SELECT opening.id, number, opening.waitlist_id, :tended_until
    FROM {_OPENINGS}
    JOIN tutoring.waitlist_openings AS opening USING (source)
    CROSS JOIN generate_series(1, opening.seats) AS number
    ON CONFLICT (opening_id, number) DO NOTHING
    """
).bindparams(bindparam("openings", type_=JSONB))

_OPEN_SEATS = text(
    f"""
    SELECT source, opening.id, array_agg(seat.id::text ORDER BY number)
    FROM {_OPENINGS}
    JOIN tutoring.waitlist_openings AS opening USING (source)
    JOIN tutoring.waitlist_seats AS seat ON seat.opening_id = opening.id
    GROUP BY source, opening.id
    HAVING bool_or(seat.status = 'open')
    """
).bindparams(bindparam("openings", type_=JSONB))


def _record(connection: Connection, job: JobContext, messages: Sequence[Message[SeatsOpened]]) -> tuple[int, int]:
    openings = _as_json(messages)
    opened = connection.execute(_RECORD_OPENINGS, {"openings": openings}).rowcount
    seats = connection.execute(_RECORD_SEATS, {"openings": openings, "tended_until": job.now + GRACE}).rowcount
    return opened, seats


def _open_seats(
    connection: Connection, messages: Sequence[Message[SeatsOpened]]
) -> dict[str, tuple[UUID, Sequence[str]]]:
    """The seats of each opening that has one left to offer, with the opening's id, by the message's name."""
    rows = connection.execute(_OPEN_SEATS, {"openings": _as_json(messages)})
    return {source: (opening_id, seats) for source, opening_id, seats in rows}


def _as_json(messages: Sequence[Message[SeatsOpened]]) -> list[dict[str, object]]:
    return [{"source": source_of(message), **message.payload.model_dump(mode="json")} for message in messages]


def _start_cascades(job: JobContext, opening_id: UUID | None, seats: Sequence[str]) -> int:
    """Starts what has not been started before; name and input of an execution follow from the opening alone."""
    started = 0
    for part, few in enumerate(batched(seats, SEATS_AN_EXECUTION, strict=False), start=1):
        try:
            aws.client("stepfunctions").start_execution(
                stateMachineArn=job.settings.state_machine_arn(CASCADE),
                name=f"{opening_id}-{part}",
                input=json.dumps({"opening_id": str(opening_id), "seats": few}),
            )
            started += 1
        except Exception as error:
            if aws.error_code(error) != "ExecutionAlreadyExists":
                raise
    return started
