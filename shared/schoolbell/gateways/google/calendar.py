"""Google Calendar v3: lessons as events of a teacher's calendar.

https://developers.google.com/workspace/calendar/api/v3/reference/events
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from schoolbell.gateways.errors import Conflict, Gone
from schoolbell.gateways.google.api import Api, Json, Request, as_body, circuit
from schoolbell.gateways.google.credentials import Grant, tokens_of
from schoolbell.gateways.https import shared_http
from schoolbell.resilience.circuit import Circuit
from schoolbell.resilience.guard import Guard
from schoolbell.resilience.rate_limiter import Budget, RateLimiter
from schoolbell.settings import Settings

CIRCUIT = "google-calendar"
MINUTE = timedelta(minutes=1)
PATCH_COST = 3
"""Google counts a patch as three calls. https://developers.google.com/workspace/calendar/api/guides/performance"""


@dataclass(frozen=True, slots=True)
class Event:
    """A lesson as its teacher's calendar shows it."""

    session_id: UUID
    summary: str
    starts_at: datetime
    ends_at: datetime
    timezone: str
    """IANA; the zone in which the event is shown."""


class Calendar(Protocol):
    """A teacher's Google account, as far as calendars go. Both operations can be repeated: the event's id is ours."""

    def upsert(self, calendar_id: str, event: Event) -> None:
        """Makes the event, or makes the one that is there match.

        Raises:
            schoolbell.gateways.errors.GatewayError: one of the kinds told apart there; `Gone` is the
                calendar's absence.
            schoolbell.resilience.errors.Withheld: the call was not made.
        """

    def delete(self, calendar_id: str, event_id: str) -> None:
        """Deletes the event; that there is none is as good. Raises as `upsert` does, except `Gone`."""


def event_id(session_id: UUID) -> str:
    """The id of a lesson's event: Google takes 5 to 1,024 of the characters 0-9 and a-v.

    >>> event_id(UUID("0190163d-8694-739b-aea5-966c26f8ad91"))
    'schoolbell0190163d8694739baea5966c26f8ad91'
    """
    return f"schoolbell{session_id.hex}"


class GoogleCalendar:
    """A teacher's calendars over HTTPS."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def upsert(self, calendar_id: str, event: Event) -> None:
        body = _body(event)
        insert = Request(
            "events.insert",
            "POST",
            self._api.url("calendars", calendar_id, "events"),
            as_body({"id": event_id(event.session_id), **body}),
        )
        try:
            self._api.json(insert)
        except Conflict:
            # There is an event with this id, perhaps a deleted one, which `status` brings back. A patch rather than an
            # update: it leaves alone what the teacher has added, and needs no sequence number.
            patch = Request(
                "events.patch",
                "PATCH",
                self._api.url("calendars", calendar_id, "events", event_id(event.session_id)),
                as_body(body),
                cost=PATCH_COST,
            )
            self._api.json(patch)

    def delete(self, calendar_id: str, event_id: str) -> None:
        request = Request("events.delete", "DELETE", self._api.url("calendars", calendar_id, "events", event_id))
        try:
            self._api.call(request)
        except Gone:
            return


def _body(event: Event) -> dict[str, Json]:
    return {
        "status": "confirmed",
        "summary": event.summary,
        "start": _moment(event.starts_at, event.timezone),
        "end": _moment(event.ends_at, event.timezone),
        "extendedProperties": {"private": {"schoolbellSession": str(event.session_id)}},
    }


def _moment(at: datetime, timezone: str) -> dict[str, str]:
    return {"dateTime": at.astimezone(UTC).isoformat().replace("+00:00", "Z"), "timeZone": timezone}


def calendar_circuit(settings: Settings) -> Circuit:
    """The circuit breaker that all calls to Google Calendar share."""
    return circuit(CIRCUIT, settings.resilience_table)


def calendar_of(teacher_id: UUID, grant: Grant, settings: Settings) -> GoogleCalendar:
    """The calendars of a teacher, who granted it to us.

    Raises:
        ValueError: an address in the settings is not one to send tokens to.
    """
    limiter = RateLimiter(
        CIRCUIT,
        per_tenant=Budget(settings.google_calendar_calls_per_teacher, MINUTE),
        overall=Budget(settings.google_calendar_calls_overall, MINUTE),
        table=settings.resilience_table,
    )
    api = Api(
        settings.google_calendar_url,
        str(teacher_id),
        tokens_of(grant, settings.google_token_url),
        Guard(calendar_circuit(settings), limiter),
        shared_http(),
    )
    return GoogleCalendar(api)
