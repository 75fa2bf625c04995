"""How fast `/metrics` answers, and statistics are read and rolled up, with 60 jobs and a million runs behind them.

The same stack as the admin page's benchmark, by the same means: the function's handler, a PostgreSQL of its own, the
AWS emulator. Most of a warm answer is the emulator's: it is asked for the counts of 80 queues, 20 at a time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from benchmarks.admin import ACCOUNT, RUNS, STACK, database, emulator, fill, line
from schoolbell import aws
from schoolbell.database import Database, DatabaseAddress
from schoolbell.jobs import statistics
from tests.fakes.gateway import content, payload
from tests.performing import Invocation

TITLE: Final = "Metrics: an answer of /metrics with 60 jobs and 1,000,000 runs, and the statistics behind it"
COLUMNS: Final = ("what", "times", "median", "slowest", "size")

SECRET: Final = f"{STACK}-platform-monitoring-token"
TOKEN: Final = "the-token-of-the-benchmark"  # noqa: S105 - it opens nothing
ANSWERS: Final = 20
ROLLED_UP_AT_ONCE: Final = 20_000


def run() -> list[tuple[str, ...]]:
    """Measures, and returns the lines of the table under `COLUMNS`."""
    with tempfile.TemporaryDirectory(prefix="schoolbell-bench-") as directory:
        folder = Path(directory)
        with database(folder) as url, emulator(folder) as environment:
            fill(url)
            variables = {
                **environment,
                "SCHOOLBELL_STACK": STACK,
                "SCHEDULE_GROUP": STACK,
                "AWS_ACCOUNT_ID": ACCOUNT,
                "MONITORING_SECRET_ID": SECRET,
                "BENCH_DATABASE": url,
                "POWERTOOLS_LOG_LEVEL": "ERROR",
                "POWERTOOLS_METRICS_DISABLED": "true",
            }
            measured = subprocess.run(
                [sys.executable, "-m", "benchmarks.metrics", "measure"],
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                check=True,
            )
    return [tuple(each) for each in json.loads(measured.stdout.splitlines()[-1])]


def measure() -> list[tuple[str, ...]]:
    """Measures in a process of its own, as an execution environment is one."""
    from functions.platform.health import app
    from schoolbell.jobs.runtime import Runtime, install
    from schoolbell.settings import settings

    address = DatabaseAddress.from_url(os.environ["BENCH_DATABASE"])
    on = Runtime(Database(lambda: address, timedelta(seconds=60)), settings(), lambda: datetime.now(UTC))
    install(on)
    aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=TOKEN)
    event = payload("GET", "/metrics", {"Authorization": f"Bearer {TOKEN}"})

    def ask() -> tuple[float, int]:
        started = time.perf_counter()
        answer = app.handler(event, Invocation())
        taken = time.perf_counter() - started
        if answer["statusCode"] != 200:
            raise RuntimeError(f"/metrics answered {answer['statusCode']}")
        return taken, len(content(answer))

    def ask_anew() -> tuple[float, int]:
        app._catalogues.clear()
        return ask()

    def read(since: timedelta | None) -> tuple[float, int]:
        started = time.perf_counter()
        with on.database.transaction(read_only=True) as connection:
            found = statistics.read(connection, on.clock() - since if since else None)
        return time.perf_counter() - started, len(found)

    asked: list[tuple[str, Callable[[], tuple[float, int]], int]] = [
        ("/metrics, the first of an execution environment", ask, 1),
        (f"/metrics, jobs listed in the last {app.CATALOGUE_FOR.total_seconds():.0f} s", ask, ANSWERS),
        ("/metrics, jobs listed anew", ask_anew, ANSWERS),
        ("statistics of all time", lambda: read(None), ANSWERS),
        ("statistics of 30 days", lambda: read(timedelta(days=30)), ANSWERS),
        (f"roll-up of {ROLLED_UP_AT_ONCE:,} runs", lambda: roll_up(on.database), 3),
        (f"a roll-up that finds nothing in {RUNS:,} runs", lambda: roll_up_rest(on.database), ANSWERS),
    ]
    return [line(name, [act() for _ in range(times)]) for name, act, times in asked]


def roll_up(database: Database) -> tuple[float, int]:
    """Rolls up runs that have just ended."""
    now = datetime.now(UTC)
    with database.transaction() as connection:
        connection.exec_driver_sql(
            "INSERT INTO platform.job_runs (job, trigger, status, started_at, finished_at)"
            " SELECT 'platform.job-' || lpad(mod(n, 60)::text, 2, '0'), 'queue', 'completed', now(), now()"
            f" FROM generate_series(1, {ROLLED_UP_AT_ONCE}) AS n"
        )
    return timed_roll_up(database, now)


def roll_up_rest(database: Database) -> tuple[float, int]:
    """Rolls up what is left, which is nothing from the second time on."""
    return timed_roll_up(database, datetime.now(UTC))


def timed_roll_up(database: Database, now: datetime) -> tuple[float, int]:
    started = time.perf_counter()
    with database.transaction() as connection:
        counted = statistics.roll_up(connection, now)
    return time.perf_counter() - started, counted


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        for measured in run():
            print(" | ".join(measured))
