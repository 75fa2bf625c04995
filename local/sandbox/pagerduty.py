"""PagerDuty's Events API v2: incidents that events open and close.

https://developer.pagerduty.com/docs/send-alert-event
"""

import re
from typing import Any

from local.sandbox.messages import Call, Json, Reply
from local.sandbox.world import Sent, World

_ROUTING_KEY = re.compile(r"\w{32}")
_FIELDS = {"routing_key", "event_action", "dedup_key", "payload", "links", "images", "client", "client_url"}
_OF_PAYLOAD = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}


def operation(method: str, segments: list[str]) -> str | None:
    """The name of the call; `segments` follow `/pagerduty`."""
    return "events.enqueue" if (method, segments) == ("POST", ["v2", "enqueue"]) else None


def caller(call: Call, _segments: list[str], _world: World) -> str | None:
    """The routing key."""
    key = (call.json_or_none() or {}).get("routing_key")
    return key if isinstance(key, str) else None


def answer(call: Call, segments: list[str], world: World) -> Reply:
    """Answers a call."""
    if operation(call.method, segments) is None:
        return Reply(404, {"status": "not found", "message": "Not Found"})
    event = call.json_or_none()
    if event is None:
        return invalid("JSON parse error")
    wrong = _wrong(event)
    if wrong:
        return invalid(wrong)
    key = event["routing_key"]
    if key in world.revoked:
        return invalid("'routing_key' is invalid")
    dedup_key = event.get("dedup_key") or f"made-up-{len(world.messages)}"
    world.messages.append(
        Sent(service="pagerduty", account=key, id=dedup_key, to=key, content={**event, "dedup_key": dedup_key})
    )
    return Reply(202, {"status": "success", "message": "Event processed", "dedup_key": dedup_key})


def incidents(world: World) -> list[dict[str, Any]]:
    """The incidents, by what opened them; a resolve of what is not open is dropped."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    closed: list[dict[str, Any]] = []
    for sent in world.messages:
        if sent.service != "pagerduty":
            continue
        which = (sent.account, sent.id)
        if sent.content["event_action"] == "trigger":
            incident = found.setdefault(which, {"dedup_key": sent.id, "status": "triggered", "events": 0})
            incident["events"] += 1
            incident |= sent.content["payload"]
        elif which in found:
            found[which]["status"] = "resolved" if sent.content["event_action"] == "resolve" else "acknowledged"
            if found[which]["status"] == "resolved":
                closed.append(found.pop(which))
    return [*closed, *found.values()]


def _wrong(event: dict[str, Json]) -> str | None:
    """What is wrong with an event."""
    for name in event.keys() - _FIELDS:
        return f"'{name}' is not a known field"
    key = event.get("routing_key")
    if not isinstance(key, str) or not _ROUTING_KEY.fullmatch(key):
        return "Length of 'routing_key' is incorrect (should be 32 characters)"
    if event.get("event_action") not in ("trigger", "acknowledge", "resolve"):
        return "'event_action' is not one of trigger, acknowledge, resolve"
    dedup_key = event.get("dedup_key")
    if event["event_action"] != "trigger":
        return None if dedup_key else "'dedup_key' is missing or blank"
    if dedup_key is not None and (not isinstance(dedup_key, str) or len(dedup_key) > 255):
        return "'dedup_key' must be a string of at most 255 characters"
    return _wrong_payload(event.get("payload"))


def _wrong_payload(payload: Json) -> str | None:
    if not isinstance(payload, dict):
        return "'payload' is missing or blank"
    for name in payload.keys() - _OF_PAYLOAD:
        return f"'payload.{name}' is not a known field"
    for name in ("summary", "source", "severity"):
        if not isinstance(payload.get(name), str) or not payload[name]:
            return f"'payload.{name}' is missing or blank"
    if len(payload["summary"]) > 1_024:
        return "'payload.summary' must be at most 1024 characters"
    if payload["severity"] not in ("critical", "error", "warning", "info"):
        return "'payload.severity' is invalid (must be one of the following: critical, warning, error or info)"
    return None


def invalid(reason: str) -> Reply:
    """A bad request as PagerDuty puts it."""
    return Reply(400, {"status": "invalid event", "message": "Event object is invalid", "errors": [reason]})


def fault(status: int, reason: str | None, headers: dict[str, str]) -> Reply:
    """The error that a fault asks for."""
    if status == 400:
        return invalid(reason or "on purpose")
    return Reply(status, {"status": "error", "message": reason or "on purpose"}, headers)
