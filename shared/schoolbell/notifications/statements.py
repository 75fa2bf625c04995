"""What delivery reads of notifications, and writes to them, as SQL; and what is read, as values."""

import json
from collections.abc import Iterable
from datetime import time
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.notifications import Priority
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.policy import Person, Preference, Queued


def as_json(ids: Iterable[UUID]) -> str:
    """The parameter `ids`."""
    return json.dumps([str(each) for each in ids])


_GIVEN: Final = "SELECT value::uuid AS id FROM json_array_elements_text(cast(:ids AS json))"

READ = text(
    f"""
    WITH given AS MATERIALIZED ({_GIVEN})
    SELECT told.id, told.status, told.channel, told.recipient, told.template, told.data, told.priority,
           told.expires_at, told.scheduled_for, told.handed_over_at, told.claimed_until,
           person.name, person.email, person.phone, person.timezone, person.erased,
           (
               SELECT json_agg(json_build_object(
                   'kind', kind, 'channel', channel, 'wanted', wanted,
                   'quiet_from', quiet_from, 'quiet_until', quiet_until, 'timezone', timezone
               ))
               FROM platform.notification_preferences WHERE person = told.recipient
           ) AS preferences,
           (
               SELECT json_agg(token ORDER BY last_seen_at DESC)
               FROM platform.push_tokens
               WHERE person = told.recipient AND told.channel = 'push' AND token IS NOT NULL
           ) AS tokens
    FROM given
    JOIN platform.notifications AS told USING (id)
    LEFT JOIN platform.people AS person
      ON person.kind = split_part(told.recipient, '/', 1)
     AND person.id = CASE
             WHEN told.recipient ~* '^(teacher|student)/[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
             THEN substr(told.recipient, 9)::uuid
         END
    """  # noqa: S608 - made of this module's constants
)

REQUEUE_FAILED = text(
    f"""
    WITH given AS MATERIALIZED ({_GIVEN})
    UPDATE platform.notifications AS told
    SET status = 'queued', attempts = 0, uncertain = 0, error = NULL, scheduled_for = NULL,
        handed_over_at = :now, updated_at = :now
    FROM given
    WHERE told.id = given.id AND told.status = 'failed'
    """  # noqa: S608 - made of this module's constants
)

# A row that is still claimed is one whose provider may have been called: the invocation that claimed it was killed.
CLAIM = text(
    f"""
    WITH given AS MATERIALIZED ({_GIVEN}),
    free AS (
        SELECT id FROM platform.notifications
        WHERE id IN (SELECT id FROM given) AND status = 'queued'
          AND (scheduled_for IS NULL OR scheduled_for <= :now) AND (claimed_until IS NULL OR claimed_until <= :now)
        FOR UPDATE SKIP LOCKED
    )
    UPDATE platform.notifications AS told
    SET attempts = attempts + 1, uncertain = uncertain + CASE WHEN claimed_by IS NULL THEN 0 ELSE 1 END,
        claimed_by = :run, claimed_until = :until, updated_at = :now
    FROM free
    WHERE told.id = free.id
    RETURNING told.id, attempts, uncertain
    """  # noqa: S608 - made of this module's constants
)

STILL_HANDED_OVER = text(
    f"""
    WITH given AS MATERIALIZED ({_GIVEN})
    UPDATE platform.notifications AS told SET handed_over_at = :now, updated_at = :now
    FROM given
    WHERE told.id = given.id AND told.status = 'queued'
    """  # noqa: S608 - made of this module's constants
)

FORGET_TOKENS = text(
    """
    DELETE FROM platform.push_tokens
    WHERE token IN (SELECT value FROM json_array_elements_text(cast(:tokens AS json)))
    """
)


def _update(columns: str, assigned: str, condition: str, returning: str = "") -> TextClause:
    """A statement that sets columns of many notifications, each by the row that has its id."""
    return text(
        f"""
        UPDATE platform.notifications AS told
        SET {assigned}, claimed_by = NULL, claimed_until = NULL, updated_at = :now
        FROM jsonb_to_recordset(:rows) AS given (id uuid, {columns})
        WHERE told.id = given.id AND {condition} {returning}
        """  # noqa: S608 - made of this module's constants
    ).bindparams(bindparam("rows", type_=JSONB))


_IS_OURS: Final = "told.status = 'queued' AND (told.claimed_by IS NULL OR told.claimed_by = :run)"

# What the provider has accepted is sent, whoever has the row by now.
SENT = _update(
    "provider text, message_id text, sent_by text",
    "status = 'sent', sent_at = :now, provider = given.provider, provider_message_id = given.message_id,"
    " sent_by = given.sent_by, error = NULL",
    "told.status IN ('queued', 'failed') AND cast(:run AS uuid) IS NOT NULL",
)
TRY_AGAIN = _update(
    "provider text, error text, at timestamptz, attempts integer, uncertain integer, is_under_way boolean",
    "attempts = told.attempts - 1 + given.attempts, uncertain = told.uncertain + given.uncertain,"
    " provider = given.provider, error = given.error, scheduled_for = given.at,"
    " handed_over_at = CASE WHEN given.is_under_way THEN cast(:now AS timestamptz) END",
    _IS_OURS,
)
WAIT = _update("until timestamptz", "scheduled_for = given.until, handed_over_at = NULL", _IS_OURS)
SUPPRESS = _update("error text", "status = 'suppressed', error = given.error", _IS_OURS)
FAIL = _update(
    "error text",
    "status = 'failed', error = given.error",
    _IS_OURS,
    "RETURNING told.id, told.priority, told.attempts, told.error",
)


def queued(row: Row[Any]) -> Queued:
    """A row of `READ`."""
    person = None
    if row.name is not None:
        person = Person(row.name, row.email, row.phone, row.timezone, row.erased, row.tokens or ())
    return Queued(
        id=row.id,
        channel=Channel(row.channel),
        recipient=row.recipient,
        template=row.template,
        data=row.data,
        priority=Priority(row.priority),
        expires_at=row.expires_at,
        person=person,
        preferences=[_preference(each) for each in row.preferences or ()],
    )


def _preference(columns: dict[str, Any]) -> Preference:
    times = {name: each and _time_of_day(each) for name in _TIMES for each in [columns[name]]}
    return Preference(**columns | times)


def _time_of_day(text: str) -> time:
    """A time as PostgreSQL writes it. It knows 24:00, when a day ends; Python does not, and the next begins at 0:00."""
    return time() if text == "24:00:00" else time.fromisoformat(text)


_TIMES: Final = ("quiet_from", "quiet_until")
