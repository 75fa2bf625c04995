"""How fast the outbox takes messages, and hands them to SQS.

Writing is one `INSERT ... SELECT` of 100,000 rows through `Outbox.send_from`, committed. Handing over is what the relay
does with the first of so many, against a stand-in for SQS in a process of its own, which answers at once: what is
measured is what it costs here.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from unittest.mock import patch
from urllib.parse import parse_qsl

from sqlalchemy import column, func, literal, select, text

from benchmarks.scheduled import NOW
from local.postgres import Postgres
from schoolbell import aws
from schoolbell.database import Database, DatabaseAddress
from schoolbell.database.migrations import upgrade
from schoolbell.jobs.outbox import Outbox, claim_oldest, deliver
from schoolbell.settings import Settings

TITLE: Final = "Outbox: messages written in one transaction, and handed to SQS"
COLUMNS: Final = ("what", "messages", "runs", "median", "messages a second")
ROWS: Final = 100_000
SENT: Final = 10_000
RUNS: Final = 5


def run() -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    with tempfile.TemporaryDirectory(prefix="schoolbell-bench-") as directory:
        server = Postgres(Path(directory) / "data", lifetime="caller")
        server.start()
        address = DatabaseAddress.from_url(server.url())
        database = Database(lambda: address, timedelta(minutes=5))
        try:
            with database.engine.connect() as connection:
                upgrade(connection)
            written = [_written(database) for _ in range(RUNS + 1)][1:]
            with queue() as environment, patch.dict(os.environ, environment):
                aws.forget_clients()
                sent = [_sent(database) for _ in range(RUNS + 1)][1:]
                aws.forget_clients()
        finally:
            database.close()
            server.remove()
    return [_line("written", ROWS, written), _line("handed to SQS", SENT, sent)]


def _line(what: str, messages: int, seconds: list[float]) -> tuple[str, ...]:
    median = statistics.median(seconds)
    return what, f"{messages:,}", f"{len(seconds)}", f"{median:.2f} s", f"{messages / median:,.0f}"


def _written(database: Database) -> float:
    _empty(database)
    started = time.perf_counter()
    _write(database, ROWS)
    return time.perf_counter() - started


def _write(database: Database, rows: int) -> None:
    numbers = func.generate_series(1, rows).table_valued(column("n")).render_derived(name="numbers")
    messages = select(
        literal("tutoring.drive-verify").label("destination"),
        func.jsonb_build_object("teacher_id", func.gen_random_uuid()).label("payload"),
        func.concat("benchmark/", numbers.c.n).label("dedup_key"),
    )
    with database.transaction() as connection:
        if Outbox(lambda: NOW).send_from(connection, messages) != rows:
            raise RuntimeError("not every message was written")


def _sent(database: Database) -> float:
    _empty(database)
    _write(database, ROWS)
    later, sent = NOW + timedelta(minutes=2), 0
    started = time.perf_counter()
    while sent < SENT:
        with database.transaction() as connection:
            claimed = claim_oldest(connection, later)
        delivered = deliver(database, Settings(), claimed, later)
        if delivered != len(claimed):
            raise RuntimeError(f"{delivered} of {len(claimed)} messages were sent")
        sent += delivered
    return time.perf_counter() - started


def _empty(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE platform.outbox"))


@contextlib.contextmanager
def queue() -> Iterator[dict[str, str]]:
    """SQS and SNS as a process that takes every message; gives the environment that leads there."""
    command = [sys.executable, "-m", "benchmarks.outbox", "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the stand-in for SQS has no output")
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            yield {
                "AWS_ENDPOINT_URL_SQS": url,
                "AWS_ENDPOINT_URL_SNS": url,
                "AWS_ACCESS_KEY_ID": "benchmark",
                "AWS_SECRET_ACCESS_KEY": "benchmark",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            process.terminate()


class _TakesAll(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["Content-Length"]))
        is_json = self.headers["Content-Type"].startswith("application/x-amz-json")  # SQS; SNS speaks forms and XML
        body = (_sqs if is_json else _sns)(request).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0" if is_json else "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each request would be measured too."""


def _sqs(request: bytes) -> str:
    ids = [entry["Id"] for entry in json.loads(request)["Entries"]]
    taken = [{"Id": each, "MessageId": each, "MD5OfMessageBody": ""} for each in ids]
    return json.dumps({"Successful": taken, "Failed": []})


def _sns(request: bytes) -> str:
    ids = [value for name, value in parse_qsl(request.decode()) if name.endswith(".Id")]
    taken = "".join(f"<member><Id>{each}</Id><MessageId>{each}</MessageId></member>" for each in ids)
    result = f"<PublishBatchResult><Successful>{taken}</Successful><Failed/></PublishBatchResult>"
    return f'<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/">{result}</PublishBatchResponse>'


def _serve() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _TakesAll) as server:
        threading.Thread(target=_end_with_the_caller, daemon=True).start()
        print(server.server_port, flush=True)
        server.serve_forever()


def _end_with_the_caller() -> None:
    sys.stdin.read()  # until whoever holds the other end is gone, however that came
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        _serve()
    else:
        for line in run():
            print(" | ".join(line))
