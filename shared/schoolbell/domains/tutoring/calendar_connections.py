"""Teachers' Google accounts: one permission for their calendar and their Drive.

    active ──Google refuses the token──▶ revoked ──the teacher connects again (the application)──▶ active

Work for a teacher whose connection is revoked waits; none of it counts as an attempt.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from schoolbell.domains.tutoring import notices
from schoolbell.domains.tutoring.teacher_notifications import email_teachers


@dataclass(frozen=True, slots=True)
class GoogleAccount:
    """A teacher's connection to Google, as it was when it was read."""

    id: UUID
    teacher_id: UUID
    calendar_id: str
    secret_id: str
    """Where the OAuth token is."""
    seen: datetime
    """Its `updated_at`."""


_ACTIVE = text(
    """
    SELECT id, teacher_id, calendar_id, secret_id, updated_at
    FROM tutoring.calendar_connections
    WHERE teacher_id = :teacher_id AND status = 'active' AND secret_id IS NOT NULL
    ORDER BY created_at DESC, id
    LIMIT 1
    """
)

_KNOWN = text("SELECT EXISTS (SELECT FROM tutoring.calendar_connections WHERE teacher_id = :teacher_id)")

# `seen`: a connection that has changed since it was read may be a new one, with a token that works.
_REVOKE = text(
    """
    WITH revoked AS (
        UPDATE tutoring.calendar_connections SET status = 'revoked', updated_at = :now
        WHERE id = :id AND status = 'active' AND updated_at = :seen
        RETURNING id, teacher_id
    )
    INSERT INTO tutoring.teacher_notifications
        (teacher_id, kind, subject_id, dedup_key, title, created_at, updated_at)
    SELECT teacher_id, 'google_disconnected', id,
           'google-disconnected/' || id || '/' || extract(epoch FROM cast(:now AS timestamptz)),
           :title, :now, :now
    FROM revoked
    ON CONFLICT (dedup_key) DO NOTHING
    RETURNING id
    """
)


def active_account(connection: Connection, teacher_id: UUID) -> GoogleAccount | None:
    """The teacher's connection that works, as far as we know; the latest, if there are several."""
    row = connection.execute(_ACTIVE, {"teacher_id": teacher_id}).first()
    return GoogleAccount(*row) if row else None


def has_ever_connected(connection: Connection, teacher_id: UUID) -> bool:
    """Whether the teacher has a connection, be it one that no longer works."""
    return bool(connection.execute(_KNOWN, {"teacher_id": teacher_id}).scalar())


def mark_revoked(connection: Connection, account: GoogleAccount, now: datetime) -> bool:
    """Marks a connection whose token Google refuses and tells the teacher, unless it has changed since it was read."""
    values = {"id": account.id, "seen": account.seen, "now": now, "title": notices.title("google_disconnected")}
    told = connection.execute(_REVOKE, values).scalars().all()
    email_teachers(connection, told, now)
    return bool(told)
