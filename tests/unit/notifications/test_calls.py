"""What a service's answer means, by its status; and what of it may be repeated."""

from datetime import UTC, datetime, timedelta

import pytest

from schoolbell.gateways.errors import GatewayError, Misconfigured, NeverWorks, Throttled, Unavailable, Uncertain
from schoolbell.gateways.https import Answer
from schoolbell.notifications.calls import Service, as_code, json_of
from schoolbell.notifications.secrets import Key, Secret

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


class Nobody:
    """Sends nothing."""

    def send(self, *_: object) -> Answer:
        raise AssertionError


SERVICE = Service("post", Secret("nothing", Key), Nobody(), clock=lambda: NOW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, Misconfigured),
        (302, Misconfigured),
        (400, NeverWorks),
        (401, Misconfigured),
        (402, Misconfigured),
        (403, Misconfigured),
        (404, Misconfigured),
        (405, Misconfigured),
        (408, Unavailable),
        (410, Misconfigured),
        (413, NeverWorks),
        (415, Misconfigured),
        (422, NeverWorks),
        (429, Throttled),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Uncertain),
        (529, Unavailable),
    ],
)
def test_tells_statuses_apart(status: int, kind: type[GatewayError]) -> None:
    assert type(SERVICE.error_of(Answer(status, {}, b""))) is kind


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("Mon, 02 Mar 2026 10:02:00 GMT", 120), ("", None), ("soon", None), ("-5", None), ("9" * 30, 86_400)],
)
@pytest.mark.parametrize(("status", "default"), [(429, 60), (503, 0)])
def test_heeds_retry_after(status: int, header: str, seconds: int | None, default: int) -> None:
    error = SERVICE.error_of(Answer(status, {"retry-after": header}, b""))
    assert isinstance(error, Throttled | Unavailable)
    assert error.retry_after == timedelta(seconds=default if seconds is None else seconds)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("UNREGISTERED", "post: 400 UNREGISTERED"),
        (21211, "post: 400 21211"),
        ("from.email", "post: 400 from.email"),
        ("Invalid 'To' Phone Number: +4930901820", "post: 400"),
        ("+4930901820", "post: 400"),
        (4930901820, "post: 400"),
        ("ada@example.org", "post: 400"),
        (None, "post: 400"),
        ({"a": 1}, "post: 400"),
        ("", "post: 400"),
    ],
)
def test_repeats_codes_and_no_prose(code: object, text: str) -> None:
    assert str(SERVICE.error_of(Answer(400, {}, b"Ada's number"), code)) == text


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"\xff", b'"x"', b"null"])
def test_what_is_no_object_holds_nothing(body: bytes) -> None:
    assert json_of(Answer(200, {}, body)) == {}


def test_a_code_is_a_word_or_a_small_number() -> None:
    assert as_code("no_service") == "no_service"
    assert as_code(True) == "True"
    assert as_code("two words") == ""
