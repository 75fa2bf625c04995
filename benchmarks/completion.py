"""Lessons completed a second through the `auto-complete` handler: SQS event in, committed rows out.

A PostgreSQL server of its own with its default settings but for its memory, the tables as migrated, with all their
constraints, and the lessons that are due spread at random over a table that holds as many again. One lesson in ten
waits for its teacher's review, of which the teacher is told by email too. A run is one invocation of the handler with
one event, as Lambda makes it; or several at once, each in a process with a connection of its own, as Lambda works off a
full queue.
"""

import contextlib
import io
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from sqlalchemy import text

from local.postgres import Postgres
from schoolbell.database import Database, DatabaseAddress
from schoolbell.database.migrations import upgrade
from schoolbell.jobs import runtime as job_runtime
from schoolbell.jobs.invocation import handler_of
from schoolbell.settings import Settings

TITLE: Final = "Lessons completed through the auto-complete handler (SQS event in, committed rows out)"
COLUMNS: Final = ("messages a batch", "at once", "runs", "median of a run", "lessons a second")

RUNS: Final = {1: 400, 10: 200, 100: 60, 1_000: 21, 10_000: 9}
"""How often each size of a batch is measured, one invocation at a time."""

AT_ONCE: Final = 2
"""Invocations at a time, in a second measurement: as many as the machine has cores. Lambda runs more."""

BATCHES: Final = {10: 60, 1_000: 6, 10_000: 1}
"""How many batches of each size an invocation process works off in a run of that measurement."""

RUNS_AT_ONCE: Final = 7

SERVER: Final = {"shared_buffers": "512MB"}
"""The tables fit into memory, as they do where a server is sized for its data; every commit is on disk."""

WARM_UP: Final = 5
NOW: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

# A quarter more than are needed, and as many that are still to come.
_FILL: Final = (
    "INSERT INTO tutoring.teachers (name) SELECT 'Teacher ' || n FROM generate_series(1, 500) n",
    """
    INSERT INTO tutoring.students (teacher_id, name)
    SELECT id, 'Student ' || n FROM tutoring.teachers, generate_series(1, 40) n
    """,
    """
    INSERT INTO tutoring.sessions (teacher_id, student_id, starts_at, ends_at, completion_mode)
    SELECT teacher_id, student.id, cast(:now AS timestamptz) + began, cast(:now AS timestamptz) + began + '1 hour',
           CASE WHEN random() < 0.1 THEN 'PENDING_REVIEW' ELSE 'AUTO_COMPLETE' END
    FROM tutoring.students student, generate_series(1, :lessons) n,
         LATERAL (SELECT interval '1 hour' * (n * (1 - 2 * mod(n, 2)) - 2) AS began) t
    ORDER BY random()
    """,
    "UPDATE tutoring.sessions SET scheduled_for = due_at",
)


class Measured(NamedTuple):
    """One line of the table."""

    size: int
    at_once: int
    runs: int
    seconds: float
    """The median of a run: of one batch, or of as many as are worked off at once."""
    lessons_a_second: float


class _Context:
    """The Lambda context of an invocation that has all the time in the world."""

    function_name = "benchmark"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:benchmark"

    def __init__(self) -> None:
        self.aws_request_id = str(uuid4())

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def run() -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    measured = [*measure(RUNS), *measure_at_once(BATCHES)]
    return [
        (f"{m.size:,}", f"{m.at_once}", f"{m.runs}", f"{m.seconds * 1000:,.1f} ms", f"{m.lessons_a_second:,.0f}")
        for m in measured
    ]


def measure(runs: Mapping[int, int]) -> list[Measured]:
    """Measures each size of a batch as often as told, in turns, so that none has the quiet minutes for itself."""
    handler = handler_of("functions.tutoring.auto_complete.app")

    with _database() as (database, _):
        lessons = _fill(database, sum(size * (count + WARM_UP) for size, count in runs.items()))
        job_runtime.install(job_runtime.Runtime(database, Settings(), clock=lambda: NOW))
        seconds: dict[int, list[float]] = {size: [] for size in runs}
        try:
            for size in _turns(runs):
                event = _event([lessons.pop() for _ in range(size)])
                seconds[size].append(_timed(handler, event))
        finally:
            job_runtime.install(None)
        _check(database, sum(size * (count + WARM_UP) for size, count in runs.items()))
    medians = {size: statistics.median(taken[WARM_UP:]) for size, taken in seconds.items()}
    return [Measured(size, 1, len(seconds[size]) - WARM_UP, each, size / each) for size, each in medians.items()]


def measure_at_once(batches: Mapping[int, int], at_once: int = AT_ONCE) -> list[Measured]:
    """Measures so many batches of each size in each of several processes, which begin together."""
    measured = []
    starting = multiprocessing.get_context("spawn")
    for size, count in batches.items():
        with _database() as (database, url), starting.Manager() as manager:
            lessons = _fill(database, size * count * at_once * (RUNS_AT_ONCE + 1))
            barrier = manager.Barrier(at_once)
            taken = []
            with ProcessPoolExecutor(at_once, mp_context=starting) as processes:
                for _ in range(RUNS_AT_ONCE + 1):
                    shares = [[[lessons.pop() for _ in range(size)] for _ in range(count)] for _ in range(at_once)]
                    spans = list(processes.map(_work_off, [url] * at_once, shares, [barrier] * at_once))
                    taken.append(max(end for _, end in spans) - min(begin for begin, _ in spans))
            _check(database, size * count * at_once * (RUNS_AT_ONCE + 1))
        median = statistics.median(taken[1:])
        measured.append(Measured(size, at_once, RUNS_AT_ONCE, median, size * count * at_once / median))
    return measured


def _work_off(url: str, batches: Sequence[Sequence[str]], barrier: Any) -> tuple[float, float]:
    """Completes the lessons of some batches, one after the other, and tells from when to when."""
    handler = handler_of("functions.tutoring.auto_complete.app")

    address = DatabaseAddress.from_url(url)
    database = Database(lambda: address, timedelta(minutes=10))
    job_runtime.install(job_runtime.Runtime(database, Settings(), clock=lambda: NOW))
    events = [_event(batch) for batch in batches]
    try:
        database.check()
        barrier.wait()
        begin = time.monotonic()
        for event in events:
            _timed(handler, event)
        return begin, time.monotonic()
    finally:
        database.close()
        job_runtime.install(None)


def _turns(runs: Mapping[int, int]) -> list[int]:
    """The sizes in the order in which they are measured: each spread evenly over the whole time."""
    planned = [(turn / (count + WARM_UP), size) for size, count in runs.items() for turn in range(count + WARM_UP)]
    return [size for _, size in sorted(planned)]


def _timed(handler: Any, event: dict[str, Any]) -> float:
    context = _Context()
    with contextlib.redirect_stdout(io.StringIO()):
        started = time.perf_counter()
        answer = handler(event, context)
        taken = time.perf_counter() - started
    if answer != {"batchItemFailures": []}:
        raise RuntimeError(f"the handler failed: {str(answer)[:200]}")
    return taken


@contextlib.contextmanager
def _database() -> Iterator[tuple[Database, str]]:
    with tempfile.TemporaryDirectory(prefix="schoolbell-bench-") as directory:
        server = Postgres(Path(directory) / "data", lifetime="caller", settings=SERVER)
        server.start()
        address = DatabaseAddress.from_url(server.url())
        database = Database(lambda: address, timedelta(minutes=10))
        try:
            with database.engine.connect() as connection:
                upgrade(connection)
            yield database, server.url()
        finally:
            database.close()
            server.remove()


def _fill(database: Database, needed: int) -> list[str]:
    lessons_a_student = 2 * (needed * 5 // 4 // 20_000 + 1)
    for statement in _FILL:
        values = {
            name: value for name, value in (("now", NOW), ("lessons", lessons_a_student)) if f":{name}" in statement
        }
        with database.transaction() as connection:
            connection.execute(text(statement), values)
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    with database.transaction() as connection:
        due = text("SELECT id::text FROM tutoring.sessions WHERE due_at <= :now ORDER BY random() LIMIT :needed")
        found = list(connection.execute(due, {"now": NOW, "needed": needed}).scalars())
    if len(found) < needed:
        raise RuntimeError(f"{needed} lessons are needed and {len(found)} due")
    return found


def _check(database: Database, done: int) -> None:
    with database.transaction() as connection:
        completed, reviewed, consumed, told, emailed = connection.execute(
            text(
                """
                SELECT (SELECT count(*) FROM tutoring.sessions WHERE status = 'completed'),
                       (SELECT count(*) FROM tutoring.sessions WHERE status = 'pending_review'),
                       (SELECT count(*) FROM tutoring.credit_ledger),
                       (SELECT count(*) FROM tutoring.teacher_notifications),
                       (SELECT count(*) FROM platform.notifications)
                """
            )
        ).one()
    if (completed, reviewed, reviewed, completed + reviewed) != (consumed, told, emailed, done):
        raise RuntimeError(f"{done} lessons: {completed=} {consumed=} {reviewed=} {told=} {emailed=}")


def _event(sessions: Sequence[str]) -> dict[str, Any]:
    return {"Records": [_record(session) for session in sessions]}


def _record(session: str) -> dict[str, Any]:
    message = str(uuid4())
    return {
        "messageId": message,
        "receiptHandle": f"handle-{message}",
        "body": json.dumps({"session_id": session}),
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1772452800000",
            "SenderId": "AROAEXAMPLE:schedule",
            "ApproximateFirstReceiveTimestamp": "1772452800010",
        },
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:schoolbell-tutoring-auto-complete",
        "awsRegion": "us-east-1",
    }


if __name__ == "__main__":
    print(TITLE)
    print(" | ".join(COLUMNS))
    for line in run():
        print(" | ".join(line))
