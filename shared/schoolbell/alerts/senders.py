"""Telling operators: PagerDuty and Slack, for the alert router.

`pagerduty_of(settings)` and `slack_of(settings)` make the senders, which are kept between invocations. Each has
`is_configured()`, whether its secret exists, and `send(alert, links)`, which returns nothing and raises what
`schoolbell.gateways.errors` tells apart: `NeverWorks`, `Throttled` (with `retry_after`), and `Unavailable` (may pass
later) or one of its kinds: `Uncertain` (may have passed), `Misconfigured` (an operator has to put the key right).
"""

from collections.abc import Mapping
from typing import Protocol

from schoolbell.alerts import Alert


class Sender(Protocol):
    """One of the places where operators are told."""

    def is_configured(self) -> bool:
        """Whether there is a secret for it. One that is made later is found at the next call.

        Raises:
            schoolbell.gateways.errors.Misconfigured: there is one, which is not what it should be.
        """

    def send(self, alert: Alert, links: Mapping[str, str] | None = None) -> None:
        """Sends an alert.

        Args:
            alert: what is told.
            links: addresses of pages that help, by their titles.

        Raises:
            schoolbell.gateways.errors.GatewayError: one of the kinds told apart there.
        """
