"""Google's errors are told apart: will never work, not now, gone, revoked."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from schoolbell.gateways.errors import Conflict, GatewayError, Gone, NeverWorks, Revoked, Throttled, Unavailable
from schoolbell.gateways.google.errors import error_of, reason_of
from schoolbell.gateways.https import Answer

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def answer(status: int, reason: str = "", **headers: str) -> Answer:
    body = {"error": {"code": status, "message": "File not found: Maria's homework", "errors": [{"reason": reason}]}}
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "badRequest", NeverWorks),
        (401, "authError", Revoked),
        (403, "forbidden", NeverWorks),
        (403, "insufficientFilePermissions", NeverWorks),
        (403, "storageQuotaExceeded", NeverWorks),
        (403, "rateLimitExceeded", Throttled),
        (403, "userRateLimitExceeded", Throttled),
        (403, "dailyLimitExceeded", Throttled),
        (403, "quotaExceeded", Throttled),
        (404, "notFound", Gone),
        (410, "deleted", Gone),
        (408, "", Unavailable),
        (409, "duplicate", Conflict),
        (412, "conditionNotMet", NeverWorks),
        (429, "rateLimitExceeded", Throttled),
        (429, "", Throttled),
        (302, "", NeverWorks),
        (500, "backendError", Unavailable),
        (502, "", Unavailable),
        (503, "rateLimitExceeded", Unavailable),
    ],
)
def test_tells_errors_apart(status: int, reason: str, kind: type[GatewayError]) -> None:
    assert type(error_of("files.get", answer(status, reason), NOW)) is kind


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 30 ", 30),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("999999999999999999", 86_400),
        ("Mon, 02 Mar 2026 10:02:00 GMT", 120),
        ("Mon, 02 Mar 2026 09:00:00 GMT", 0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_heeds_retry_after(status: int, header: str, seconds: int) -> None:
    error = error_of("files.copy", answer(status, retry_after=header), NOW)
    assert isinstance(error, Throttled | Unavailable)
    assert error.retry_after == timedelta(seconds=seconds)


def test_an_errors_text_repeats_nothing_that_google_wrote_about_the_file() -> None:
    assert str(error_of("files.get", answer(404, "notFound"), NOW)) == "files.get: 404 notFound"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"errors": [{"reason": "notFound"}]}}', "notFound"),
        (b'{"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"@type": "x"}]}}', "RESOURCE_EXHAUSTED"),
        (b'{"error": {"details": [{"reason": "RATE_LIMIT_EXCEEDED"}], "status": "x"}}', "RATE_LIMIT_EXCEEDED"),
        (b'{"error": "invalid_grant", "error_description": "Token has been revoked."}', "invalid_grant"),
        (b'{"error": "Maria said no"}', ""),
        (b'{"error": {"errors": [{"reason": 5}]}}', ""),
        (b'{"error": {"errors": "x"}}', ""),
        (b'{"error": null}', ""),
        (b"[]", ""),
        (b"<html>", ""),
        (b"", ""),
        (b"\xff", ""),
    ],
)
def test_finds_the_reason_in_every_shape_and_takes_no_prose(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason
