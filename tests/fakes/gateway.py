"""API Gateway's HTTP API as far as one function goes: a server that passes requests on in payload format 2.0.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

from tests.performing import Invocation

type Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

TEXTS = ("application/json", "text/")


def payload(
    method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"", domain: str = "api.example.org"
) -> dict[str, Any]:
    """The event for a request. As API Gateway does, bodies that are neither JSON nor text come in Base64."""
    parts = urlsplit(target)
    given = {name.lower(): value for name, value in (headers or {}).items()}
    cookies = given.pop("cookie", "")
    is_text = given.get("content-type", "").startswith(TEXTS)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": unquote(parts.path),
        "rawQueryString": parts.query,
        "headers": given,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api",
            "domainName": domain,
            "http": {
                "method": method,
                "path": unquote(parts.path),
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": given.get("user-agent", ""),
            },
            "requestId": str(uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": "02/Mar/2026:10:00:00 +0000",
            "timeEpoch": 1772445600000,
        },
        "isBase64Encoded": bool(body) and not is_text,
    }
    if cookies:
        event["cookies"] = cookies.split("; ")
    if parts.query:
        query = parse_qs(parts.query, keep_blank_values=True)
        event["queryStringParameters"] = {name: ",".join(values) for name, values in query.items()}
    if body:
        event["body"] = body.decode() if is_text else b64encode(body).decode()
    return event


def content(answer: dict[str, Any]) -> bytes:
    """The body of an answer."""
    body = answer.get("body") or ""
    return b64decode(body) if answer.get("isBase64Encoded") else body.encode()


@contextmanager
def serving(handler: Handler, port: int = 0) -> Iterator[str]:
    """Serves a function, one request at a time as one execution environment does, and yields the address."""
    one_at_a_time = threading.Lock()

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            event = payload(self.command, self.path, dict(self.headers), body)
            with one_at_a_time:
                answer = handler(event, Invocation())
            sent = content(answer)
            self.send_response(answer["statusCode"])
            for name, value in answer["headers"].items():
                self.send_header(name, value)
            for cookie in answer.get("cookies") or ():
                self.send_header("Set-Cookie", cookie)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names that the base class calls

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Gateway)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
