"""Alerts: what a job has to tell the people who look after it.

A job writes an alert to the outbox, in the transaction that found the reason for it. It goes to the topic
`<stack>-alerts`, to which CloudWatch's alarms go too, and from there through `platform.alert-router` to PagerDuty and
Slack. An alert stands from its `trigger` to the `resolve` with the same key; triggering it again while it stands tells
nobody anything new.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Connection, text

if TYPE_CHECKING:  # the job runtime raises alerts itself
    from schoolbell.jobs.outbox import Outbox

TOPIC: Final = "alerts"

type Line = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\r\n]+$")]
"""One line. PagerDuty takes 1,024 characters as a summary.
https://developer.pagerduty.com/docs/send-alert-event"""

type Detail = str | int | float


class Severity(StrEnum):
    """How urgent an alert is."""

    CRITICAL = "critical"
    """Somebody is woken: data or deadlines are at risk."""
    WARNING = "warning"
    """Somebody looks at it in the course of the day."""
    INFO = "info"
    """It is kept in the log."""


class Alert(BaseModel):
    """What is wrong, or is no longer. Nothing personal: it is read in places outside the platform."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["trigger", "resolve"] = "trigger"
    key: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
    """Names what is wrong, e.g. `dead-letters/tutoring.auto-complete`: the same trouble has the same key."""
    severity: Severity
    summary: Line
    source: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    """The job that says so."""
    details: dict[str, Detail] = Field(default_factory=dict)
    """Counts and ids that help to find the cause."""
    at: AwareDatetime | None = None
    """When it was found; `send_alert` fills it in. What overtakes an alert on its way is told from it by this."""


def send_alert(outbox: "Outbox", connection: Connection, alert: Alert, *, dedup_key: str) -> None:
    """Writes an alert to the outbox; a second one with the same `dedup_key` is not sent.

    Args:
        outbox: the run's.
        connection: the transaction that found the reason.
        alert: what is wrong, or no longer.
        dedup_key: names this occasion, not the trouble, e.g. `dead-letters/<job>/<time of the oldest>`.
    """
    found = alert if alert.at else alert.model_copy(update={"at": outbox.now()})
    outbox.send(connection, f"topic/{TOPIC}", found.model_dump(mode="json"), dedup_key=dedup_key)


_IS_STANDING = text("SELECT EXISTS (SELECT FROM platform.alerts WHERE key = :key AND status = 'triggered')")


def is_standing(connection: Connection, key: str) -> bool:
    """Whether an alert with this key was told and not ended, as far as `platform.alert-router` has got."""
    return bool(connection.execute(_IS_STANDING, {"key": key}).scalar_one())
