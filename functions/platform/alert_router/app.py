"""Tell PagerDuty and Slack what alarms and alerts say: once when a trouble begins, and once when it is over.

What stands is a row in `platform.alerts`, with what each channel was told of it. So a message that comes again, or a
trouble that goes on, tells nobody anything new, and where one channel fails the other is not told twice.

                 trigger                     resolve
    (no row) ──────────────▶ triggered ◀──────────────▶ resolved
                               │    ▲       trigger
                               └────┘ trigger: seen once more

Slack is also told of the runs of some jobs (`schoolbell.alerts.run_notices`). Nothing stands for those.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Self

from pydantic import model_validator

from schoolbell.alerts import Alert, routing
from schoolbell.alerts.alarms import Alarm
from schoolbell.alerts.run_notices import RunNotice
from schoolbell.alerts.slack import slack_of
from schoolbell.gateways.errors import Uncertain
from schoolbell.jobs import JobContext, Payload, Result, Snooze, queue_job

WAIT_FOR_ANOTHER: Final = timedelta(seconds=5)
"""Another invocation is telling of the same trouble at this moment."""


class Notice(Payload):
    """A message of the queue: by the topic `alerts` an alarm of CloudWatch's or a job's alert, or else a run."""

    alarm: Alarm | None = None
    alert: Alert | None = None
    run: RunNotice | None = None

    @model_validator(mode="before")
    @classmethod
    def by_sender(cls, body: Any) -> Any:
        """Tells alarms by a field that only CloudWatch's messages have, and runs by their id."""
        fields = body if isinstance(body, Mapping) else ()
        return {"alarm" if "AlarmName" in fields else "run" if "run_id" in fields else "alert": body}

    @model_validator(mode="after")
    def is_one(self) -> Self:
        """Refuses a body that is null."""
        if self.alarm is None and self.alert is None and self.run is None:
            raise ValueError("expected an alarm, an alert or a run")
        return self

    def as_alert(self, stack: str) -> Alert | None:
        """What it says is wrong or is over; none if that is nothing."""
        return self.alarm.as_alert(stack) if self.alarm else self.alert


class Routed(Result):
    told: int = 0
    """Messages that a channel took."""
    repeated: int = 0
    """Alerts of which nobody was told, since all that are to know did."""
    late: int = 0
    """Alerts that something newer had overtaken."""


@queue_job("platform.alert-router", Notice)
def handler(job: JobContext, notice: Notice) -> Routed:
    if notice.run:
        return tell_of_run(job, notice.run)
    alert = notice.as_alert(job.settings.schoolbell_stack)
    if alert is None:
        return Routed()
    job.logger.info("alert", **alert.model_dump(mode="json", exclude={"details", "at"}), details=alert.details)
    channels = routing.channels_of(job.settings)
    with job.transaction() as connection:
        is_news = routing.note(connection, alert, alert.at or job.now)
        standing = routing.read(connection, alert.key)
        owed = {channel: action for channel in channels if (action := routing.owes(standing, channel))}
        if owed and not routing.claim(connection, job, alert.key):
            raise Snooze(WAIT_FOR_ANOTHER)
    if not owed:
        return Routed(repeated=int(is_news), late=int(not is_news))
    failures = routing.tell(job, standing, owed)
    with job.transaction() as connection:
        routing.release(connection, job, alert.key)
    if failures:
        raise routing.most_urgent(failures)
    return Routed(told=len(owed))


def tell_of_run(job: JobContext, run: RunNotice) -> Routed:
    """Tells Slack how a run stands, if there is a Slack. A message that comes again is known by its outbox id."""
    slack = slack_of(job.settings)
    try:
        if not slack.is_configured():
            return Routed()
        slack.send_run(run)
    except Uncertain:
        if job.attempt == 1:  # as with alerts, two that may have arrived are enough
            raise
    except Exception as error:
        raise routing.most_urgent([error]) from None
    return Routed(told=1)
