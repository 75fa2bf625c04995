"""A call to one of Google's APIs: circuit breaker, rate limiter, token, request, and what the answer means."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from schoolbell.gateways.errors import NeverWorks, Revoked, Unavailable
from schoolbell.gateways.google.credentials import Tokens
from schoolbell.gateways.google.errors import error_of
from schoolbell.gateways.https import Answer, Http, NoAnswer, checked_url
from schoolbell.resilience.circuit import Circuit
from schoolbell.resilience.guard import Guard

type Json = Any
"""What an answer's body holds; the gateways make models of it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call."""

    operation: str
    """Its name in Google's reference, e.g. `files.copy`; the only part of it that is ever logged."""
    method: str
    url: str
    body: bytes | None = None
    content_type: str = "application/json"
    cost: int = 1
    """How many calls Google counts it as."""


class Api:
    """One of Google's APIs, for one teacher.

    Args:
        base_url: where the API is; HTTPS, or this machine.
        tenant: the teacher, whose budget is spent.
        tokens: the teacher's access tokens.
        guard: the API's circuit breaker and rate limiter.
        http: sends the requests.
    """

    def __init__(
        self,
        base_url: str,
        tenant: str,
        tokens: Tokens,
        guard: Guard,
        http: Http,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.base_url = checked_url(base_url)
        self._tenant = tenant
        self._tokens = tokens
        self._guard = guard
        self._http = http
        self._clock = clock

    def url(self, *path: str, **query: str) -> str:
        """The address of a resource; the parts of its path may hold any character."""
        address = "/".join([self.base_url, *(quote(part, safe="") for part in path)])
        return f"{address}?{urlencode(query)}" if query else address

    def json(self, request: Request) -> Json:
        """Makes a call and returns the JSON that was answered; raises as `call` does."""
        answer = self.call(request)
        try:
            return json.loads(answer.body) if answer.body else None
        except ValueError:
            raise Unavailable(f"{request.operation}: {answer.status} with something that is no JSON") from None

    def call(self, request: Request) -> Answer:
        """Makes a call.

        Raises:
            Withheld: the call was not made: the circuit is open, or the budget is spent.
            NeverWorks, Gone, Conflict: Google refuses it.
            Throttled, Unavailable: not now.
            Revoked: the teacher's credentials no longer work.
        """
        return self._guard.call(self._tenant, lambda: self._call(request), request.cost)

    def _call(self, request: Request) -> Answer:
        token = self._tokens.current()
        answer = self._send(request, token)
        if answer.status == 401:
            # Access tokens can end before their time, e.g. when the teacher changes the password.
            answer = self._send(request, self._tokens.renewed(token))
        if answer.status == 401:
            raise Revoked(f"{request.operation}: 401 with a token just issued")
        if answer.status >= 300:
            raise error_of(request.operation, answer, self._clock())
        return answer

    def _send(self, request: Request, token: str) -> Answer:
        headers: dict[str, str] = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        try:
            return self._http.send(request.method, request.url, headers, request.body)
        except NoAnswer as error:
            raise Unavailable(f"{request.operation}: {error}") from None


def as_body(value: Mapping[str, Json]) -> bytes:
    """JSON as a request's body."""
    return json.dumps(value, separators=(",", ":")).encode()


def circuit(name: str, table: str) -> Circuit:
    """The circuit breaker of an API: what Google answers about a call shows that the API is well."""
    return Circuit(name, failures=(Unavailable,), answers=(NeverWorks,), table=table)
