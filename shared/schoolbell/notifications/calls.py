"""A call to an outside service over HTTPS: its key, the request, and what an answer that is no success means.

Errors name the service, the status and the service's code for the reason: never its prose, which repeats addresses.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from schoolbell.gateways.errors import (
    GatewayError,
    Misconfigured,
    NeverWorks,
    Unavailable,
    Uncertain,
    throttled,
)
from schoolbell.gateways.https import Answer, Http, NoAnswer, NoConnection, PooledHttp, retry_after
from schoolbell.notifications.secrets import Key, Secret

AFTER_THROTTLING = timedelta(minutes=1)
"""Where the service does not say; Firebase asks for no less, PagerDuty for a few minutes."""

CONNECTIONS = 50
"""To a service, kept open: one for each thread of a delivery."""

_OF_THE_MESSAGE = frozenset({400, 413, 422})
"""Statuses that are about what was sent; others below 500 are about who sent it, and where to."""


@dataclass(frozen=True, slots=True)
class Request:
    """One POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Service[K: Key]:
    """An outside service, and the secret that opens it.

    Args:
        name: stands in errors' texts, e.g. `sendgrid`.
        secret: holds the key.
        http: sends the requests.
    """

    def __init__(
        self,
        name: str,
        secret: Secret[K],
        http: Http,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self.secret = secret
        self._http = http
        self._clock = clock

    def post(self, request: Callable[[K], Request], refuses_key: Callable[[Answer], bool]) -> Answer:
        """Sends what the key makes of a request. A refused key is read again, and a new one tried, once.

        Raises:
            Misconfigured: there is no key.
            Unavailable: there was no connection.
            Uncertain: there was no answer.
        """
        key = self.secret.current()
        answer = self.send(request(key))
        if refuses_key(answer):
            renewed = self.secret.renewed(key)
            if renewed != key:
                answer = self.send(request(renewed))
        return answer

    def send(self, request: Request) -> Answer:
        """Sends one request.

        Raises:
            Unavailable: there was no connection.
            Uncertain: there was no answer.
        """
        try:
            return self._http.send("POST", request.url, request.headers, request.body)
        except NoConnection as error:
            raise Unavailable(f"{self.name}: {error}") from None
        except NoAnswer as error:
            raise Uncertain(f"{self.name}: {error}") from None

    def error_of(self, answer: Answer, code: object = None) -> GatewayError:
        """What an answer that is no success means, by its status.

        Args:
            answer: what came back.
            code: the service's own code for the reason, if it gives one.
        """
        message = f"{self.name}: {answer.status} {as_code(code)}".rstrip()
        asked = retry_after(answer.headers, self._clock())
        if answer.status == 429:
            return throttled(asked or AFTER_THROTTLING)
        if answer.status == 504:  # from a gateway, which has handed the request on
            return Uncertain(message, asked)
        if answer.status >= 500 or answer.status == 408:
            return Unavailable(message, asked)
        if answer.status in _OF_THE_MESSAGE:
            return NeverWorks(message)
        return Misconfigured(message)

    def garbage(self, answer: Answer) -> Uncertain:
        """The error of a success that is not what the service says it answers."""
        return Uncertain(f"{self.name}: {answer.status} with something else than it should be")


def hasty_http(timeout: timedelta) -> PooledHttp:
    """Connections of which each request takes no longer than that."""
    return PooledHttp(connect=timeout, read=timeout, total=timeout, connections=CONNECTIONS)


def json_of(answer: Answer) -> dict[str, Any]:
    """The JSON object that was answered; an empty one if it was anything else."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def as_json(value: Mapping[str, Any]) -> bytes:
    """JSON as a request's body."""
    return json.dumps(value, separators=(",", ":")).encode()


def as_code(value: object) -> str:
    """A service's code for a reason, e.g. `21211` or `UNREGISTERED`; nothing if it could be prose or an address."""
    text = str(value) if isinstance(value, str | int) else ""
    return text if re.fullmatch(r"[A-Za-z_.]{1,60}|\d{1,6}", text) else ""
