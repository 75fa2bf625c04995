"""The sandbox as an HTTP server."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Protocol

from local.sandbox import admin, calendar, drive, fcm, oauth, oidc, pagerduty, sendgrid, slack, twilio
from local.sandbox.messages import Call, Refusal, Reply, fault, google_error
from local.sandbox.world import Fault, Store, World

SAVE_EVERY = 1.0
"""Seconds between two looks at whether there is something to save."""

HEALTHY = Reply(200, {"status": "ok"})
NO_SUCH_PATH = google_error(404, "notFound", "Not Found")


GARBAGE = Reply(200, b"<html><body>It works!</body></html>", {"Content-Type": "text/html"})


class Service(Protocol):
    """One of the services beside Google's; `segments` are the parts of the path after the service's name."""

    def operation(self, method: str, segments: list[str], /) -> str | None:
        """The name of the call; nothing if there is none."""

    def caller(self, call: Call, segments: list[str], world: World, /) -> str | None:
        """Whose key the call carries, good or not."""

    def answer(self, call: Call, segments: list[str], world: World, /) -> Reply:
        """Answers a call."""

    def fault(self, status: int, reason: str | None, headers: dict[str, str], /) -> Reply:
        """The error that a fault asks for, as the service puts it."""


SERVICES: Final[dict[str, Service]] = {
    "fcm": fcm,
    "oidc": oidc,
    "pagerduty": pagerduty,
    "sendgrid": sendgrid,
    "slack": slack,
    "twilio": twilio,
}


class Disconnect(Exception):
    """The connection is to be closed without an answer."""


class Sandbox:
    """Answers calls, by way of the faults that are set."""

    def __init__(self, state: Path | None = None) -> None:
        self.store = Store(state)

    def answer(self, call: Call) -> Reply:
        """Answers a call.

        Raises:
            Disconnect: there is to be no answer.
        """
        segments = call.segments
        if segments == ["health"]:
            return HEALTHY
        if segments[0] == "sandbox":
            with self.store.lock:
                return _refusing(lambda: admin.answer(call, segments[1:], self.store))
        operation = _operation(call)
        with self.store.lock:
            account = self._account(call, operation)
            self._count(operation or "unknown", account)
            set_fault = self._fault(call, account)
        if set_fault is None:
            return self._act(call, operation)
        happened = self._act(call, operation) if set_fault.effect else None
        time.sleep(set_fault.delay)
        if set_fault.disconnect:
            raise Disconnect
        if set_fault.garbage:
            return GARBAGE
        if set_fault.status is not None:
            return _failed(call, set_fault.status, set_fault)
        return happened or self._act(call, operation)

    def _act(self, call: Call, operation: str | None) -> Reply:
        if operation == "batch":
            with self.store.lock:
                refused = _refusing(lambda: Reply(200, oauth.account_of(call, self.store.world)))
            return drive.answer_batch(call, self.answer) if refused.status == 200 else refused
        with self.store.lock:
            return _refusing(lambda: self._do(call, operation))

    def _do(self, call: Call, operation: str | None) -> Reply:
        world = self.store.world
        if operation == "token":
            return oauth.issue(call, world)
        service = SERVICES.get(call.segments[0])
        if service is not None:
            return service.answer(call, call.segments[1:], world)
        account = oauth.account_of(call, world)
        if operation is None:
            return NO_SUCH_PATH
        if call.segments[0] == "calendar":
            return calendar.answer(call, call.segments[2:], account, world)
        return drive.answer(call, call.segments[2:], account, world)

    def _account(self, call: Call, operation: str | None) -> str | None:
        if operation == "token":
            return oauth.wanted_account(call)
        service = SERVICES.get(call.segments[0])
        if service is not None:
            return service.caller(call, call.segments[1:], self.store.world)
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        known = self.store.world.tokens.get(token)
        return known.account if known else None

    def _count(self, operation: str, account: str | None) -> None:
        world = self.store.world
        world.requests[operation] += 1
        if account:
            world.requests_by_account.setdefault(account, Counter())[operation] += 1

    def _fault(self, call: Call, account: str | None) -> Fault | None:
        world = self.store.world
        for candidate in world.faults:
            if not _matches(candidate, call, account):
                continue
            world.faulted[_operation(call) or "unknown"] += 1
            if candidate.times is not None:
                candidate.times -= 1
                if candidate.times == 0:
                    world.faults.remove(candidate)
            return candidate
        return None


def _matches(candidate: Fault, call: Call, account: str | None) -> bool:
    if candidate.method and candidate.method != call.method:
        return False
    if candidate.account and candidate.account != account:
        return False
    if candidate.body and re.search(candidate.body, call.body.decode(errors="replace")) is None:
        return False
    return candidate.path is None or re.search(candidate.path, call.path) is not None


def _operation(call: Call) -> str | None:
    match call.segments:
        case ["token"] if call.method == "POST":
            return "token"
        case ["batch", "drive", "v3"] if call.method == "POST":
            return "batch"
        case ["calendar", "v3", *rest]:
            return calendar.operation(call.method, rest)
        case ["drive", "v3", *rest]:
            return drive.operation(call.method, rest)
        case [name, *rest] if name in SERVICES:
            operation = SERVICES[name].operation(call.method, rest)
            return operation and f"{name} {operation}"
        case _:
            return None


def _failed(call: Call, status: int, told: Fault) -> Reply:
    service = SERVICES.get(call.segments[0])
    if service is None:
        return fault(status, told.reason, told.retry_after)
    headers = {} if told.retry_after is None else {"Retry-After": str(told.retry_after)}
    return service.fault(status, told.reason, headers)


def _refusing(act: Callable[[], Reply]) -> Reply:
    try:
        return act()
    except Refusal as refusal:
        return refusal.reply


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "SandboxServer"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            reply = self.server.sandbox.answer(Call.to(self.command, self.path, dict(self.headers), body))
        except Disconnect:
            self.close_connection = True
            return
        content = reply.content()
        headers = {"Content-Type": "application/json; charset=UTF-8", "Content-Length": str(len(content))}
        if reply.status == 204:
            headers = {}
        self.log_request(reply.status)
        self.send_response_only(reply.status)
        for name, value in {"Date": formatdate(usegmt=True), **headers, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the names that the base class calls

    def log_message(self, format: str, *args: object) -> None:
        if self.server.is_verbose:
            print(f"{self.log_date_time_string()} {format % args}", flush=True)


class SandboxServer(ThreadingHTTPServer):
    """Serves a sandbox, a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0, *, is_verbose: bool = False) -> None:
        self.sandbox = sandbox
        self.is_verbose = is_verbose
        self._is_closing = threading.Event()
        super().__init__((host, port), _Handler)
        threading.Thread(target=self._save_now_and_then, daemon=True).start()

    @property
    def url(self) -> str:
        """Where the server is."""
        host, port = self.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    def server_close(self) -> None:
        self._is_closing.set()
        super().server_close()
        self.sandbox.store.save()

    def _save_now_and_then(self) -> None:
        while not self._is_closing.wait(SAVE_EVERY):
            self.sandbox.store.save()


@contextmanager
def serving(sandbox: Sandbox) -> Iterator[str]:
    """Serves a sandbox on a free port of this machine, and yields its address."""
    server = SandboxServer(sandbox)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
