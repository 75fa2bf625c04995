"""Telling operators: PagerDuty and Slack, for the alert router.

`pagerduty_of(settings)` and `slack_of(settings)` make the senders, which are kept between invocations. Each has
`is_configured()`, whether its secret exists, and `send(alert, links)`, which returns nothing and raises what
`schoolbell.notifications.errors` tells apart: `Rejected` (will never pass), `NotNow` (with `retry_after`), `Unwell`
(may pass later) and of its kinds `Uncertain` (may have passed) and `Refused` (an operator has to put the key or the
webhook right).
"""

from collections.abc import Mapping
from typing import Protocol

from schoolbell.alerts import Alert


class Sender(Protocol):
    """One of the places where operators are told."""

    def is_configured(self) -> bool:
        """Whether there is a secret for it. One that is made later is found at the next call.

        Raises:
            schoolbell.notifications.errors.Refused: there is one, which is not what it should be.
        """

    def send(self, alert: Alert, links: Mapping[str, str] | None = None) -> None:
        """Sends an alert.

        Args:
            alert: what is told.
            links: addresses of pages that help, by their titles.

        Raises:
            schoolbell.notifications.errors.DeliveryError: one of the kinds told apart there.
        """
