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

from sqlalchemy import Connection, text

from schoolbell.domains.tutoring import notices
from schoolbell.domains.tutoring.one_shots import SESSION_ENDS, Overlooked, overlooked
from schoolbell.domains.tutoring.teacher_notifications import EMAIL_THE_TOLD

# One statement, since a round trip costs more than completing a lesson. The ids are in order, so that two batches with
# lessons in common take them in the same order; should they deadlock all the same (the planner may take the lessons of
# a small table as they lie), PostgreSQL ends one of them, and it is tried again.
#
# The ledger entry takes its lesson's id: there is one CONSUME a lesson, and ids from one place keep the index compact.
_COMPLETE = text(
    f"""
    WITH given AS MATERIALIZED (
        SELECT value::uuid AS id FROM json_array_elements_text(cast(:ids AS json))
    ),
    over AS (
        UPDATE tutoring.sessions AS session
        SET status = CASE completion_mode WHEN 'AUTO_COMPLETE' THEN 'completed' ELSE 'pending_review' END,
            completed_at = CASE completion_mode WHEN 'AUTO_COMPLETE' THEN cast(:now AS timestamptz) END,
            scheduled_for = NULL,
            updated_at = :now
        FROM given
        WHERE session.id = given.id AND session.status = 'scheduled' AND session.due_at <= :now
        RETURNING session.id, teacher_id, student_id, status, credit_cost, due_at
    ),
    consumed AS (
        INSERT INTO tutoring.credit_ledger (id, student_id, session_id, kind, amount, created_at)
        SELECT id, student_id, id, 'CONSUME', -credit_cost, :now FROM over WHERE status = 'completed'
        ON CONFLICT (session_id) WHERE kind = 'CONSUME' DO NOTHING
    ),
    told AS (
        INSERT INTO tutoring.teacher_notifications
            (teacher_id, student_id, kind, subject_id, dedup_key, title, created_at, updated_at)
        SELECT teacher_id, student_id, 'session_review', id,
               'session-review/' || id || '/' || extract(epoch FROM due_at),
               :title, :now, :now
        FROM over WHERE status = 'pending_review'
        ON CONFLICT (dedup_key) DO NOTHING
        RETURNING teacher_id, student_id, kind, dedup_key, title, body
    ),
    emailed AS ({EMAIL_THE_TOLD})
    SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'pending_review') FROM over
    """  # noqa: S608 - made of constants
)


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
