"""Lambda's Runtime API on this machine: hands a function its events and takes its answers.

A function's process asks for the next event and posts what came of it, as it does on AWS:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue
from typing import Any, Final
from uuid import uuid4

VERSION: Final = "/2018-06-01/runtime"
TRACE: Final = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"


class FunctionError(Exception):
    """The function raised, or could not be loaded; with what it said of it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a function that was ended while it waited for an event."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class RuntimeApi:
    """The API for one function."""

    def __init__(self, function_arn: str, timeout: float) -> None:
        """Listens on a port of its own.

        Args:
            function_arn: as the function's context shall show it.
            timeout: the function's, in seconds; what its context counts down from.
        """
        self._arn = function_arn
        self._timeout = timeout
        self._events: Queue[tuple[str, Any]] = Queue()
        self._answers: Queue[tuple[str, Any]] = Queue()
        self._closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> str:
        """What goes into `AWS_LAMBDA_RUNTIME_API`."""
        return f"127.0.0.1:{self._server.server_port}"

    def invoke(self, event: Any, is_alive: Callable[[], bool], patience: float = 60) -> Any:
        """Hands an event over and waits for its answer.

        Args:
            event: anything that JSON can say.
            is_alive: whether the function's process still runs.
            patience: seconds until the answer is given up.

        Raises:
            FunctionError: it failed, before or after it saw the event, or said nothing.
        """
        self._events.put((str(uuid4()), event))
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                kind, answer = self._answers.get(timeout=0.1)
            except Empty:
                if is_alive():
                    continue
                raise FunctionError("the process ended without an answer") from None
            if kind == "response":
                return answer
            raise FunctionError(json.dumps(answer, indent=1))
        raise FunctionError(f"no answer within {patience} s")

    def close(self) -> None:
        """Stops listening."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _next_event(self) -> tuple[str, Any] | None:
        while not self._closed.is_set():
            try:
                return self._events.get(timeout=0.05)
            except Empty:
                continue
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                event = api._next_event() if self.path == f"{VERSION}/invocation/next" else None
                if event is None:
                    self.send_error(410)
                    return
                request, body = event[0], json.dumps(event[1]).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Lambda-Runtime-Aws-Request-Id", request)
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + api._timeout) * 1000)))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", api._arn)
                self.send_header("Lambda-Runtime-Trace-Id", TRACE)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api._answers.put((self.path.rpartition("/")[2], json.loads(body or b"null")))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        return Handler
