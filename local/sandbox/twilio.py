"""Twilio's Messages: one text message.

https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource

The numbers that Twilio keeps for tests do here what they do there.
https://www.twilio.com/docs/iam/test-credentials#test-sms-messages
"""

import base64
import binascii
import re
import secrets
from email.utils import formatdate
from urllib.parse import parse_qs

from local.sandbox.messages import Call, Reply
from local.sandbox.world import Sent, World

_ACCOUNT = re.compile(r"AC[0-9a-f]{32}")
_PHONE = re.compile(r"\+[1-9]\d{6,14}")
LONGEST_BODY = 1_600
NO_PERMISSION = 21408

_RECIPIENTS = {
    "+15005550001": (21211, "The 'To' number is not a valid phone number."),
    "+15005550002": (21612, "The 'To' phone number is not currently reachable via SMS."),
    "+15005550003": (
        21408,
        "Permission to send an SMS has not been enabled for the region indicated by the 'To' number.",
    ),
    "+15005550004": (21610, "Attempt to send to unsubscribed recipient."),
    "+15005550009": (21614, "'To' number is not a valid mobile number."),
}
_SENDERS = {
    "+15005550001": (21212, "The 'From' number is not a valid phone number."),
    "+15005550007": (21606, "The From phone number is not a valid, SMS-capable inbound phone number for your account."),
    "+15005550008": (21611, "This From number has exceeded the maximum number of queued messages."),
}


def operation(method: str, segments: list[str]) -> str | None:
    """The name of the call; `segments` follow `/twilio`."""
    match method, segments:
        case "POST", ["2010-04-01", "Accounts", _, "Messages.json"]:
            return "messages.create"
        case _:
            return None


def caller(_call: Call, segments: list[str], _world: World) -> str | None:
    """The account's SID."""
    return segments[2] if len(segments) > 2 else None


def answer(call: Call, segments: list[str], world: World) -> Reply:
    """Answers a call."""
    if operation(call.method, segments) is None:
        return error(404, 20404, "The requested resource was not found")
    account = segments[2]
    if not _ACCOUNT.fullmatch(account) or account in world.revoked or not _is_its_own(call, account):
        return fault(401, None, {})
    form = {name: values[0] for name, values in parse_qs(call.body.decode(errors="replace")).items()}
    wrong = _wrong(form)
    if wrong:
        return error(403 if wrong[0] == NO_PERMISSION else 400, *wrong)
    sid = f"SM{secrets.token_hex(16)}"
    world.messages.append(Sent(service="twilio", account=account, id=sid, to=form["To"], content=form))
    return Reply(
        201,
        {
            "sid": sid,
            "account_sid": account,
            "status": "accepted" if "MessagingServiceSid" in form else "queued",
            "to": form["To"],
            "from": form.get("From"),
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "body": form["Body"],
            "direction": "outbound-api",
            "date_created": formatdate(usegmt=True),
            "error_code": None,
            "error_message": None,
            "uri": f"/2010-04-01/Accounts/{account}/Messages/{sid}.json",
        },
    )


def _is_its_own(call: Call, account: str) -> bool:
    """Whether the call is authenticated as the account it is about."""
    kind, _, text = call.headers.get("authorization", "").partition(" ")
    try:
        user, _, token = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return kind == "Basic" and user == account and token != ""


def _wrong(form: dict[str, str]) -> tuple[int, str] | None:
    """Twilio's code and text for what is wrong with a message."""
    recipient, sender = form.get("To", ""), form.get("From") or form.get("MessagingServiceSid")
    if not recipient:
        return 21604, "A 'To' phone number is required."
    if not sender:
        return 21603, "A 'From' phone number is required."
    if not form.get("Body"):
        return 21602, "Message body is required."
    if len(form["Body"]) > LONGEST_BODY:
        return 21617, "The concatenated message body exceeds the 1600 character limit."
    if not _PHONE.fullmatch(recipient):
        return 21211, f"Invalid 'To' Phone Number: {recipient}"
    return _SENDERS.get(sender) or _RECIPIENTS.get(recipient)


def error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> Reply:
    """An error as Twilio puts it."""
    more = f"https://www.twilio.com/docs/errors/{code}"
    return Reply(status, {"code": code, "message": message, "more_info": more, "status": status}, headers or {})


_FAULTS = {401: (20003, "Authenticate"), 403: (20003, "Permission Denied"), 429: (20429, "Too Many Requests")}


def fault(status: int, reason: str | None, headers: dict[str, str]) -> Reply:
    """The error that a fault asks for; the reason is one of Twilio's codes."""
    code, message = _FAULTS.get(status, (20500, "Internal Server Error"))
    return error(status, int(reason) if reason else code, message, headers)
