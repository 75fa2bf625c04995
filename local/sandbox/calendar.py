"""Google Calendar v3: the events of a calendar.

https://developers.google.com/workspace/calendar/api/v3/reference/events
"""

import re
import secrets
from datetime import datetime
from typing import Any

from local.sandbox.messages import Call, Json, Refusal, Reply, google_error
from local.sandbox.world import Event, World, now_as_text

_EVENT_ID = re.compile(r"[a-v0-9]{5,1024}")
_BASE32HEX = "0123456789abcdefghijklmnopqrstuv"

NOT_FOUND = google_error(404, "notFound", "Not Found")
DELETED = google_error(410, "deleted", "Resource has been deleted")
DUPLICATE = google_error(409, "duplicate", "The requested identifier already exists.")
INVALID_ID = google_error(400, "invalid", "Invalid resource id value.")


def operation(method: str, segments: list[str]) -> str | None:
    """The name of the method in Google's reference; `segments` follow `/calendar/v3`."""
    match segments:
        case ["calendars", _, "events"]:
            return {"POST": "events.insert", "GET": "events.list"}.get(method)
        case ["calendars", _, "events", _]:
            names = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
            return f"events.{names[method]}" if method in names else None
        case _:
            return None


def answer(call: Call, segments: list[str], account: str, world: World) -> Reply:
    """Answers a call of an account."""
    calendar = segments[1]
    if calendar != "primary" and calendar not in world.calendars.get(account, set()):
        return NOT_FOUND
    if len(segments) == 3:
        if call.method == "POST":
            return _insert(call, account, calendar, world)
        shown = [
            event.resource
            for event in world.events.values()
            if (event.account, event.calendar) == (account, calendar)
            and (not event.is_deleted or call.query.get("showDeleted") == "true")
        ]
        return Reply(200, {"kind": "calendar#events", "summary": calendar, "items": shown})
    event = world.events.get(f"{account}/{calendar}/{segments[3]}")
    if event is None:
        return NOT_FOUND
    if call.method == "GET":
        return Reply(200, event.resource)
    if call.method == "DELETE":
        if event.is_deleted:
            return DELETED
        event.resource = {**event.resource, "status": "cancelled", "updated": now_as_text()}
        return Reply(204)
    kept = event.resource if call.method == "PATCH" else {}
    event.resource = _resource(event.id, {**kept, **call.json()}, created=event.resource["created"])
    return Reply(200, event.resource)


def _insert(call: Call, account: str, calendar: str, world: World) -> Reply:
    body = call.json()
    wanted = body.get("id")
    if wanted is not None and not (isinstance(wanted, str) and _EVENT_ID.fullmatch(wanted)):
        return INVALID_ID
    event_id = wanted or "".join(secrets.choice(_BASE32HEX) for _ in range(26))
    key = f"{account}/{calendar}/{event_id}"
    if key in world.events:
        return DUPLICATE
    resource = _resource(event_id, body, created=now_as_text())
    world.events[key] = Event(account=account, calendar=calendar, id=event_id, resource=resource)
    return Reply(200, resource)


def _resource(event_id: str, body: dict[str, Json], created: str) -> dict[str, Any]:
    start, end = _moment(body, "start"), _moment(body, "end")
    if start is not None and end is not None and end < start:
        raise Refusal(google_error(400, "timeRangeEmpty", "The specified time range is empty.", domain="calendar"))
    return {
        "kind": "calendar#event",
        "status": "confirmed",
        **body,
        "id": event_id,
        "iCalUID": f"{event_id}@google.com",
        "created": created,
        "updated": now_as_text(),
    }


def _moment(body: dict[str, Json], name: str) -> datetime | None:
    """When an event starts or ends; nothing for an all-day event."""
    value = body.get(name)
    if not isinstance(value, dict) or not (value.get("dateTime") or value.get("date")):
        raise Refusal(google_error(400, "required", f"Missing {name} time."))
    if "dateTime" not in value:
        return None
    try:
        at = datetime.fromisoformat(value["dateTime"])
    except (TypeError, ValueError):
        at = None
    if at is None or (at.tzinfo is None and not value.get("timeZone")):
        raise Refusal(google_error(400, "invalid", f"Invalid value for: {name}.dateTime"))
    return at
