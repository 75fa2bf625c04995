"""Requests and replies, and the shapes of Google's errors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

type Json = Any


@dataclass(frozen=True, slots=True)
class Call:
    """A request."""

    method: str
    path: str
    """Still quoted."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case."""
    body: bytes = b""

    @classmethod
    def to(cls, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> "Call":
        """The call that a request line makes."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return cls(method, parts.path, query, {name.lower(): value for name, value in headers.items()}, body)

    @property
    def segments(self) -> list[str]:
        """The parts of the path, unquoted."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    def json(self) -> dict[str, Json]:
        """The body as a JSON object.

        Raises:
            Refusal: it is none.
        """
        value = self.json_or_none()
        if value is None:
            raise Refusal(google_error(400, "parseError", "Parse Error"))
        return value

    def json_or_none(self) -> dict[str, Json] | None:
        """The body as a JSON object, if it is one."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; a body that is not bytes goes out as JSON."""

    status: int = 200
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        """The body as bytes."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body, indent=1).encode()


class Refusal(Exception):
    """A handler's way to answer with an error from anywhere."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def google_error(
    status: int,
    reason: str,
    message: str,
    *,
    domain: str = "global",
    location: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """An error as Calendar and Drive put it."""
    detail: dict[str, Json] = {"domain": domain, "reason": reason, "message": message}
    if location:
        detail["locationType"], detail["location"] = location
    return Reply(status, {"error": {"errors": [detail], "code": status, "message": message}}, headers or {})


INVALID_CREDENTIALS = google_error(401, "authError", "Invalid Credentials", location=("header", "Authorization"))

_FAULTS = {
    400: ("badRequest", "Bad Request", "global"),
    403: ("forbidden", "Forbidden", "global"),
    404: ("notFound", "Not Found", "global"),
    429: ("rateLimitExceeded", "Rate Limit Exceeded", "usageLimits"),
    500: ("internalError", "Internal Error", "global"),
    502: ("badGateway", "Bad Gateway", "global"),
    503: ("backendError", "Backend Error", "global"),
}
QUOTA_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "dailyLimitExceeded", "quotaExceeded"})


def fault(status: int, reason: str | None, retry_after: int | None) -> Reply:
    """The error that a fault asks for."""
    if status == 401:
        return INVALID_CREDENTIALS
    usual, message, domain = _FAULTS.get(status, ("backendError", "Error", "global"))
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if reason in QUOTA_REASONS:
        domain = "usageLimits"
    return google_error(status, reason or usual, message, domain=domain, headers=headers)
