"""What teachers are told: a notification in the application, and an email that says the same.

The one in the application is a row that the job's own statement writes, with the change that it tells of. The email is
a notification of the platform, whose template is the kind; it is written in the same transaction, where there is one.
`platform.email-queue` hands the emails over within a minute, a hundred at a time, so that no job waits for SQS on their
account: the lessons that end on the hour are thousands, and hundreds of them want a review.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

# What is found by night is so much that others should not wait for it. The id follows from the key: whoever writes an
# email again, after a crash, writes the same one.
EMAIL_THE_TOLD: Final = r"""
    INSERT INTO platform.notifications
        (id, channel, recipient, template, data, priority, dedup_key, student_id, created_at, updated_at)
    SELECT md5(key)::uuid, 'email', 'teacher/' || teacher_id, kind,
           jsonb_strip_nulls(jsonb_build_object('title', title, 'body', body)),
           CASE WHEN kind LIKE 'lifecycle\_%' THEN 'low' ELSE 'normal' END,
           key, student_id, :now, :now
    FROM told, LATERAL (SELECT 'teacher-email/' || dedup_key AS key) AS named
    ON CONFLICT (dedup_key) DO NOTHING
"""
"""SQL: writes an email for each row of `told`, rows of `tutoring.teacher_notifications` that the statement has written.
Wants the parameter `now`."""

_EMAIL = text(
    f"""
    WITH told AS (SELECT * FROM tutoring.teacher_notifications WHERE id = ANY (cast(:told AS uuid[])))
    {EMAIL_THE_TOLD}
    """  # noqa: S608 - made of this module's constants
)


def email_teachers(connection: Connection, told: Collection[object] | None, now: datetime) -> None:
    """Writes an email for each of these notifications, in the caller's transaction; where there is none, nothing.

    Args:
        connection: the transaction that wrote them.
        told: ids of `tutoring.teacher_notifications` that the transaction has written, and not merely met.
        now: when they are written.
    """
    if told:
        connection.execute(_EMAIL, {"told": f"{{{','.join(map(str, told))}}}", "now": now})
