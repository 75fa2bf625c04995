"""How long audit cleanup takes, and how much memory, at so many students' worth of records.

Four records a student, one in each tier, spread evenly over eight years. The monthly run finds what the run of a month
before has left; the first run finds all records, and not one archived. The archive is a directory behind an HTTP server
that speaks as much of S3 as the job needs.
"""

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text

from benchmarks.scheduled import NOW, Kind, Measured, measure
from schoolbell.database import Database

TITLE: Final = "Audit cleanup: records of eight years archived and deleted by tier"
COLUMNS: Final = ("students' worth", "run", "runs", "median", "peak memory", "archived", "deleted")
JOB: Final = "functions.platform.audit_cleanup.app"
SIZES: Final = (10_000, 100_000, 1_000_000)
RECORDS_OF_A_STUDENT: Final = 4

_FILL: Final = """
INSERT INTO platform.audit_logs (tier, action, actor, subject, occurred_at, details)
SELECT (ARRAY['financial', 'student', 'general', 'import'])[1 + mod(n, 4)],
       'session.completed', 'tutoring.auto-complete', gen_random_uuid()::text,
       cast(:now AS timestamptz) - (cast(:records AS integer) - n) * (interval '8 years' / :records),
       jsonb_build_object('session_id', gen_random_uuid(), 'credits', 1, 'reason', 'the lesson is over')
FROM generate_series(1, :records) n
"""


KINDS: Final = (Kind("monthly", earlier=NOW - timedelta(days=28)), Kind("first"))


def run(sizes: Sequence[int] = SIZES) -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    with archive() as url:
        environment = {
            "ARCHIVE_BUCKET": "archive",
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        return [_line(measured) for measured in measure(JOB, fill, sizes, kinds=KINDS, environment=environment)]


def fill(database: Database, students: int) -> None:
    """Writes the audit records of so many students, in the order of their time."""
    with database.transaction() as connection:
        connection.execute(text(_FILL), {"now": NOW, "records": RECORDS_OF_A_STUDENT * students})


def _line(measured: Measured) -> tuple[str, ...]:
    return (
        f"{measured.size:,}",
        measured.kind,
        f"{measured.runs}",
        f"{measured.seconds:.2f} s",
        f"{measured.megabytes:.0f} MB",
        f"{sum(measured.result['archived'].values()):,}",
        f"{sum(measured.result['deleted'].values()):,}",
    )


@contextmanager
def archive() -> Iterator[str]:
    """A server of its own process that keeps objects in a directory, and its address."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    with tempfile.TemporaryDirectory(prefix="schoolbell-archive-") as directory:
        process = spawn.Process(target=_serve, args=(directory, there), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{here.recv()}"
        finally:
            process.terminate()
            process.join()


def _serve(directory: str, started: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Objects", (_Objects,), {"directory": Path(directory)}))
    threading.Thread(target=_end_with_the_caller, args=(started,), daemon=True).start()
    started.send(server.server_port)
    server.serve_forever()


def _end_with_the_caller(pipe: Connection) -> None:
    with suppress(EOFError):
        pipe.recv()  # nothing comes, until whoever holds the other end is gone, however that came
    os._exit(0)


class _Objects(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory: Path

    def do_PUT(self) -> None:
        path = self.directory / self.path.split("?")[0].replace("/", "_")
        part = path.with_suffix(f".{threading.get_ident()}")
        part.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        part.rename(path)
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer((self.directory / self.path.split("?")[0].replace("/", "_")).read_bytes())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


if __name__ == "__main__":
    print(TITLE)
    print(" | ".join(COLUMNS))
    for line in run():
        print(" | ".join(line))
