"""SendGrid v3: one email.

https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
"""

import re
import secrets
from typing import Any

from local.sandbox.messages import Call, Json, Reply
from local.sandbox.world import Sent, World

_KEY = re.compile(r"SG\.[\w-]{8,}\.[\w-]{8,}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_FIELDS = {
    "personalizations",
    "from",
    "reply_to",
    "subject",
    "content",
    "attachments",
    "headers",
    "categories",
    "custom_args",
    "mail_settings",
    "tracking_settings",
}
UNVERIFIED = "@unverified.example.com"
"""How an address ends that the account may not send from."""


def operation(method: str, segments: list[str]) -> str | None:
    """The name of the call; `segments` follow `/sendgrid`."""
    return "mail.send" if (method, segments) == ("POST", ["v3", "mail", "send"]) else None


def caller(call: Call, _segments: list[str], _world: World) -> str | None:
    """The API key."""
    return call.headers.get("authorization", "").removeprefix("Bearer ") or None


def answer(call: Call, segments: list[str], world: World) -> Reply:
    """Answers a call."""
    key = caller(call, segments, world)
    if key is None or not _KEY.fullmatch(key) or key in world.revoked:
        return fault(401, None, {})
    if operation(call.method, segments) is None:
        return error(404, "Not Found")
    if not call.headers.get("content-type", "").startswith("application/json"):
        return error(415, "Content-Type should be application/json.")
    mail = call.json_or_none()
    if mail is None:
        return error(400, "Bad Request")
    wrong = _wrong(mail)
    if wrong:
        return error(400, wrong[1], wrong[0])
    if mail["from"]["email"].endswith(UNVERIFIED):
        return error(403, "The from address does not match a verified Sender Identity.", "from")
    message_id = secrets.token_urlsafe(16)
    for personalization in mail["personalizations"]:
        for recipient in personalization["to"]:
            sent = Sent(service="sendgrid", account=key, id=message_id, to=recipient["email"], content=mail)
            world.messages.append(sent)
    return Reply(202, b"", {"X-Message-Id": message_id})


def _wrong(mail: dict[str, Json]) -> tuple[str, str] | None:
    """The field that is wrong and what is wrong with it."""
    for name in mail.keys() - _FIELDS:
        return name, "Additional property is not allowed"
    personalizations = mail.get("personalizations")
    if not isinstance(personalizations, list) or not personalizations:
        return "personalizations", "The personalizations field is required and must have at least one personalization."
    for number, each in enumerate(personalizations):
        wrong = _wrong_recipients(each, f"personalizations.{number}.to")
        if wrong:
            return wrong
    if not _is_address(mail.get("from")):
        return "from.email", "The from email does not contain a valid address."
    if not isinstance(mail.get("subject"), str) or not mail["subject"]:
        return "subject", "The subject is required."
    return _wrong_content(mail.get("content"))


def _wrong_recipients(personalization: Json, field: str) -> tuple[str, str] | None:
    recipients = personalization.get("to") if isinstance(personalization, dict) else None
    if not isinstance(recipients, list) or not recipients:
        return field, "The to array is required for all personalization objects, and must have at least one recipient."
    if not all(_is_address(recipient) for recipient in recipients):
        return field, "Does not contain a valid address."
    return None


def _wrong_content(content: Json) -> tuple[str, str] | None:
    if not isinstance(content, list) or not content:
        return "content", "Unless a valid template_id is provided, the content parameter is required."
    for number, part in enumerate(content):
        if not isinstance(part, dict) or part.keys() != {"type", "value"} or not part["value"]:
            return f"content.{number}", "The content must have a type and a value of at least one character."
    types = [part["type"] for part in content]
    if types != sorted(types, reverse=True):  # text/plain, then text/html
        return "content", "If present, text/plain must be first, followed by text/html."
    return None


def _is_address(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("email"), str) and bool(_EMAIL.fullmatch(value["email"]))


def error(status: int, message: str, field: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    """An error as SendGrid puts it."""
    return Reply(status, {"errors": [{"message": message, "field": field, "help": None}]}, headers or {})


_MESSAGES = {
    401: "The provided authorization grant is invalid, expired, or revoked",
    403: "access forbidden",
    429: "too many requests",
}


def fault(status: int, reason: str | None, headers: dict[str, str]) -> Reply:
    """The error that a fault asks for."""
    return error(status, reason or _MESSAGES.get(status, "server error"), headers=headers)
