"""What teachers are told: a notification in the application, and an email that says the same.

The one in the application is a row that the job's own statement writes, with the change that it tells of. The email is
a notification of the platform, whose template is the kind; it is written in the same transaction, where there is one.
`platform.email-queue` hands the emails over within a minute, a hundred at a time, so that no job waits for SQS on their
account: the lessons that end on the hour are thousands, and hundreds of them want a review.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection

from schoolbell.database.sql import statement

_EMAIL = statement(__file__, "email_teachers.sql")


def email_teachers(connection: Connection, told: Collection[object] | None, now: datetime) -> None:
    """Writes an email for each of these notifications, in the caller's transaction; where there is none, nothing.

    Args:
        connection: the transaction that wrote them.
        told: ids of `tutoring.teacher_notifications` that the transaction has written, and not merely met.
        now: when they are written.
    """
    if told:
        connection.execute(_EMAIL, {"told": f"{{{','.join(map(str, told))}}}", "now": now})
