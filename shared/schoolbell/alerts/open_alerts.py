"""Alerts of sweeps: what is wrong is found anew in every run, and told once, when it changes, and when it is over.

A sweep says what is wrong at the moment, and what has been told already is a row of `platform.standing_alerts`, changed
in the transaction that writes the alert to the outbox. So a sweep that dies, or runs twice, tells nothing twice.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.alerts import Alert, Severity, send_alert
from schoolbell.jobs.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Standing:
    """An alert that was raised and not resolved."""

    key: str
    source: str
    severity: str
    summary: str
    details: Mapping[str, Any]
    since: datetime


_STANDING = text(
    """
    SELECT key, source, severity, summary, details, since FROM platform.standing_alerts
    WHERE starts_with(key, :prefix)
    """
)

_RAISE = text(
    """
    INSERT INTO platform.standing_alerts AS alert (key, source, severity, summary, details, since)
    SELECT key, source, severity, summary, details, :now
    FROM jsonb_to_recordset(:alerts) AS wanted (key text, source text, severity text, summary text, details jsonb)
    ON CONFLICT (key) DO UPDATE
    SET source = excluded.source, severity = excluded.severity, summary = excluded.summary, details = excluded.details,
        changes = alert.changes + 1
    WHERE (alert.severity, alert.summary, alert.details)
          IS DISTINCT FROM (excluded.severity, excluded.summary, excluded.details)
    RETURNING key, since, changes
    """
).bindparams(bindparam("alerts", type_=JSONB))

_RESOLVE = text(
    """
    DELETE FROM platform.standing_alerts
    WHERE starts_with(key, :prefix) AND NOT :kept ? key
    RETURNING key, source, severity, summary, since
    """
).bindparams(bindparam("kept", type_=JSONB))


def standing(connection: Connection, prefix: str) -> dict[str, Standing]:
    """The alerts that stand, by key, of those whose key begins with `prefix`."""
    return {row.key: Standing(*row) for row in connection.execute(_STANDING, {"prefix": prefix})}


def keep_in_step(
    outbox: Outbox,
    connection: Connection,
    prefix: str,
    wrong: Sequence[Alert],
    now: datetime,
    *,
    unknown: Collection[str] = (),
) -> None:
    """Tells what is wrong and was not, what has changed about it, and what is over.

    Args:
        outbox: the run's.
        connection: the transaction that the alerts belong to.
        prefix: what the keys of this kind of alert begin with, e.g. `dead-letters/`; no other alert is touched.
        wrong: all that is wrong at the moment, a key once.
        now: when that was found.
        unknown: keys of which it could not be found out: they stay as they are.
    """
    by_key = {alert.key: alert for alert in wrong}
    wanted = [alert.model_dump(mode="json", exclude={"action", "at"}) for alert in by_key.values()]
    told = connection.execute(_RAISE, {"alerts": wanted, "now": now}).all() if wanted else []
    for key, since, changes in told:
        alert = by_key[key].model_copy(update={"at": now})
        send_alert(outbox, connection, alert, dedup_key=f"alert/{key}/{since.isoformat()}/{changes}")
    for row in connection.execute(_RESOLVE, {"prefix": prefix, "kept": sorted({*by_key, *unknown})}):
        alert = Alert(
            action="resolve",
            key=row.key,
            severity=Severity(row.severity),
            summary=row.summary,
            source=row.source,
            at=now,
        )
        send_alert(outbox, connection, alert, dedup_key=f"alert/{row.key}/{row.since.isoformat()}/resolved")


def still_open(connection: Connection, prefix: str, is_over: TextClause) -> Iterator[Alert]:
    """The open alerts of a kind that are not over, as they were told.

    Args:
        connection: the transaction that the alerts belong to.
        prefix: what their keys begin with.
        is_over: a query for the keys of those that are over, among those of its parameter `standing`, a JSON array
            of objects with `key`, `source` and `details`.
    """
    told = standing(connection, prefix)
    given = [_as_json(alert) for alert in told.values()]
    over = set(connection.execute(is_over, {"standing": given}).scalars()) if given else set()
    for key, alert in told.items():
        if key not in over:
            yield Alert(
                key=key,
                severity=Severity(alert.severity),
                summary=alert.summary,
                source=alert.source,
                details=dict(alert.details),
            )


def _as_json(alert: Standing) -> dict[str, Any]:
    return {"key": alert.key, "source": alert.source, "details": dict(alert.details)}
