"""The completion of lessons: what a lesson's end does, for one or ten thousand of them at once.

             due, AUTO_COMPLETE       ┌─▶ completed       and a CONSUME entry of -credit_cost
scheduled ────────────────────────────┤
    │        due, PENDING_REVIEW      └─▶ pending_review  and a notification of the teacher
    └──▶ cancelled, no_show: by the application; the end of such a lesson does nothing
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from schoolbell.database.sql import statement
from schoolbell.domains.tutoring import notices
from schoolbell.domains.tutoring.one_shots import SESSION_ENDS, Overlooked, overlooked

_COMPLETE = statement(__file__, "complete_sessions.sql")


@dataclass(frozen=True, slots=True)
class Completion:
    """What became of some lessons."""

    completed: int
    pending_review: int
    overlooked: Overlooked
    """Those that don't exist, or are not due yet."""


def complete(connection: Connection, sessions: Iterable[UUID], now: datetime) -> Completion:
    """Completes those of these lessons that are due and `scheduled`, each at most once, in the caller's transaction.

    A lesson that is not due, cancelled or done already is left alone, and may stand in the list any number of times.
    """
    distinct = sorted({session.hex for session in sessions})
    values = {"ids": json.dumps(distinct), "now": now, "title": notices.title("session_review")}
    completed, pending_review = connection.execute(_COMPLETE, values).one()
    if completed + pending_review == len(distinct):
        return Completion(completed, pending_review, Overlooked())
    return Completion(completed, pending_review, overlooked(connection, SESSION_ENDS, map(UUID, distinct)))
