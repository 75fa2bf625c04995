"""What the jobs of the waiting list share. Why no seat is ever given twice is written down in docs/waitlist.md.

Every change of a seat, and of the offer that is made of it, happens under the lock of the seat's row (`lock_seat`);
where a transaction locks more, the order is waitlist, seat, entry.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from schoolbell import aws
from schoolbell.domains.tutoring.tables.waitlists import waitlist_seats
from schoolbell.jobs import JobContext, Message

CASCADE = "tutoring.waitlist-cascade"
OPENINGS = "tutoring.waitlist-openings"

MOST_SEATS = 500
"""In one message; more seats than that at a time is a mistake rather than a lesson."""

GRACE = timedelta(minutes=15)
"""How long a seat is left alone after its execution should have taken the next step; longer than its retries take.

A seat which nobody has touched for so long is taken over by `tutoring.waitlist-expiry`. Should the execution be alive
after all, it finds the seat passed on, and ends.
"""

NOBODY_WAITS = ("TaskTimedOut", "TaskDoesNotExist", "InvalidToken")


def lock_seat(connection: Connection, seat_id: UUID) -> str | None:
    """The status of a seat, which stays as it is, like the seat's offer, until this transaction ends."""
    seat = select(waitlist_seats.c.status).where(waitlist_seats.c.id == seat_id)
    return connection.execute(seat.with_for_update(key_share=True)).scalar_one_or_none()


def source_of(message: Message[Any]) -> str:
    """Names a message, the same for every delivery of it: that of the outbox row it came from, else that of SQS."""
    outbox_id = message.received.outbox_id
    return f"outbox/{outbox_id}" if outbox_id else f"sqs/{message.received.first_id}"


def wake(job: JobContext, task_token: str | None, output: Mapping[str, str]) -> None:
    """Tells the execution that waits with a token to look at its seat now.

    That nobody waits is fine: the database has decided already, and the machine looks again when the window ends.

    Raises:
        botocore.exceptions.ClientError: Step Functions could not be told.
    """
    if task_token is None:
        return
    try:
        aws.client("stepfunctions").send_task_success(taskToken=task_token, output=json.dumps(dict(output)))
    except Exception as error:
        if aws.error_code(error) not in NOBODY_WAITS:
            raise
        job.logger.info("no execution waits for this answer", extra={"reason": aws.error_code(error), **output})
