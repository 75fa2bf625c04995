"""The sandbox behaves as Google does, as far as the gateways go, and can be told to fail."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import RemoteDisconnected
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from local.sandbox.server import Sandbox, serving

EVENT = {
    "id": "schoolbell1",
    "summary": "Lesson",
    "start": {"dateTime": "2026-03-03T17:00:00Z"},
    "end": {"dateTime": "2026-03-03T18:00:00Z"},
}


class Client:
    """Speaks HTTP with the sandbox, as one account."""

    def __init__(self, url: str, account: str = "teacher") -> None:
        self.url = url
        self.account = account
        self.token = self.call("POST", "/token", grant(account), form=True)[1].get("access_token", "")

    def call(
        self, method: str, path: str, body: Any = None, *, form: bool = False, timeout: float = 60
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        content = urlencode(body).encode() if form else json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"Bearer {getattr(self, 'token', '')}"}
        request = urllib.request.Request(f"{self.url}{path}", content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            self.headers = error.headers
            return error.code, json.loads(error.read() or b"null")

    def reason(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """The status and the reason of an error."""
        status, answered = self.call(method, path, body)
        assert answered["error"]["code"] == status
        return status, answered["error"]["errors"][0]["reason"]


def grant(account: str) -> dict[str, str]:
    return {"grant_type": "refresh_token", "client_id": "c", "client_secret": "s", "refresh_token": account}


@pytest.fixture
def url() -> Iterator[str]:
    with serving(Sandbox()) as address:
        yield address


@pytest.fixture
def client(url: str) -> Client:
    return Client(url)


EVENTS = "/calendar/v3/calendars/primary/events"


def test_is_up(client: Client) -> None:
    assert client.call("GET", "/health") == (200, {"status": "ok"})


def test_tokens_are_asked_for_as_at_google(client: Client) -> None:
    assert client.call("POST", "/token", {**grant("t"), "grant_type": "password"}, form=True)[0] == 400
    assert client.call("POST", "/token", {**grant("t"), "client_secret": ""}, form=True)[1]["error"] == "invalid_client"
    client.token = "made up"
    assert client.reason("GET", EVENTS) == (401, "authError")


def test_an_event_id_is_taken_for_good(client: Client) -> None:
    assert client.call("POST", EVENTS, EVENT)[0] == 200
    assert client.reason("POST", EVENTS, EVENT) == (409, "duplicate")
    assert client.call("DELETE", f"{EVENTS}/schoolbell1")[0] == 204
    assert client.reason("DELETE", f"{EVENTS}/schoolbell1") == (410, "deleted")
    assert client.reason("POST", EVENTS, EVENT) == (409, "duplicate")
    assert client.call("GET", f"{EVENTS}/schoolbell1")[1]["status"] == "cancelled"
    assert client.call("GET", EVENTS)[1]["items"] == []
    restored = client.call("PATCH", f"{EVENTS}/schoolbell1", {"status": "confirmed"})[1]
    assert (restored["status"], restored["summary"]) == ("confirmed", "Lesson")


def test_an_update_replaces_and_a_patch_adds(client: Client) -> None:
    client.call("POST", EVENTS, {**EVENT, "description": "Bring scores"})
    assert client.call("PATCH", f"{EVENTS}/schoolbell1", {"summary": "Moved"})[1]["description"] == "Bring scores"
    assert "description" not in client.call("PUT", f"{EVENTS}/schoolbell1", EVENT)[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "UPPER"}, "invalid"),
        ({"id": "wxyz1"}, "invalid"),
        ({"id": "abc"}, "invalid"),
        ({"start": None}, "required"),
        ({"start": {"dateTime": "tomorrow"}}, "invalid"),
        ({"start": {"dateTime": "2026-03-03T17:00:00"}}, "invalid"),
        ({"end": {"dateTime": "2026-03-02T17:00:00Z"}}, "timeRangeEmpty"),
    ],
)
def test_refuses_events_that_google_refuses(client: Client, change: dict[str, Any], reason: str) -> None:
    assert client.reason("POST", EVENTS, {**EVENT, **change}) == (400, reason)


def test_unknown_things_are_not_found(client: Client) -> None:
    assert client.reason("POST", "/calendar/v3/calendars/other/events", EVENT) == (404, "notFound")
    assert client.reason("GET", f"{EVENTS}/nothing1") == (404, "notFound")
    assert client.reason("GET", "/drive/v3/files/1nothing") == (404, "notFound")
    assert client.reason("GET", "/drive/v3/changes") == (404, "notFound")


def test_accounts_see_their_own_things_alone(url: str, client: Client) -> None:
    file = client.call("POST", "/sandbox/files", {"account": "teacher", "name": "Scales"})[1]["id"]
    other = Client(url, "another")
    assert client.call("GET", f"/drive/v3/files/{file}")[1]["name"] == "Scales"
    assert other.reason("GET", f"/drive/v3/files/{file}") == (404, "notFound")
    assert other.reason("POST", f"/drive/v3/files/{file}/copy", {}) == (404, "notFound")


def test_copies_keep_what_is_asked_for(client: Client) -> None:
    file = client.call("POST", "/sandbox/files", {"account": "teacher", "name": "Scales"})[1]["id"]
    folder = client.call("POST", "/sandbox/files", {"account": "teacher", "name": "Ana"})[1]["id"]
    copied = client.call("POST", f"/drive/v3/files/{file}/copy?fields=id,name,parents", {"parents": [folder]})[1]
    assert (copied["name"], copied["parents"]) == ("Copy of Scales", [folder])
    assert client.reason("POST", f"/drive/v3/files/{file}/copy", {"parents": ["1nowhere"]}) == (404, "notFound")
    listed = client.call("GET", "/sandbox/files?account=teacher")[1]
    assert [each["copied_from"] for each in listed if each["id"] == copied["id"]] == [file]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("appProperties has { key='k' and value='v' }", {"a", "b"}),
        ("appProperties has { key='k' and value='v' } and trashed = false", {"a"}),
        ("trashed = true", {"b"}),
        ("appProperties has { key='k' and value='other' }", {"c"}),
        ("", {"a", "b", "c"}),
    ],
)
def test_finds_files_by_property(client: Client, query: str, found: set[str]) -> None:
    files = [("a", "v", False), ("b", "v", True), ("c", "other", False)]
    rows = [
        {"account": "teacher", "name": name, "appProperties": {"k": value}, "trashed": trashed}
        for name, value, trashed in files
    ]
    client.call("POST", "/sandbox/files", {"files": rows})
    answered = client.call("GET", f"/drive/v3/files?q={quote(query)}")[1]
    assert {file["name"] for file in answered["files"]} == found


def test_refuses_queries_that_it_does_not_understand(client: Client) -> None:
    assert client.reason("GET", f"/drive/v3/files?q={quote('name contains x')}") == (400, "invalid")


def test_fails_as_often_as_it_is_told(client: Client) -> None:
    client.call("POST", "/sandbox/faults", {"path": "/calendar/", "status": 429, "retry_after": 7, "times": 2})
    for _ in range(2):
        assert client.reason("GET", EVENTS) == (429, "rateLimitExceeded")
        assert client.headers["Retry-After"] == "7"
    assert client.call("GET", EVENTS)[0] == 200
    assert client.call("GET", "/sandbox/requests")[1]["faulted"] == {"events.list": 2}


def test_fails_until_it_is_told_to_stop(client: Client) -> None:
    client.call("POST", "/sandbox/faults", {"path": "/calendar/", "status": 500})
    assert [client.reason("GET", EVENTS)[0] for _ in range(5)] == [500] * 5
    client.call("DELETE", "/sandbox/faults")
    assert client.call("GET", EVENTS)[0] == 200


def test_fails_for_one_account_or_method_alone(url: str, client: Client) -> None:
    other = Client(url, "another")
    client.call("POST", "/sandbox/faults", {"account": "another", "method": "GET", "status": 503})
    assert client.call("GET", EVENTS)[0] == 200
    assert other.call("POST", EVENTS, EVENT)[0] == 200
    assert other.call("GET", EVENTS)[0] == 503


def test_an_answer_can_be_lost_after_the_effect(client: Client) -> None:
    client.call("POST", "/sandbox/faults", {"method": "POST", "path": "/events", "status": 500, "effect": True})
    assert client.call("POST", EVENTS, EVENT)[0] == 500
    assert len(client.call("GET", EVENTS)[1]["items"]) == 1


def test_an_answer_can_be_late_or_missing(client: Client) -> None:
    client.call("POST", "/sandbox/faults", {"path": "/calendar/", "delay": 1, "times": 1})
    with pytest.raises(TimeoutError):
        client.call("GET", EVENTS, timeout=0.1)
    client.call("POST", "/sandbox/faults", {"path": "/calendar/", "disconnect": True, "times": 1})
    with pytest.raises(RemoteDisconnected):
        client.call("GET", EVENTS)


def test_a_revoked_account_gets_nothing_until_it_is_restored(client: Client) -> None:
    client.call("POST", "/sandbox/revoke", {"account": "teacher"})
    assert client.reason("GET", EVENTS) == (401, "authError")
    assert client.call("POST", "/token", grant("teacher"), form=True)[1]["error"] == "invalid_grant"
    client.call("POST", "/sandbox/restore", {"account": "teacher"})
    assert client.call("POST", "/token", grant("teacher"), form=True)[0] == 200


def test_says_what_is_wrong_with_a_fault(client: Client) -> None:
    assert client.call("POST", "/sandbox/faults", {"status": 200})[0] == 400
    assert client.call("POST", "/sandbox/faults", {"sttus": 500})[1] == {
        "error": "sttus: Extra inputs are not permitted"
    }
    assert client.call("POST", "/sandbox/nonsense", {})[0] == 404
    assert client.call("POST", "/sandbox/revoke", {}) == (400, {"error": "account: Field required"})


def test_keeps_what_it_holds_over_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state" / "sandbox.json"
    with running(state) as first:
        client = Client(first)
        client.call("POST", EVENTS, EVENT)
        token = client.token
    with running(state) as second:
        client = Client(second)
        client.token = token
        assert client.call("GET", f"{EVENTS}/schoolbell1")[1]["summary"] == "Lesson"


class running:  # noqa: N801 - a context manager
    """`python -m local.sandbox` as a process of its own."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, "-m", "local.sandbox", "--port", "0", "--state", str(state)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})

    def __enter__(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        assert self.process.stdout
        self.process.stdout.close()


def test_serves_many_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is held up until all eight are there."""
    meeting = Barrier(8, timeout=60)
    monkeypatch.setattr("local.sandbox.server.time", SimpleNamespace(sleep=lambda _: meeting.wait()))
    client.call("POST", "/sandbox/faults", {"path": "/calendar/", "delay": 1})
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: client.call("GET", EVENTS, timeout=60)[0], range(8)))
    assert statuses == [200] * 8
