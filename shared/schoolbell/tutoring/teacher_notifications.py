"""What teachers are told: a notification in the application, and an email that says the same.

The one in the application is a row that the job's own statement writes, with the change that it tells of. The email is
a notification of the platform, whose template is the kind; it is written in the same transaction, where there is one.
"""

from collections.abc import Collection
from typing import Final

from sqlalchemy import ARRAY, Connection, Text, Uuid, any_, bindparam, case, cast, func, literal, select

from schoolbell.database.tables.tutoring import teacher_notifications
from schoolbell.jobs.outbox import Outbox
from schoolbell.notifications import Priority, notify_from
from schoolbell.notifications.channels import Channel

_NOT_URGENT: Final = "lifecycle\\_%"
"""Found by night, and so many that others should not wait for them."""

_note = teacher_notifications.c
_EMAILS: Final = select(
    literal(Channel.EMAIL.value).label("channel"),
    func.concat("teacher/", _note.teacher_id).label("recipient"),
    _note.kind.label("template"),
    func.jsonb_strip_nulls(func.jsonb_build_object("title", _note.title, "body", _note.body)).label("data"),
    case((_note.kind.like(_NOT_URGENT), Priority.LOW.value), else_=Priority.NORMAL.value).label("priority"),
    func.concat("teacher-email/", _note.dedup_key).label("dedup_key"),
    _note.student_id,
).where(_note.id == any_(cast(bindparam("told", type_=Text), ARRAY(Uuid))))


def email_teachers(connection: Connection, outbox: Outbox, told: Collection[object] | None) -> None:
    """Writes an email for each of these notifications, in the caller's transaction; where there is none, nothing.

    Args:
        connection: the transaction that wrote them.
        outbox: the run's.
        told: ids of `tutoring.teacher_notifications` that the transaction has written, and not merely met.
    """
    if told:
        ids = f"{{{','.join(map(str, told))}}}"
        notify_from(connection, outbox, _EMAILS.params(told=ids))
