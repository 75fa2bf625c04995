"""The messages that a teacher has planned: when one is due, the teacher is told, and still sends it by hand.

pending ──due──▶ fired       with an entry in the contact log and a notification of the teacher
   └──▶ cancelled: by the application
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from schoolbell.domains.tutoring import notices
from schoolbell.domains.tutoring.one_shots import MESSAGES, Overlooked, overlooked
from schoolbell.domains.tutoring.teacher_notifications import email_teachers

# The notification does not repeat the message, whose text is personal: the teacher opens it from the notification.
_FIRE = text(
    """
    WITH given AS MATERIALIZED (
        SELECT value::uuid AS id FROM json_array_elements_text(cast(:ids AS json))
    ),
    fired AS (
        UPDATE tutoring.scheduled_messages AS message
        SET status = 'fired', fired_at = :now, scheduled_for = NULL, updated_at = :now
        FROM given
        WHERE message.id = given.id AND message.status = 'pending' AND message.send_at <= :now
        RETURNING message.id, teacher_id, student_id, channel, body
    ),
    logged AS (
        INSERT INTO tutoring.contact_log
            (student_id, teacher_id, scheduled_message_id, channel, direction, body,
             occurred_at, created_at, updated_at)
        SELECT student_id, teacher_id, id, channel, 'outbound', body, :now, :now, :now FROM fired
        ON CONFLICT (scheduled_message_id) DO NOTHING
    ),
    told AS (
        INSERT INTO tutoring.teacher_notifications
            (teacher_id, student_id, kind, subject_id, dedup_key, title, created_at, updated_at)
        SELECT teacher_id, student_id, 'scheduled_message', id, 'scheduled-message/' || id,
               :title, :now, :now
        FROM fired
        ON CONFLICT (dedup_key) DO NOTHING
        RETURNING id
    )
    SELECT count(*), (SELECT json_agg(id) FROM told) FROM fired
    """
)


@dataclass(frozen=True, slots=True)
class Firing:
    """What became of some planned messages."""

    fired: int
    overlooked: Overlooked
    """Those that don't exist, or are not due yet."""


def fire(connection: Connection, messages: Iterable[UUID], now: datetime) -> Firing:
    """Fires those of these messages that are due and `pending`, each once, in the caller's transaction.

    A message that is not due, cancelled or fired already is left alone, and may stand in the list any number of times.
    """
    distinct = sorted({str(message) for message in messages})
    values = {"ids": json.dumps(distinct), "now": now, "title": notices.title("scheduled_message")}
    fired, told = connection.execute(_FIRE, values).one()
    email_teachers(connection, told, now)
    if fired == len(distinct):
        return Firing(fired, Overlooked())
    return Firing(fired, overlooked(connection, MESSAGES, map(UUID, distinct)))
