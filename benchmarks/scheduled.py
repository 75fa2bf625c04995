"""Measures a scheduled job: each run in a process of its own, on a database of its own that was filled once and copied.

The process is as good as a Lambda's: it imports the job, and its peak memory is its own. What fills the database, and
what stands in for AWS, are other processes.
"""

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from sqlalchemy import text

from local.postgres import Postgres
from schoolbell.database import Database, DatabaseAddress
from schoolbell.database.migrations import upgrade

NOW: Final = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
RUNS: Final = 5
PATIENCE: Final = timedelta(minutes=10)


class Measured(NamedTuple):
    """One line of the table."""

    kind: str
    """Which run of the job, e.g. `daily`."""
    size: int
    runs: int
    seconds: float
    """The median of the runs."""
    megabytes: float
    """The most memory that any run's process took at any time."""
    result: Mapping[str, Any]
    """What the job said of its last run."""


class Kind(NamedTuple):
    """A run of a job that is measured."""

    name: str
    earlier: datetime | None = None
    """When the job has run before, if it has: what is measured starts where that run ended."""
    runs: Callable[[int], int] = lambda _size: RUNS
    """How often it is measured at a size; each time the database is as it was filled."""


def measure(
    module: str,
    fill: Callable[[Database, int], None],
    sizes: Sequence[int],
    *,
    kinds: Sequence[Kind] = (Kind(""),),
    environment: Mapping[str, str] | None = None,
) -> list[Measured]:
    """Measures the job of a module at each size; returns the lines kind by kind.

    Args:
        module: has the job's `handler`, e.g. `functions.platform.audit_cleanup.app`.
        fill: writes the rows of one size to an empty, migrated database.
        sizes: what `fill` is asked for.
        kinds: the runs to measure.
        environment: of the job's process.
    """
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="schoolbell-bench-") as directory:
        server = Postgres(Path(directory) / "data", lifetime="caller")
        server.start()
        try:
            for size in sizes:
                filled = f"filled_{size}"
                _fill(server, filled, fill, size)
                for kind in sorted(kinds, key=lambda kind: kind.earlier is not None):  # the database as it is first
                    if kind.earlier:
                        _in_its_own_process(module, server.url(filled), kind.earlier, environment or {})
                        _execute(server, "VACUUM ANALYZE", filled)
                    runs = kind.runs(size)
                    taken = [_run_on_copy(server, filled, module, environment or {}) for _ in range(runs)]
                    seconds = statistics.median(run["seconds"] for run in taken)
                    most = max(run["megabytes"] for run in taken)
                    measured.append(Measured(kind.name, size, runs, seconds, most, taken[-1]["result"]))
                _execute(server, f"DROP DATABASE {filled}")
        finally:
            server.remove()
    return [line for kind in kinds for line in measured if line.kind == kind.name]


def _fill(server: Postgres, name: str, fill: Callable[[Database, int], None], size: int) -> None:
    _execute(server, f"CREATE DATABASE {name}")
    with _opened(server.url(name)) as database:
        with database.engine.connect() as connection:
            upgrade(connection)
        fill(database, size)
    _execute(server, "VACUUM ANALYZE", name)


def _run_on_copy(server: Postgres, filled: str, module: str, environment: Mapping[str, str]) -> dict[str, Any]:
    # A copy of the files, and a checkpoint, so that a run pays for nothing but what it does itself.
    _execute(server, f"CREATE DATABASE measured TEMPLATE {filled} STRATEGY file_copy")
    _execute(server, "CHECKPOINT")
    try:
        return _in_its_own_process(module, server.url("measured"), NOW, environment)
    finally:
        _execute(server, "DROP DATABASE measured WITH (FORCE)")


def _in_its_own_process(module: str, url: str, at: datetime, environment: Mapping[str, str]) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.scheduled", module, url, at.isoformat()],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=True,
    )
    run: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])  # after the job's own log
    return run


def _execute(server: Postgres, statement: str, database: str = "postgres") -> None:
    with _opened(server.url(database)) as opened, opened.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Database]:
    address = DatabaseAddress.from_url(url)
    database = Database(lambda: address, PATIENCE)
    try:
        yield database
    finally:
        database.close()


# The process that is measured


class _Context:
    """The Lambda context of an invocation that has all the time in the world."""

    function_name = "benchmark"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:benchmark"

    def __init__(self) -> None:
        self.aws_request_id = str(uuid4())

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def _run(module: str, url: str, at: str) -> dict[str, Any]:
    from importlib import import_module

    from schoolbell.jobs import runtime
    from schoolbell.jobs.invocation import handler_of
    from schoolbell.settings import settings

    handler = handler_of(module)
    import_module("boto3")  # what a cold start costs is measured by itself
    with _opened(url) as database:
        runtime.install(runtime.Runtime(database, settings(), clock=lambda: datetime.fromisoformat(at)))
        with contextlib.redirect_stdout(io.StringIO()):
            started = time.perf_counter()
            answer = handler({"scheduled_for": at}, _Context())
            seconds = time.perf_counter() - started
    return {"seconds": seconds, "megabytes": _peak_megabytes(), "result": answer["result"]}


def _peak_megabytes() -> float:
    # Not getrusage(): that remembers the process that started this one.
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    return int(kilobytes) / 1024


if __name__ == "__main__":
    print(json.dumps(_run(*sys.argv[1:])))
