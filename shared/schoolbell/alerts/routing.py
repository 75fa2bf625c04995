"""Who is told of an alert: what each channel was told last, what it is owed, and what to do when it can't be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from sqlalchemy import Connection, Row, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB

from schoolbell.alerts import Alert, Severity
from schoolbell.alerts.pagerduty import pagerduty_of
from schoolbell.alerts.senders import Sender
from schoolbell.alerts.slack import slack_of
from schoolbell.domains.platform.tables.alerts import alerts
from schoolbell.gateways.errors import NeverWorks, Throttled, Uncertain
from schoolbell.jobs import Discard, JobContext, Snooze
from schoolbell.settings import Settings

RANKS: Final = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class Channel:
    """One of the places where people are told."""

    name: str
    sender: Sender
    least: Severity
    """What is less severe is not told here."""
    knows_keys: bool
    """Whether a message that is sent twice is one there."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a channel was told last, as it is stored."""

    action: str = ""
    severity: Severity = Severity.INFO
    is_uncertain: bool = False
    """It was sent, but nobody knows whether it arrived."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> Self:
        return cls(stored["action"], Severity(stored["severity"]), stored["uncertain"]) if stored else cls()

    def as_json(self) -> dict[str, Any]:
        return {"action": self.action, "severity": self.severity, "uncertain": self.is_uncertain}


def channels_of(settings: Settings) -> list[Channel]:
    """The channels that have a secret, and those whose secret can't be used: that comes out when they are told."""
    every = [
        Channel("pagerduty", pagerduty_of(settings), Severity(settings.pagerduty_severity), knows_keys=True),
        Channel("slack", slack_of(settings), Severity(settings.slack_severity), knows_keys=False),
    ]
    return [channel for channel in every if _has_secret(channel)]


def _has_secret(channel: Channel) -> bool:
    try:
        return channel.sender.is_configured()
    except Exception:
        return True


# Open alerts

_VALUES = "(key, status, severity, summary, source, details, first_seen_at, last_seen_at, changed_at, resolved_at)"

_TRIGGER = text(
    f"""
    INSERT INTO platform.alerts AS standing {_VALUES}
    VALUES (:key, 'triggered', :severity, :summary, :source, :details, :at, :at, :at, NULL)
    ON CONFLICT (key) DO UPDATE
    SET status = 'triggered', severity = excluded.severity, summary = excluded.summary, source = excluded.source,
        details = excluded.details, last_seen_at = excluded.last_seen_at, resolved_at = NULL,
        (first_seen_at, changed_at, occasions, told) = (
            SELECT excluded.first_seen_at, excluded.changed_at, 1, '{{}}'::jsonb WHERE standing.status = 'resolved'
            UNION ALL
            SELECT standing.first_seen_at, standing.changed_at,
                   standing.occasions + (excluded.last_seen_at > standing.last_seen_at)::integer, standing.told
            WHERE standing.status = 'triggered'
        )
    WHERE CASE standing.status
        WHEN 'resolved' THEN excluded.changed_at > standing.changed_at
        ELSE excluded.last_seen_at >= standing.last_seen_at
    END
    """  # noqa: S608 - made of this module's constants
).bindparams(bindparam("details", type_=JSONB))

# One that was never triggered is kept too: its trigger may still be on its way, and is then too late.
_RESOLVE = text(
    f"""
    INSERT INTO platform.alerts AS standing {_VALUES}
    VALUES (:key, 'resolved', :severity, :summary, :source, :details, :at, :at, :at, :at)
    ON CONFLICT (key) DO UPDATE
    SET status = 'resolved', changed_at = excluded.changed_at,
        resolved_at = CASE standing.status WHEN 'triggered' THEN excluded.resolved_at ELSE standing.resolved_at END
    WHERE excluded.changed_at >= greatest(standing.changed_at, standing.last_seen_at)
    """  # noqa: S608 - made of this module's constants
).bindparams(bindparam("details", type_=JSONB))


def note(connection: Connection, alert: Alert, at: datetime) -> bool:
    """Brings the alert's row up to date, and tells whether it was not older than what the row knew."""
    values = alert.model_dump(mode="json", include={"key", "severity", "summary", "source", "details"})
    statement = _TRIGGER if alert.action == "trigger" else _RESOLVE
    return connection.execute(statement, {**values, "at": at}).rowcount == 1


def read(connection: Connection, key: str) -> Row[Any]:
    """An alert's row, locked until the transaction ends."""
    return connection.execute(select(alerts).where(alerts.c.key == key).with_for_update()).one()


def owes(standing: Row[Any], channel: Channel) -> str:
    """What a channel is still to be told: `trigger`, `resolve`, or nothing.

    A trouble that gets worse is told again. One that is over is told where it was told.
    """
    told = Told.from_json(standing.told.get(channel.name))
    severity = Severity(standing.severity)
    if standing.status == "resolved":
        return "resolve" if told.action == "trigger" or told.is_uncertain else ""
    is_known = told.action == "trigger" and not told.is_uncertain and RANKS[told.severity] >= RANKS[severity]
    return "" if is_known or RANKS[severity] < RANKS[channel.least] else "trigger"


_CLAIM = text(
    """
    UPDATE platform.alerts SET claimed_by = :run, claimed_until = :until
    WHERE key = :key AND (claimed_until IS NULL OR claimed_until <= :now)
    """
)
_RELEASE = text(
    "UPDATE platform.alerts SET claimed_by = NULL, claimed_until = NULL WHERE key = :key AND claimed_by = :run"
)


def claim(connection: Connection, job: JobContext, key: str) -> bool:
    """Makes this invocation the one that tells; frees itself when the invocation must have ended."""
    values = {"key": key, "run": job.run_id, "now": job.now, "until": job.deadline}
    return connection.execute(_CLAIM, values).rowcount == 1


def release(connection: Connection, job: JobContext, key: str) -> None:
    """Lets other invocations tell of an alert again."""
    connection.execute(_RELEASE, {"key": key, "run": job.run_id})


# Telling

_TOLD = text(
    """
    UPDATE platform.alerts SET told = told || jsonb_build_object(cast(:channel AS text), :told), notified_at = :now
    WHERE key = :key
    """
).bindparams(bindparam("told", type_=JSONB))


def tell(job: JobContext, standing: Row[Any], owed: Mapping[Channel, str]) -> list[Exception]:
    """Tells each channel what it is owed, and returns why those that were not told were not."""
    failures: list[Exception] = []
    for channel, action in owed.items():
        message = Alert(
            action="resolve" if action == "resolve" else "trigger",
            key=standing.key,
            severity=Severity(standing.severity),
            summary=standing.summary,
            source=standing.source,
            details=standing.details or {},
        )
        told = Told.from_json(standing.told.get(channel.name))
        is_repeated = told.action == action and told.is_uncertain
        try:
            channel.sender.send(message)
        except Uncertain as error:
            # Where no key tells a repeated message, two that may have arrived are enough.
            is_enough = is_repeated and not channel.knows_keys
            if not is_enough:
                failures.append(error)
            record(job, channel, message, is_uncertain=not is_enough)
        except Exception as error:
            failures.append(error)
        else:
            record(job, channel, message, is_uncertain=False)
    return failures


def record(job: JobContext, channel: Channel, message: Alert, *, is_uncertain: bool) -> None:
    """Writes down what a channel was told."""
    told = Told(message.action, message.severity, is_uncertain)
    with job.transaction() as connection:
        values = {"key": message.key, "channel": channel.name, "told": told.as_json(), "now": job.current}
        connection.execute(_TOLD, values)


def most_urgent(failures: list[Exception]) -> Exception:
    """What to say of the message when channels failed: try again, rather than later, rather than never."""
    for failure in failures:
        if not isinstance(failure, Throttled | NeverWorks):
            return failure
    for failure in failures:
        if isinstance(failure, Throttled):
            return Snooze(failure.retry_after)
    return Discard(str(failures[0]))
