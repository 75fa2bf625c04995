"""PagerDuty's Events API v2: incidents that open and close by a key.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from pydantic import SecretStr

from schoolbell.alerts import Alert
from schoolbell.gateways.https import Answer, Http, checked_url
from schoolbell.notifications.calls import Request, Service, as_json, hasty_http, json_of
from schoolbell.notifications.secrets import Key, Secret
from schoolbell.settings import Settings

LONGEST_KEY = 255


class PagerDutyKey(Key):
    """The secret `<stack>/providers/pagerduty`."""

    routing_key: SecretStr
    """The integration key of a service or a ruleset."""


class PagerDuty:
    """Opens and closes incidents.

    Args:
        base_url: where PagerDuty is; HTTPS, or this machine.
        stack: goes before the keys, since several stacks may share one integration.
        secret: holds the routing key.
        http: sends the requests.
    """

    def __init__(self, base_url: str, stack: str, secret: Secret[PagerDutyKey], http: Http) -> None:
        self._url = f"{checked_url(base_url)}/v2/enqueue"
        self._stack = stack
        self._service = Service("pagerduty", secret, http)

    def is_configured(self) -> bool:
        return self._service.secret.exists()

    def send(self, alert: Alert, links: Mapping[str, str] | None = None) -> None:
        """Sends an event. To repeat one changes nothing: its key names the incident."""
        event = event_of(alert, self._stack, links or {})

        def request(key: PagerDutyKey) -> Request:
            body = {"routing_key": key.routing_key.get_secret_value(), **event}
            return Request(self._url, {"Content-Type": "application/json"}, as_json(body))

        answer = self._service.post(request, _refuses_key)
        if answer.status >= 300:
            raise self._service.error_of(answer)
        if answer.status != 202 or json_of(answer).get("status") != "success":
            raise self._service.garbage(answer)


def event_of(alert: Alert, stack: str, links: Mapping[str, str]) -> dict[str, Any]:
    """The event of an alert, without the routing key.

    https://developer.pagerduty.com/docs/send-alert-event
    """
    event: dict[str, Any] = {"event_action": alert.action, "dedup_key": _dedup_key(stack, alert.key)}
    if alert.action == "resolve":
        return event
    payload = {
        "summary": alert.summary,
        "severity": alert.severity.value,  # all of ours are among PagerDuty's
        "source": stack,
        "component": alert.source,
        "custom_details": alert.details,
    }
    if alert.at is not None:
        payload["timestamp"] = alert.at.isoformat()
    return {
        **event,
        "client": "Schoolbell",
        "payload": payload,
        "links": [{"href": href, "text": title} for title, href in links.items()],
    }


def _dedup_key(stack: str, key: str) -> str:
    whole = f"{stack}/{key}"
    if len(whole) <= LONGEST_KEY:
        return whole
    digest = sha256(whole.encode()).hexdigest()
    return f"{whole[: LONGEST_KEY - len(digest) - 1]}/{digest}"


def _refuses_key(answer: Answer) -> bool:
    # A key that it does not know is a bad request like any other; the text is all that tells them apart.
    return answer.status in (401, 403) or (answer.status == 400 and b"routing_key" in answer.body)


@cache
def pagerduty_of(settings: Settings) -> PagerDuty:
    """The sender of this execution environment."""
    secret = Secret(settings.provider_secret("pagerduty"), PagerDutyKey)
    return PagerDuty(settings.pagerduty_url, settings.schoolbell_stack, secret, hasty_http(settings.provider_timeout))
