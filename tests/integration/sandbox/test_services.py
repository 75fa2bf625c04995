"""The SendGrid, Twilio, Firebase, PagerDuty and Slack of the sandbox are as strict as the real ones about messages."""

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import RemoteDisconnected
from typing import Any
from urllib.parse import urlencode

import pytest
from google.auth import jwt
from google.auth.crypt import RSASigner

from local.sandbox import keys
from local.sandbox.oauth import AUDIENCE, JWT_BEARER, SCOPE
from local.sandbox.server import Sandbox, serving
from local.sandbox.world import PROJECT


@pytest.fixture
def url() -> Iterator[str]:
    with serving(Sandbox()) as address:
        yield address


def call(
    url: str, method: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes, Mapping[str, str]]:
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read(), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def post(url: str, body: Any, **headers: str) -> tuple[int, Any]:
    """The status and the JSON of the answer to JSON."""
    status, answer, _ = call(url, "POST", json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    try:
        return status, json.loads(answer or b"null")
    except ValueError:
        return status, answer.decode()


def sent(url: str, service: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(call(f"{url}/sandbox/messages?service={service}", "GET")[1])
    return listed


# ---- SendGrid

MAIL: dict[str, Any] = {
    "personalizations": [{"to": [{"email": "ada@example.org"}]}],
    "from": {"email": "no-reply@example.com"},
    "subject": "Lesson",
    "content": [{"type": "text/plain", "value": "At five"}, {"type": "text/html", "value": "<p>At five</p>"}],
}


def mail(url: str, body: Any = MAIL, key: str = keys.SENDGRID) -> tuple[int, Any]:
    return post(f"{url}/sendgrid/v3/mail/send", body, Authorization=f"Bearer {key}")


def test_a_mail_is_taken_with_an_id_and_without_a_body(url: str) -> None:
    headers = {"Authorization": f"Bearer {keys.SENDGRID}", "Content-Type": "application/json"}
    status, body, answered = call(f"{url}/sendgrid/v3/mail/send", "POST", json.dumps(MAIL).encode(), headers)
    assert (status, body) == (202, b"")
    (record,) = sent(url, "sendgrid")
    assert (record["id"], record["to"], record["account"]) == (
        answered["X-Message-Id"],
        "ada@example.org",
        keys.SENDGRID,
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"personalizations": []}, "personalizations"),
        ({"personalizations": None}, "personalizations"),
        ({"personalizations": [{"to": []}]}, "personalizations.0.to"),
        ({"personalizations": [{"to": [{"email": "ada"}]}]}, "personalizations.0.to"),
        ({"from": None}, "from.email"),
        ({"from": {"email": "none"}}, "from.email"),
        ({"subject": ""}, "subject"),
        ({"content": []}, "content"),
        ({"content": [{"type": "text/plain", "value": ""}]}, "content.0"),
        ({"content": list(reversed(MAIL["content"]))}, "content"),
        ({"recipient": "ada"}, "recipient"),
    ],
)
def test_sendgrid_names_the_field_that_is_wrong(url: str, change: dict[str, Any], field: str) -> None:
    status, answer = mail(url, {**MAIL, **change})
    assert (status, answer["errors"][0]["field"]) == (400, field)
    assert sent(url, "sendgrid") == []


def test_sendgrid_wants_a_key_and_json(url: str) -> None:
    assert mail(url, key="none")[0] == 401
    assert mail(url, MAIL | {"from": {"email": "a@unverified.example.com"}})[0] == 403
    form = call(f"{url}/sendgrid/v3/mail/send", "POST", b"a=b", {"Authorization": f"Bearer {keys.SENDGRID}"})
    assert form[0] == 415
    assert mail(url, [])[0] == 400
    post(f"{url}/sandbox/revoke", {"account": keys.SENDGRID})
    assert mail(url)[0] == 401


# ---- Twilio

TEXT = {"To": "+4930901820", "From": keys.TWILIO_SENDER, "Body": "At five"}


def text(
    url: str, form: Mapping[str, str] = TEXT, user: str = keys.TWILIO_ACCOUNT, token: str = "t"
) -> tuple[int, Any]:
    address = f"{url}/twilio/2010-04-01/Accounts/{keys.TWILIO_ACCOUNT}/Messages.json"
    authorization = {"Authorization": f"Basic {base64.b64encode(f'{user}:{token}'.encode()).decode()}"}
    status, body, _ = call(address, "POST", urlencode(form).encode(), authorization)
    return status, json.loads(body)


def test_a_text_message_is_taken(url: str) -> None:
    status, answer = text(url)
    assert (status, answer["status"], answer["to"]) == (201, "queued", "+4930901820")
    assert [record["id"] for record in sent(url, "twilio")] == [answer["sid"]]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"To": ""}, 21604),
        ({"From": ""}, 21603),
        ({"Body": ""}, 21602),
        ({"Body": "x" * 1_601}, 21617),
        ({"To": "030 901820"}, 21211),
        ({"To": "+15005550004"}, 21610),
        ({"From": "+15005550007"}, 21606),
    ],
)
def test_twilio_says_by_a_code_what_is_wrong(url: str, change: dict[str, str], code: int) -> None:
    status, answer = text(url, {**TEXT, **change})
    assert (status, answer["code"]) == (400, code)
    assert sent(url, "twilio") == []


def test_twilio_wants_the_accounts_own_token(url: str) -> None:
    assert text(url, user=f"AC{'9' * 32}")[0] == 401
    assert text(url, token="")[0] == 401
    post(f"{url}/sandbox/revoke", {"account": keys.TWILIO_ACCOUNT})
    assert text(url)[1]["code"] == 20003


# ---- Firebase

PUSH: dict[str, Any] = {"token": "token-of-a-device", "notification": {"title": "Lesson", "body": "At five"}}


def access_token(url: str, **claims: Any) -> tuple[int, dict[str, Any]]:
    """What a service account is answered to its assertion."""
    account = keys.keys(url)["fcm"]
    now = int(time.time())
    whole = {"iss": account["client_email"], "aud": AUDIENCE, "scope": SCOPE, "iat": now, "exp": now + 3_600, **claims}
    signer = RSASigner.from_string(account["private_key"], account["private_key_id"])  # type: ignore[no-untyped-call]
    assertion = jwt.encode(signer, whole).decode()  # type: ignore[no-untyped-call]
    form = urlencode({"grant_type": JWT_BEARER, "assertion": assertion}).encode()
    status, body, _ = call(f"{url}/token", "POST", form)
    return status, json.loads(body)


def push(url: str, message: Any = PUSH, project: str = PROJECT, token: str | None = None) -> tuple[int, Any]:
    bearer = token or access_token(url)[1]["access_token"]
    return post(
        f"{url}/fcm/v1/projects/{project}/messages:send", {"message": message}, Authorization=f"Bearer {bearer}"
    )


def test_a_push_message_is_taken(url: str) -> None:
    status, answer = push(url)
    assert status == 200
    assert [record["id"] for record in sent(url, "fcm")] == [answer["name"]]


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "somebody@else"},
        {"aud": "https://example.com"},
        {"exp": 1},
        {"scope": "https://www.googleapis.com/auth/drive"},
    ],
    ids=str,
)
def test_assertions_are_looked_at_as_google_does(url: str, claims: dict[str, Any]) -> None:
    status, answer = access_token(url, **claims)
    assert (status, answer["error"]) == (400, "invalid_scope" if "scope" in claims else "invalid_grant")


def test_an_assertion_signed_with_another_key_is_refused(url: str) -> None:
    account = keys.keys(url)["fcm"]["client_email"]
    claims = base64.urlsafe_b64encode(json.dumps({"iss": account, "scope": SCOPE}).encode()).decode()
    form = urlencode({"grant_type": JWT_BEARER, "assertion": f"e30.{claims}.c2lnbmVk"}).encode()
    status, body, _ = call(f"{url}/token", "POST", form)
    assert (status, json.loads(body)["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"token": None}, 400, "INVALID_ARGUMENT"),
        ({"token": "x"}, 400, "INVALID_ARGUMENT"),
        ({"title": "Lesson"}, 400, "INVALID_ARGUMENT"),
        ({"data": {"count": 1}}, 400, "INVALID_ARGUMENT"),
        ({"data": {"from": "x"}}, 400, "INVALID_ARGUMENT"),
        ({"data": {"x": "y" * 4_096}}, 400, "INVALID_ARGUMENT"),
        ({"token": "foreign:token-of-a-device"}, 403, "SENDER_ID_MISMATCH"),
        ({"token": "uninstalled-token"}, 404, "UNREGISTERED"),
    ],
)
def test_firebase_says_what_is_wrong_in_its_details(url: str, change: dict[str, Any], status: int, reason: str) -> None:
    post(f"{url}/sandbox/unregister", {"token": "uninstalled-token"})
    answered, answer = push(url, {**PUSH, **change})
    assert (answered, answer["error"]["details"][0]["errorCode"]) == (status, reason)
    assert sent(url, "fcm") == []


def test_firebase_wants_a_token_of_the_projects_own_account(url: str) -> None:
    assert push(url, token="made up")[1]["error"]["status"] == "UNAUTHENTICATED"
    assert push(url, project="another")[1]["error"]["status"] == "PERMISSION_DENIED"
    grant = {"grant_type": "refresh_token", "client_id": "c", "client_secret": "s", "refresh_token": "a teacher"}
    teachers = json.loads(call(f"{url}/token", "POST", urlencode(grant).encode())[1])["access_token"]
    assert push(url, token=teachers)[0] == 403


# ---- PagerDuty

EVENT: dict[str, Any] = {
    "routing_key": keys.ROUTING_KEY,
    "event_action": "trigger",
    "dedup_key": "one",
    "payload": {"summary": "It burns", "source": "school", "severity": "critical"},
}


def event(url: str, body: Any) -> tuple[int, Any]:
    return post(f"{url}/pagerduty/v2/enqueue", body)


@pytest.mark.parametrize(
    "change",
    [
        {"routing_key": "short"},
        {"event_action": "burn"},
        {"dedup_key": "x" * 256},
        {"event_action": "resolve", "dedup_key": None},
        {"payload": None},
        {"payload": {**EVENT["payload"], "severity": "bad"}},
        {"payload": {**EVENT["payload"], "summary": ""}},
        {"payload": {**EVENT["payload"], "summary": "x" * 1_025}},
        {"payload": {"summary": "x", "severity": "info"}},
        {"summary": "It burns"},
    ],
    ids=str,
)
def test_pagerduty_refuses_events_that_are_not_whole(url: str, change: dict[str, Any]) -> None:
    status, answer = event(url, {**EVENT, **change})
    assert (status, answer["status"], len(answer["errors"])) == (400, "invalid event", 1)
    assert sent(url, "pagerduty") == []


def test_incidents_open_and_close_by_their_key(url: str) -> None:
    for action, key in (("trigger", "one"), ("trigger", "one"), ("trigger", "two"), ("resolve", "one")):
        assert event(url, {**EVENT, "event_action": action, "dedup_key": key})[0] == 202
    event(url, {**EVENT, "event_action": "resolve", "dedup_key": "never opened"})
    event(url, {**EVENT, "dedup_key": "one"})
    incidents = json.loads(call(f"{url}/sandbox/incidents", "GET")[1])
    found = [(incident["dedup_key"], incident["status"], incident["events"]) for incident in incidents]
    assert found == [("one", "resolved", 2), ("two", "triggered", 1), ("one", "triggered", 1)]


# ---- Slack


def hook(url: str, body: Any, webhook: str = keys.WEBHOOK) -> tuple[int, Any]:
    return post(f"{url}/slack/services/{webhook}", body)


def section(text: str = "x", **more: Any) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}, **more}


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ({"text": "hello"}, "ok"),
        ({"attachments": [{"color": "#fff", "blocks": [section()]}]}, "ok"),
        ({}, "no_text"),
        ([], "invalid_payload"),
        ({"txt": "hello"}, "invalid_payload"),
        ({"blocks": [{"type": "paragraph"}]}, "invalid_blocks"),
        ({"blocks": [section("")]}, "invalid_blocks"),
        ({"blocks": [section("x" * 3_001)]}, "invalid_blocks"),
        ({"blocks": [{"type": "section"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2_001}]}]}, "invalid_blocks"),
        ({"attachments": [{"blocks": [section()] * 51}]}, "invalid_blocks"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_slack_answers_in_a_word(url: str, message: Any, word: str) -> None:
    assert hook(url, message) == (200 if word == "ok" else 400, word)
    assert len(sent(url, "slack")) == (word == "ok")


def test_a_webhook_that_is_not_there_is_not_found(url: str) -> None:
    assert hook(url, {"text": "x"}, "T1/B1")[1] == "no_service"
    post(f"{url}/sandbox/revoke", {"account": keys.WEBHOOK})
    assert hook(url, {"text": "x"}) == (404, "no_service")


# ---- failing on command


def test_each_service_fails_in_its_own_words(url: str) -> None:
    post(f"{url}/sandbox/faults", {"status": 429, "retry_after": 3, "path": "^/(sendgrid|twilio|pagerduty|slack)/"})
    assert mail(url)[1]["errors"][0]["message"] == "too many requests"
    assert text(url)[1]["code"] == 20429
    assert event(url, EVENT)[0] == 429
    assert hook(url, {"text": "x"}) == (429, "rate_limited")
    post(f"{url}/sandbox/faults", {"status": 429, "retry_after": 3, "path": "^/fcm/"})
    assert push(url)[1]["error"]["details"][0]["errorCode"] == "QUOTA_EXCEEDED"
    status, _, headers = call(f"{url}/pagerduty/v2/enqueue", "POST", json.dumps(EVENT).encode())
    assert (status, headers["Retry-After"]) == (429, "3")


def test_a_message_can_be_taken_and_nobody_told(url: str) -> None:
    post(f"{url}/sandbox/faults", {"path": "^/sendgrid/", "disconnect": True, "effect": True, "times": 1})
    with pytest.raises(RemoteDisconnected):
        mail(url)
    assert len(sent(url, "sendgrid")) == 1


def test_a_success_can_make_no_sense(url: str) -> None:
    post(f"{url}/sandbox/faults", {"path": "^/sendgrid/", "garbage": True, "times": 1})
    status, body = mail(url)
    assert (status, body.startswith("<html>")) == (200, True)
    assert sent(url, "sendgrid") == []


def test_one_account_can_fail_alone(url: str) -> None:
    post(f"{url}/sandbox/faults", {"account": keys.SENDGRID, "status": 500})
    assert mail(url)[0] == 500
    assert mail(url, key="SG.another-key.of-somebody")[0] == 202


def test_one_address_can_fail_alone(url: str) -> None:
    post(f"{url}/sandbox/faults", {"path": "^/sendgrid/", "body": "unlucky@example[.]org", "status": 500})
    assert mail(url, MAIL | {"personalizations": [{"to": [{"email": "unlucky@example.org"}]}]})[0] == 500
    assert mail(url)[0] == 202


def test_messages_are_found_by_whom_they_went_to(url: str) -> None:
    for number in ("+4930901820", "+4930901821"):
        text(url, {**TEXT, "To": number})
    found = json.loads(call(f"{url}/sandbox/messages?service=twilio&to=%2B4930901821", "GET")[1])
    assert [record["content"]["To"] for record in found] == ["+4930901821"]
