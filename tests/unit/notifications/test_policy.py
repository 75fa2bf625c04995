"""Whether, when and by which route, as tables."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from schoolbell.gateways.errors import (
    GatewayError,
    Gone,
    Misconfigured,
    NeverWorks,
    Unavailable,
    Uncertain,
    throttled,
)
from schoolbell.notifications import Priority
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.policy import (
    Again,
    Fail,
    Person,
    Preference,
    Queued,
    Route,
    Send,
    Suppress,
    Wait,
    after,
    plan,
    quiet_until,
)

EMAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.PUSH
NOW = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)
STUDENT = f"student/{UUID(int=1)}"
BEN = Person("Ben", "ben@example.org", "+33612345678", "Europe/Paris", False, ("new", "old"))


def queued(**columns: Any) -> Queued:
    given: dict[str, Any] = {
        "id": UUID(int=2),
        "channel": EMAIL,
        "recipient": STUDENT,
        "template": "waitlist_offer",
        "data": {},
        "priority": Priority.NORMAL,
        "expires_at": None,
        "person": BEN,
    }
    return Queued(**given | columns)


def said(kind: str = "*", channel: str = "*", wanted: bool | None = None) -> Preference:
    return Preference(kind, channel, wanted)


@pytest.mark.parametrize(
    ("preferences", "is_wanted"),
    [
        ([], True),
        ([said(wanted=False)], False),
        ([said(wanted=None)], True),
        ([said(channel="email", wanted=False)], False),
        ([said(channel="sms", wanted=False)], True),
        ([said(kind="waitlist_offer", wanted=False)], False),
        ([said(kind="session_review", wanted=False)], True),
        ([said(wanted=False), said(channel="email", wanted=True)], True),
        ([said(wanted=True), said(kind="waitlist_offer", wanted=False)], False),
        ([said(channel="email", wanted=False), said(kind="waitlist_offer", wanted=True)], True),
        ([said(kind="waitlist_offer", wanted=False), said(kind="waitlist_offer", channel="email", wanted=True)], True),
        ([said(kind="waitlist_offer", channel="sms", wanted=True), said(wanted=False)], False),
        ([said(kind="waitlist_offer", channel="email", wanted=None), said(wanted=False)], False),
    ],
)
def test_the_most_exact_preference_that_says_something_counts(preferences: list[Preference], is_wanted: bool) -> None:
    for order in (preferences, preferences[::-1]):
        assert isinstance(plan(queued(preferences=order), NOW), Send) == is_wanted


PARIS, NEW_YORK, LORD_HOWE = (ZoneInfo(name) for name in ("Europe/Paris", "America/New_York", "Australia/Lord_Howe"))


@pytest.mark.parametrize(
    ("now", "zone", "begin", "end", "expected"),
    [
        # An ordinary night in Paris, in winter an hour ahead of UTC.
        ("2026-03-02T20:59", PARIS, "22:00", "07:00", None),
        ("2026-03-02T21:00", PARIS, "22:00", "07:00", "2026-03-03T06:00"),
        ("2026-03-02T23:30", PARIS, "22:00", "07:00", "2026-03-03T06:00"),
        ("2026-03-03T05:59", PARIS, "22:00", "07:00", "2026-03-03T06:00"),
        ("2026-03-03T06:00", PARIS, "22:00", "07:00", None),
        # Hours within a day, and all of it.
        ("2026-03-02T12:00", PARIS, "12:00", "14:00", "2026-03-02T13:00"),
        ("2026-03-02T13:00", PARIS, "12:00", "14:00", None),
        ("2026-03-02T10:59", PARIS, "12:00", "14:00", None),
        ("2026-03-02T12:00", PARIS, "09:00", "09:00", "2026-03-03T08:00"),
        # The night in which the clocks go forward is an hour shorter.
        ("2026-03-28T22:00", PARIS, "22:00", "07:00", "2026-03-29T05:00"),
        # An end that does not exist comes when the clock has gone forward: 02:30 is 03:30.
        ("2026-03-28T23:00", PARIS, "22:00", "02:30", "2026-03-29T01:30"),
        # The night in which they go back is an hour longer.
        ("2026-10-24T22:00", PARIS, "22:00", "07:00", "2026-10-25T06:00"),
        # An hour that comes twice is quiet twice: until 02:30 in summer time, and again from 02:00 in winter time.
        ("2026-10-25T00:15", PARIS, "22:00", "02:30", "2026-10-25T00:30"),
        ("2026-10-25T00:45", PARIS, "22:00", "02:30", None),
        ("2026-10-25T01:15", PARIS, "22:00", "02:30", "2026-10-25T01:30"),
        ("2026-10-25T01:30", PARIS, "22:00", "02:30", None),
        # Behind UTC, and a change of half an hour.
        ("2026-03-08T04:00", NEW_YORK, "22:00", "07:00", "2026-03-08T11:00"),
        ("2026-04-04T12:00", LORD_HOWE, "22:00", "07:00", "2026-04-04T20:30"),
    ],
)
def test_quiet_hours_go_by_the_clock_on_the_wall(
    now: str, zone: ZoneInfo, begin: str, end: str, expected: str | None
) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    over = quiet_until(at, zone, time.fromisoformat(begin), time.fromisoformat(end))
    assert over == (datetime.fromisoformat(expected).replace(tzinfo=UTC) if expected else None)


@pytest.mark.parametrize(
    ("timezone", "preferred", "until"),
    [
        ("Europe/Paris", None, datetime(2026, 3, 3, 6, tzinfo=UTC)),
        ("Europe/Paris", "America/New_York", None),
        ("Europe/Paris", "No/Such", datetime(2026, 3, 3, 7, tzinfo=UTC)),
        ("No/Such", None, datetime(2026, 3, 3, 7, tzinfo=UTC)),
    ],
)
def test_quiet_hours_are_those_of_the_zone_that_is_preferred_or_the_persons_or_utc(
    timezone: str, preferred: str | None, until: datetime | None
) -> None:
    person = Person("Ben", "ben@example.org", None, timezone, False)
    quiet = Preference("*", "*", None, time(22), time(7), preferred)
    expected = Wait(until) if until else Send([Route(EMAIL, "ben@example.org")])
    assert plan(queued(person=person, preferences=[quiet]), NOW) == expected
    urgent = queued(person=person, preferences=[quiet], priority=Priority.HIGH)
    assert isinstance(plan(urgent, NOW), Send)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, Send([Route(EMAIL, "ben@example.org")])),
        ({"channel": PUSH}, Send([Route(PUSH, "new"), Route(PUSH, "old")])),
        ({"priority": Priority.HIGH}, Send([Route(EMAIL, "ben@example.org"), Route(SMS, "+33612345678")])),
        (
            {"channel": SMS, "person": Person("Ben", None, "+44 (7700) 900-123", "UTC", False)},
            Send([Route(SMS, "+447700900123")]),
        ),
        ({"priority": Priority.HIGH, "channel": SMS}, Send([Route(SMS, "+33612345678")])),
        (
            {"priority": Priority.HIGH, "channel": PUSH},
            Send([Route(PUSH, "new"), Route(PUSH, "old"), Route(EMAIL, "ben@example.org"), Route(SMS, "+33612345678")]),
        ),
        ({"recipient": "x@example.org", "person": None}, Send([Route(EMAIL, "x@example.org")])),
        (
            {"recipient": "x@example.org", "person": None, "priority": Priority.HIGH},
            Send([Route(EMAIL, "x@example.org")]),
        ),
        ({"expires_at": NOW}, Suppress("expired before it could be sent")),
        ({"expires_at": NOW + timedelta(seconds=1)}, Send([Route(EMAIL, "ben@example.org")])),
        ({"data": None}, Suppress("erased")),
        ({"recipient": "erased", "person": None}, Suppress("erased")),
        ({"person": None}, Suppress("the recipient does not exist")),
        (
            {"channel": SMS, "recipient": "112", "person": None},
            Fail("recipient: neither a person nor an address for sms"),
        ),
    ],
)
def test_by_which_way_or_why_not(columns: dict[str, Any], expected: object) -> None:
    assert plan(queued(**columns), NOW) == expected


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("error", "attempt", "uncertain", "honours_key", "expected"),
    [
        (NeverWorks("400"), 1, 0, False, Fail("400")),
        (Gone("404"), 1, 0, False, Fail("404")),
        (throttled(7 * SECOND), 5, 0, False, Again(7 * SECOND, is_attempt=False)),
        (Misconfigured("401"), 5, 0, False, Again(30 * SECOND, is_attempt=False)),
        (Misconfigured("401", 60 * SECOND), 1, 0, False, Again(60 * SECOND, is_attempt=False)),
        (Unavailable("500"), 1, 0, False, Again(1 * SECOND)),
        (Unavailable("500"), 2, 0, False, Again(2 * SECOND)),
        (Unavailable("500"), 4, 0, False, Again(8 * SECOND)),
        (Unavailable("503", 90 * SECOND), 1, 0, False, Again(90 * SECOND)),
        (Unavailable("500"), 5, 0, False, Fail("5 attempts: 500")),
        (Uncertain("no answer"), 1, 0, False, Again(1 * SECOND, is_uncertain=True)),
        (Uncertain("no answer"), 2, 1, False, Fail("may have been accepted 2 times: no answer")),
        (Uncertain("no answer"), 2, 1, True, Again(2 * SECOND, is_uncertain=True)),
        (Uncertain("no answer"), 5, 4, True, Fail("5 attempts: no answer")),
    ],
)
def test_what_follows_what_a_provider_says(
    error: GatewayError, attempt: int, uncertain: int, honours_key: bool, expected: object
) -> None:
    assert after(error, attempt, uncertain, 1.0, honours_key=honours_key) == expected
