"""What an answer of Google's that is no success means, by its status and Google's code for the reason."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from schoolbell.gateways.errors import Conflict, GatewayError, Gone, NeverWorks, Revoked, Throttled, Unavailable
from schoolbell.gateways.https import Answer, retry_after

# 403 is Calendar's and Drive's older way to say 429.
# https://developers.google.com/workspace/calendar/api/guides/errors
# https://developers.google.com/workspace/drive/api/guides/handle-errors
_QUOTA_REASONS = frozenset(
    {
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "sharingRateLimitExceeded",
        "dailyLimitExceeded",
        "quotaExceeded",
        "RATE_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
    }
)


def error_of(operation: str, answer: Answer, now: datetime) -> GatewayError:
    """What an answer that is no success means.

    Args:
        operation: what was called, e.g. `files.copy`.
        answer: what came back, with a status of 300 or more.
        now: the time from which an HTTP date in `Retry-After` is counted.
    """
    reason = reason_of(answer.body)
    message = f"{operation}: {answer.status} {reason}".rstrip()
    status = answer.status
    if status == 429 or (status == 403 and reason in _QUOTA_REASONS):
        return Throttled(message, retry_after(answer.headers, now))
    if status >= 500 or status == 408:
        return Unavailable(message, retry_after(answer.headers, now))
    if status == 401:
        return Revoked(message)
    if status in (404, 410):
        return Gone(message)
    if status == 409:
        return Conflict(message)
    return NeverWorks(message)


def reason_of(body: bytes) -> str:
    """Google's code for why a call failed, or an empty string.

    An API says `{"error": {"errors": [{"reason": ...}], "status": ...}}`, the token endpoint `{"error": ...}`.
    """
    try:
        error = json.loads(body).get("error")
    except (ValueError, AttributeError):
        return ""
    if isinstance(error, str):
        return _as_code(error)
    if not isinstance(error, dict):
        return ""
    for entry in (*_entries(error, "errors"), *_entries(error, "details"), error):
        code = _as_code(entry.get("reason") or entry.get("status"))
        if code:
            return code
    return ""


def _entries(error: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    entries = error.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _as_code(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", value) else ""
