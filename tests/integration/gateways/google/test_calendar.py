"""The Calendar gateway, over real HTTP."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from schoolbell.gateways.errors import Gone, NeverWorks, Throttled, Unavailable
from schoolbell.gateways.google.calendar import Event, GoogleCalendar, calendar_circuit, calendar_of, event_id
from schoolbell.resilience.circuit import FAILURES_TO_OPEN
from schoolbell.resilience.errors import CircuitOpen
from schoolbell.settings import Settings
from tests.fixtures.google import Google, budget_spent

SESSION = UUID("0190163d-8694-739b-aea5-966c26f8ad91")
START = datetime(2026, 3, 3, 17, 0, tzinfo=UTC)


def lesson(starts_at: datetime = START, summary: str = "Lesson") -> Event:
    return Event(SESSION, summary, starts_at, starts_at + timedelta(hours=1), "Europe/London")


def test_makes_an_event_at_the_lessons_time(google: Google, calendar: GoogleCalendar, account: str) -> None:
    calendar.upsert("primary", lesson())
    event = google.events(account)[event_id(SESSION)]
    assert event["start"] == {"dateTime": "2026-03-03T17:00:00Z", "timeZone": "Europe/London"}
    assert event["end"] == {"dateTime": "2026-03-03T18:00:00Z", "timeZone": "Europe/London"}
    assert event["summary"] == "Lesson"
    assert event["extendedProperties"]["private"]["schoolbellSession"] == str(SESSION)


def test_a_repeat_changes_nothing(google: Google, calendar: GoogleCalendar, account: str) -> None:
    calendar.upsert("primary", lesson())
    before = google.events(account)
    calendar.upsert("primary", lesson())
    after = google.events(account)
    assert {**after[event_id(SESSION)], "updated": ""} == {**before[event_id(SESSION)], "updated": ""}
    assert len(after) == 1


def test_moves_an_event(google: Google, calendar: GoogleCalendar, account: str) -> None:
    calendar.upsert("primary", lesson())
    calendar.upsert("primary", lesson(START + timedelta(days=1)))
    assert google.events(account)[event_id(SESSION)]["start"]["dateTime"] == "2026-03-04T17:00:00Z"


def test_leaves_alone_what_the_teacher_added(google: Google, calendar: GoogleCalendar, account: str) -> None:
    calendar.upsert("primary", lesson())
    google.sandbox.store.world.events[f"{account}/primary/{event_id(SESSION)}"].resource["description"] = "Bring scores"
    calendar.upsert("primary", lesson(START + timedelta(days=1)))
    assert google.events(account)[event_id(SESSION)]["description"] == "Bring scores"


def test_deletes_an_event_and_a_repeat_changes_nothing(google: Google, calendar: GoogleCalendar, account: str) -> None:
    calendar.upsert("primary", lesson())
    calendar.delete("primary", event_id(SESSION))
    calendar.delete("primary", event_id(SESSION))
    assert google.events(account) == {}


def test_deleting_what_never_was_is_as_good(calendar: GoogleCalendar) -> None:
    calendar.delete("primary", event_id(uuid4()))


def test_brings_a_deleted_event_back(google: Google, calendar: GoogleCalendar, account: str) -> None:
    calendar.upsert("primary", lesson())
    calendar.delete("primary", event_id(SESSION))
    calendar.upsert("primary", lesson())
    assert google.events(account)[event_id(SESSION)]["status"] == "confirmed"


def test_writes_to_the_calendar_that_is_named(google: Google, calendar: GoogleCalendar, account: str) -> None:
    name = "lessons/ä b@group.calendar.google.com"
    google.add_calendar(account, name)
    calendar.upsert(name, lesson())
    assert [event.calendar for event in google.sandbox.store.world.events.values()] == [name]


def test_a_calendar_that_is_gone_is_told_apart(calendar: GoogleCalendar) -> None:
    with pytest.raises(Gone):
        calendar.upsert("deleted@group.calendar.google.com", lesson())


def test_what_google_refuses_never_works(calendar: GoogleCalendar) -> None:
    backwards = Event(SESSION, "Lesson", START, START - timedelta(hours=1), "Europe/London")
    with pytest.raises(NeverWorks, match="timeRangeEmpty"):
        calendar.upsert("primary", backwards)


def test_too_many_calls_is_not_now_with_the_time_google_asks_for(google: Google, calendar: GoogleCalendar) -> None:
    google.fail(path="/calendar/", status=429, retry_after=42)
    with pytest.raises(Throttled) as not_now:
        calendar.upsert("primary", lesson())
    assert not_now.value.retry_after == timedelta(seconds=42)


def test_the_older_way_to_say_too_many_calls_is_understood(google: Google, calendar: GoogleCalendar) -> None:
    google.fail(path="/calendar/", status=403, reason="userRateLimitExceeded")
    with pytest.raises(Throttled):
        calendar.upsert("primary", lesson())


def test_an_error_of_googles_is_not_now(google: Google, calendar: GoogleCalendar) -> None:
    google.fail(path="/calendar/", status=503)
    with pytest.raises(Unavailable):
        calendar.upsert("primary", lesson())


def test_a_lost_connection_is_not_now(google: Google, calendar: GoogleCalendar) -> None:
    google.fail(path="/calendar/", disconnect=True)
    with pytest.raises(Unavailable):
        calendar.upsert("primary", lesson())


def test_no_answer_in_time_is_not_now(google: Google, impatient: None, settings: Settings, account: str) -> None:
    google.fail(path="/calendar/", delay=1.0, times=1)
    with pytest.raises(Unavailable, match="ReadTimeoutError"):
        calendar_of(uuid4(), account, settings).upsert("primary", lesson())


def test_an_insert_whose_answer_was_lost_can_be_repeated(
    google: Google, calendar: GoogleCalendar, account: str
) -> None:
    google.fail(path="/calendar/", method="POST", status=500, effect=True, times=1)
    with pytest.raises(Unavailable):
        calendar.upsert("primary", lesson())
    calendar.upsert("primary", lesson())
    assert len(google.events(account)) == 1


def test_the_circuit_opens_after_a_row_of_failures_for_every_teacher(
    google: Google, settings: Settings, calendar: GoogleCalendar
) -> None:
    google.fail(path="/calendar/", status=500)
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(Unavailable):
            calendar.delete("primary", event_id(SESSION))
    assert calendar_circuit(settings).is_open()
    made = google.requests()
    with pytest.raises(CircuitOpen):
        calendar_of(uuid4(), google.account(), settings).delete("primary", event_id(SESSION))
    assert google.requests() == made


@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 429}, {"status": 400}, {"status": 401}])
def test_one_teachers_trouble_does_not_open_the_circuit(
    google: Google, settings: Settings, account: str, fault: dict[str, int]
) -> None:
    google.fail(account=account, path="/calendar/", **fault)
    calendar = calendar_of(uuid4(), account, settings)
    for _ in range(2 * FAILURES_TO_OPEN):
        with pytest.raises(Exception, match=r"events\.delete"):
            calendar.delete("primary", event_id(SESSION))
    assert not calendar_circuit(settings).is_open()


def test_each_call_is_paid_for_by_its_teacher(google: Google, settings: Settings, account: str) -> None:
    teacher = uuid4()
    calendar_of(teacher, account, settings).delete("primary", event_id(SESSION))
    calendar_of(teacher, account, settings).upsert("primary", lesson())
    assert budget_spent("google-calendar", teacher) == budget_spent("google-calendar") == 2


def test_addresses_in_the_clear_are_refused(google: Google, settings: Settings, account: str) -> None:
    unsafe = settings.model_copy(update={"google_calendar_url": "http://example.org/calendar/v3"})
    with pytest.raises(ValueError, match="https"):
        calendar_of(uuid4(), account, unsafe)
