"""Firebase Cloud Messaging, HTTP v1: one push message.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send

A device is known by any token of the right form, until the sandbox is told that it is not any more; one whose token
begins with `foreign:` belongs to another sender.
"""

import re
import secrets
from datetime import UTC, datetime

from local.sandbox.messages import Call, Json, Reply
from local.sandbox.world import PROJECT, Sent, World

_TOKEN = re.compile(r"[\w:-]{10,4096}")
_FIELDS = {"name", "data", "notification", "android", "webpush", "apns", "fcm_options", "token", "topic", "condition"}
_RESERVED = re.compile(r"from|message_type|google.*|gcm.*")
LARGEST = 4_096
"""Bytes of what the device gets: data, title and text."""

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_REASONS = {429: "QUOTA_EXCEEDED", 500: "INTERNAL", 503: "UNAVAILABLE"}


def operation(method: str, segments: list[str]) -> str | None:
    """The name of the method in Google's reference; `segments` follow `/fcm`."""
    match method, segments:
        case "POST", ["v1", "projects", _, "messages:send"]:
            return "projects.messages.send"
        case _:
            return None


def caller(call: Call, _segments: list[str], world: World) -> str | None:
    """The service account."""
    known = world.tokens.get(call.headers.get("authorization", "").removeprefix("Bearer "))
    return known.account if known else None


def answer(call: Call, segments: list[str], world: World) -> Reply:
    """Answers a call."""
    account = caller(call, segments, world)
    known = world.tokens.get(call.headers.get("authorization", "").removeprefix("Bearer "))
    if known is None or account is None or account in world.revoked or known.expires_at <= datetime.now(UTC):
        return error(401, "Request had invalid authentication credentials.")
    if operation(call.method, segments) is None:
        return Reply(404, b"<!DOCTYPE html><title>Error 404 (Not Found)</title>", {"Content-Type": "text/html"})
    if account not in world.service_accounts or segments[2] != PROJECT:
        return error(403, "Permission 'cloudmessaging.messages.create' denied.")
    body = call.json_or_none() or {}
    message = body.get("message")
    if not isinstance(message, dict) or body.keys() - {"message", "validate_only"}:
        return error(400, "Recipient of the message is not set.", "INVALID_ARGUMENT")
    wrong = _wrong(message)
    if wrong:
        return error(400, wrong, "INVALID_ARGUMENT")
    token = message["token"]
    if token in world.unregistered:
        return error(404, "Requested entity was not found.", "UNREGISTERED")
    if token.startswith("foreign:"):
        return error(403, "SenderId mismatch", "SENDER_ID_MISMATCH")
    name = f"projects/{PROJECT}/messages/0:{secrets.randbelow(10**16)}%{secrets.token_hex(8)}"
    world.messages.append(Sent(service="fcm", account=account, id=name, to=token, content=message))
    return Reply(200, {"name": name})


def _wrong(message: dict[str, Json]) -> str | None:
    """What is wrong with a message."""
    for name in message.keys() - _FIELDS:
        return f"Invalid JSON payload received. Unknown name \"{name}\" at 'message': Cannot find field."
    token, data, notification = message.get("token"), message.get("data", {}), message.get("notification", {})
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return "The registration token is not a valid FCM registration token"
    if not all(isinstance(each, str) for values in (data, notification) for each in values.values()):
        return "Invalid value at 'message.data[0].value' (TYPE_STRING)"
    if any(_RESERVED.fullmatch(key) for key in data):
        return "Invalid data payload key"
    if sum(len(f"{key}{value}".encode()) for each in (data, notification) for key, value in each.items()) > LARGEST:
        return "Android message is too big"
    return None


def error(status: int, message: str, reason: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    """An error as Firebase puts it."""
    body: dict[str, Json] = {"code": status, "message": message, "status": _STATUSES.get(status, "UNKNOWN")}
    if reason:
        body["details"] = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": reason}]
    return Reply(status, {"error": body}, headers or {})


def fault(status: int, reason: str | None, headers: dict[str, str]) -> Reply:
    """The error that a fault asks for."""
    return error(status, "On purpose", reason or _REASONS.get(status), headers)
